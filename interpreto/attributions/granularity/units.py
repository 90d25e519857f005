"""Units: the groups of positions of a sample that get a score each."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Pooling = Literal["mean", "sum", "max", "min", "signed_max", "first", "last"]
Resize = Literal["area", "sum", "bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class UnitReduction:
    """How scores of positions become scores of units.

    Attributes:
        pooling: For texts.
        resize: For images; "area" is the mean.
    """

    pooling: Pooling = "mean"
    resize: Resize = "area"


@dataclass(frozen=True, eq=False)
class Units(ABC):
    """A partition of positions into units; some positions may belong to none.

    Attributes:
        index: The unit of every position, -1 for positions that belong to none.
        shape: `(h, w)` for images with units on a grid, else `(g,)`.
    """

    index: Int[Tensor, "*l"]
    shape: tuple[int, ...]

    @property
    def assigned(self) -> Bool[Tensor, "*l"]:
        """The positions that belong to a unit."""
        return self.index >= 0

    @cached_property
    def covers_input(self) -> bool:
        """Whether every position belongs to a unit."""
        return bool(self.assigned.all())

    @cached_property
    def start(self) -> Int[Tensor, "*g"]:
        """The first position of every unit, in the order of the flattened positions."""
        flat = self.index.flatten()
        out = torch.full((math.prod(self.shape),), len(flat))
        inside = flat >= 0
        out.scatter_reduce_(0, flat[inside], torch.arange(len(flat))[inside], "amin")
        return out.reshape(self.shape)

    @property
    def token_start(self) -> Int[Tensor, "*g"] | None:
        """The first token of every unit, which decides what it can influence; None if units are not made of tokens."""
        return None

    @property
    def unit_map(self) -> Int[Tensor, "H W"] | None:
        """The unit of every pixel, -1 for none, for units that are not on a grid; else None."""
        return None

    @abstractmethod
    def to_positions(self, cells: Float[Tensor, "p *g"]) -> Float[Tensor, "p *l"]:
        """Assign to every position the value of its unit; 0 to positions without a unit."""

    @property
    def view_shape(self) -> tuple[int, ...]:
        """The shape of the positions to which `to_positions_compact` broadcasts; an axis may be split in two."""
        return tuple(self.index.shape)

    def to_positions_compact(self, cells: Float[Tensor, "p *g"]) -> Float[Tensor, "p ..."]:
        """Same as `to_positions`, but only broadcastable to `view_shape`, which needs less memory."""
        return self.to_positions(cells)

    @abstractmethod
    def pool(self, scores: Float[Tensor, "t *l"], how: str) -> Float[Tensor, "t *g"]:
        """Scores of units by pooling those of their positions.

        Args:
            scores: Scores of positions.
            how: One of `Pooling`. "signed_max" is the score with the largest absolute value, with its sign.
        """

    @abstractmethod
    def to_units(self, scores: Float[Tensor, "t *l"], how: UnitReduction) -> Float[Tensor, "t *g"]:
        """Scores of units from those of positions, with the reduction of the modality."""

    @abstractmethod
    def resize_to_units(self, scores: Float[Tensor, "t *cells"], resize: str) -> Float[Tensor, "t *g"]:
        """Scores of units from those of the cells of a method's own grid; for texts these are the units."""

    @abstractmethod
    def from_layer_map(self, scores: Float[Tensor, "t ..."], pooling: str, resize: str | None) -> Float[Tensor, "t *g"]:
        """Scores of units from a layer's map: over tokens, or over the cells of the layer's grid.

        Args:
            scores: The map.
            pooling: For texts.
            resize: For images; None interpolates bilinearly if units are finer than the layer's grid, else takes means.
        """


def to_positions(cells: Float[Tensor, "p *g"], index: Int[Tensor, "*l"]) -> Float[Tensor, "p *l"]:
    """Assign to every position the value of its unit in `index`; 0 where the index is -1."""
    flat = cells.flatten(1)
    padded = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
    # Index -1 selects the zero that was appended.
    return padded[:, index]


