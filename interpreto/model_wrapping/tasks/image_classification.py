"""Image classifiers: transformers, timm, torchvision, or any module from pixels to logits."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping.execution.torch_engine import TorchEngine
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor, ImageReader
from interpreto.model_wrapping.inputs.image_size import Resolution, resolution_of
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.inputs.pixel_shape import PixelShape
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, unwrap_model, unwrap_peft
from interpreto.model_wrapping.sample import PIXELS
from interpreto.model_wrapping.tasks.classification import ClassTargetResolver, logits_of
from interpreto.model_wrapping.tasks.pixel_inputs import pixels_of
from interpreto.model_wrapping.wrapper import WrapperParts


def image_classification(model: nn.Module, processor: object, runtime: Runtime) -> WrapperParts:
    """The parts for an image classifier: of transformers, or any module from `p c H W` to logits `p k`.

    The processor is an image processor, a joint processor that contains one, a transform from PIL to tensor, or None
    for images that are preprocessed already.
    """
    inner = unwrap_peft(model)
    config, patch = getattr(inner, "config", None), patch_size(inner)
    shape = PixelShape.of(inner, inner.forward, runtime.size, patch)
    resolution = resolution_of(inner, inner.forward, runtime.size, patch)
    module, is_transformers = unwrap_model(model), isinstance(inner, PreTrainedModel)
    forward = _PixelsToScores(module, runtime, resolution, by_keyword=is_transformers)
    engine = TorchEngine(module, forward, CaptureEngine(module, forward, PIXELS), config, runtime)
    reader = ImageReader(ImagePreprocessor(processor, patch, runtime.size, shape))
    # The config of another module may be that of a part of it.
    resolver = ClassTargetResolver(config, module if is_transformers else None, runtime)
    return WrapperParts("image-classification", reader, resolver, engine, processor, runtime=runtime)


@final
@dataclass(frozen=True, eq=False)
class _PixelsToScores:
    """From rows of pixels to the scores of classes."""

    module: nn.Module
    runtime: Runtime
    resolution: Resolution
    by_keyword: bool

    def __call__(self, rows: Rows) -> Float[Tensor, "p k"]:
        with pixels_of(rows, self.module, self.runtime, self.resolution) as (pixels, options):
            output = self.module(**{PIXELS: pixels}, **options) if self.by_keyword else self.module(pixels, **options)
        return self.runtime.explained(logits_of(output, len(rows), self.runtime.model_output))
