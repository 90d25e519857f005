"""Image classifiers: transformers, timm, torchvision, or any module from pixels to logits."""

from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.execution.torch_engine import TorchEngine
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor, ImageReader
from interpreto.model_wrapping.inputs.image_size import Resolution, resolution_of
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.inputs.pixel_shape import PixelShape
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of, unwrap_model, unwrapped
from interpreto.model_wrapping.sample import PIXELS
from interpreto.model_wrapping.tasks.classification import ClassTargetResolver, logits_of
from interpreto.model_wrapping.wrapper import InferenceWrapper


def image_classification(model: nn.Module, processor: Any, runtime: Runtime) -> InferenceWrapper:
    """Wrap an image classifier and its processor.

    Args:
        model: A transformers image classifier, or any module from `p c H W` to logits `p k`.
        processor: An image processor, a joint processor that has one, a transform from PIL to tensor, or None for
            images that are already what the model reads.
        runtime: How the model is run.

    Raises:
        ModelError: if the processor is not for images.
    """
    inner = unwrapped(model)
    config, patch = getattr(inner, "config", None), patch_size(inner)
    shape = PixelShape.of(inner, inner.forward, runtime.size, patch)
    resolution = resolution_of(inner, inner.forward, runtime.size, patch)
    module, is_transformers = unwrap_model(model), isinstance(inner, PreTrainedModel)
    forward = _Forward(module, runtime, resolution, by_keyword=is_transformers)
    return InferenceWrapper(
        "image-classification",
        ImageReader(ImagePreprocessor(processor, patch, runtime.size, shape)),
        # The config of a module that is not of transformers may belong to a part of it.
        ClassTargetResolver(config, module if is_transformers else None, runtime),
        TorchEngine(module, forward, CaptureEngine(module, forward, PIXELS), config, runtime),
        runtime=runtime,
        processor=processor,
        build=image_classification,
    )


@final
@dataclass(frozen=True, eq=False)
class _Forward:
    """From rows of pixels to the scores of classes."""

    module: nn.Module
    runtime: Runtime
    resolution: Resolution
    by_keyword: bool

    def __call__(self, rows: Rows) -> Float[Tensor, "p k"]:
        # A copy: some models change their inputs in place.
        pixels = rows.fields[PIXELS].to(*placement_of(self.module), copy=True)
        with precision(self.module, self.runtime.autocast, pixels.device), self.resolution.applied() as options:
            output = self.module(**{PIXELS: pixels}, **options) if self.by_keyword else self.module(pixels, **options)
        return self.runtime.explained(logits_of(output, len(rows), self.runtime.model_output))
