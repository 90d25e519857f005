"""Weighted least squares of scores on masks: LIME and KernelSHAP.

Standard errors need the residuals, so the masks of all rows are kept until the fit, with one byte per unit and row.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.aggregations.masks import Estimate, MaskAccumulator, MaskAggregator
from interpreto.errors import OptionError
from interpreto.typing import MaskedShare, Scores

Kernel = Literal["euclidean", "hamming", "cosine"]

_MIN_WEIGHT = 1e-6
"""Smallest sum of the weights of perturbed rows; the unperturbed row has the weight 1."""


def least_squares_operator(x: Float[Tensor, "p g"], ridge: float) -> Float[Tensor, "g p"]:
    """The matrix that maps observations to ridge or least-squares slopes, of minimum norm if x is rank-deficient.

    The smaller of x^T x and x x^T is inverted, so that many units with few rows cost no more than few units with many
    rows.
    """
    primal = x.shape[1] <= x.shape[0]
    normal = x.T @ x if primal else x @ x.T
    normal += ridge * torch.eye(len(normal), dtype=x.dtype)
    # Eigenvalues below the tolerance are rounding errors: directions in which x does not vary get slope 0.
    inverse = torch.linalg.pinv(normal, rtol=1e-9, hermitian=True)
    return inverse @ x.T if primal else x.T @ inverse


@dataclass(eq=False)
class _RegressionAccumulator(MaskAccumulator):
    """Keeps masks and scores, and fits a regression per target on the units that can influence it.

    Attributes:
        base: The scores of the unperturbed sample.
        can_influence: Which units can influence which target; None if all can.
        shape: The shape of the units.
        masks: The masks of each block, 1 = masked.
        scores: The scores of each block.
    """

    base: Float[Tensor, " t"]
    can_influence: Bool[Tensor, "t *g"] | None

    shape: tuple[int, ...] = ()
    masks: list[Bool[Tensor, "_p g"]] = field(default_factory=list)
    scores: list[Float[Tensor, "_p t"]] = field(default_factory=list)

    def add(self, scores: Scores, masked_share: MaskedShare) -> None:
        self.shape = tuple(masked_share.shape[1:])
        self.masks.append(masked_share.flatten(1) > 0.5)
        self.scores.append(scores.double())

    def result(self) -> Estimate:
        """Fit one regression for all targets with the same visible units, on these units only."""
        # Generated tokens see more units from target to target. Units that come later would only add noise.
        design, scores = 1 - torch.cat(self.masks).double(), torch.cat(self.scores)
        targets, g = scores.shape[1], design.shape[1]
        estimates, errors = torch.zeros(targets, g), torch.zeros(targets, g)
        can_influence = (
            torch.ones(targets, g, dtype=torch.bool) if self.can_influence is None else self.can_influence.flatten(1)
        )
        for units in can_influence.unique(dim=0):
            chosen = (can_influence == units).all(1)
            slopes, slope_errors = self.fit(design[:, units], scores[:, chosen], self.base[chosen])
            index = torch.meshgrid(chosen.nonzero()[:, 0], units.nonzero()[:, 0], indexing="ij")
            estimates[index], errors[index] = slopes.T.float(), slope_errors.T.float()
        shape = (targets, *self.shape)
        return Estimate(estimates.reshape(shape), errors.reshape(shape), self.fully_masked_scores(scores))

    def fully_masked_scores(self, scores: Float[Tensor, "p t"]) -> Float[Tensor, " t"] | None:
        """The scores of the fully masked sample, if the units sum to the difference from them; else None."""
        return None

    @abstractmethod
    def fit(
        self, design: Float[Tensor, "p g"], scores: Float[Tensor, "p t"], base: Float[Tensor, " t"]
    ) -> tuple[Float[Tensor, "g t"], Float[Tensor, "g t"]]:
        """Coefficients and their standard errors.

        Args:
            design: Rows of the design, 1 where a unit was kept.
            scores: Their scores.
            base: The scores of the unperturbed sample.
        """


def _first_occurrences(design: Float[Tensor, "p g"]) -> Int[Tensor, " q"]:
    """The indices of the rows that differ from all rows before them."""
    # Packed into bits, hundreds of units are compared as some tens of bytes.
    _, first = np.unique(np.packbits(design.bool().numpy(), axis=1), axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


@final
@dataclass(frozen=True)
class LocalRegression(MaskAggregator):
    """Ridge regression of the score on the kept units, with larger weights for rows near the unperturbed sample.

    Standard errors are heteroscedasticity-robust (HC1) and do not include the bias of the ridge penalty.

    Args:
        ridge: Penalty on the squared coefficients; 0 for none.
        kernel: The distance D in the weight exp(-D^2 / w^2): "euclidean" (square root of the number of masked
            units), "hamming" (the share of masked units) or "cosine" (1 - cosine with the full sample).
        width: The kernel width w; None takes 0.75 sqrt(g), 0.75 or 0.25 for the three distances.
    """

    ridge: float = 1.0
    kernel: Kernel = "euclidean"
    width: float | None = None

    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        return _LocalAccumulator(base.double(), can_influence, regression=self)

    def weights(self, design: Float[Tensor, "p g"]) -> Float[Tensor, " p"]:
        """The weight of each row."""
        g = design.shape[1]
        n_masked = g - design.sum(1)
        if self.kernel == "euclidean":
            distance, width = n_masked.sqrt(), 0.75 * g**0.5
        elif self.kernel == "hamming":
            distance, width = n_masked / g, 0.75
        else:
            distance, width = 1 - (design.sum(1) / g).sqrt(), 0.25
        return torch.exp(-((distance / (self.width or width)) ** 2))


@final
@dataclass(eq=False)
class _LocalAccumulator(_RegressionAccumulator):
    regression: LocalRegression = field(kw_only=True)

    def fit(self, design, scores, base):
        # The score of the unperturbed sample is known without another evaluation. It has the largest weight, 1.
        design, scores = torch.cat([torch.ones_like(design[:1]), design]), torch.cat([base[None], scores])
        weights = self.regression.weights(design)[:, None]
        if float(weights[1:].sum()) < _MIN_WEIGHT:
            raise OptionError(
                f"kernel_width={self.regression.width!r} is too small for {design.shape[1]} units and "
                f"kernel={self.regression.kernel!r}: no perturbed copy is near enough to the input to get a weight, "
                "so that all scores would be 0. Use a larger kernel_width, or None for the default."
            )
        # Subtracting the weighted means is the same as fitting an intercept that the ridge does not penalise.
        x = design - (weights * design).sum(0) / weights.sum()
        y = scores - (weights * scores).sum(0) / weights.sum()
        solver = least_squares_operator(weights.sqrt() * x, self.regression.ridge)
        slopes = solver @ (weights.sqrt() * y)
        residuals = weights.sqrt() * (y - x @ slopes)
        # HC1: n / (n - parameters), the slopes and the intercept.
        n_residual = len(x) - x.shape[1] - 1
        if n_residual < 1 and not self.regression.ridge:
            # A fit that passes through all points has no residuals, which says nothing about its error.
            return slopes, torch.full_like(slopes, math.nan)
        correction = len(x) / max(n_residual, 1)
        return slopes, (correction * (solver.square() @ residuals.square())).sqrt()


@final
@dataclass(frozen=True)
class ShapleyRegression(MaskAggregator):
    """KernelSHAP's regression, with the empty and the full coalition as exact constraints, on rows of `Coalitions`.

    All coalitions of size s have the total weight (g - 1) / (s (g - s)), however many of them were evaluated. Standard
    errors are those of the regression on complementary pairs. Sizes of which all coalitions were evaluated contribute
    nothing to them, so that they are 0 if this holds for all sizes.
    """

    def start(self, base: Float[Tensor, " t"], can_influence: Bool[Tensor, "t *g"] | None = None) -> MaskAccumulator:
        return _ShapleyAccumulator(base.double(), can_influence)


@final
@dataclass(eq=False)
class _ShapleyAccumulator(_RegressionAccumulator):
    def fully_masked_scores(self, scores):
        return scores[0].float()

    def fit(self, design, scores, base):
        fully_masked_scores, g = scores[0], design.shape[1]
        total_effect = base - fully_masked_scores
        if g == 1:
            return total_effect[None], torch.zeros_like(total_effect)[None]
        # Restricted to the visible units, different rows can become the same coalition, which counts once. Those that
        # became empty or full are the constraints.
        unique_rows = _first_occurrences(design)
        sizes = design[unique_rows].sum(1).long()
        unique_rows = unique_rows[(sizes > 0) & (sizes < g)]
        if not len(unique_rows):
            # No information to tell the units apart: equal shares, with an unknown error.
            return (total_effect / g).expand(g, -1), torch.full((g, len(total_effect)), math.nan)
        design, scores = design[unique_rows], scores[unique_rows]
        sizes = design.sum(1).long()
        counts = torch.bincount(sizes, minlength=g + 1)
        weights = ((g - 1) / (sizes * (g - sizes)) / counts[sizes])[:, None].double()
        equal_share = total_effect / g
        # Efficiency means that phi - total_effect / g sums to 0. Projecting x onto vectors that sum to 0 enforces it,
        # because the minimum-norm solution stays in the row space of x.
        x = design - design.mean(1, keepdim=True)
        y = scores - fully_masked_scores - design.sum(1, keepdim=True) * equal_share
        solver = least_squares_operator(weights.sqrt() * x, 0.0)
        deviation = solver @ (weights.sqrt() * y)
        residuals = weights.sqrt() * (y - x @ deviation)
        return equal_share + deviation, self._errors(solver, residuals, sizes, counts)

    def _errors(
        self, solver: Float[Tensor, "g p"], residuals: Float[Tensor, "p t"], sizes: Tensor, counts: Tensor
    ) -> Float[Tensor, "g t"]:
        """Standard errors from the residuals of complementary pairs, which are drawn together and are not independent.

        Args:
            solver: The matrix from observations to slopes.
            residuals: Weighted residuals, a pair in two adjacent rows.
            sizes: Number of kept units of every row.
            counts: Number of evaluated coalitions of every size.
        """
        g, pairs = len(solver), solver.shape[1] // 2
        s = torch.arange(g + 1, dtype=torch.float64)
        # Binomial coefficients overflow double precision from about a thousand units on, their logarithms do not.
        log_totals = math.lgamma(g + 1) - torch.lgamma(s + 1) - torch.lgamma(g - s + 1)
        # The finite-population correction: the share of all coalitions of this size that was not evaluated.
        unseen = (1 - (counts.double().log() - log_totals).exp())[sizes[::2]]
        # For sizes that were evaluated completely, only the rounding error of the logarithms is left.
        unseen = torch.where(unseen < 1e-9, 0.0, unseen)
        freedom = pairs / (pairs - g + 1) if pairs >= g else math.nan
        # One target at a time: a tensor of pairs x units x targets could exceed the memory.
        influences = ((solver * residual).unflatten(1, (-1, 2)).sum(2) for residual in residuals.T)
        variance = freedom * torch.stack([influence.square() @ unseen for influence in influences], dim=1)
        return variance.sqrt() if bool((unseen > 0).any()) else torch.zeros_like(variance)
