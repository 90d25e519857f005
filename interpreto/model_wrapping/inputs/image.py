"""From a user's images to pictures and pixel values, and where the model's view lies in the picture."""

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
from interpreto.model_wrapping.inputs.image_sources import is_source, opened

Box = tuple[float, float, float, float]
BlackWhite = tuple[Float[Tensor, " c"], Float[Tensor, " c"]]
_SIXTEEN_BITS = 65535
_ROUNDING = 1e-3
"""By how much floats may leave [0, 1], as resizing leaves it."""
Preprocess = Callable[[Image.Image], Float[Tensor, "c H W"]]


def is_one_image(inputs: Any) -> bool:
    """Whether the user gave one image rather than several."""
    if isinstance(inputs, Mapping):
        return "pixel_values" not in inputs or len(_images_of(inputs)) == 1
    return is_source(inputs) or (_is_array(inputs) and inputs.ndim != 4 and not _holds_images(inputs))


def split_images(inputs: Any) -> Iterator[Any]:
    """The images one by one: four axes are several images; a list, a mapping or an iterator may hold any kind.

    Raises:
        InputError: if something in there is no image.
    """
    if isinstance(inputs, Mapping):
        for image in _images_of(inputs):
            yield {"pixel_values": image}
    elif is_source(inputs):
        yield inputs
    elif _is_array(inputs) and not _holds_images(inputs):
        yield from inputs if inputs.ndim == 4 else [inputs]
    elif isinstance(inputs, Iterable):
        for item in inputs:
            yield from split_images(item)
    else:
        raise InputError(
            f"Expected an image, got {type(inputs).__name__}; give a PIL image, a path, bytes, an open file, an array "
            "or tensor, a mapping with 'pixel_values', or a list of these."
        )


