"""The noise tunnel: averages the raw attribution of another plan over noisy copies of the input."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.gradients import SampleAccumulator, Statistic, jackknife
from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.perturbations.mask_generators.masks import blocks
from interpreto.attributions.perturbations.paths.points import noisy_copies
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
        base: The plan that is smoothed.
        statistic: Mean, mean square or variance over the noisy copies.
        score_reducer: Reduces the statistic to scores of units. None uses the base plan's reduction, which is also used
            if the raw attribution has no embedding or channel axis.
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
        """The gradient input of the base plan."""
        return self.base.gradient_input

    @property
    def needs(self) -> PlanNeeds:
        """As for the base plan; the internals captured of the unperturbed sample give the grid of its maps."""
        return self.base.needs

    @property
    def signed(self) -> bool:
        """Whether statistic and reduction keep signs."""
        reduces_signed = self.base.signed if self.score_reducer is None else self.score_reducer.signed
        return self.statistic.signed and reduces_signed

    @property
    def rectifies(self) -> bool:
        """As for the base plan."""
        return self.base.rectifies

    @property
    def has_input_shape(self) -> bool:
        """As for the base plan."""
        return self.base.has_input_shape

    def check(self, sample: Sample, layout: Layout) -> None:
        self.base.check(sample, layout)

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples * self.base.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        accumulator = yield from self._accumulate(prepared)
        errors = None
        # The jackknife leaves one group out. It includes the reduction to units, which need not be linear.
        if self.n_samples > self.statistic.min_samples:
            errors = jackknife([self.to_unit_scores(prepared, raw) for raw in accumulator.leave_one_out()])
        return UnitAttribution(self.to_unit_scores(prepared, accumulator.result()), errors)

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        accumulator = yield from self._accumulate(prepared)
        return accumulator.result()

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        reducer = self.score_reducer if self.has_input_shape else None
        return (
            self.base.to_unit_scores(prepared, raw) if reducer is None else reducer(prepared, self.gradient_input, raw)
        )

    def describe(self) -> dict[str, Any]:
        smoothing = f"{self.statistic!r} of {self.n_samples} samples with noise {self.noise_level}"
        reduction = {} if self.score_reducer is None else {"units": repr(self.score_reducer)}
        return {**self.base.describe(), **reduction, "smoothing": smoothing}

    def _accumulate(self, prepared: PreparedSample) -> PlanRun[SampleAccumulator]:
        """Accumulate the raw attributions of all noisy copies; those of one block run together, to fill batches."""
        tensor, rng = self.gradient_input.read(prepared.sample), prepared.rng()
        accumulator = SampleAccumulator(self.statistic, self.n_samples)
        for rows in blocks(self.n_samples, prepared.max_evaluations_per_request):
            tensors = noisy_copies(tensor, rows, self.noise_level, rng)
            copies = self.gradient_input.write(prepared.sample, prepared.units, tensors)
            noisy_samples = [
                self._copy(prepared, copies.take(slice(row, row + 1)), accumulator.seen + row, rows)
                for row in range(rows)
            ]
            accumulator.add(
                torch.stack((yield from join_plans([self.base.raw_attribution(copy) for copy in noisy_samples])))
            )
        return accumulator

    def _copy(self, prepared: PreparedSample, rows: Rows, number: int, count: int) -> PreparedSample:
        """One noisy copy as a prepared sample.

        Args:
            prepared: The sample.
            rows: The model input of the copy.
            number: Its number among all copies.
            count: The number of copies that run at the same time.
        """
        return replace(
            prepared,
            sample=replace(prepared.sample, rows=rows),
            # Internals of the unperturbed sample must not be used for the copy, which captures its own.
            captured=None,
            # Base plans that sample, such as GradientShap, must draw different numbers for each copy.
            seed=(prepared.seed * 1_000_003 + number + 1) % 2**63,
            max_evaluations_per_request=max(1, prepared.max_evaluations_per_request // count),
            n_concurrent=prepared.n_concurrent * count,
        )
