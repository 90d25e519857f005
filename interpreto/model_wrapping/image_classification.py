"""Image classifiers: transformers, timm, torchvision, or any module from pixels to logits."""

from collections.abc import Iterator, Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping import images
from interpreto.model_wrapping.autograd import Autograd
from interpreto.model_wrapping.classification import check_target, logits_of, probabilities, settle
from interpreto.model_wrapping.conversation import Answer, Ask, NamedTargets, Plan, Settled
from interpreto.model_wrapping.inside.inside import Inside
from interpreto.model_wrapping.inside.probe import Probe
from interpreto.model_wrapping.model_pool import ModelPool
from interpreto.model_wrapping.patches import patch_size
from interpreto.model_wrapping.pictures import PIXELS, Pictures
from interpreto.model_wrapping.pixel_shape import PixelShape
from interpreto.model_wrapping.precision import precision
from interpreto.model_wrapping.resolution import resolution_of
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of, provenance
from interpreto.model_wrapping.sample import ImageSample
from interpreto.model_wrapping.task import unwrap_model, unwrapped
from interpreto.model_wrapping.wrapper import Wrapper


@final
class ImageClassification(Wrapper):
    """An image classifier and its processor.

    Args:
        model: A transformers image classifier, or any module from `p c H W` to logits `p k`.
        processor: An image processor, a joint processor that has one, a transform from PIL to tensor, or None for
            images that are already what the model reads.
        runtime: How the model is run.

    Raises:
        ModelError: if the processor is none for images.
    """

    task, modality, ragged = "image-classification", "image", False
    no_gradients = no_attention = ""

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        self.model = unwrap_model(model)
        self.processor, self.runtime = processor, runtime
        self.pool = ModelPool(self.model, self._on, runtime.device)
        self.config = getattr(unwrapped(model), "config", None)
        self.keyword = isinstance(unwrapped(model), PreTrainedModel)
        inner, patch = unwrapped(model), patch_size(unwrapped(model))
        shape = PixelShape.of(inner, inner.forward, runtime.size, patch)
        self.pictures = Pictures(processor, patch, runtime.size, shape)
        self.resolution = resolution_of(inner, inner.forward, runtime.size, patch)
        self.autograd = Autograd(self.module, self._outputs)
        self.inside = Inside(self.model, self._outputs, PIXELS)

    @property
    def module(self) -> nn.Module:
        return self.model

    def is_one(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare(self, raw: Any) -> ImageSample:
        return self.prepare_all([raw])[0]

    def prepare_all(self, raws: Sequence[Any]) -> list[ImageSample]:
        return self.pictures.prepare(raws)

    def check_target(self, spec: Any, sample: Any = None) -> None:
        # The config of a module that is none of transformers may belong to a part of it.
        if self.keyword:
            check_target(spec, self.config, self.model)

    def settle(self, sample: ImageSample, spec: Any, seed: int, probe: Probe | None = None) -> Plan[Settled]:
        return settle(sample, spec, self.config, probe)

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 k"]) -> tuple[float | None, ...] | None:
        return probabilities(targets, outputs, self.runtime, self.config)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return self.autograd.answers(asks) if asks[0].probe is None else self.inside.answers(asks)

    def notes(self) -> dict[str, Any]:
        return self.inside.notes()

    def provenance(self) -> dict[str, Any]:
        return provenance(self.model, self.config, self.runtime)

    def _outputs(self, rows: Rows) -> Float[Tensor, "p k"]:
        # A copy: some models change their inputs in place.
        pixels = rows.fields[PIXELS].to(*placement_of(self.model), copy=True)
        with precision(self.model, self.runtime.autocast, pixels.device), self.resolution.applied() as options:
            output = self.model(**{PIXELS: pixels}, **options) if self.keyword else self.model(pixels, **options)
        return self.runtime.explained(logits_of(output, len(rows), self.runtime.model_output))
