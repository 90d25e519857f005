"""Weighted least squares on which units a row hides: LIME and KernelSHAP.

Both need their residuals in the end, so they keep the masks, one byte per unit and row: less than the normal matrix of
eight-byte numbers for as many units as a regression makes sense for.
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.attributions.aggregations.masks import Estimate, MaskAggregator, MaskFold
from interpreto.errors import OptionError, choices
from interpreto.typing import Hidden, Scores

KERNELS = ("euclidean", "hamming", "cosine")


@dataclass(eq=False)
class _Observed:
    """Masks and scores as they came in."""

    shape: tuple[int, ...] = ()
    masks: list[Bool[Tensor, "_p g"]] = field(default_factory=list)
    scores: list[Float[Tensor, "_p t"]] = field(default_factory=list)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        self.shape = tuple(hidden.shape[1:])
        self.masks.append(hidden.flatten(1) > 0.5)
        self.scores.append(scores.double())

    def all(self) -> tuple[Float[Tensor, "p g"], Float[Tensor, "p t"]]:
        """1 where a unit was kept, and the scores."""
        return 1 - torch.cat(self.masks).double(), torch.cat(self.scores)

    def estimate(self, scores: Tensor, errors: Tensor, empty: Tensor | None = None) -> Estimate:
        shape = (-1, *self.shape)
        return Estimate(
            scores.T.reshape(shape).float(),
            errors.T.reshape(shape).float(),
            None if empty is None else empty.float(),
        )


@final
@dataclass(frozen=True)
class LocalRegression(MaskAggregator):
    """Ridge regression of the score on the kept units, rows near the unchanged sample weighing more.

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
        if self.kernel not in KERNELS:
            raise OptionError(f"There is no kernel={self.kernel!r}: {choices(self.kernel, KERNELS)}")
        if self.ridge < 0:
            raise OptionError(f"ridge={self.ridge} must not be negative.")
        if self.width is not None and self.width <= 0:
            raise OptionError(f"kernel_width={self.width} must be positive.")

    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
        return _LocalFold(self, base.double())

    def weights(self, kept: Float[Tensor, "p g"]) -> Float[Tensor, " p"]:
        """How much each row counts."""
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
class _LocalFold(MaskFold):
    recipe: LocalRegression
    base: Float[Tensor, " t"]
    seen: _Observed = field(default_factory=_Observed)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        self.seen.add(scores, hidden)

    def result(self) -> Estimate:
        kept, scores = self.seen.all()
        # The unchanged sample was scored anyway; it is the row with the largest weight.
        kept, scores = torch.cat([torch.ones_like(kept[:1]), kept]), torch.cat([self.base[None], scores])
        weights = self.recipe.weights(kept)[:, None]
        x = kept - (weights * kept).sum(0) / weights.sum()
        y = scores - (weights * scores).sum(0) / weights.sum()
        g = x.shape[1]
        inverse = torch.linalg.pinv(
            x.T @ (weights * x) + self.recipe.ridge * torch.eye(g, dtype=x.dtype), hermitian=True
        )
        slopes = inverse @ (x.T @ (weights * y))
        lifted = (weights * x) @ inverse
        residuals = y - x @ slopes
        freedom = len(x) / max(len(x) - g - 1, 1)
        return self.seen.estimate(slopes, (freedom * (lifted.square().T @ residuals.square())).sqrt())


@final
@dataclass(frozen=True)
class ShapleyRegression(MaskAggregator):
    """KernelSHAP's regression with both ends as exact constraints, from the rows of `Coalitions`.

    All coalitions of size s weigh (g - 1) / (s (g - s)) together, however many of them were seen. Standard errors are
    those of the regression on pairs, without the sizes that were taken whole; 0 where all coalitions were.
    """

    def start(self, base: Float[Tensor, " t"]) -> MaskFold:
        return _ShapleyFold(base.double())


@final
@dataclass(eq=False)
class _ShapleyFold(MaskFold):
    base: Float[Tensor, " t"]
    seen: _Observed = field(default_factory=_Observed)

    def add(self, scores: Scores, hidden: Hidden) -> None:
        self.seen.add(scores, hidden)

    def result(self) -> Estimate:
        kept, scores = self.seen.all()
        empty, kept, scores = scores[0], kept[1:], scores[1:]
        g = kept.shape[1]
        gain = self.base - empty
        if g == 1:
            return self.seen.estimate(gain[None], torch.zeros_like(gain)[None], empty)
        sizes = kept.sum(1).long()
        counts = torch.bincount(sizes, minlength=g + 1)
        weights = ((g - 1) / (sizes * (g - sizes)) / counts[sizes])[:, None].double()
        equal = gain / g
        # Around equal shares the constraint says that what is left sums to zero: it lives in the space of `x`.
        x = kept - kept.mean(1, keepdim=True)
        y = scores - empty - kept.sum(1, keepdim=True) * equal
        normal = x.T @ (weights * x)
        # The one direction that `x` never takes gets the size of the others, so that rounding is not inverted there;
        # directions that too few samples left open stay at zero.
        normal += normal.trace() / g**2
        inverse = torch.linalg.pinv(normal, rtol=1e-9, hermitian=True)
        rest = inverse @ (x.T @ (weights * y))
        errors = self._errors((weights * x) @ inverse, y - x @ rest, sizes, counts)
        return self.seen.estimate(equal + rest, errors, empty)

    def _errors(
        self, lifted: Float[Tensor, "p g"], residuals: Float[Tensor, "p t"], sizes: Tensor, counts: Tensor
    ) -> Float[Tensor, "g t"]:
        pairs, g = len(lifted) // 2, lifted.shape[1]
        totals = torch.tensor([math.comb(g, s) for s in range(g + 1)], dtype=torch.float64)
        unseen = (1 - counts.double() / totals)[sizes[::2]].clamp(min=0)
        freedom = pairs / (pairs - g + 1) if pairs >= g else math.nan
        # Target by target: pairs x units x targets at once could be much.
        influences = ((lifted * residual[:, None]).unflatten(0, (-1, 2)).sum(1) for residual in residuals.T)
        variance = freedom * torch.stack([unseen @ influence.square() for influence in influences], dim=1)
        return variance.sqrt() if bool((unseen > 0).any()) else torch.zeros_like(variance)
