"""Quasi-Monte Carlo designs for Sobol indices."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from scipy.stats import qmc
from torch import Tensor

from interpreto.attributions.perturbations.base import Layout, MaskGenerator
from interpreto.attributions.perturbations.mask_generators.masks import blocks
from interpreto.errors import OptionError
from interpreto.option_kinds import at_least


@final
@dataclass(frozen=True)
class SobolDesign(MaskGenerator):
    """For every base point the masks A, B, and A with one cell at a time replaced by that of B: g + 2 evaluations.

    As many base points are used as fit into `n_samples`. The cells of images are a grid of `grid_size` x `grid_size`,
    or fewer if there are fewer units; the cells of texts are the units.

    Args:
        n_samples: Largest number of evaluations.
        grid_size: Number of cells along each side of an image.

    Source:
        Saltelli et al. 2010, *Variance based sensitivity analysis of model output*.
    """

    n_samples: int = 512
    grid_size: int = 7

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 4)

    def cells(self, layout: Layout) -> tuple[int, ...]:
        """The shape of a mask."""
        if len(layout.units) == 1:
            return layout.units
        return tuple(min(self.grid_size, extent) for extent in layout.units)

    def points(self, layout: Layout) -> int:
        """The number of base points.

        Raises:
            OptionError: if fewer than two fit.
        """
        g = math.prod(self.cells(layout))
        count = self.n_samples // (g + 2)
        if count < 2:
            raise OptionError(
                f"n_samples={self.n_samples} is too few for the Sobol indices of {g} units: a design takes {g + 2} "
                f"evaluations and at least two are needed; use n_samples >= {2 * (g + 2)} or a coarser granularity."
            )
        return count

    def n_evaluations(self, layout: Layout) -> int:
        return self.points(layout) * (math.prod(self.cells(layout)) + 2)

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        cells = self.cells(layout)
        g, count = math.prod(cells), self.points(layout)
        seed = int(torch.randint(2**31, (1,), generator=rng))
        # A Sobol sequence is balanced for powers of two (scipy warns otherwise). Surplus points are dropped.
        exponent = (count - 1).bit_length()
        # A and B are the two halves of points in 2 g dimensions, as in Saltelli et al.
        drawn = torch.from_numpy(qmc.Sobol(2 * g, rng=seed).random_base2(exponent)[:count]).float()
        pending = torch.zeros(0, g)
        for a, b in zip(drawn[:, :g], drawn[:, g:], strict=True):
            swapped = torch.where(torch.eye(g).bool(), b, a)
            pending = torch.cat([pending, a[None], b[None], swapped])
            # Blocks need not end with a design; the aggregator puts the rows together again.
            while len(pending) >= size:
                yield pending[:size].reshape(size, *cells)
                pending = pending[size:]
        for rows in blocks(len(pending), size):
            yield pending[:rows].reshape(rows, *cells)
            pending = pending[rows:]
