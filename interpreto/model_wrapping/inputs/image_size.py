"""Images of another size than the model's own: position embeddings are interpolated for the duration of a run."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.inputs.naflex import SHAPES
from interpreto.type_guards import as_pair, is_integer, is_list
from interpreto.typing import Size

INTERPOLATE = "interpolate_pos_encoding"
"""The argument of a forward in transformers that makes the model interpolate by itself."""
_MOST_EXTRA = 16
"""Maximum number of positions that are not patches."""


@dataclass(frozen=True, eq=False)
class Resolution:
    """The changes to a model that let it read images of another size.

    Attributes:
        options: Additional arguments of the model's forward.
        tables: Position embeddings, as the module that has them and their name in it.
        grids: The current grid of patches of these tables, and the new one; None without tables.
        sides: Attributes that contain the size, as module, name and new value.
    """

    options: Mapping[str, Any]
    tables: tuple[tuple[nn.Module, str], ...] = ()
    grids: tuple[Size, Size] | None = None
    sides: tuple[tuple[nn.Module, str, Any], ...] = ()

    def applied(self) -> AbstractContextManager[Mapping[str, Any]]:
        """A context in which the model reads images of the other size; the model is restored afterwards."""
        return self._changed() if self.tables or self.sides else nullcontext(self.options)

    @contextmanager
    def _changed(self) -> Iterator[Mapping[str, Any]]:
        tables = [(module, name, module._parameters[name]) for module, name in self.tables]
        sides = [(module, name, module.__dict__[name]) for module, name, _ in self.sides]
        try:
            for module, name, table in tables:
                assert self.grids is not None
                assert table is not None
                module._parameters[name] = _interpolated(table, *self.grids, _interpolation_of(module))
            for module, name, side in self.sides:
                module.__dict__[name] = side
            yield self.options
        finally:
            for module, name, table in tables:
                module._parameters[name] = table
            for module, name, side in sides:
                module.__dict__[name] = side


NATIVE = Resolution({})
"""No changes: images have the model's own size."""


def resolution_of(tower: nn.Module, forward: object, size: Size | None, patch: Size | None) -> Resolution:
    """The changes that let an image tower read another size.

    Args:
        tower: The part of the model that reads images.
        forward: The function that is called with the images.
        size: Height and width of the images; None for the model's own.
        patch: Height and width of the model's patches.

    Raises:
        OptionError: if the size is not a multiple of the patch size.
        UnsupportedError: if the model has no position embeddings that can be interpolated.
    """
    if size is None:
        return NATIVE
    arguments = arguments_of(tower, forward)
    if SHAPES in arguments:
        raise OptionError(
            "image_size= does not apply to a model that keeps the aspect ratio of images (NaFlex): set max_num_patches "
            "of its processor."
        )
    native = native_size(tower)
    if size == native:
        return NATIVE
    if patch is not None and (size[0] % patch[0] or size[1] % patch[1]):
        nearest = tuple(round(side / part) * part for side, part in zip(size, patch, strict=True))
        raise OptionError(
            f"image_size={size} is not divisible by the model's patch size, {patch[0]} x {patch[1]} pixels; the "
            f"nearest size that is: {nearest}."
        )
    if INTERPOLATE in arguments:
        return Resolution({INTERPOLATE: True})
    if patch is None or interpolates(tower):
        # Convolutions read any size, and some transformers (DINOv2) interpolate without an argument.
        return NATIVE
    if native is None:
        raise UnsupportedError(f"The native image size of {type(tower).__name__} is unknown: omit image_size.")
    old_grid = native[0] // patch[0], native[1] // patch[1]
    new_grid = size[0] // patch[0], size[1] // patch[1]
    tables = list(position_tables(tower, old_grid))
    if not tables:
        raise UnsupportedError(
            f"{type(tower).__name__} has no absolute position embeddings that could be interpolated to "
            f"image_size={size}: omit it."
        )
    # A rotary embedding of timm stores the grid for which its angles were computed in `feat_shape`.
    if any(getattr(module, "feat_shape", None) is not None for module in tower.modules()):
        raise UnsupportedError(
            f"{type(tower).__name__} has rotary position embeddings for a grid of fixed size, in addition to absolute "
            "ones: omit image_size."
        )
    return Resolution({}, tuple(tables), (old_grid, new_grid), tuple(_sides(tower, native, size)))


