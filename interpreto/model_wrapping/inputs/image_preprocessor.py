"""Pictures of a user as a model reads them, whatever prepares them."""

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

_RUNS = 30
"""How often a transform that draws random numbers is run to see whether they matter."""
_TOGETHER = 2**22
"""Pixels of the pictures that go through a processor at once: of small ones many, of photographs one."""


@final
class ImageReader(InputReader):
    """Reads images.

    Args:
        preprocessor: Prepares them.
    """

    modality = "image"
    ragged = False

    def __init__(self, preprocessor: "ImagePreprocessor") -> None:
        self.preprocessor = preprocessor

    def is_single(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        return list(self.preprocessor.prepare(raws))


@final
class ImagePreprocessor:
    """What makes samples of a user's images.

    Args:
        processor: An image processor, a joint processor that has one, a transform from PIL to tensor, or None for
            images that are already what the model reads.
        patch: Height and width of the model's patches, None where it has none.
        size: Height and width that images are read at; None for what the processor makes.
        shape: What the model's pixel values must be like.

    Raises:
        ModelError: if the processor is none for images.
        OptionError: if it cannot make images of that size.
    """

    def __init__(
        self, processor: Any, patch: tuple[int, int] | None, size: Size | None = None, shape: PixelShape = ANY_SHAPE
    ) -> None:
        self.processor, self.patch, self.shape = _image_processor(processor, size), patch, shape
        self._geometries: dict[tuple[int, int], images.PreprocessingGeometry] = {}
        self._is_deterministic = processor is None

    def prepare(self, raws: Sequence[Any]) -> list[ImageSample]:
        """Samples of images in any form that the user may give."""
        ready = [self.processor is None or isinstance(raw, dict) for raw in raws]
        pictures = [images.to_image(raw) for raw, done in zip(raws, ready, strict=True) if not done]
        if pictures and not self._is_deterministic:
            self._check_deterministic(pictures[0].size)
        # Pictures of one size go through the processor together.
        alike = [list(some) for _, some in groupby(pictures, key=lambda picture: picture.size)]
        values = [one for some in alike for one in self._processed(some)]
        seen = map(self._seen, pictures, values)
        return [self._read(raw) if done else next(seen) for raw, done in zip(raws, ready, strict=True)]

    def _check_deterministic(self, size: tuple[int, int]) -> None:
        """Refuse a processor that draws at random, by running it twice on one picture.

        Raises:
            ModelError: if it does.
        """
        noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        picture, before = Image.fromarray(noise), generator_states()
        first, again = (self._processed([picture])[0] for _ in range(2))
        # One that seldom does something has drawn a number all the same.
        more = _RUNS if generator_states() != before else 0
        others = (self._processed([picture])[0] for _ in range(more))
        if any(not torch.equal(first, other) for other in (again, *others)):
            raise ModelError(
                "The transform draws at random what the model sees: it gives another result for the same picture each "
                "time. Give the one for evaluation."
            )
        self._is_deterministic = True

    def _seen(self, picture: Image.Image, values: Float[Tensor, "c H W"]) -> ImageSample:
        """A picture and what the processor makes of it."""
        if picture.size not in self._geometries:
            self._geometries[picture.size] = images.geometry_of(lambda one: self._processed([one])[0], picture.size)
        geometry = self._geometries[picture.size]
        levels = geometry.black_white or images.black_white_of(values)
        if geometry.crop_box is None:
            return self._sample(values, images.shown(values), _whole(values), levels)
        return self._sample(values, picture, geometry.crop_box, levels)

    def _read(self, raw: Any) -> ImageSample:
        """What the model reads as it is."""
        values = images.pixel_values(raw)
        return self._sample(values, images.shown(values), _whole(values), images.black_white_of(values))

    def _sample(
        self, values: Float[Tensor, "c H W"], picture: Image.Image, view: images.Box, levels: images.BlackWhite
    ) -> ImageSample:
        self.shape.check(values)
        height, width = values.shape[1:]
        return ImageSample(Rows({PIXELS: values[None]}), picture, (height, width), view, self.patch, levels)

    def _processed(self, pictures: list[Image.Image]) -> list[Float[Tensor, "c H W"]]:
        """Pictures of one size as the model reads them."""
        if isinstance(self.processor, _ImageProcessor):
            count = max(1, _TOGETHER // (pictures[0].width * pictures[0].height))
            parts = (pictures[start : start + count] for start in range(0, len(pictures), count))
            return [images.checked(values) for part in parts for values in self.processor(part)]
        found = [self.processor(picture) for picture in pictures]
        for values in found:
            if not isinstance(values, Tensor):
                raise InputError(f"The transform must return a tensor c H W; it returned {type(values).__name__}.")
        return [images.checked(values.float()) for values in found]


def _whole(values: Float[Tensor, "c H W"]) -> images.Box:
    """All that the model reads."""
    return 0.0, 0.0, float(values.shape[2]), float(values.shape[1])


class _ImageProcessor:
    """An image processor of transformers, as a function from pictures to their pixel values `c H W`."""

    def __init__(self, processor: Any, size: Size | None) -> None:
        self.processor = processor
        self.options = {} if size is None else processed_at(processor, size)

    def __call__(self, pictures: Any) -> Sequence[Float[Tensor, "c H W"]]:
        made = self.processor(images=pictures, return_tensors="pt", **self.options)
        values = torch.as_tensor(made[PIXELS]).float()
        return naflex.pictures(values, made[naflex.SHAPES]) if naflex.SHAPES in made else list(values)


def _image_processor(processor: Any, size: Size | None) -> Any:
    inner = getattr(processor, "image_processor", processor)
    if inner is None:
        return None
    if isinstance(inner, Tokenizer):
        raise ModelError(f"An image model needs an image processor or a transform, got {type(processor).__name__}.")
    if getattr(inner, "model_input_names", None) is not None:
        return _ImageProcessor(inner, size)
    if not callable(inner):
        raise ModelError(f"An image model needs an image processor or a transform, got {type(processor).__name__}.")
    return inner if size is None else resized(inner, size)
