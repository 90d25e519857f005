"""Converting a user's images to pixel values with any kind of processor or transform."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from interpreto.errors import InputError, ModelError
from interpreto.model_wrapping.execution.randomness import generator_states
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.inputs import naflex
from interpreto.model_wrapping.inputs.image_size import processed_at, resized
from interpreto.model_wrapping.inputs.pixel_shape import ANY_SHAPE, PixelShape
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import PIXELS, ImageSample, Sample
from interpreto.typing import Size, Tokenizer

_N_RUNS = 30
"""Number of additional runs of a transform that draws random numbers, to see whether its output changes."""
_MAX_PIXELS = 2**22
"""Maximum number of pixels in one call of a processor: many small images, or one photograph."""


@final
class ImageReader(InputReader):
    """Reads images.

    Args:
        preprocessor: Converts them to pixel values.
    """

    modality = "image"
    spatial = True
    ragged = False

    def __init__(self, preprocessor: "ImagePreprocessor") -> None:
        self.preprocessor = preprocessor

    def is_single(self, inputs: object) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: object) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare_one(self, raw: object) -> Sample:
        return self.prepare([raw])[0]

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        return list(self.preprocessor.prepare(raws))


@final
class ImagePreprocessor:
    """Converts a user's images to samples.

    Args:
        processor: An image processor, a joint processor that contains one, a transform from PIL to tensor, or None for
            images that are preprocessed already.
        patch: Height and width of the model's patches; None if it has no patches.
        size: Height and width to which images are resized; None for the processor's own.
        shape: The shape of pixel values that the model expects.

    Raises:
        ModelError: if the processor does not process images.
        OptionError: if it cannot produce images of that size.
    """

    def __init__(
        self, processor: object, patch: tuple[int, int] | None, size: Size | None = None, shape: PixelShape = ANY_SHAPE
    ) -> None:
        self.processor, self.patch, self.shape = _image_processor(processor, size), patch, shape
        self._geometries: dict[tuple[int, int], images.PreprocessingGeometry] = {}
        self._is_deterministic = processor is None

    def prepare(self, raws: Sequence[Any]) -> list[ImageSample]:
        """The samples of images in any form that the user may pass."""
        is_preprocessed = [self.processor is None or isinstance(raw, dict) for raw in raws]
        pictures = [images.to_image(raw) for raw, skip in zip(raws, is_preprocessed, strict=True) if not skip]
        if pictures and not self._is_deterministic:
            self._check_deterministic(pictures[0].size)
        # Images of one size go through the processor in one call, which is faster. groupby joins neighbours only, so
        # that the order is kept.
        groups = [list(group) for _, group in groupby(pictures, key=lambda picture: picture.size)]
        values = [value for group in groups for value in self._pixel_values(group)]
        samples = map(self._from_image, pictures, values)
        return [
            self._from_pixel_values(raw) if skip else next(samples)
            for raw, skip in zip(raws, is_preprocessed, strict=True)
        ]

    def _check_deterministic(self, size: tuple[int, int]) -> None:
        """Refuse a transform with random augmentation, by running it repeatedly on one image.

        Raises:
            ModelError: if its outputs differ.
        """
        # Flips and crops leave a constant image unchanged, so noise is used.
        noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        image, state_before = Image.fromarray(noise), generator_states()
        first, second = (self._pixel_values([image])[0] for _ in range(2))
        # An augmentation with a low probability may leave both runs unchanged, but it has advanced a random generator.
        n_more = _N_RUNS if generator_states() != state_before else 0
        others = (self._pixel_values([image])[0] for _ in range(n_more))
        if any(not torch.equal(first, other) for other in (second, *others)):
            raise ModelError(
                "The transform is random: it returns a different result for the same image each time. Pass the "
                "transform for evaluation."
            )
        self._is_deterministic = True

    def _from_image(self, picture: Image.Image, values: Float[Tensor, "c H W"]) -> ImageSample:
        """The sample of an image and of its pixel values."""
        # Measuring runs the processor on four images, so the result is cached per image size.
        if picture.size not in self._geometries:
            self._geometries[picture.size] = images.geometry_of(lambda one: self._pixel_values([one])[0], picture.size)
        geometry = self._geometries[picture.size]
        black_white = geometry.black_white or images.black_white_of(values)
        if geometry.crop_box is None:
            # Without a crop box the attributions cannot be located in the original image, so the pixel values are
            # displayed.
            return self._sample(values, images.shown(values), _full_box(values), black_white)
        return self._sample(values, picture, geometry.crop_box, black_white)

    def _from_pixel_values(self, raw: object) -> ImageSample:
        """The sample of preprocessed pixel values."""
        values = images.pixel_values(raw)
        return self._sample(values, images.shown(values), _full_box(values), images.black_white_of(values))

    def _sample(
        self, values: Float[Tensor, "c H W"], picture: Image.Image, view: images.Box, levels: images.BlackWhite
    ) -> ImageSample:
        self.shape.check(values)
        height, width = values.shape[1:]
        return ImageSample(Rows({PIXELS: values[None]}), picture, (height, width), view, self.patch, levels)

    def _pixel_values(self, pictures: list[Image.Image]) -> list[Float[Tensor, "c H W"]]:
        """The pixel values of images of one size."""
        if isinstance(self.processor, _ImageProcessor):
            n_images = max(1, _MAX_PIXELS // (pictures[0].width * pictures[0].height))
            batches = (pictures[start : start + n_images] for start in range(0, len(pictures), n_images))
            return [images.checked(values) for batch in batches for values in self.processor(batch)]
        outputs = [self.processor(picture) for picture in pictures]
        for values in outputs:
            if not isinstance(values, Tensor):
                raise InputError(
                    f"The transform must return a tensor of shape c H W; it returned {type(values).__name__}."
                )
        return [images.checked(values.float()) for values in outputs]


def _full_box(values: Float[Tensor, "c H W"]) -> images.Box:
    """The crop box that contains all of the pixel values."""
    return 0.0, 0.0, float(values.shape[2]), float(values.shape[1])


class _ImageProcessor:
    """An image processor of transformers as a function from images to their pixel values `c H W`."""

    def __init__(self, processor: Any, size: Size | None) -> None:
        self.processor = processor
        self.options = {} if size is None else processed_at(processor, size)

    def __call__(self, pictures: Any) -> Sequence[Float[Tensor, "c H W"]]:
        outputs = self.processor(images=pictures, return_tensors="pt", **self.options)
        values = torch.as_tensor(outputs[PIXELS]).float()
        return naflex.pictures(values, outputs[naflex.SHAPES]) if naflex.SHAPES in outputs else list(values)


def _image_processor(processor: object, size: Size | None) -> Any:
    inner = getattr(processor, "image_processor", processor)
    if inner is None:
        return None
    if isinstance(inner, Tokenizer):
        raise ModelError(f"An image model needs an image processor or a transform, got {type(processor).__name__}.")
    # Image processors of transformers are recognized by this attribute; transforms of torchvision, timm and OpenCLIP
    # are plain callables.
    if getattr(inner, "model_input_names", None) is not None:
        return _ImageProcessor(inner, size)
    if not callable(inner):
        raise ModelError(f"An image model needs an image processor or a transform, got {type(processor).__name__}.")
    return inner if size is None else resized(inner, size)
