"""Image classifiers: transformers, timm, torchvision, or any module from pixels to logits."""

from collections.abc import Iterator, Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.autograd import Autograd
from interpreto.model_wrapping.execution.model_pool import ModelPool
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.inputs.image_preprocessor import PIXELS, ImagePreprocessor
from interpreto.model_wrapping.inputs.image_size import resolution_of
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.inputs.pixel_shape import PixelShape
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of, provenance
from interpreto.model_wrapping.sample import ImageSample
from interpreto.model_wrapping.tasks.classification import check_target, logits_of, probabilities, settle
from interpreto.model_wrapping.tasks.detection import unwrap_model, unwrapped
from interpreto.model_wrapping.wrapper import InferenceWrapper


@final
class ImageClassification(InferenceWrapper):
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
        self.pictures = ImagePreprocessor(processor, patch, runtime.size, shape)
        self.resolution = resolution_of(inner, inner.forward, runtime.size, patch)
        self.autograd = Autograd(self.module, self._outputs)
        self.inside = CaptureEngine(self.model, self._outputs, PIXELS)

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

    def resolve_targets(
        self, sample: ImageSample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        return settle(sample, spec, self.config, capture)

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 k"]) -> tuple[float | None, ...] | None:
        return probabilities(targets, outputs, self.runtime, self.config)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self.autograd.respond(requests) if requests[0].capture is None else self.inside.respond(requests)

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
