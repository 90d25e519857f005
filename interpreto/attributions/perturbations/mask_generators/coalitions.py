"""The coalitions of units that KernelSHAP evaluates."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import Layout, MaskGenerator
from interpreto.attributions.perturbations.mask_generators.masks import blocks
from interpreto.option_kinds import at_least


@final
@dataclass(frozen=True)
class Coalitions(MaskGenerator):
    """The empty coalition, then coalitions in complementary pairs without replacement.

    All of them if 2^g <= `n_samples`. Otherwise the rows are shared out evenly over the coalition sizes (the leverage
    scores of the regression); a size that fits into its share is taken whole, small and large sizes first.
    """

    n_samples: int = 512

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 4)

    def n_evaluations(self, layout: Layout) -> int:
        g = layout.count
        return 1 + 2 * sum(shares(g, self.n_samples).values()) if g > 1 else 1

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        g = layout.count
        if 2**g > self.n_samples and self.n_samples < 2 * g:
            warnings.warn(
                f"n_samples={self.n_samples} is fewer than two per unit ({g} units), so that the Shapley regression "
                "is underdetermined and scores shrink to equal shares; use "
                f"n_samples >= {4 * g} or a coarser granularity.",
                stacklevel=2,
            )
        hidden = torch.ones(1, g)
        if g > 1:
            half = torch.cat([_subsets(g, s, count, rng) for s, count in shares(g, self.n_samples).items() if count])
            hidden = torch.cat([hidden, torch.stack([half, 1 - half], dim=1).flatten(0, 1)])
        start = 0
        for rows in blocks(len(hidden), size):
            yield hidden[start : start + rows].reshape(rows, *layout.units)
            start += rows


def pairs_of_size(g: int, s: int) -> int:
    """How many complementary pairs have s units on one side and g - s on the other."""
    return math.comb(g, s) // 2 if 2 * s == g else math.comb(g, s)


def shares(g: int, n_samples: int) -> dict[int, int]:
    """How many pairs of each size s <= g / 2 fit into `n_samples` rows, both ends counted."""
    sizes = range(1, g // 2 + 1)
    if 2**g <= n_samples:
        return {s: pairs_of_size(g, s) for s in sizes}
    left, due = (n_samples - 2) / 2, 0.0
    taken: dict[int, int] = {}
    for s in sizes:
        # A pair of sizes s and g - s serves two sizes, the middle size only one.
        weight = 1 if 2 * s == g else 2
        share = left * weight / (g - 2 * s + 1)
        # Beyond s = 2 a size of many units is far larger than any share, and its number of subsets has many digits.
        most = math.inf if s > 2 and g > 1000 else pairs_of_size(g, s)
        share = min(share, most)
        left -= share
        due += share
        taken[s] = int(min(round(due), most))
        due -= taken[s]
    return taken


def _subsets(g: int, s: int, count: int, rng: torch.Generator) -> Float[Tensor, "q g"]:
    """`count` different subsets of s out of g units; of halves only those with the first unit, as pairs are."""
    if (s <= 2 or g <= 1000) and count == pairs_of_size(g, s) and count <= 100_000:
        chosen = [c for c in combinations(range(g), s) if 2 * s != g or c[0] == 0]
    else:
        found: dict[tuple[int, ...], None] = {}
        while len(found) < count:
            draws = torch.rand(count, g, generator=rng).argsort(dim=1)[:, :s].sort(dim=1).values
            for subset in draws.tolist():
                if len(found) == count:
                    break
                if 2 * s != g or subset[0] == 0:
                    found[tuple(subset)] = None
        chosen = list(found)
    return torch.zeros(count, g).scatter_(1, torch.tensor(chosen), 1.0)
