"""Weighted least squares on which units a row masks: LIME and KernelSHAP.

Both need their residuals in the end, so they keep the masks, one byte per unit and row: less than the normal matrix of
eight-byte numbers for as many units as a regression makes sense for.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.aggregations.masks import Estimate, MaskAggregator, MaskFold
from interpreto.option_kinds import check_choice
from interpreto.typing import Hidden, Scores

KERNELS = ("euclidean", "hamming", "cosine")


def solution(x: Float[Tensor, "p g"], ridge: float) -> Float[Tensor, "g p"]:
    """The matrix from observations to least-squares slopes, those of minimum norm if x does not determine them.

    The smaller of the two normal matrices is inverted, so that many units and few rows cost no more than few units and
    many rows.
    """
    primal = x.shape[1] <= x.shape[0]
    normal = x.T @ x if primal else x @ x.T
    normal += ridge * torch.eye(len(normal), dtype=x.dtype)
    # Far above rounding and far below what any design leaves: directions that x never takes stay at zero.
    inverse = torch.linalg.pinv(normal, rtol=1e-9, hermitian=True)
    return inverse @ x.T if primal else x.T @ inverse


@dataclass(eq=False)
class _Observed(MaskFold):
    """Masks and scores as they were added, and the regression on the units that can influence each target.

    Attributes:
        base: The scores of the unperturbed sample.
        visible: Which units can influence which target; None if all can.
    """

    base: Float[Tensor, " t"]
    visible: Bool[Tensor, "t *g"] | None

    shape: tuple[int, ...] = ()
    masks: list[Bool[Tensor, "_p g"]] = field(default_factory=list)
    scores: list[Float[Tensor, "_p t"]] = field(default_factory=list)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        self.shape = tuple(hidden.shape[1:])
        self.masks.append(hidden.flatten(1) > 0.5)
        self.scores.append(scores.double())

    def result(self) -> Estimate:
        """A regression for all targets that the same units can influence, on these units alone."""
        kept, scores = 1 - torch.cat(self.masks).double(), torch.cat(self.scores)
        targets, g = scores.shape[1], kept.shape[1]
        found, errors = torch.zeros(targets, g), torch.zeros(targets, g)
        seen = torch.ones(targets, g, dtype=torch.bool) if self.visible is None else self.visible.flatten(1)
        for units in seen.unique(dim=0):
            those = (seen == units).all(1)
            slopes, spread = self.fit(kept[:, units], scores[:, those], self.base[those])
            place = torch.meshgrid(those.nonzero()[:, 0], units.nonzero()[:, 0], indexing="ij")
            found[place], errors[place] = slopes.T.float(), spread.T.float()
        shape = (targets, *self.shape)
        return Estimate(found.reshape(shape), errors.reshape(shape), self.empty(scores))

    def empty(self, scores: Float[Tensor, "p t"]) -> Float[Tensor, " t"] | None:
        """The scores of the fully masked sample, if the sum is promised relative to them."""
        return None

    @abstractmethod
    def fit(
        self, kept: Float[Tensor, "p g"], scores: Float[Tensor, "p t"], base: Float[Tensor, " t"]
    ) -> tuple[Float[Tensor, "g t"], Float[Tensor, "g t"]]:
        """Coefficients and their standard errors from rows, 1 where a unit was kept, and their scores."""


def _firsts(kept: Float[Tensor, "p g"]) -> Int[Tensor, " q"]:
    """The rows that differ from all rows before them."""
    _, first = np.unique(np.packbits(kept.bool().numpy(), axis=1), axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


@final
@dataclass(frozen=True)
class LocalRegression(MaskAggregator):
    """Ridge regression of the score on the kept units, with larger weights for rows near the unperturbed sample.

    Standard errors are robust ones (HC1), with the ridge taken as it is.

    Args:
        ridge: Penalty on the squared coefficients; 0 for none.
        kernel: The distance D in the weight exp(-D^2 / w^2): "euclidean" (square root of the number of hidden
            units), "hamming" (their share) or "cosine" (1 - cosine with the full sample).
        width: w; None takes 0.75 sqrt(g), 0.75 and 0.25.
    """

    ridge: float = 1.0
    kernel: str = "euclidean"
    width: float | None = None

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, KERNELS)

    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        return _LocalFold(base.double(), visible, recipe=self)

    def weights(self, kept: Float[Tensor, "p g"]) -> Float[Tensor, " p"]:
        """The weight of each row."""
        g = kept.shape[1]
        hidden = g - kept.sum(1)
        if self.kernel == "euclidean":
            distance, width = hidden.sqrt(), 0.75 * g**0.5
        elif self.kernel == "hamming":
            distance, width = hidden / g, 0.75
        else:
            distance, width = 1 - (kept.sum(1) / g).sqrt(), 0.25
        return torch.exp(-((distance / (self.width or width)) ** 2))


@final
@dataclass(eq=False)
class _LocalFold(_Observed):
    recipe: LocalRegression = field(kw_only=True)

    def fit(self, kept, scores, base):
        # The unperturbed sample has a score already, and is the row with the largest weight.
        kept, scores = torch.cat([torch.ones_like(kept[:1]), kept]), torch.cat([base[None], scores])
        weights = self.recipe.weights(kept)[:, None]
        x = kept - (weights * kept).sum(0) / weights.sum()
        y = scores - (weights * scores).sum(0) / weights.sum()
        solver = solution(weights.sqrt() * x, self.recipe.ridge)
        slopes = solver @ (weights.sqrt() * y)
        residuals = weights.sqrt() * (y - x @ slopes)
        freedom = len(x) / max(len(x) - x.shape[1] - 1, 1)
        return slopes, (freedom * (solver.square() @ residuals.square())).sqrt()


@final
@dataclass(frozen=True)
class ShapleyRegression(MaskAggregator):
    """KernelSHAP's regression with both ends as exact constraints, from the rows of `Coalitions`.

    All coalitions of size s weigh (g - 1) / (s (g - s)) together, however many of them were seen. Standard errors are
    those of the regression on pairs, without the sizes that were taken whole; 0 where all coalitions were.
    """

    def start(self, base: Float[Tensor, " t"], visible: Bool[Tensor, "t *g"] | None = None) -> MaskFold:
        return _ShapleyFold(base.double(), visible)


@final
@dataclass(eq=False)
class _ShapleyFold(_Observed):
    def empty(self, scores):
        return scores[0].float()

    def fit(self, kept, scores, base):
        empty, g = scores[0], kept.shape[1]
        gain = base - empty
        if g == 1:
            return gain[None], torch.zeros_like(gain)[None]
        # Rows that differ only in units without influence are one coalition, and add nothing at either end.
        once = _firsts(kept)
        sizes = kept[once].sum(1).long()
        once = once[(sizes > 0) & (sizes < g)]
        if not len(once):
            return (gain / g).expand(g, -1), torch.full((g, len(gain)), math.nan)
        kept, scores = kept[once], scores[once]
        sizes = kept.sum(1).long()
        counts = torch.bincount(sizes, minlength=g + 1)
        weights = ((g - 1) / (sizes * (g - sizes)) / counts[sizes])[:, None].double()
        equal = gain / g
        # Around equal shares the constraint says that what is left sums to zero: it lives in the space of `x`.
        x = kept - kept.mean(1, keepdim=True)
        y = scores - empty - kept.sum(1, keepdim=True) * equal
        solver = solution(weights.sqrt() * x, 0.0)
        rest = solver @ (weights.sqrt() * y)
        residuals = weights.sqrt() * (y - x @ rest)
        return equal + rest, self._errors(solver, residuals, sizes, counts)

    def _errors(
        self, solver: Float[Tensor, "g p"], residuals: Float[Tensor, "p t"], sizes: Tensor, counts: Tensor
    ) -> Float[Tensor, "g t"]:
        g, pairs = len(solver), solver.shape[1] // 2
        s = torch.arange(g + 1, dtype=torch.float64)
        log_totals = math.lgamma(g + 1) - torch.lgamma(s + 1) - torch.lgamma(g - s + 1)
        unseen = (1 - (counts.double().log() - log_totals).exp())[sizes[::2]]
        # What is left of sizes that were taken whole is the rounding of logarithms.
        unseen = torch.where(unseen < 1e-9, 0.0, unseen)
        freedom = pairs / (pairs - g + 1) if pairs >= g else math.nan
        # Target by target: pairs x units x targets at once could be much.
        influences = ((solver * residual).unflatten(1, (-1, 2)).sum(2) for residual in residuals.T)
        variance = freedom * torch.stack([influence.square() @ unseen for influence in influences], dim=1)
        return variance.sqrt() if bool((unseen > 0).any()) else torch.zeros_like(variance)
