"""Units of an image: patches of a given size, grids with a given number of cells, or single pixels."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity.units import ImageUnits, Units
from interpreto.errors import OptionError
from interpreto.model_wrapping.sample import ImageSample
from interpreto.option_kinds import read_option
from interpreto.type_guards import as_pair


@final
@dataclass(frozen=True)
class Grid:
    """A grid of `rows` x `columns` cells that cover the image; their sides differ by at most one pixel."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        for side in ("rows", "columns"):
            object.__setattr__(self, side, read_option(side, getattr(self, side)))

    def units(self, sample: ImageSample) -> ImageUnits:
        """The cell of every pixel.

        Raises:
            OptionError: if there are more rows or columns of cells than of pixels.
        """
        height, width = sample.size
        if self.rows > height or self.columns > width:
            raise OptionError(
                f"A grid of {self.rows} x {self.columns} is finer than the image that the model reads, "
                f"{height} x {width} pixels."
            )
        return _cells(sample.size, self.rows, self.columns)

    def labels(self, sample: ImageSample) -> Float[Tensor, "g 4"]:
        """The box of every cell, in pixels of the raw image."""
        height, width = sample.size
        # The first pixel of row r is the smallest y with y * rows // height == r.
        down = tuple(-(-row * height // self.rows) for row in range(self.rows + 1))
        across = tuple(-(-column * width // self.columns) for column in range(self.columns + 1))
        return boxes_between(sample.size, sample.crop_box, down, across)


@final
@dataclass(frozen=True)
class Pixels:
    """Every pixel that the model reads is a unit."""

    def units(self, sample: ImageSample) -> ImageUnits:
        """One unit per pixel."""
        return Grid(*sample.size).units(sample)

    def labels(self, sample: ImageSample) -> Float[Tensor, "g 4"]:
        """The box of every pixel that the model reads, in pixels of the raw image."""
        return Grid(*sample.size).labels(sample)


@final
@dataclass(frozen=True)
class Patches:
    """Patches of a fixed size in the model's pixels; None uses the model's own patch size."""

    size: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", read_option("patch_size", self.size))

    def units(self, sample: ImageSample) -> ImageUnits:
        """The patch of every pixel; pixels beyond the last complete patch belong to none."""
        (rows, columns), (tall, wide) = self._grid(sample)
        # A ViT does not read an incomplete last patch either. Other models do; these pixels then have no score.
        down, across = (torch.arange(extent) for extent in sample.size)
        index = (down // tall)[:, None] * columns + across // wide
        outside = (down >= rows * tall)[:, None] | (across >= columns * wide)
        return ImageUnits(torch.where(outside, -1, index), (rows, columns), (tall, wide))

    def labels(self, sample: ImageSample) -> Float[Tensor, "g 4"]:
        """The box of every patch, in pixels of the raw image."""
        (rows, columns), (tall, wide) = self._grid(sample)
        down, across = range(0, (rows + 1) * tall, tall), range(0, (columns + 1) * wide, wide)
        return boxes_between(sample.size, sample.crop_box, tuple(down), tuple(across))

    def _grid(self, sample: ImageSample) -> tuple[tuple[int, int], tuple[int, int]]:
        """The numbers of rows and columns of patches, and the height and width of a patch."""
        size = self.size or sample.patch
        if size is None:
            raise OptionError(
                "granularity='patch' needs a patch size and this model has none of its own; pass patch_size=, for "
                "example patch_size=16, or granularity=Grid(14, 14) or 'pixel'."
            )
        tall, wide = as_pair(size)
        rows, columns = sample.size[0] // tall if tall > 0 else 0, sample.size[1] // wide if wide > 0 else 0
        if rows < 1 or columns < 1:
            raise OptionError(
                f"Patches of {tall} x {wide} are larger than the image that the model reads, "
                f"{sample.size[0]} x {sample.size[1]} pixels."
            )
        return (rows, columns), (tall, wide)


def _cells(size: tuple[int, int], rows: int, columns: int) -> ImageUnits:
    """The units of a grid of cells that cover an image of this size."""
    height, width = size
    down, across = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    # Tiles allow reshaping instead of indexing; see `ImageUnits.tile`.
    even = height % rows == 0 and width % columns == 0
    tile = (height // rows, width // columns) if even else None
    return ImageUnits(down[:, None] * columns + across, (rows, columns), tile)


def boxes_between(
    size: tuple[int, int], view: tuple[float, float, float, float], down: tuple[int, ...], across: tuple[int, ...]
) -> Float[Tensor, "g 4"]:
    """Left, top, right and bottom of every cell, row by row, in pixels of the raw image.

    Args:
        size: Height and width of the model's input.
        view: Left, top, right and bottom of what the model sees, in pixels of the raw image.
        down: Edges between rows of cells, in pixels of the model's input.
        across: Edges between columns of cells.
    """
    left, top, right, bottom = view
    y = top + torch.tensor(down).float() * (bottom - top) / size[0]
    x = left + torch.tensor(across).float() * (right - left) / size[1]
    tops, lefts = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    bottoms, rights = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack([lefts, tops, rights, bottoms], dim=-1).flatten(0, 1)


def bounding_boxes(units: Units, sample: ImageSample) -> Float[Tensor, "g 4"]:
    """Left, top, right and bottom of every unit of an image, in pixels of the raw image, for `SegmentUnits`."""
    left, top, right, bottom = sample.crop_box
    height, width = sample.size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y, x + 1, y + 1]).float()
    edges = torch.cat([units.pool(pixels[:2], "min"), units.pool(pixels[2:], "max")]).flatten(1).T
    scale = torch.tensor([(right - left) / width, (bottom - top) / height] * 2)
    return edges * scale + torch.tensor([left, top] * 2)


def default_segmenter(sample: ImageSample, cost_independent_of_units: bool) -> Patches | Pixels | Grid:
    """Patches if the model has them; else pixels if their number does not change the cost; else a 14 x 14 grid."""
    if sample.patch is not None:
        return Patches()
    return Pixels() if cost_independent_of_units else Grid(*(min(14, extent) for extent in sample.size))
