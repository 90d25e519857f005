"""Images of another size than a model was made for: position embeddings interpolated, for as long as a run takes."""

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
from interpreto.typing import Size

INTERPOLATE = "interpolate_pos_encoding"
"""How transformers asks a model to interpolate by itself."""
_MOST_EXTRA = 16
"""Positions beside those of the patches, at most."""


@dataclass(frozen=True, eq=False)
class Resolution:
    """What a run at another size takes.

    Attributes:
        options: What the model's forward is called with besides.
        tables: Position embeddings, by the module that holds them and their name there.
        grids: How many patches these are for, and how many they are to serve; None where there are none.
        sides: Attributes that say the size, by module and name, and what replaces them.
    """

    options: Mapping[str, Any]
    tables: tuple[tuple[nn.Module, str], ...] = ()
    grids: tuple[Size, Size] | None = None
    sides: tuple[tuple[nn.Module, str, Any], ...] = ()

    def applied(self) -> AbstractContextManager[Mapping[str, Any]]:
        """Let the model read the other size; afterwards it is as it was."""
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
"""The size that a model was made for."""


def resolution_of(tower: nn.Module, forward: Any, size: Size | None, patch: Size | None) -> Resolution:
    """What it takes to run an image tower at another size.

    Args:
        tower: The part of the model that reads images.
        forward: What is called with the images.
        size: Height and width of these; None for the model's own.
        patch: Of the model's patches.

    Raises:
        OptionError: if the size is not a multiple of the patches.
        UnsupportedError: if the model has no position embeddings that could be interpolated.
    """
    if size is None:
        return NATIVE
    taken = arguments_of(tower, forward)
    if SHAPES in taken:
        raise OptionError(
            "image_size= is not for a model that reads pictures in their own form: say how fine with "
            "max_num_patches in its processor."
        )
    native = native_size(tower)
    if size == native:
        return NATIVE
    if patch is not None and (size[0] % patch[0] or size[1] % patch[1]):
        near = tuple(round(side / part) * part for side, part in zip(size, patch, strict=True))
        raise OptionError(
            f"image_size={size} is not divisible by the model's patches of {patch[0]} x {patch[1]} pixels; the nearest "
            f"that is: {near}."
        )
    if INTERPOLATE in taken:
        return Resolution({INTERPOLATE: True})
    if patch is None or interpolates(tower):
        # Convolutions read any size, and so does a model that interpolates unasked (DINOv2).
        return NATIVE
    if native is None:
        raise UnsupportedError(f"The size that {type(tower).__name__} was made for is not known: leave image_size out.")
    old = native[0] // patch[0], native[1] // patch[1]
    new = size[0] // patch[0], size[1] // patch[1]
    found = list(position_tables(tower, old))
    if not found:
        raise UnsupportedError(
            f"{type(tower).__name__} has no table of absolute positions that could be interpolated to "
            f"image_size={size}: leave it out."
        )
    if any(getattr(module, "feat_shape", None) is not None for module in tower.modules()):
        raise UnsupportedError(
            f"{type(tower).__name__} turns its positions by angles of a grid of one size, besides the table of "
            "absolute ones: leave image_size out."
        )
    return Resolution({}, tuple(found), (old, new), tuple(_sides(tower, native, size)))


