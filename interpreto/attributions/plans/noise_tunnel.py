"""Any plan with a raw attribution, averaged over noisy copies of the input."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.gradients import Sampled, Statistic, jackknife
from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.perturbations.mask_generators.masks import blocks
from interpreto.attributions.perturbations.paths.points import noisy
from interpreto.attributions.plans.base import PlanNeeds, PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import ScoreReducer, SmoothablePlan
from interpreto.attributions.scheduler import join_plans
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class NoiseTunnelPlan(SmoothablePlan):
    """Averages the raw attribution of another plan over copies of the input with Gaussian noise.

    Args:
        base: What is smoothed.
        statistic: Mean, mean square or variance over the noisy copies.
        score_reducer: None reduces as the base plan does, and so do plans whose raw attribution has no embedding or
            channel axis.
        n_samples: Number of noisy copies.
        noise_level: Standard deviation as a share of the input's range.
    """

    base: SmoothablePlan
    statistic: Statistic
    score_reducer: ScoreReducer | None = None
    n_samples: int = 25
    noise_level: float = 0.15

    @property
    def gradient_input(self) -> GradientInput:
        """The base plan's."""
        return self.base.gradient_input

    @property
    def needs(self) -> PlanNeeds:
        """The base plan's; what it captures of the unperturbed sample gives the grid of its maps."""
        return self.base.needs

    @property
    def signed(self) -> bool:
        """As the base plan is, but for squares and variances."""
        return self.base.signed if self.score_reducer is None else self.score_reducer.signed

    @property
    def has_input_shape(self) -> bool:
        """As the base plan's."""
        return self.base.has_input_shape

    def check(self, sample: Sample, layout: Layout) -> None:
        self.base.check(sample, layout)

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples * self.base.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        fold = yield from self._fold(prepared)
        errors = None
        if self.n_samples > 1:
            errors = jackknife([self.to_unit_scores(prepared, raw) for raw in fold.without_each()])
        return UnitAttribution(self.to_unit_scores(prepared, fold.result()), errors)

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        fold = yield from self._fold(prepared)
        return fold.result()

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        own = self.score_reducer if self.has_input_shape else None
        return self.base.to_unit_scores(prepared, raw) if own is None else own(prepared, self.gradient_input, raw)

    def describe(self) -> dict[str, Any]:
        smoothing = f"{self.statistic!r} of {self.n_samples} samples with noise {self.noise_level}"
        own = {} if self.score_reducer is None else {"units": repr(self.score_reducer)}
        return {**self.base.describe(), **own, "smoothing": smoothing}

    def _fold(self, prepared: PreparedSample) -> PlanRun[Sampled]:
        tensor, rng = self.gradient_input.read(prepared.sample), prepared.rng()
        fold = Sampled(self.statistic, self.n_samples)
        for rows in blocks(self.n_samples, prepared.max_evaluations_per_request):
            tensors = noisy(tensor, rows, self.noise_level, rng)
            copies = self.gradient_input.write(prepared.sample, prepared.units, tensors)
            noisy_samples = [
                self._copy(prepared, copies.take(slice(row, row + 1)), fold.seen + row, rows) for row in range(rows)
            ]
            fold.add(torch.stack((yield from join_plans([self.base.raw_attribution(one) for one in noisy_samples]))))
        return fold

    def _copy(self, prepared: PreparedSample, rows: Rows, number: int, count: int) -> PreparedSample:
        """One noisy copy, with random numbers of its own and its share of a batch."""
        return replace(
            prepared,
            sample=replace(prepared.sample, rows=rows),
            unperturbed=replace(prepared.unperturbed, captured=None),
            seed=(prepared.seed * 1_000_003 + number + 1) % 2**63,
            max_evaluations_per_request=max(1, prepared.max_evaluations_per_request // count),
            n_concurrent=prepared.n_concurrent * count,
        )