def arguments_of(tower: nn.Module, forward: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of the function that is called with images, and those of the tower if it accepts `**kwargs`."""
    parameters = inspect.signature(forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return {**inspect.signature(tower.forward).parameters, **parameters}
    return parameters


def interpolates(tower: nn.Module) -> bool:
    """Whether a tower can interpolate its position embeddings by itself."""
    return any(callable(getattr(module, INTERPOLATE, None)) for module in tower.modules())


def native_size(tower: nn.Module) -> Size | None:
    """The image size that a tower was built for; None if it is unknown."""
    # transformers has the size in the config, torchvision on the model, timm on the patch embedding.
    holders = (getattr(tower, "config", None), tower, getattr(tower, "patch_embed", None))
    for holder in holders:
        for name in ("image_size", "img_size"):
            size = getattr(holder, name, None)
            if is_integer(size) or (is_list(size) and len(size) == 2):
                return as_pair(size)
    return None


def position_tables(tower: nn.Module, grid: Size) -> Iterator[tuple[nn.Module, str]]:
    """Position embeddings: parameters with one row per patch, and possibly some for other tokens."""
    count = math.prod(grid)
    for module in tower.modules():
        for name, table in module._parameters.items():
            # pos_embed in timm, positional_embedding in OpenCLIP, pos_embedding in torchvision.
            if table is None or not name.startswith("pos") or table.ndim < 2:
                continue
            length = table.shape[-2]
            if table[..., 0].numel() == length and 0 <= length - count <= _MOST_EXTRA:
                yield module, name


_INTERPOLATIONS = {
    # timm.layers.resample_abs_pos_embed, open_clip.model.resize_pos_embed
    "timm": {"align_corners": False, "antialias": True},
    "open_clip": {"align_corners": False, "antialias": True},
    # torchvision.models.vision_transformer.interpolate_embeddings
    "torchvision": {"align_corners": True, "antialias": False},
}
"""Options of bicubic interpolation in libraries that do it differently from transformers and DINO."""


def _interpolation_of(module: nn.Module) -> Mapping[str, bool]:
    """How the library that defines a module's class interpolates position embeddings."""
    packages = [cls.__module__.partition(".")[0] for cls in type(module).__mro__]
    options = (_INTERPOLATIONS[name] for name in packages if name in _INTERPOLATIONS)
    return next(options, {"align_corners": False, "antialias": False})


def _interpolated(table: Float[Tensor, "... l d"], old: Size, new: Size, how: Mapping[str, bool]) -> nn.Parameter:
    """Interpolate a table to another grid; rows of tokens other than patches come first, and are kept."""
    n_extra = table.shape[-2] - math.prod(old)
    rows = table.detach().reshape(-1, table.shape[-1])
    # In float32, as timm does: some devices cannot interpolate half precision bicubically.
    grid = rows[n_extra:].reshape(*old, -1).permute(2, 0, 1)[None].float()
    patch_rows = functional.interpolate(grid, size=new, mode="bicubic", **how)[0].permute(1, 2, 0).flatten(0, 1)
    new_table = rows.new_empty(n_extra + len(patch_rows), rows.shape[1])
    new_table[:n_extra], new_table[n_extra:] = rows[:n_extra], patch_rows.to(rows)
    return nn.Parameter(new_table.reshape(*table.shape[:-2], *new_table.shape), requires_grad=False)


def _sides(tower: nn.Module, native: Size, size: Size) -> Iterator[tuple[nn.Module, str, Any]]:
    """Attributes of modules that contain the native size, which they compare with the size of each image."""
    for module in tower.modules():
        for name in ("image_size", "img_size"):
            value = module.__dict__.get(name)
            if value == native[0] and native[0] == native[1] and isinstance(value, int):
                # One number is compared with both the height and the width, so for an image that is not square it must
                # equal either.
                yield module, name, size[0] if size[0] == size[1] else _Either(size)
            elif isinstance(value, tuple) and tuple(value) == native:
                yield module, name, size


class _Either(int):
    """A size that equals both the height and the width of an image that is not square."""

    def __new__(cls, size: Size) -> "_Either":
        side = int.__new__(cls, size[0])
        side.size = size
        return side

    size: Size

    def __eq__(self, other: object) -> bool:
        return other in self.size

    def __hash__(self) -> int:
        return int.__hash__(self)


def resized(processor: object, size: Size) -> Any:
    """A copy of a transform of torchvision, timm or OpenCLIP that produces images of another size.

    The ratio of resize to crop is kept: a transform that crops the centre of a larger image still does.

    Raises:
        OptionError: if the transform cannot be changed.
    """
    square = size[0] == size[1]
    if isinstance(processor, ImageClassification):
        preset = copy(processor)
        preset.crop_size = list(size)
        short_edge = round(size[0] * min(as_pair(processor.resize_size)) / min(as_pair(processor.crop_size)))
        # A resize to a short edge keeps the aspect ratio, so that a crop to another aspect ratio would lose content:
        # without a square size the image is resized to it directly.
        preset.resize_size = [short_edge] if square else list(size)
        return preset
    steps = getattr(processor, "transforms", None)
    if not isinstance(processor, transforms.Compose | v2.Compose) or steps is None:
        raise OptionError(
            f"image_size= cannot change how {type(processor).__name__} prepares images: pass a transform that produces "
            "that size, or a Compose of transforms with a Resize."
        )
    crop = next((as_pair(step.size) for step in steps if isinstance(step, transforms.CenterCrop | v2.CenterCrop)), None)
    new_steps = []
    for step in steps:
        if isinstance(step, transforms.CenterCrop | v2.CenterCrop):
            new_steps += [transforms.CenterCrop(size)] if square else []
        elif isinstance(step, transforms.Resize | v2.Resize):
            old_short_edge = min(as_pair(step.size))
            short_edge = round(size[0] * old_short_edge / min(crop)) if crop is not None and square else None
            new_size = list(size) if short_edge is None else short_edge
            interpolation: Any = step.interpolation
            new_steps.append(transforms.Resize(new_size, interpolation, antialias=bool(step.antialias)))
        else:
            new_steps.append(step)
    if not any(isinstance(step, transforms.Resize) for step in new_steps):
        raise OptionError("image_size= needs a transform with a Resize to change; this one has none.")
    return transforms.Compose(new_steps)


def processed_at(processor: object, size: Size) -> Mapping[str, Any]:
    """Options of an image processor of transformers that make it produce images of another size.

    The ratio of resize to crop is kept: a processor that crops the centre of a larger image still does. For a size that
    is not square the image is resized without cropping.
    """
    resize_only = {"size": {"height": size[0], "width": size[1]}, "do_center_crop": False}
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    short_edge = dict(getattr(processor, "size", None) or {}).get("shortest_edge")
    if size[0] != size[1] or not crop or not short_edge:
        return resize_only if crop else {"size": resize_only["size"]}
    new_short_edge = round(size[0] * short_edge / min(dict(crop)["height"], dict(crop)["width"]))
    return {"size": {"shortest_edge": new_short_edge}, "crop_size": {"height": size[0], "width": size[1]}}
