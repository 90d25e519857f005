"""Weighted sums of gradients times directions: plain gradients, input x gradient, path integrals."""

import math
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
)
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
        # A norm over channels or a mean over positions changes the sum, so that no gap can be reported.
        has_gap = self.is_complete and self.score_reducer.preserves_sum
        integral = yield from self._integrate(prepared, self._path_ends(prepared, has_gap), self.sampled)
        scores = self.to_unit_scores(prepared, integral.raw)
        gap = completeness_gap(prepared, integral.start_scores, scores) if has_gap else None
        return UnitAttribution(scores, integral.errors, gap)

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        integral = yield from self._integrate(prepared, self._path_ends(prepared, False), False)
        return integral.raw

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.score_reducer(prepared, self.gradient_input, raw)

    def describe(self) -> dict[str, Any]:
        parts = {"points": repr(self.perturbator.method), "units": repr(self.score_reducer)}
        has_baselines = self.perturbator.method.from_baselines
        return {"baseline": self.gradient_input.describe(self.baseline), **parts} if has_baselines else parts

    def _path_ends(self, prepared: PreparedSample, with_starts: bool) -> "_PathEnds":
        """The ends of all paths; no baselines for methods without, and no starts if they are not evaluated."""
        method = self.perturbator.method
        # Paths are computed on the model's device, because some (blurs) are expensive.
        tensor = self.gradient_input.read(prepared.sample).to(prepared.device)
        baselines = none = tensor[None][:0]
        if method.from_baselines:
            values = self.gradient_input.baselines(prepared.sample, prepared.units, self.baseline, prepared.rng())
            baselines = values.to(prepared.device)
        return _PathEnds(tensor, baselines, method.starts(tensor, baselines) if with_starts else none)

    def _integrate(self, prepared: PreparedSample, ends: "_PathEnds", errors: bool) -> PlanRun["_Integral"]:
        """The integral for all targets, with standard errors of units if `errors`."""
        n_points = self.perturbator.method.n_points(len(ends.baselines))
        rows = min(prepared.max_evaluations_per_request, n_points) * prepared.n_concurrent
        step = max(1, _GRADIENT_BUDGET // (rows * ends.tensor.numel()))
        parts = [prepared.targets.part(begin, begin + step) for begin in range(0, len(prepared.targets), step)]
        raws, start_scores, unit_errors = [], [], []
        for targets in parts:
            part = yield from self._integrate_part(prepared, ends, targets, errors)
            raws.append(part.raw)
            start_scores.append(part.start_scores)
            unit_errors += [] if part.errors is None else [part.errors]
        all_errors = torch.cat(unit_errors) if errors else None
        return _Integral(torch.cat(raws), torch.cat(start_scores, dim=1), all_errors)

    def _integrate_part(
        self, prepared: PreparedSample, ends: "_PathEnds", targets: Targets, errors: bool
    ) -> PlanRun["_Integral"]:
        """The integral for some of the targets."""
        method, total = self.perturbator.method, torch.zeros(())
        n_points, starts, start_scores = method.n_points(len(ends.baselines)), ends.starts, torch.zeros(0, len(targets))
        accumulator = SampleAccumulator(Mean(), n_points)
        size = _block_size(n_points, len(starts), prepared.max_evaluations_per_request)
        for points in method.points(ends.tensor, ends.baselines, prepared.rng(), size):
            tensors, count = points.tensors, len(points.tensors)
            if len(starts):
                # The starts share the first batch: a run of their own would take longer than their gradients do. They
                # come last, because the gradient of the first row is checked, and a start is often at a kink of ReLU.
                tensors = torch.cat([tensors, starts.to(tensors)])
            rows = self.gradient_input.write(prepared.sample, prepared.units, tensors)
            response = yield ModelRequest(rows, targets, self.gradient_input.field, guided=self.guided)
            if len(starts):
                starts, start_scores = starts[:0], response.scores[count:]
            gradients = finite_gradients(response.take(slice(count)))
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
            return _Integral(total, start_scores)
        unit_errors = jackknife([self.to_unit_scores(prepared, raw) for raw in accumulator.leave_one_out()])
        return _Integral(accumulator.result(), start_scores, unit_errors)


@dataclass(frozen=True, eq=False)
class _PathEnds:
    """Where paths start and end.

    Attributes:
        tensor: The input tensor.
        baselines: The baselines.
        starts: The points at which paths start and that are evaluated.
    """

    tensor: Float[Tensor, "*s"]
    baselines: Float[Tensor, "b *s"]
    starts: Float[Tensor, "_b *s"]


@dataclass(frozen=True, eq=False)
class _Integral:
    """Integrals of gradients along paths.

    Attributes:
        raw: The raw attribution.
        start_scores: The scores of the starts.
        errors: Standard errors of units, if requested.
    """

    raw: Float[Tensor, "t *s"]
    start_scores: Float[Tensor, "b t"]
    errors: UnitScores | None = None


def _block_size(n_points: int, n_starts: int, most: int) -> int:
    """The number of points per request: as few requests as possible, of nearly equal sizes, the first with the starts.

    Args:
        n_points: Number of points.
        n_starts: Number of starts.
        most: The largest number of rows per request.
    """
    total = n_points + n_starts
    n_blocks = math.ceil(total / most)
    # More starts than a request may have are a request that is split, whatever the number of points.
    room = most - n_starts if n_starts < most else most
    return min(math.ceil(total / n_blocks), room)
