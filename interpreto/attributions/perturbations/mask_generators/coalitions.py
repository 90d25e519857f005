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
    """The empty coalition, then coalitions in complementary pairs, without replacement.

    All coalitions if 2^g <= `n_samples`. Otherwise the evaluations are divided evenly among the coalition sizes, which
    approximates leverage score sampling of the regression. If all coalitions of a size fit into its share, the size is
    enumerated; small and large sizes come first, because they have the fewest coalitions.

    Args:
        n_samples: Largest number of evaluations.

    Source:
        Musco and Witter 2024, *Provably Accurate Shapley Value Estimation via Leverage Score Sampling*,
        arXiv:2410.01917.
    """

    n_samples: int = 512

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 4)

    def n_evaluations(self, layout: Layout) -> int:
        g = layout.count
        # The full coalition is the unperturbed sample, whose score is known; a single unit needs only the empty one.
        return 1 + 2 * sum(shares(g, self.n_samples).values()) if g > 1 else 1

    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        g = layout.count
        if 2**g > self.n_samples and self.n_samples < 2 * g:
            warnings.warn(
                f"n_samples={self.n_samples} is fewer than two per unit ({g} units), so that the Shapley regression "
                "is underdetermined and scores shrink towards equal shares; use "
                f"n_samples >= {4 * g} or a coarser granularity.",
                stacklevel=2,
            )
        masks = torch.ones(1, g)
        if g > 1:
            # `_ShapleyAccumulator` relies on this order: the empty coalition first, then each pair in adjacent rows.
            half = torch.cat([_subsets(g, s, count, rng) for s, count in shares(g, self.n_samples).items() if count])
            masks = torch.cat([masks, torch.stack([half, 1 - half], dim=1).flatten(0, 1)])
        start = 0
        for rows in blocks(len(masks), size):
            yield masks[start : start + rows].reshape(rows, *layout.units)
            start += rows


def pairs_of_size(g: int, s: int) -> int:
    """The number of complementary pairs of coalitions with s and g - s units."""
    return math.comb(g, s) // 2 if 2 * s == g else math.comb(g, s)


def shares(g: int, n_samples: int) -> dict[int, int]:
    """The number of complementary pairs to evaluate per size s <= g / 2.

    Args:
        g: Number of units.
        n_samples: Largest number of evaluations, the empty and the full coalition included.
    """
    sizes = range(1, g // 2 + 1)
    if 2**g <= n_samples:
        return {s: pairs_of_size(g, s) for s in sizes}
    remaining, rounding = (n_samples - 2) / 2, 0.0
    pairs: dict[int, int] = {}
    for s in sizes:
        # A pair covers the two sizes s and g - s, or only one if both are g / 2. The sizes from s to g - s are left.
        weight = 1 if 2 * s == g else 2
        share = remaining * weight / (g - 2 * s + 1)
        # For g > 1000 and s > 2 the number of subsets exceeds any share, and as an exact integer it has many digits.
        limit = math.inf if s > 2 and g > 1000 else pairs_of_size(g, s)
        share = min(share, limit)
        # What a small size cannot use is divided among the larger ones.
        remaining -= share
        # Shares are fractional. Rounding errors carry over to the next size, so that the total is kept.
        rounding += share
        pairs[s] = int(min(round(rounding), limit))
        rounding -= pairs[s]
    return pairs


def _subsets(g: int, s: int, count: int, rng: torch.Generator) -> Float[Tensor, "q g"]:
    """`count` different subsets of s out of g units, all of them if there are no more.

    If s = g / 2, a subset and its complement have the same size. Then only subsets with the first unit are taken, so
    that no pair occurs twice.
    """
    if (s <= 2 or g <= 1000) and count == pairs_of_size(g, s) and count <= 100_000:
        chosen = [c for c in combinations(range(g), s) if 2 * s != g or c[0] == 0]
    else:
        # A dict serves as an ordered set: subsets stay in the order in which they were drawn.
        subsets: dict[tuple[int, ...], None] = {}
        while len(subsets) < count:
            draws = torch.rand(count, g, generator=rng).argsort(dim=1)[:, :s].sort(dim=1).values
            for subset in draws.tolist():
                if len(subsets) == count:
                    break
                if 2 * s != g or subset[0] == 0:
                    subsets[tuple(subset)] = None
        chosen = list(subsets)
    return torch.zeros(count, g).scatter_(1, torch.tensor(chosen), 1.0)