def _images_of(inputs: Mapping[str, Any]) -> list[Any]:
    """The images of a preprocessed mapping.

    Raises:
        InputError: if there are none.
    """
    if "pixel_values" not in inputs:
        raise InputError(f"A preprocessed mapping needs 'pixel_values'; it has {', '.join(map(repr, inputs))}.")
    values = inputs["pixel_values"]
    if isinstance(values, list | tuple) and values and all(map(_is_array, values)):
        return list(values)
    array: Any = values
    if isinstance(values, list | tuple):
        try:
            # Numbers come in nested lists from JSON.
            array = np.asarray(values, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise InputError(f"'pixel_values' is a list that is no array of numbers: {error}.") from error
    if not _is_array(array) or array.ndim not in (3, 4):
        got = f"the shape {tuple(array.shape)}" if _is_array(array) else type(array).__name__
        raise InputError(f"'pixel_values' must be a tensor or array n c H W or c H W; got {got}.")
    return list(array) if array.ndim == 4 else [array]


def _holds_images(array: Any) -> bool:
    """Whether an array is a list of images, such as a column of paths."""
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "OU"


def _is_array(item: Any) -> bool:
    return isinstance(item, np.ndarray | Tensor)


def to_image(raw: Any) -> Image.Image:
    """Any image of the user as an RGB picture, transparent parts on white, turned as the camera was held.

    Arrays are `H W`, `H W c` or `c H W` with 1, 3 or 4 channels, uint8, uint16 or floats in [0, 1]; the last axis is
    the channels where both could be.

    Raises:
        InputError: if it cannot be read, has no pixels, or has values out of range.
    """
    if is_source(raw):
        picture = opened(raw)
        if 0 in picture.size:
            raise InputError(f"The image has no pixels: its size is {picture.width} x {picture.height}.")
        if picture.mode.startswith(("I", "F")):
            return to_image(_grey_levels(picture))
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    array = _bytes(_channels_last(to_array(raw)))
    return Image.fromarray(array) if array.shape[-1] == 3 else to_image(Image.fromarray(array, "RGBA"))


def to_array(raw: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    """A user's array or tensor, from whatever device and of whatever floating type, as an array.

    Raises:
        InputError: if it holds no numbers.
    """
    if not isinstance(raw, Tensor):
        return np.asarray(raw)
    if raw.is_meta or raw.layout != torch.strided:
        raise InputError(f"The tensor is {'on the meta device' if raw.is_meta else 'sparse'}: give a dense one.")
    return (raw.float() if raw.is_floating_point() else raw).detach().cpu().numpy()


def _grey_levels(picture: Image.Image) -> Float[np.ndarray, "H W"]:
    """Grey levels in [0, 1], by the picture's mode: of 16 bits over their range, floats as they are.

    Raises:
        InputError: if they are outside the range of their mode.
    """
    values = np.asarray(picture).astype(np.float64)
    if picture.mode.startswith("F"):
        return values
    if values.min() < 0 or values.max() > _SIXTEEN_BITS:
        raise InputError(
            f"Grey levels of the mode {picture.mode!r} are read as 16 bits, 0 to {_SIXTEEN_BITS}; these lie in "
            f"[{values.min():g}, {values.max():g}]. Give an array of floats in [0, 1]."
        )
    return values / _SIXTEEN_BITS


def _channels_last(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "H W c"]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"An image array has the shape H W, H W c or c H W and some pixels; got {array.shape}.")
    if array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.shape[-1] not in (1, 3, 4):
        raise InputError(f"An image has 1, 3 or 4 channels on its first or last axis; got the shape {array.shape}.")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _bytes(array: Shaped[np.ndarray, "H W c"]) -> Shaped[np.ndarray, "H W c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise InputError(f"An image array holds numbers; this one holds {array.dtype}.")
    if array.dtype == np.uint16:
        array = array / _SIXTEEN_BITS
    if not np.isfinite(array).all():
        raise InputError("The image holds NaN or infinite values.")
    low, high = float(array.min()), float(array.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"Image values are uint8, uint16, or floats in [0, 1]; these {array.dtype} values lie in "
            f"[{low:.4g}, {high:.4g}]. For values that the model reads as they are, give {{'pixel_values': ...}} or "
            "processor=None."
        )
    return np.round(array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def pixel_values(raw: Any) -> Float[Tensor, "c H W"]:
    """What a model without a processor reads: a tensor or array `c H W`, or a mapping with it.

    Raises:
        InputError: if it is something else, or holds NaN.
    """
    value = raw["pixel_values"] if isinstance(raw, Mapping) else raw
    if not _is_array(value):
        raise InputError(
            f"Without a processor an image is what the model reads, a tensor c H W; got {type(raw).__name__}. "
            "Give the processor or transform as the second argument."
        )
    return checked(torch.as_tensor(value).detach().cpu().float().clone())


def checked(values: Float[Tensor, "..."]) -> Float[Tensor, "c H W"]:
    """Pixel values `c H W` that are finite and not empty.

    Raises:
        InputError: if they are not.
    """
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(f"Pixel values have the shape c H W and some pixels; got {tuple(values.shape)}.")
    if not all_finite(values):
        raise InputError("The pixel values hold NaN or infinite values.")
    return values


def shown(values: Float[Tensor, "c H W"]) -> Image.Image:
    """A picture of pixel values that no picture belongs to, stretched to the full range where they leave [0, 1]."""
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / (high - low).clamp(min=1e-12)
    grey = values if len(values) == 3 else values.mean(0, keepdim=True).expand(3, -1, -1)
    return Image.fromarray((grey.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


@dataclass(frozen=True, eq=False)
class PreprocessingGeometry:
    """How a processor looks at pictures of one size.

    Attributes:
        crop_box: The part that the model sees, as left, top, right and bottom; None where the processor does something
            else to a picture than to resize and crop it.
        black_white: What the model reads of black and of white, per channel; None where both look the same to it.
    """

    crop_box: Box | None
    black_white: BlackWhite | None


def geometry_of(preprocess: Preprocess, size: tuple[int, int]) -> PreprocessingGeometry:
    """How a processor looks at pictures of this size (width, height).

    Found by sending ramps through the processor: a resize or crop of any library keeps them straight lines, and the
    line tells the place.
    """
    frames = [preprocess(Image.new("RGB", size, colour)) for colour in ("black", "white")]
    black, white = (frame.mean(0) for frame in frames)
    across = _ends(preprocess, size, black, white, axis=1)
    down = _ends(preprocess, size, black, white, axis=0)
    view = None if across is None or down is None else (across[0], down[0], across[1], down[1])
    live = _live(black, white)
    levels = (frames[0][:, live].median(1).values, frames[1][:, live].median(1).values) if live.any() else None
    return PreprocessingGeometry(view, levels)


def black_white_of(values: Float[Tensor, "c H W"]) -> BlackWhite:
    """Black and white of pixel values that no picture belongs to: 0 and 1, or their range where they leave these."""
    low, high = float(values.min()), float(values.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    return torch.full((len(values),), low), torch.full((len(values),), high)


def _live(black: Float[Tensor, "H W"], white: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    # Padding that the processor adds is the same for a black and for a white picture; what it blends with is left out.
    return (white - black) > 0.5 * (white - black).max()


def _ends(
    preprocess: Preprocess, size: tuple[int, int], black: Tensor, white: Tensor, axis: int
) -> tuple[float, float] | None:
    extent = size[1 - axis]
    ramp = np.round(255 * (np.arange(extent) + 0.5) / extent).astype(np.uint8)
    grey = np.broadcast_to(ramp if axis == 1 else ramp[:, None], size[::-1])
    live = _live(black, white)
    seen = (preprocess(Image.fromarray(grey).convert("RGB")).mean(0) - black) / torch.where(live, white - black, 1.0)
    lines = live.sum(1 - axis)
    place = ((seen * live).sum(1 - axis) / lines.clamp(min=1)).double().numpy()
    inside = (place > 0.02) & (place < 0.98) & (lines > 0).numpy()
    if inside.sum() < 2:
        return (0.0, float(extent)) if extent < 4 else None
    centres = np.arange(len(place)) + 0.5
    slope, start = np.polyfit(centres[inside], place[inside], 1)
    if np.abs(start + slope * centres - place)[inside].max() > 0.03:
        return None
    ends = extent * start, extent * (start + slope * len(place))
    # The ramp has 256 levels, so the ends are known to about half a percent.
    tolerance = max(1.0, 0.006 * extent)
    left, right = (next((float(e) for e in (0, extent) if abs(end - e) < tolerance), float(end)) for end in ends)
    return left, right
