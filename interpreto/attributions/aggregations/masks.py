"""Aggregators: from the scores of perturbed inputs to scores of units."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.typing import MaskedShare, Scores, UnitScores

SobolOrder = Literal["total", "first"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate for one sample.

    Attributes:
        scores: Scores per target and unit, or cell of the method's own grid.
        standard_errors: Standard errors of the scores; None if nothing was sampled.
        fully_masked_scores: The scores of the fully masked sample, for methods whose units sum to the difference from
            them; else None.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    fully_masked_scores: Float[Tensor, " t"] | None = None


class MaskAccumulator(ABC):
    """Accumulates the evaluations of one sample, block by block."""

    @abstractmethod
    def add(self, scores: Scores, masked_share: MaskedShare) -> None:
        """Add evaluations: their scores, and the share of every unit that each of them masks."""

    @abstractmethod
    def result(self) -> Estimate:
        """The estimate from all evaluations."""


class MaskAggregator(ABC):
    """Turns the scores of perturbed inputs into scores of units; starts an accumulator for every sample."""

    signed: ClassVar[bool] = True
    """Whether the sign of a score says if the unit raises or lowers the target's score."""

    @abstractmethod
    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        """An accumulator for a sample.

        Args:
            base: The scores of the unperturbed sample.
            can_influence: Which units can influence which target; None if all can. Scores of other units are ignored.
        """


@final
@dataclass(frozen=True)
class Differences(MaskAggregator):
    """The drops f(x) - f(row) of the rows that mask a unit, averaged with the masked shares of the unit as weights.

    Units that no row masks get 0.

    Attributes:
        summed: Whether the weighted drops are summed instead.
    """

    summed: bool = False

    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        return _DifferencesAccumulator(base.double(), self.summed)


@final
@dataclass(eq=False)
class _DifferencesAccumulator(MaskAccumulator):
    base: Float[Tensor, " t"]
    summed: bool
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, scores: Scores, masked_share: MaskedShare) -> None:
        # Drops are small differences of large scores, which are summed over many rows: double precision.
        masked_share = masked_share.double()
        self.total = self.total + torch.einsum("pt,p...->t...", self.base - scores.double(), masked_share)
        self.weight = self.weight + masked_share.sum(0)

    def result(self) -> Estimate:
        weight = 1.0 if self.summed else self.weight.where(self.weight > 0, 1.0)
        return Estimate((self.total / weight).float())


@final
@dataclass(frozen=True)
class KeptMean(MaskAggregator):
    """The mean score of the rows that keep a unit, with the kept shares as weights; NaN if no row keeps it.

    Standard errors are those of a ratio of means, by linearisation (the delta method).

    Args:
        centered: Whether the mean score of all rows is subtracted, so that units without influence get 0.
    """

    centered: bool = True

    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        return _KeptMeanAccumulator(self.centered, base.double())


@final
@dataclass(eq=False)
class _KeptMeanAccumulator(MaskAccumulator):
    """Sums over rows of f^d m^e, with the score f and the kept share m, from which mean and error are computed."""

    centered: bool
    base: Float[Tensor, " t"]
    rows: int = 0
    sums: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def add(self, scores: Scores, masked_share: MaskedShare) -> None:
        # Scores relative to the unperturbed sample, because sums of squares would lose digits to a large offset.
        # Float32 products within a block are fast; double sums over blocks keep the digits.
        f, m = (scores.double() - self.base).float(), 1 - masked_share
        self.rows += len(f)
        powers = torch.stack([torch.ones_like(f), f, f.square()])
        shares = {1: m, 2: m.square()}
        products = {e: torch.einsum("dpt,p...->dt...", powers, share) for e, share in shares.items()}
        terms = {(d, e): product[d] for e, product in products.items() for d in range(3)}
        terms |= {(d, 0): powers[d].sum(0) for d in (1, 2)}
        self.sums = {power: self.sums.get(power, 0) + term.double() for power, term in terms.items()}

    def result(self) -> Estimate:
        sums, n = self.sums, self.rows
        # sums[d, e] is the sum over rows of f^d m^e.
        kept = torch.where(sums[0, 1] > 0, sums[0, 1], torch.nan)
        mean = sums[1, 1] / kept
        per_target = (-1, *[1] * (mean.ndim - 1))
        overall, second = (sums[power, 0].reshape(per_target) / n for power in (1, 2))
        # The variance of the ratio sum(f m) / sum(m): the sum of m^2 (f - mean)^2, over sum(m)^2.
        squares = (sums[2, 2] - 2 * mean * sums[1, 2] + mean.square() * sums[0, 2]) / kept.square()
        if not self.centered:
            absolute = mean + self.base.reshape(per_target)
            return Estimate(absolute.float(), squares.clamp(min=0).sqrt().float())
        # The overall mean is computed from the same rows: its variance is added, and twice the covariance subtracted.
        squares += (second - overall.square()) / n - 2 * (sums[2, 1] / kept - mean.square()) / n
        return Estimate((mean - overall).float(), squares.clamp(min=0).sqrt().float())


@final
@dataclass(frozen=True)
class SobolIndices(MaskAggregator):
    """First-order (Saltelli 2010) or total (Jansen 1999) indices from the rows of a `SobolDesign`.

    Standard errors are those of a ratio of means over independent base points. Base points of a quasi-random sequence
    are more even than that, so the standard errors are too large rather than too small.

    Args:
        order: "total" or "first".
    """

    order: SobolOrder = "total"
    signed = False

    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        return _SobolAccumulator(self.order)


@final
@dataclass(eq=False)
class _SobolAccumulator(MaskAccumulator):
    order: SobolOrder
    scores: list[Tensor] = field(default_factory=list)

    def add(self, scores: Scores, masked_share: MaskedShare) -> None:
        self.cells = masked_share.shape[1:]
        self.scores.append(scores.double())

    def result(self) -> Estimate:
        g = math.prod(self.cells)
        scores = torch.cat(self.scores)
        # `SobolDesign` yields g + 2 rows per base point: A, B, and A with one cell after another from B.
        scores = scores.reshape(-1, g + 2, scores.shape[1])
        a, b, swapped = scores[:, :1], scores[:, 1:2], scores[:, 2:]
        both = scores[:, :2]
        spread = (both - both.mean((0, 1))).square().mean(1, keepdim=True)
        # A constant score has variance 0 and index 0, not NaN.
        variance = spread.mean(0, keepdim=True).clamp(min=1e-300)
        # Jansen's estimator of the total, Saltelli's of the first-order index. Centring b reduces the variance of the
        # latter and keeps its expectation, because E[swapped - a] = 0.
        terms = (a - swapped).square() / 2 if self.order == "total" else (b - b.mean(0)) * (swapped - a)
        index = terms.mean(0, keepdim=True) / variance
        errors = ((terms - index * spread) / variance).std(0) / len(scores) ** 0.5
        shape = (scores.shape[2], *self.cells)
        return Estimate(index[0].T.reshape(shape).float(), errors.T.reshape(shape).float())
