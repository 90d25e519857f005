"""Path integrals along a path whose next step depends on the gradient at the current point."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.perturbations.paths.guided_path import GuidedPath
from interpreto.attributions.plans.base import PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import (
    ScoreReducer,
    SmoothablePlan,
    completeness_gap,
    finite_gradients,
    scores_of_starts,
)
from interpreto.attributions.scheduler import join_plans, join_two
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class AdaptivePathPlan(SmoothablePlan):
    """Path integrals along adaptive paths, one path per target and baseline.

    Args:
        path: The rule by which features move.
        modality: The tensor that gradients are taken for.
        score_reducer: Reduces attributions of the input tensor to scores of units.
        baseline: The option `baseline`, the start of the paths.
    """

    path: GuidedPath
    modality: GradientInput
    score_reducer: ScoreReducer
    baseline: Any = field(default=None, compare=False)

    @property
    def gradient_input(self) -> GradientInput:
        """The modality's tensor."""
        return self.modality

    @property
    def accuracy_option(self) -> str:
        """The number of steps."""
        return f"n_steps={self.path.n_steps}"

    @property
    def signed(self) -> bool:
        """Signed if the reduction over the embedding or channel axis is."""
        return self.score_reducer.signed

    def n_evaluations(self, layout: Layout) -> int:
        # One more per baseline for its score, which the completeness gap needs.
        return (self.path.n_steps + 1) * len(self.modality.listed(self.baseline))

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        baselines = self._baselines(prepared)
        integral = self._integrate_paths(prepared, baselines)
        if not self.score_reducer.preserves_sum:
            raw = yield from integral
            return UnitAttribution(self.to_unit_scores(prepared, raw))
        start_scores, raw = yield from join_two(scores_of_starts(prepared, self.modality, baselines), integral)
        scores = self.to_unit_scores(prepared, raw)
        return UnitAttribution(scores, None, completeness_gap(prepared, start_scores, scores))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t *s"]]:
        return self._integrate_paths(prepared, self._baselines(prepared))

    def _integrate_paths(
        self, prepared: PreparedSample, baselines: Float[Tensor, "b *s"]
    ) -> PlanRun[Float[Tensor, "t *s"]]:
        """The mean over baselines of the path integrals of every target."""
        starts = baselines.to(prepared.device)
        paths = [(target, start) for target in range(len(prepared.targets)) for start in starts]
        attributions: list[Tensor] = []
        size = prepared.max_evaluations_per_request
        # Each path has a sequence of single rows; running paths jointly fills batches with them.
        for begin in range(0, len(paths), size):
            plans = [self._integrate(prepared, target, start) for target, start in paths[begin : begin + size]]
            attributions += yield from join_plans(plans)
        return torch.stack(attributions).unflatten(0, (len(prepared.targets), len(starts))).mean(1)

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.score_reducer(prepared, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        return {
            "baseline": self.modality.describe(self.baseline),
            "points": repr(self.path),
            "units": repr(self.score_reducer),
        }

    def _baselines(self, prepared: PreparedSample) -> Float[Tensor, "b *s"]:
        return self.modality.baselines(prepared.sample, prepared.units, self.baseline, prepared.rng())

    def _integrate(
        self, prepared: PreparedSample, number: int, start: Float[Tensor, "*s"]
    ) -> PlanRun[Float[Tensor, "*s"]]:
        """The path integral of one target from one baseline."""
        target = prepared.targets.part(number, number + 1)
        end = self.modality.read(prepared.sample).to(start)
        limit = prepared.causal_limit
        # Tokens after the target cannot influence it. Their gradients are 0, so they would move before all others.
        moving = slice(None if limit is None else int(limit[number]))
        # In float32 the remaining distance would drift over many steps; MPS has no float64.
        exact = torch.float32 if start.device.type == "mps" else torch.float64
        difference = (end - start).to(exact)
        along, total, length = torch.zeros_like(difference), torch.zeros_like(difference), difference.abs()
        for step in range(self.path.n_steps):
            point = (start + difference * along).to(start)
            rows = self.modality.write(prepared.sample, prepared.units, point[None])
            response = yield ModelRequest(rows, target, self.modality.field)
            gradient = finite_gradients(response)[0, 0].to(difference.device)
            advanced = along.clone()
            advanced[moving] = self.path.advanced(along[moving], length[moving], gradient[moving], step)
            # A left Riemann sum, since the gradient at the current point decides on the next one.
            total = total + difference * (advanced - along) * gradient
            along = advanced
        return total.float()
