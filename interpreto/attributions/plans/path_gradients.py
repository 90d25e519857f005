"""Weighted sums of gradients times directions: plain gradients, input x gradient, path integrals."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.gradients import Mean, SampleAccumulator, jackknife
from interpreto.attributions.perturbations.base import GradientInput, Layout, PathGenerator, Perturbator
from interpreto.attributions.plans.base import PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import (
    ScoreReducer,
    SmoothablePlan,
    completeness_gap,
    finite_gradients,
    scores_of_starts,
)
from interpreto.attributions.scheduler import join_two
from interpreto.model_wrapping.messages import ModelRequest, PlanRun, Targets
from interpreto.typing import UnitScores

_GRADIENT_BUDGET = 2**26
"""Largest number of float32 values in the gradients of one request (256 MB); more targets need several requests."""


@final
@dataclass(frozen=True)
class PathGradientsPlan(SmoothablePlan):
    """The sum over points of weight x direction x gradient.

    Args:
        perturbator: Generates the points, and names the tensor that gradients are taken for.
        score_reducer: Reduces attributions of the input tensor to scores of units.
        baseline: The option `baseline`, the start of paths.
        sampled: Whether points are random, so that standard errors are computed.
        is_complete: Whether the method promises that all scores sum to f(x) - f(baseline).
        guided: Whether only positive gradients pass through activation functions (guided backpropagation).
    """

    perturbator: Perturbator[PathGenerator, GradientInput]
    score_reducer: ScoreReducer
    baseline: Any = field(default=None, compare=False)
    sampled: bool = False
    is_complete: bool = False
    guided: bool = False

    @property
    def gradient_input(self) -> GradientInput:
        """The tensor of the perturbator's modality."""
        return self.perturbator.modality

    @property
    def accuracy_option(self) -> str:
        """The number of points."""
        return self.perturbator.method.accuracy_option

    @property
    def signed(self) -> bool:
        """Signed if the reduction over the embedding or channel axis is."""
        return self.score_reducer.signed

    def n_evaluations(self, layout: Layout) -> int:
        # The completeness gap takes one evaluation per baseline.
        baselines = len(self.gradient_input.listed(self.baseline))
        return self.perturbator.method.n_points(baselines) + (baselines if self.is_complete else 0)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        tensor, baselines = self._ends(prepared)
        integral = self._integrate(prepared, tensor, baselines, self.sampled)
        # A norm over channels or a mean over positions changes the sum, so that no gap can be reported.
        if not (self.is_complete and self.score_reducer.preserves_sum):
            raw, errors = yield from integral
            return UnitAttribution(self.to_unit_scores(prepared, raw), errors)
        starts = self.perturbator.method.starts(tensor, baselines)
        start_scores, (raw, errors) = yield from join_two(
            scores_of_starts(prepared, self.gradient_input, starts), integral
        )
        scores = self.to_unit_scores(prepared, raw)
        return UnitAttribution(scores, errors, completeness_gap(prepared, start_scores, scores))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        raw, _ = yield from self._integrate(prepared, *self._ends(prepared), False)
        return raw

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.score_reducer(prepared, self.gradient_input, raw)

    def describe(self) -> dict[str, Any]:
        parts = {"points": repr(self.perturbator.method), "units": repr(self.score_reducer)}
        has_baselines = self.perturbator.method.from_baselines
        return {"baseline": self.gradient_input.describe(self.baseline), **parts} if has_baselines else parts

    def _ends(self, prepared: PreparedSample) -> tuple[Float[Tensor, "*s"], Float[Tensor, "b *s"]]:
        """The input tensor and its baselines; no baselines for methods without."""
        tensor = self.gradient_input.read(prepared.sample)
        if not self.perturbator.method.from_baselines:
            return tensor, tensor[None][:0]
        return tensor, self.gradient_input.baselines(prepared.sample, prepared.units, self.baseline, prepared.rng())

    def _integrate(
        self, prepared: PreparedSample, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], errors: bool
    ) -> PlanRun[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        """The raw attribution of all targets, and standard errors of units if `errors`."""
        # Paths are computed on the model's device, because some (blurs) are expensive.
        tensor, start = tensor.to(prepared.device), baselines.to(prepared.device)
        n_points = self.perturbator.method.n_points(len(start))
        rows = min(prepared.max_evaluations_per_request, n_points) * prepared.n_concurrent
        step = max(1, _GRADIENT_BUDGET // (rows * tensor.numel()))
        parts = [prepared.targets.part(begin, begin + step) for begin in range(0, len(prepared.targets), step)]
        raws, unit_errors = [], []
        for targets in parts:
            raw, part_errors = yield from self._integrate_part(prepared, tensor, start, targets, errors)
            raws.append(raw)
            unit_errors.append(part_errors)
        return torch.cat(raws), torch.cat([part for part in unit_errors if part is not None]) if errors else None

    def _integrate_part(
        self,
        prepared: PreparedSample,
        tensor: Float[Tensor, "*s"],
        start: Float[Tensor, "b *s"],
        targets: Targets,
        errors: bool,
    ) -> PlanRun[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        """The raw attribution, and standard errors of units if `errors`, for some of the targets."""
        method, total = self.perturbator.method, torch.zeros(())
        accumulator = SampleAccumulator(Mean(), method.n_points(len(start)))
        for points in method.points(tensor, start, prepared.rng(), prepared.max_evaluations_per_request):
            rows = self.gradient_input.write(prepared.sample, prepared.units, points.tensors)
            response = yield ModelRequest(rows, targets, self.gradient_input.field, guided=self.guided)
            gradients = finite_gradients(response)
            weights, directions = points.weights.to(gradients), points.directions.to(gradients)
            if errors:
                # The accumulator computes a mean, so weights are scaled to 1 on average.
                scale = weights.reshape(-1, *[1] * (gradients.ndim - 1)) * accumulator.count
                accumulator.add(gradients * directions[:, None] * scale)
            elif len(directions) == 1:
                # One direction for all points is multiplied once, after the sum over points.
                total = total.to(gradients) + torch.tensordot(weights, gradients, dims=1) * directions[0]
            else:
                total = total.to(gradients) + torch.einsum("p,pt...,p...->t...", weights, gradients, directions)
        if not errors:
            return total, None
        return accumulator.result(), jackknife(
            [self.to_unit_scores(prepared, raw) for raw in accumulator.leave_one_out()]
        )
