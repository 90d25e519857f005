"""From scores of rows with hidden parts to scores of units."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import OptionError, choices
from interpreto.typing import Hidden, Scores, UnitScores


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method found for one sample.

    Attributes:
        scores: Per target and unit (or cell of the method's own grid).
        standard_errors: Of the scores; None where nothing was sampled.
        empty: The score with everything hidden, where the method promises that the units sum up to the difference.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    empty: Float[Tensor, " t"] | None = None


class MaskFold(ABC):
    """Takes in rows block by block and says at the end what they mean."""

    @abstractmethod
    def add(self, scores: Scores, hidden: Hidden) -> None:
        """Take in scores of rows and what each of them hid."""

    @abstractmethod
    def result(self) -> Estimate:
        """What all rows together say."""


class MaskAggregator(ABC):
    """A recipe for folds, one per sample."""

    @abstractmethod
    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
        """A fold for a sample with these scores when nothing is hidden."""


@final
@dataclass(frozen=True)
class Differences(MaskAggregator):
    """f(x) - f(row), averaged over the rows that hide a unit, weighted by how much of it they hide."""

    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
        return _DifferencesFold(base.double())


@final
@dataclass(eq=False)
class _DifferencesFold(MaskFold):
    base: Float[Tensor, " t"]
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, scores: Scores, hidden: Hidden) -> None:
        hidden = hidden.double()
        self.total = self.total + torch.tensordot(self.base - scores.double(), hidden, dims=([0], [0]))
        self.weight = self.weight + hidden.sum(0)

    def result(self) -> Estimate:
        return Estimate((self.total / self.weight).float())


@final
@dataclass(frozen=True)
class KeptMean(MaskAggregator):
    """The mean score of the rows that keep a unit, weighted by how much of it they keep.

    Standard errors are those of a ratio of means.

    Args:
        centered: Whether the mean score of all rows is subtracted, so that units without influence get 0.
    """

    centered: bool = True

    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
        return _KeptMeanFold(self.centered, base.double())


@final
@dataclass(eq=False)
class _KeptMeanFold(MaskFold):
    centered: bool
    base: Float[Tensor, " t"]
    rows: int = 0
    plain: Tensor = field(default_factory=lambda: torch.zeros(()))
    kept: Tensor = field(default_factory=lambda: torch.zeros(()))
    squared: Tensor = field(default_factory=lambda: torch.zeros(()))
    scored: tuple[Tensor, Tensor, Tensor] = field(default_factory=lambda: (torch.zeros(()),) * 3)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        # Scores relative to the unchanged sample: the sums of squares below would lose digits to a large offset.
        scores, kept = scores.double() - self.base, 1 - hidden.double()
        self.rows += len(scores)
        self.plain = self.plain + scores.sum(0)
        self.kept = self.kept + kept.sum(0)
        self.squared = self.squared + kept.square().sum(0)
        terms = (scores, kept), (scores, kept.square()), (scores.square(), kept.square())
        sums = (torch.tensordot(score, share, dims=([0], [0])) for score, share in terms)
        first, second, third = (old + new for old, new in zip(self.scored, sums, strict=True))
        self.scored = first, second, third

    def result(self) -> Estimate:
        kept = self.kept.clamp(min=1e-12)
        mean = self.scored[0] / kept
        spread = self.scored[2] - 2 * mean * self.scored[1] + mean.square() * self.squared
        errors = spread.clamp(min=0).sqrt() / kept
        # Without the mean the fold's own offset would stay in the scores.
        offset = -self.plain / self.rows if self.centered else self.base
        return Estimate((mean + offset.reshape(-1, *[1] * (mean.ndim - 1))).float(), errors.float())


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

    def __post_init__(self) -> None:
        if self.order not in ("total", "first"):
            raise OptionError(f"There is no order={self.order!r}: {choices(self.order, ('total', 'first'))}")

    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
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
        g = int(torch.tensor(self.cells).prod())
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