def arguments_of(tower: nn.Module, forward: Any) -> Mapping[str, inspect.Parameter]:
    """What is taken by the function that is called with images, and what it hands on to the tower."""
    taken = inspect.signature(forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return {**inspect.signature(tower.forward).parameters, **taken}
    return taken


def interpolates(tower: nn.Module) -> bool:
    """Whether a tower can interpolate its position embeddings by itself."""
    return any(callable(getattr(module, INTERPOLATE, None)) for module in tower.modules())


def native_size(tower: nn.Module) -> Size | None:
    """The size that a tower was made for."""
    holders = (getattr(tower, "config", None), tower, getattr(tower, "patch_embed", None))
    for holder in holders:
        for name in ("image_size", "img_size"):
            found = getattr(holder, name, None)
            if isinstance(found, int):
                return found, found
            if isinstance(found, tuple | list) and len(found) == 2:
                return found[0], found[1]
    return None


def position_tables(tower: nn.Module, grid: Size) -> Iterator[tuple[nn.Module, str]]:
    """Position embeddings: parameters with a row for every patch, and perhaps some for other tokens."""
    count = math.prod(grid)
    for module in tower.modules():
        for name, table in module._parameters.items():
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
"""How libraries interpolate position embeddings bicubically, where it is not as transformers and DINO do it."""


def _interpolation_of(module: nn.Module) -> Mapping[str, bool]:
    """How the library that a module's class comes from interpolates its positions."""
    packages = [cls.__module__.partition(".")[0] for cls in type(module).__mro__]
    found = (_INTERPOLATIONS[name] for name in packages if name in _INTERPOLATIONS)
    return next(found, {"align_corners": False, "antialias": False})


def _interpolated(table: Float[Tensor, "... l d"], old: Size, new: Size, how: Mapping[str, bool]) -> nn.Parameter:
    """A table at another resolution, bicubically; rows of tokens that are no patches come first and stay."""
    extra = table.shape[-2] - math.prod(old)
    rows = table.detach().reshape(-1, table.shape[-1])
    grid = rows[extra:].reshape(*old, -1).permute(2, 0, 1)[None].float()
    moved = functional.interpolate(grid, size=new, mode="bicubic", **how)[0].permute(1, 2, 0).flatten(0, 1)
    whole = rows.new_empty(extra + len(moved), rows.shape[1])
    whole[:extra], whole[extra:] = rows[:extra], moved.to(rows)
    return nn.Parameter(whole.reshape(*table.shape[:-2], *whole.shape), requires_grad=False)


def _sides(tower: nn.Module, native: Size, size: Size) -> Iterator[tuple[nn.Module, str, Any]]:
    """Attributes of modules that say the native size: they check images by it."""
    for module in tower.modules():
        for name in ("image_size", "img_size"):
            given = module.__dict__.get(name)
            if given == native[0] and native[0] == native[1] and isinstance(given, int):
                # One number stands for both sides; a check of either sees what it expects only if both are alike.
                yield module, name, size[0] if size[0] == size[1] else _Either(size)
            elif isinstance(given, tuple) and tuple(given) == native:
                yield module, name, size


class _Either(int):
    """A size that is equal to either side of an image that is no square."""

    def __new__(cls, size: Size) -> "_Either":
        made = int.__new__(cls, size[0])
        made.size = size
        return made

    size: Size

    def __eq__(self, other: object) -> bool:
        return other in self.size

    def __hash__(self) -> int:
        return int.__hash__(self)


def resized(processor: Any, size: Size) -> Any:
    """A transform of torchvision, timm or OpenCLIP that makes images of another size, in the way it does now.

    Where it cuts the middle out of a larger picture it still does, from a picture larger by as much.

    Raises:
        OptionError: if it is none that could be changed.
    """
    square = size[0] == size[1]
    if isinstance(processor, ImageClassification):
        preset = copy(processor)
        preset.crop_size = list(size)
        scaled = round(size[0] * min(_pair(processor.resize_size)) / min(_pair(processor.crop_size)))
        preset.resize_size = [scaled] if square else list(size)
        return preset
    steps = getattr(processor, "transforms", None)
    if not isinstance(processor, transforms.Compose | v2.Compose) or steps is None:
        raise OptionError(
            f"image_size= cannot change how {type(processor).__name__} prepares images: give a transform that makes "
            "them of that size, or a Compose of transforms with a Resize."
        )
    crop = next((_pair(step.size) for step in steps if isinstance(step, transforms.CenterCrop | v2.CenterCrop)), None)
    changed = []
    for step in steps:
        if isinstance(step, transforms.CenterCrop | v2.CenterCrop):
            changed += [transforms.CenterCrop(size)] if square else []
        elif isinstance(step, transforms.Resize | v2.Resize):
            short = min(_pair(step.size))
            scaled = round(size[0] * short / min(crop)) if crop is not None and square else None
            target = list(size) if scaled is None else scaled
            how: Any = step.interpolation
            changed.append(transforms.Resize(target, how, antialias=bool(step.antialias)))
        else:
            changed.append(step)
    if not any(isinstance(step, transforms.Resize) for step in changed):
        raise OptionError("image_size= needs a transform with a Resize to change; this one has none.")
    return transforms.Compose(changed)


def _pair(size: Any) -> Size:
    sides = list(size) if isinstance(size, tuple | list) else [size]
    return (sides[0], sides[-1])


def processed_at(processor: Any, size: Size) -> Mapping[str, Any]:
    """Options of an image processor of transformers that make it prepare images of another size.

    Where it cuts the middle out of a larger picture it still does, from a picture larger by as much; for a size that
    is no square the picture is resized as a whole.
    """
    exact = {"size": {"height": size[0], "width": size[1]}, "do_center_crop": False}
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    short = dict(getattr(processor, "size", None) or {}).get("shortest_edge")
    if size[0] != size[1] or not crop or not short:
        return exact if crop else {"size": exact["size"]}
    scaled = round(size[0] * short / min(dict(crop)["height"], dict(crop)["width"]))
    return {"size": {"shortest_edge": scaled}, "crop_size": {"height": size[0], "width": size[1]}}
