"""Reading images of any form, and measuring which part of an image a processor keeps."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from torch import Tensor

from interpreto.errors import InputError
from interpreto.model_wrapping.execution.finite_checks import all_finite
from interpreto.model_wrapping.inputs.image_sources import is_image_source, load_image
from interpreto.type_guards import is_array, is_list, shape_or_type

Box = tuple[float, float, float, float]
BlackWhite = tuple[Float[Tensor, " c"], Float[Tensor, " c"]]
_SIXTEEN_BITS = 65535
_ROUNDING = 1e-3
"""Tolerance for floats outside [0, 1], as interpolation produces them."""
Preprocess = Callable[[Image.Image], Float[Tensor, "c H W"]]


def is_one_image(inputs: Any) -> bool:
    """Whether the user passed one image rather than several."""
    if isinstance(inputs, Mapping):
        return "pixel_values" not in inputs or len(_images_of(inputs)) == 1
    return is_image_source(inputs) or (is_array(inputs) and inputs.ndim != 4 and not _holds_images(inputs))


def split_images(inputs: Any) -> Iterator[Any]:
    """Yield the images one by one.

    An array with four axes is several images; a list, a mapping or an iterator may contain any kind.

    Raises:
        InputError: if an entry is not an image.
    """
    if isinstance(inputs, Mapping):
        for image in _images_of(inputs):
            yield {"pixel_values": image}
    elif is_image_source(inputs):
        yield inputs
    elif is_array(inputs) and not _holds_images(inputs):
        yield from inputs if inputs.ndim == 4 else [inputs]
    elif isinstance(inputs, Iterable):
        for item in inputs:
            yield from split_images(item)
    else:
        raise InputError(
            f"Expected an image, got {type(inputs).__name__}; pass a PIL image, a path, bytes, an open file, an array "
            "or tensor, a mapping with 'pixel_values', or a list of these."
        )


def _images_of(inputs: Mapping[str, object]) -> list[Any]:
    """The images of a preprocessed mapping.

    Raises:
        InputError: if it has no 'pixel_values', or these are not images.
    """
    if "pixel_values" not in inputs:
        raise InputError(f"A preprocessed mapping needs 'pixel_values'; it has {', '.join(map(repr, inputs))}.")
    values = inputs["pixel_values"]
    if is_list(values) and values and all(map(is_array, values)):
        return list(values)
    array: Any = values
    if is_list(values):
        try:
            # Mappings decoded from JSON contain nested lists.
            array = np.asarray(values, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"'pixel_values' is a list that cannot be converted to an array of numbers: {error}"
            ) from error
    if not is_array(array) or array.ndim not in (3, 4):
        raise InputError(
            f"'pixel_values' must be a tensor or array of shape n c H W or c H W; got {shape_or_type(array)}."
        )
    return list(array) if array.ndim == 4 else [array]


def _holds_images(array: object) -> bool:
    """Whether an array is a list of images, such as a column of paths."""
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "OU"


def to_image(raw: Any) -> Image.Image:
    """Convert any image of the user to RGB, with transparent parts on white and the EXIF orientation applied.

    Arrays have the shape `H W`, `H W c` or `c H W` with 1, 3 or 4 channels, and contain uint8, uint16 or floats in [0,
    1]. If both the first and the last axis could be the channels, it is the last one.

    Raises:
        InputError: if the image cannot be read, has no pixels, or has values out of range.
    """
    if is_image_source(raw):
        image = load_image(raw)
        if 0 in image.size:
            raise InputError(f"The image has no pixels: its size is {image.width} x {image.height}.")
        # Pillow clips modes I and F to 8 bits when it converts them, which turns 16-bit images white.
        if image.mode.startswith(("I", "F")):
            return to_image(_grey_levels(image))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image if image.mode == "RGB" else image.convert("RGB")
    array = _bytes(_channels_last(to_array(raw)))
    return Image.fromarray(array) if array.shape[-1] == 3 else to_image(Image.fromarray(array, "RGBA"))


def to_array(raw: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    """Convert a user's array or tensor, on any device and of any floating type, to an array.

    Raises:
        InputError: if the tensor is sparse or on the meta device.
    """
    if not isinstance(raw, Tensor):
        return np.asarray(raw)
    if raw.is_meta or raw.layout != torch.strided:
        raise InputError(f"The tensor is {'on the meta device' if raw.is_meta else 'sparse'}: pass a dense one.")
    # NumPy has no bfloat16.
    return (raw.float() if raw.is_floating_point() else raw).detach().cpu().numpy()


def _grey_levels(picture: Image.Image) -> Float[np.ndarray, "H W"]:
    """Grey levels in [0, 1]: integers of mode I are divided by 65535, floats of mode F are returned unchanged.

    Raises:
        InputError: if integers are outside 0 to 65535.
    """
    values = np.asarray(picture).astype(np.float64)
    if picture.mode.startswith("F"):
        return values
    if values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise InputError(
            f"Grey levels of the mode {picture.mode!r} are read as 16 bits, 0 to {_SIXTEEN_BITS}; these are in "
            f"[{values.min():g}, {values.max():g}]. Pass an array of floats in [0, 1]."
        )
    return values / _SIXTEEN_BITS


def _channels_last(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "H W c"]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"An image array must have the shape H W, H W c or c H W, and pixels; got {array.shape}.")
    if array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.shape[-1] not in (1, 3, 4):
        raise InputError(f"An image has 1, 3 or 4 channels on its first or last axis; got shape {array.shape}.")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _bytes(array: Shaped[np.ndarray, "H W c"]) -> Shaped[np.ndarray, "H W c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise InputError(f"An image array must contain numbers; this one contains {array.dtype}.")
    if array.dtype == np.uint16:
        array = array / _SIXTEEN_BITS
    if not np.isfinite(array).all():
        raise InputError("The image contains NaN or infinite values.")
    low, high = float(array.min()), float(array.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"Image values are uint8, uint16, or floats in [0, 1]; these {array.dtype} values are in "
            f"[{low:.4g}, {high:.4g}]. To pass preprocessed values, use {{'pixel_values': ...}} or "
            "processor=None."
        )
    return np.round(array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def pixel_values(raw: object) -> Float[Tensor, "c H W"]:
    """Pixel values for a model without a processor: a tensor or array `c H W`, or a mapping that contains one.

    Raises:
        InputError: if it is anything else, or contains NaN or infinite values.
    """
    value = raw["pixel_values"] if isinstance(raw, Mapping) else raw
    if not is_array(value):
        raise InputError(
            f"Without a processor an image must be a preprocessed tensor c H W; got {type(raw).__name__}. "
            "Pass the processor or transform as the second argument."
        )
    return checked(torch.as_tensor(value).detach().cpu().float().clone())


def checked(values: Float[Tensor, "..."]) -> Float[Tensor, "c H W"]:
    """Check that pixel values have the shape `c H W`, are finite and not empty, and return them.

    Raises:
        InputError: if they do not.
    """
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"Pixel values must have the shape c H W, and pixels; got {tuple(values.shape)}.")
    if not all_finite(values):
        raise InputError("The pixel values contain NaN or infinite values.")
    return values


def shown(values: Float[Tensor, "c H W"]) -> Image.Image:
    """Render pixel values without an original image, rescaled to [0, 1] if they exceed this range."""
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / (high - low).clamp(min=1e-12)
    channels = values if len(values) == 3 else values.mean(0, keepdim=True).expand(3, -1, -1)
    return Image.fromarray((channels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


@dataclass(frozen=True, eq=False)
class PreprocessingGeometry:
    """How a processor maps images of one size to pixel values.

    Attributes:
        crop_box: Left, top, right and bottom of the part that the processor keeps, in pixels of the image; None if the
            processor does more than resize and crop.
        black_white: The pixel values of black and of white, per channel; None if the processor maps both to the same.
    """

    crop_box: Box | None
    black_white: BlackWhite | None


def geometry_of(preprocess: Preprocess, size: tuple[int, int]) -> PreprocessingGeometry:
    """Measure how a processor maps images of this size (width, height).

    The processor is run on horizontal and vertical ramps of grey levels. A resize or crop of any library keeps a ramp
    linear, so a line fitted to the output gives the position of the crop box.
    """
    frames = [preprocess(Image.new("RGB", size, colour)) for colour in ("black", "white")]
    black, white = (frame.mean(0) for frame in frames)
    horizontal = _ends(preprocess, size, black, white, axis=1)
    vertical = _ends(preprocess, size, black, white, axis=0)
    crop_box = (
        None if horizontal is None or vertical is None else (horizontal[0], vertical[0], horizontal[1], vertical[1])
    )
    is_image = _shows_image(black, white)
    # The median ignores the few edge pixels that a resize blends with padding.
    black_white = (
        (frames[0][:, is_image].median(1).values, frames[1][:, is_image].median(1).values) if is_image.any() else None
    )
    return PreprocessingGeometry(crop_box, black_white)


def black_white_of(values: Float[Tensor, "c H W"]) -> BlackWhite:
    """Black and white of preprocessed values: 0 and 1, or their minimum and maximum if these exceed [0, 1]."""
    low, high = float(values.min()), float(values.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return torch.full((len(values),), low), torch.full((len(values),), high)


def _shows_image(black: Float[Tensor, "H W"], white: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    # Padding has the same value for a black and for a white image, so that its difference is 0; pixels that a resize
    # blends with padding are excluded too.
    return (white - black) > 0.5 * (white - black).max()


def _ends(
    preprocess: Preprocess, size: tuple[int, int], black: Tensor, white: Tensor, axis: int
) -> tuple[float, float] | None:
    extent = size[1 - axis]
    ramp = np.round(255 * (np.arange(extent) + 0.5) / extent).astype(np.uint8)
    ramp_image = np.broadcast_to(ramp if axis == 1 else ramp[:, None], size[::-1])
    is_image = _shows_image(black, white)
    # The output relative to black and white is the position along the ramp, whatever the normalization.
    grey_levels = (preprocess(Image.fromarray(ramp_image).convert("RGB")).mean(0) - black) / torch.where(
        is_image, white - black, 1.0
    )
    counts = is_image.sum(1 - axis)
    profile = ((grey_levels * is_image).sum(1 - axis) / counts.clamp(min=1)).double().numpy()
    # The ends of the ramp are excluded: the filter of a resize is not linear at the border of an image.
    is_linear = (profile > 0.02) & (profile < 0.98) & (counts > 0).numpy()
    if is_linear.sum() < 2:
        # A ramp of one to three pixels has too few levels to fit a line; such an image is assumed to be uncropped.
        return (0.0, float(extent)) if extent < 4 else None
    centres = np.arange(len(profile)) + 0.5
    slope, start = np.polyfit(centres[is_linear], profile[is_linear], 1)
    # A processor that warps or flips parts of an image does not map the ramp to a line.
    if np.abs(start + slope * centres - profile)[is_linear].max() > 0.03:
        return None
    ends = extent * start, extent * (start + slope * len(profile))
    # The ramp has only 256 levels, so the ends are accurate to about half a percent; ends that close to the border are
    # set to it.
    tolerance = max(1.0, 0.006 * extent)
    near_end, far_end = (
        next((float(edge) for edge in (0, extent) if abs(end - edge) < tolerance), float(end)) for end in ends
    )
    return near_end, far_end
