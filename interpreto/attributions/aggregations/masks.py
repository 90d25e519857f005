"""From scores of masked rows to scores of units."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.option_kinds import check_choice
from interpreto.typing import Hidden, Scores, UnitScores


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate for one sample.

    Attributes:
        scores: Per target and unit (or cell of the method's own grid).
        standard_errors: Of the scores; None if nothing was sampled.
        empty: The score of the fully masked sample, if the method promises that the units sum to the difference.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    empty: Float[Tensor, " t"] | None = None


class MaskFold(ABC):
    """Accumulates rows block by block."""

    @abstractmethod
    def add(self, scores: Scores, hidden: Hidden) -> None:
        """Add the scores of rows, and the share of every unit that each of them masks."""

    @abstractmethod
    def result(self) -> Estimate:
        """The estimate from all rows."""


class MaskAggregator(ABC):
    """Starts a fold for every sample."""

    signed: ClassVar[bool] = True
    """Whether the sign of a score says if the unit raises or lowers the target's score."""

    @abstractmethod
    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        """A fold for a sample.

        Args:
            base: The scores of the unperturbed sample.
            visible: Which units can influence which target; None if all can. The scores of others are never read.
        """


@final
@dataclass(frozen=True)
class Differences(MaskAggregator):
    """f(x) - f(row), averaged over the rows that mask a unit, weighted by how much of it they mask; or summed.

    Units that no row masks get 0.
    """

    summed: bool = False

    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        return _DifferencesFold(base.double(), self.summed)


@final
@dataclass(eq=False)
class _DifferencesFold(MaskFold):
    base: Float[Tensor, " t"]
    summed: bool
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, scores: Scores, hidden: Hidden) -> None:
        hidden = hidden.double()
        self.total = self.total + torch.einsum("pt,p...->t...", self.base - scores.double(), hidden)
        self.weight = self.weight + hidden.sum(0)

    def result(self) -> Estimate:
        weight = 1.0 if self.summed else self.weight.where(self.weight > 0, 1.0)
        return Estimate((self.total / weight).float())


@final
@dataclass(frozen=True)
class KeptMean(MaskAggregator):
    """The mean score of the rows that keep a unit, weighted by how much of it they keep; NaN if none does.

    Standard errors are those of a ratio of means.

    Args:
        centered: Whether the mean score of all rows is subtracted, so that units without influence get 0.
    """

    centered: bool = True

    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        return _KeptMeanFold(self.centered, base.double())


@final
@dataclass(eq=False)
class _KeptMeanFold(MaskFold):
    """Sums over rows of products of powers of the score f and of the kept share m, all that mean and error need."""

    centered: bool
    base: Float[Tensor, " t"]
    rows: int = 0
    sums: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        # Scores relative to the unperturbed sample: the sums of squares below would lose digits to a large offset.
        f, m = (scores.double() - self.base).float(), 1 - hidden
        self.rows += len(f)
        powers = torch.stack([torch.ones_like(f), f, f.square()])
        shares = {1: m, 2: m.square()}
        products = {e: torch.einsum("dpt,p...->dt...", powers, share) for e, share in shares.items()}
        terms = {(d, e): product[d] for e, product in products.items() for d in range(3)}
        terms |= {(d, 0): powers[d].sum(0) for d in (1, 2)}
        self.sums = {power: self.sums.get(power, 0) + term.double() for power, term in terms.items()}

    def result(self) -> Estimate:
        sums, n = self.sums, self.rows
        kept = torch.where(sums[0, 1] > 0, sums[0, 1], torch.nan)
        mean = sums[1, 1] / kept
        per_target = (-1, *[1] * (mean.ndim - 1))
        overall, second = (sums[power, 0].reshape(per_target) / n for power in (1, 2))
        squares = (sums[2, 2] - 2 * mean * sums[1, 2] + mean.square() * sums[0, 2]) / kept.square()
        if not self.centered:
            absolute = mean + self.base.reshape(per_target)
            return Estimate(absolute.float(), squares.clamp(min=0).sqrt().float())
        # Every row also moves the mean that is subtracted.
        squares += (second - overall.square()) / n - 2 * (sums[2, 1] / kept - mean.square()) / n
        return Estimate((mean - overall).float(), squares.clamp(min=0).sqrt().float())


@final
@dataclass(frozen=True)
class SobolIndices(MaskAggregator):
    """First-order (Saltelli 2010) or total (Jansen 1999) indices from the rows of a `SobolDesign`.

    Standard errors are those of a ratio of means over base points taken as independent, which is more than the
    quasi-random sequence has.

    Args:
        order: "total" or "first".
    """

    order: str = "total"
    signed = False

    def __post_init__(self) -> None:
        check_choice("order", self.order, ("total", "first"))

    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        return _SobolFold(self.order)


@final
@dataclass(eq=False)
class _SobolFold(MaskFold):
    order: str
    scores: list[Tensor] = field(default_factory=list)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        self.cells = hidden.shape[1:]
        self.scores.append(scores.double())

    def result(self) -> Estimate:
        g = math.prod(self.cells)
        scores = torch.cat(self.scores)
        scores = scores.reshape(-1, g + 2, scores.shape[1])
        a, b, swapped = scores[:, :1], scores[:, 1:2], scores[:, 2:]
        both = scores[:, :2]
        spread = (both - both.mean((0, 1))).square().mean(1, keepdim=True)
        variance = spread.mean(0, keepdim=True).clamp(min=1e-300)
        terms = (a - swapped).square() / 2 if self.order == "total" else (b - b.mean(0)) * (swapped - a)
        index = terms.mean(0, keepdim=True) / variance
        errors = ((terms - index * spread) / variance).std(0) / len(scores) ** 0.5
        shape = (scores.shape[2], *self.cells)
        return Estimate(index[0].T.reshape(shape).float(), errors.T.reshape(shape).float())
