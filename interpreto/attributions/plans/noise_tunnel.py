"""Any differentiable recipe, averaged over noisy copies of the input."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.gradients import Sampled, Statistic, jackknife
from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.perturbations.mask_generators.masks import blocks
from interpreto.attributions.perturbations.paths.points import noisy
from interpreto.attributions.plans.base import PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import ScoreReducer, SmoothablePlan
from interpreto.attributions.scheduler import join_plans
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class NoiseTunnelPlan(SmoothablePlan):
    """Any recipe that has a raw attribution, under Gaussian noise on its input.

    Args:
        base: What is smoothed.
        statistic: Mean, mean square or variance over the noisy copies.
        score_reducer: None finishes as the inner recipe does, and so do recipes whose raw attribution has no embedding
            or channel axis.
        n_samples: Number of noisy copies.
        noise_level: Standard deviation as a share of the input's range.
    """

    base: SmoothablePlan
    statistic: Statistic
    score_reducer: ScoreReducer | None = None
    n_samples: int = 25
    noise_level: float = 0.15

    @property
    def modality(self) -> GradientInput:  # type: ignore[override]
        """What gradients are taken for."""
        return self.base.modality

    @property
    def capture(self) -> CaptureRequest | None:
        """What the unchanged sample is watched for: it tells the grid on which copies will be seen."""
        return self.base.capture

    @property
    def signed(self) -> bool:
        """As what is smoothed, but for squares and variances."""
        return self.base.signed if self.score_reducer is None else self.score_reducer.signed

    @property
    def cost_independent_of_units(self) -> bool:
        """Whether every unit comes for free."""
        return self.base.cost_independent_of_units

    @property
    def has_input_shape(self) -> bool:
        """Whether what is averaged has the shape of the input tensor."""
        return self.base.has_input_shape

    @property
    def default_granularity(self) -> UnitSegmenter | None:
        """What gets a score where the user does not say."""
        return self.base.default_granularity

    @property
    def single_sample_option(self) -> str:
        """Which option belongs to one sample."""
        return self.base.single_sample_option

    def check(self, sample: Sample, layout: Layout) -> None:
        self.base.check(sample, layout)

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples * self.base.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        fold = yield from self._fold(prepared)
        errors = (
            jackknife([self.to_unit_scores(prepared, raw) for raw in fold.without_each()])
            if self.n_samples > 1
            else None
        )
        return UnitAttribution(self.to_unit_scores(prepared, fold.result()), errors)

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        fold = yield from self._fold(prepared)
        return fold.result()

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        own = self.score_reducer if self.has_input_shape else None
        return self.base.to_unit_scores(prepared, raw) if own is None else own(prepared, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        smoothing = f"{self.statistic!r} of {self.n_samples} samples with noise {self.noise_level}"
        own = {} if self.score_reducer is None else {"units": repr(self.score_reducer)}
        return {**self.base.describe(), **own, "smoothing": smoothing}

    def _fold(self, prepared: PreparedSample) -> PlanRun[Sampled]:
        tensor, rng = self.modality.read(prepared.sample), prepared.rng()
        fold = Sampled(self.statistic, self.n_samples)
        for rows in blocks(self.n_samples, prepared.max_evaluations_per_request):
            copies = self.modality.write(prepared.sample, prepared.units, noisy(tensor, rows, self.noise_level, rng))
            cases = [
                self._copy(prepared, copies.take(slice(row, row + 1)), fold.seen + row, rows) for row in range(rows)
            ]
            fold.add(torch.stack((yield from join_plans([self.base.raw_attribution(one) for one in cases]))))
        return fold

    def _copy(self, prepared: PreparedSample, rows: Rows, number: int, crowd: int) -> PreparedSample:
        """The case of one noisy copy, with random numbers of its own and its share of a batch."""
        return replace(
            prepared,
            sample=replace(prepared.sample, rows=rows),
            captured=None,
            seed=(prepared.seed * 1_000_003 + number + 1) % 2**63,
            max_evaluations_per_request=max(1, prepared.max_evaluations_per_request // crowd),
            n_concurrent=prepared.n_concurrent * crowd,
        )
