"""Masks of single units, of sliding windows, and random masks: for occlusion, LIME and RISE."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.attributions.perturbations.base import Layout, MaskGenerator
from interpreto.errors import OptionError
from interpreto.option_kinds import at_least
from interpreto.type_guards import as_pair


def blocks(count: int, size: int) -> Iterator[int]:
    """Divide `count` into blocks of at most `size`, and yield the size of each block."""
    for start in range(0, count, size):
        yield min(size, count - start)


def each(rows: int, draw: Callable[[], Tensor]) -> Float[Tensor, "p ..."]:
    """Stack `rows` separate draws of random numbers."""
    # Not one draw for all rows: torch's random numbers depend on the size of the tensor, so that results would depend
    # on the batch size.
    return torch.stack([draw() for _ in range(rows)])


@final
@dataclass(frozen=True)
class OneAtATime(MaskGenerator):
    """Masks one unit at a time."""

    def n_evaluations(self, layout: Layout) -> int:
        return layout.count

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        start = 0
        for rows in blocks(layout.count, size):
            masks = torch.zeros(rows, layout.count)
            masks[torch.arange(rows), torch.arange(start, start + rows)] = 1
            start += rows
            yield masks.reshape(rows, *layout.units)


@final
@dataclass(frozen=True)
class SlidingWindow(MaskGenerator):
    """Masks a window that slides over an image by pixels, or over a text by units; one evaluation per window position.

    Positions are whole strides apart, and the last window is cut at the border. A stride that is larger than the window
    leaves gaps.

    Args:
        window: Height and width of the window, or one number for both.
        stride: Step down and across, or one number for both.
    """

    window: int | tuple[int, int]
    stride: int | tuple[int, int] = 1

    def n_evaluations(self, layout: Layout) -> int:
        return math.prod(len(starts) for starts, _ in self._windows(layout))

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        windows, cells = self._windows(layout), self._cells(layout)
        # A window is an outer product of one interval per axis, so only the intervals are kept for all positions.
        intervals = []
        for (starts, length), extent in zip(windows, cells, strict=True):
            begin, along = torch.tensor(starts)[:, None], torch.arange(extent)
            intervals.append(((along >= begin) & (along < begin + length)).float())
        for index in torch.cartesian_prod(*(torch.arange(len(interval)) for interval in intervals)).split(size):
            if len(intervals) == 1:
                yield intervals[0][index]
            else:
                yield intervals[0][index[:, 0], :, None] * intervals[1][index[:, 1], None]

    def _cells(self, layout: Layout) -> tuple[int, ...]:
        """The shape over which the window slides: pixels of an image, units of a text."""
        return layout.positions if len(layout.units) == 2 else layout.units

    def _windows(self, layout: Layout) -> list[tuple[list[int], int]]:
        """The starts and the length of the window along each axis.

        Raises:
            OptionError: if the window is larger than the image.
        """
        cells, windows = self._cells(layout), []
        for axis, extent in enumerate(cells):
            length, step = (as_pair(size)[axis] for size in (self.window, self.stride))
            if length > extent and len(cells) == 2:
                raise OptionError(
                    f"window={self.window!r} does not fit: the model reads {' x '.join(map(str, cells))} pixels."
                )
            # The last window is cut at the border, as in captum. A text that is shorter than the window is masked
            # completely, since texts of different lengths share one option.
            count = 1 + math.ceil(max(extent - length, 0) / step)
            windows.append(([start for start in range(0, count * step, step) if start < extent], length))
        return windows


@final
@dataclass(frozen=True)
class RandomMasks(MaskGenerator):
    """Masks every unit with probability 1/2, independently.

    Args:
        n_samples: Number of masks.
    """

    n_samples: int = 512

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 2)

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        for rows in blocks(self.n_samples, size):
            yield each(rows, lambda: torch.randint(2, layout.units, generator=rng).float())


@final
@dataclass(frozen=True)
class SmoothMasks(MaskGenerator):
    """RISE's masks: for images random coarse cells, enlarged and randomly shifted; for texts independent units.

    Args:
        n_samples: Number of masks.
        grid_size: Number of coarse cells along each side of the image.
        keep_probability: Probability that a cell or unit is kept.
    """

    n_samples: int = 2000
    grid_size: int = 7
    keep_probability: float = 0.5

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 2)

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        for rows in blocks(self.n_samples, size):
            if len(layout.units) == 1:
                yield each(rows, lambda: (torch.rand(layout.units, generator=rng) >= self.keep_probability).float())
            else:
                yield self._shifted(rows, layout.positions, rng)

    def _shifted(self, rows: int, positions: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "p H W"]:
        """Masks of pixels, as in section 3.2 of the paper: a random crop of an enlarged coarse grid."""
        height, width = positions
        # The size of a cell in pixels, rounded up. The enlarged grid is larger than the image by one cell per side, so
        # that it can be shifted by up to a cell.
        tall, wide = -(-height // self.grid_size), -(-width // self.grid_size)
        drawn = each(rows, lambda: torch.rand(self.grid_size**2 + 2, generator=rng))
        coarse = (drawn[:, 2:].reshape(rows, self.grid_size, self.grid_size) >= self.keep_probability).float()
        top, left = (drawn[:, 0] * tall).long(), (drawn[:, 1] * wide).long()
        # Bilinear interpolation is separable. Only the lines of the enlarged grid that are in the crop are computed, as
        # weights of the coarse cells.
        down = linear_weights(self.grid_size, (self.grid_size + 1) * tall)[top[:, None] + torch.arange(height)]
        across = linear_weights(self.grid_size, (self.grid_size + 1) * wide)[left[:, None] + torch.arange(width)]
        return down @ coarse @ across.mT


@lru_cache(maxsize=64)
def linear_weights(cells: int, size: int) -> Float[Tensor, "s g"]:
    """The matrix that interpolates a line of `cells` values linearly to `size` positions."""
    # Interpolating unit vectors reproduces torch's alignment of the border exactly.
    return nn.functional.interpolate(torch.eye(cells)[None], size=size, mode="linear", align_corners=False)[0].T


def enlarged(cells: Float[Tensor, "p h w"], size: tuple[int, int]) -> Float[Tensor, "p H W"]:
    """Masks interpolated bilinearly to a finer resolution."""
    # Two matrix products are many times faster than torch's interpolate().
    height, width = size
    return linear_weights(cells.shape[1], height) @ cells @ linear_weights(cells.shape[2], width).T