def pool_units(units: Units, scores: Float[Tensor, "t *l"], how: str) -> Float[Tensor, "t *g"]:
    """Scores of units by pooling, for any assignment of positions to units; see `Units.pool`."""
    inside = units.assigned
    values, index = scores[:, inside], units.index[inside].to(scores.device)
    if how in ("first", "last"):
        # Units of a text are contiguous, so the first position of a unit is one whose predecessor has another unit.
        order = index if how == "first" else index.flip(0)
        values = values if how == "first" else values.flip(1)
        fresh = torch.ones_like(order, dtype=torch.bool)
        fresh[1:] = order[1:] != order[:-1]
        values, index = values[:, fresh], order[fresh]
        how = "sum"
    if how == "signed_max":
        highest, lowest = _scattered(units.shape, values, index, "amax"), _scattered(units.shape, values, index, "amin")
        # Ties go to the positive score.
        return torch.where(highest >= -lowest, highest, lowest)
    return _scattered(units.shape, values, index, {"max": "amax", "min": "amin"}.get(how, how))


def _scattered(
    shape: tuple[int, ...], values: Float[Tensor, "t s"], index: Int[Tensor, " s"], how: str
) -> Float[Tensor, "t *g"]:
    count = math.prod(shape)
    out = values.new_zeros(len(values), count)
    out.scatter_reduce_(1, index.expand_as(values), values, how, include_self=False)
    return out.reshape(len(values), *shape)


@final
class TextUnits(Units):
    """Units of a text, in a list."""

    @property
    def token_start(self) -> Int[Tensor, " g"]:
        return self.start

    def to_positions(self, cells: Float[Tensor, "p g"]) -> Float[Tensor, "p l"]:
        return to_positions(cells, self.index)

    def pool(self, scores: Float[Tensor, "t l"], how: str) -> Float[Tensor, "t g"]:
        return pool_units(self, scores, how)

    def to_units(self, scores: Float[Tensor, "t l"], how: UnitReduction) -> Float[Tensor, "t g"]:
        return self.pool(scores, how.pooling)

    def resize_to_units(self, scores: Float[Tensor, "t g"], resize: str) -> Float[Tensor, "t g"]:
        return scores

    def from_layer_map(self, scores: Float[Tensor, "t l"], pooling: str, resize: str | None) -> Float[Tensor, "t g"]:
        return self.pool(scores, pooling)


