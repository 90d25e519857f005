"""Masks of single units, of sliding windows, and at random: occlusion, LIME, RISE."""

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


def blocks(count: int, size: int) -> Iterator[int]:
    """`count` in portions of at most `size`."""
    for start in range(0, count, size):
        yield min(size, count - start)


def each(rows: int, draw: Callable[[], Tensor]) -> Float[Tensor, "p ..."]:
    """One draw after the other: the numbers of a row must not depend on how many rows share its block."""
    return torch.stack([draw() for _ in range(rows)])


@final
@dataclass(frozen=True)
class OneAtATime(MaskGenerator):
    """Masks every unit once, alone."""

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
    """Masks a window that slides over an image, by pixels, or over a list of units, by units; one row for each place.

    Places are whole strides apart; the last window is cut at the border. With a stride longer than the window there are
    gaps.

    Args:
        window: Height and width, or one number for both.
        stride: By how much it moves, down and across, or one number for both.
    """

    window: int | tuple[int, int]
    stride: int | tuple[int, int] = 1

    def n_evaluations(self, layout: Layout) -> int:
        return math.prod(len(starts) for starts, _ in self._places(layout))

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        places, cells = self._places(layout), self._cells(layout)
        lines = []
        for (starts, reach), extent in zip(places, cells, strict=True):
            begin, along = torch.tensor(starts)[:, None], torch.arange(extent)
            lines.append(((along >= begin) & (along < begin + reach)).float())
        for some in torch.cartesian_prod(*(torch.arange(len(line)) for line in lines)).split(size):
            if len(lines) == 1:
                yield lines[0][some]
            else:
                yield lines[0][some[:, 0], :, None] * lines[1][some[:, 1], None]

    def _cells(self, layout: Layout) -> tuple[int, ...]:
        return layout.positions if len(layout.units) == 2 else layout.units

    def _places(self, layout: Layout) -> list[tuple[list[int], int]]:
        """Along each axis where the window begins, and how far it reaches.

        Raises:
            OptionError: if it is larger than the image that it slides over.
        """
        cells, found = self._cells(layout), []
        for axis, extent in enumerate(cells):
            reach, step = (one[axis] if isinstance(one, tuple) else one for one in (self.window, self.stride))
            if reach > extent and len(cells) == 2:
                raise OptionError(
                    f"window={self.window!r} does not fit: the model reads {' x '.join(map(str, cells))} pixels."
                )
            # The window is cut at the border, as in captum. A text shorter than it is masked as a whole.
            count = 1 + math.ceil(max(extent - reach, 0) / step)
            found.append(([start for start in range(0, count * step, step) if start < extent], reach))
        return found


@final
@dataclass(frozen=True)
class RandomMasks(MaskGenerator):
    """Masks every unit with probability one half, independently."""

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
    """RISE's masks: on a grid, random coarse cells enlarged with a random shift; on a list, independent units.

    Args:
        n_samples: Number of masks.
        grid_size: Coarse cells along each side of the image.
        keep_probability: Probability that a cell stays visible.
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
        height, width = positions
        tall, wide = -(-height // self.grid_size), -(-width // self.grid_size)
        drawn = each(rows, lambda: torch.rand(self.grid_size**2 + 2, generator=rng))
        coarse = (drawn[:, 2:].reshape(rows, self.grid_size, self.grid_size) >= self.keep_probability).float()
        top, left = (drawn[:, 0] * tall).long(), (drawn[:, 1] * wide).long()
        # The rows and columns of the enlarged grid that each mask sees, as weights of its cells.
        down = linear_weights(self.grid_size, (self.grid_size + 1) * tall)[top[:, None] + torch.arange(height)]
        across = linear_weights(self.grid_size, (self.grid_size + 1) * wide)[left[:, None] + torch.arange(width)]
        return down @ coarse @ across.mT


@lru_cache(maxsize=64)
def linear_weights(cells: int, size: int) -> Float[Tensor, "s g"]:
    """How much each cell of a line weighs at each of `size` places when the line is enlarged linearly."""
    return nn.functional.interpolate(torch.eye(cells)[None], size=size, mode="linear", align_corners=False)[0].T


def enlarged(cells: Float[Tensor, "p h w"], size: tuple[int, int]) -> Float[Tensor, "p H W"]:
    """Masks at a finer resolution, bilinearly: as two products of matrices, many times faster than `interpolate`."""
    height, width = size
    return linear_weights(cells.shape[1], height) @ cells @ linear_weights(cells.shape[2], width).T
