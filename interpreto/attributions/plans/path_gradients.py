"""Gradients at points, each times a direction, summed: gradients, products with the input, path integrals."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.gradients import Mean, Sampled, jackknife
from interpreto.attributions.perturbations.base import GradientInput, Layout, PathGenerator, Perturbator
from interpreto.attributions.plans.base import PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import (
    ScoreReducer,
    SmoothablePlan,
    compute_completeness_gap,
    finite_gradients,
)
from interpreto.model_wrapping.messages import ModelRequest, PlanRun, Targets
from interpreto.typing import UnitScores

_GRADIENT_BUDGET = 2**26
"""Numbers in the gradients of one request, at most (256 MB): many targets are divided among several."""


@final
@dataclass(frozen=True)
class PathGradientsPlan(SmoothablePlan):
    """Gradients at points, each times a direction, summed.

    Args:
        perturbator: Where the points are, and in which tensor.
        score_reducer: From the input tensor's shape to units.
        baseline: Where paths start, in the user's form.
        sampled: Whether points are random, so that there is a standard error.
        is_complete: Whether the method promises that all scores sum to f(x) - f(baseline).
        guided: Whether only positive gradients pass activations.
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
        """As the reduction over channels is."""
        return self.score_reducer.signed

    def n_evaluations(self, layout: Layout) -> int:
        baselines = len(self.baseline) if isinstance(self.baseline, list) else 1
        return self.perturbator.method.n_points(baselines) + (baselines if self.is_complete else 0)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        raw, errors = yield from self._integrate(prepared, self.sampled)
        scores = self.to_unit_scores(prepared, raw)
        gap = None
        if self.is_complete and self.score_reducer.preserves_sum:
            start = self.perturbator.method.starts(self.gradient_input.read(prepared.sample), self._baselines(prepared))
            gap = yield from compute_completeness_gap(prepared, self.gradient_input, start, scores)
        return UnitAttribution(scores, errors, gap)

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        raw, _ = yield from self._integrate(prepared, False)
        return raw

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.score_reducer(prepared, self.gradient_input, raw)

    def describe(self) -> dict[str, Any]:
        parts = {"points": repr(self.perturbator.method), "units": repr(self.score_reducer)}
        based = self.perturbator.method.from_baselines
        return {"baseline": self.gradient_input.describe(self.baseline), **parts} if based else parts

    def _baselines(self, prepared: PreparedSample) -> Float[Tensor, "b *s"]:
        return self.gradient_input.baselines(prepared.sample, prepared.units, self.baseline, prepared.rng())

    def _integrate(
        self, prepared: PreparedSample, errors: bool
    ) -> PlanRun[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        # Expensive paths, such as blurs, are computed on the model's device.
        tensor = self.gradient_input.read(prepared.sample).to(prepared.device)
        based = self.perturbator.method.from_baselines
        start = self._baselines(prepared).to(prepared.device) if based else tensor[None][:0]
        n_points = self.perturbator.method.n_points(len(start))
        rows = min(prepared.max_evaluations_per_request, n_points) * prepared.n_concurrent
        step = max(1, _GRADIENT_BUDGET // (rows * tensor.numel()))
        parts = [prepared.targets.part(begin, begin + step) for begin in range(0, len(prepared.targets), step)]
        raws, spreads = [], []
        for targets in parts:
            raw, spread = yield from self._some_targets(prepared, tensor, start, targets, errors)
            raws.append(raw)
            spreads.append(spread)
        return torch.cat(raws), torch.cat([s for s in spreads if s is not None]) if errors else None

    def _some_targets(
        self,
        prepared: PreparedSample,
        tensor: Float[Tensor, "*s"],
        start: Float[Tensor, "b *s"],
        targets: Targets,
        errors: bool,
    ) -> PlanRun[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        method, total = self.perturbator.method, torch.zeros(())
        fold = Sampled(Mean(), method.n_points(len(start)))
        for points in method.points(tensor, start, prepared.rng(), prepared.max_evaluations_per_request):
            rows = self.gradient_input.write(prepared.sample, prepared.units, points.tensors)
            response = yield ModelRequest(rows, targets, self.gradient_input.field, guided=self.guided)
            gradients = finite_gradients(response)
            weights, directions = points.weights.to(gradients), points.directions.to(gradients)
            if errors:
                scale = weights.reshape(-1, *[1] * (gradients.ndim - 1)) * fold.count
                fold.add(gradients * directions[:, None] * scale)
            elif len(directions) == 1:
                total = total.to(gradients) + torch.tensordot(weights, gradients, dims=1) * directions[0]
            else:
                total = total.to(gradients) + torch.einsum("p,pt...,p...->t...", weights, gradients, directions)
        if not errors:
            return total, None
        return fold.result(), jackknife([self.to_unit_scores(prepared, raw) for raw in fold.without_each()])