@final
@dataclass(frozen=True, eq=False)
class ImageUnits(Units):
    """Units of an image on a grid.

    Attributes:
        tile: Height and width of the units if all are equal and tile the image from its upper left corner; None
            otherwise. Tiles are pooled and expanded by reshaping, which is several times faster than by index.
    """

    tile: tuple[int, int] | None = None

    @cached_property
    def view_shape(self) -> tuple[int, ...]:
        height, width = self.index.shape
        if self.tile is None or (height, width) != (self.shape[0] * self.tile[0], self.shape[1] * self.tile[1]):
            return height, width
        # Rows of tiles are an axis of their own, so that all lines of pixels of a tile share one mask value.
        return self.shape[0], self.tile[0], width

    @property
    def _tiled(self) -> bool:
        """Whether tiles cover the whole image, without a remainder at the border."""
        return len(self.view_shape) == 3

    def to_positions_compact(self, cells: Float[Tensor, "p h w"]) -> Float[Tensor, "p ..."]:
        return self._lines(cells) if self._tiled else self.to_positions(cells)

    def to_positions(self, cells: Float[Tensor, "p h w"]) -> Float[Tensor, "p H W"]:
        if self.tile is None:
            return to_positions(cells, self.index)
        (h, w), (tall, wide), (height, width) = self.shape, self.tile, self.index.shape
        # Expanding one axis after the other copies whole lines of memory at a time.
        pixels = self._lines(cells).expand(-1, -1, tall, -1).reshape(len(cells), h * tall, w * wide)
        if self._tiled:
            return pixels
        # Pixels beyond the last complete unit belong to none.
        return nn.functional.pad(pixels, (0, width - w * wide, 0, height - h * tall))

    def _lines(self, cells: Float[Tensor, "p h w"]) -> Float[Tensor, "p h 1 v"]:
        """One line of pixels for every row of tiles."""
        assert self.tile is not None
        (h, w), wide = self.shape, self.tile[1]
        return cells[..., None].expand(-1, -1, -1, wide).reshape(len(cells), h, 1, w * wide)

    def pool(self, scores: Float[Tensor, "t H W"], how: str) -> Float[Tensor, "t h w"]:
        if self.tile is None or how not in ("mean", "sum"):
            return pool_units(self, scores, how)
        (h, w), (tall, wide) = self.shape, self.tile
        tiles = scores[:, : h * tall, : w * wide].reshape(len(scores), h, tall, w, wide)
        return tiles.mean((2, 4)) if how == "mean" else tiles.sum((2, 4))

    def to_units(self, scores: Float[Tensor, "t H W"], how: UnitReduction) -> Float[Tensor, "t h w"]:
        # Pooled by membership, not by interpolate(), whose "area" would include pixels that belong to no unit.
        if how.resize in ("area", "sum"):
            return self.pool(scores, "mean" if how.resize == "area" else "sum")
        return resized(scores, self.shape, how.resize)

    def resize_to_units(self, scores: Float[Tensor, "t a b"], resize: str) -> Float[Tensor, "t h w"]:
        return scores if scores.shape[1:] == self.shape else resized(scores, self.shape, resize)

    def from_layer_map(
        self, scores: Float[Tensor, "t a b"], pooling: str, resize: str | None
    ) -> Float[Tensor, "t h w"]:
        finer = self.shape[0] > scores.shape[1] or self.shape[1] > scores.shape[2]
        return self.resize_to_units(scores, resize or ("bilinear" if finer else "area"))


@final
class SegmentUnits(Units):
    """Units of an image of any shape, from a label map: `index` has the unit of every pixel, `shape` is `(g,)`."""

    @property
    def unit_map(self) -> Int[Tensor, "H W"]:
        return self.index

    def to_positions(self, cells: Float[Tensor, "p g"]) -> Float[Tensor, "p H W"]:
        return to_positions(cells, self.index)

    def pool(self, scores: Float[Tensor, "t H W"], how: str) -> Float[Tensor, "t g"]:
        return pool_units(self, scores, how)

    def to_units(self, scores: Float[Tensor, "t H W"], how: UnitReduction) -> Float[Tensor, "t g"]:
        # Segments have no neighbours to interpolate between: all but sums are means.
        return self.pool(scores, "sum" if how.resize == "sum" else "mean")

    def resize_to_units(self, scores: Float[Tensor, "t *cells"], resize: str) -> Float[Tensor, "t g"]:
        if scores.shape[1:] == self.shape:
            return scores
        maps = resized(scores, tuple(self.index.shape), resize)
        return self.pool(maps, "sum" if resize == "sum" else "mean")

    def from_layer_map(self, scores: Float[Tensor, "t a b"], pooling: str, resize: str | None) -> Float[Tensor, "t g"]:
        return self.resize_to_units(scores, resize or "bilinear")


def resized(scores: Float[Tensor, "t a b"], size: tuple[int, ...], how: str) -> Float[Tensor, "t h w"]:
    """A map at another resolution; "sum" preserves the total, the others the mean level.

    Args:
        scores: The maps.
        size: Height and width of the result.
        how: One of `Resize`.
    """
    if how in ("area", "sum"):
        out = nn.functional.interpolate(scores[:, None], size=size, mode="area")[:, 0]
        return out * (scores[0].numel() / out[0].numel()) if how == "sum" else out
    # PyTorch accepts align_corners only for these modes. False treats values as areas rather than as points.
    smooth = how in ("bilinear", "bicubic")
    corners = False if smooth else None
    return nn.functional.interpolate(scores[:, None], size=size, mode=how, align_corners=corners)[:, 0]
