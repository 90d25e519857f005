"""Gradients along a path that each of them helps to find."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.driver import together
from interpreto.attributions.perturbations.guided_path import GuidedPath
from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained
from interpreto.attributions.recipes.differentiable import Differentiable, Finish, gradients_of, missing
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class Adaptive(Differentiable):
    """Gradients along a path that each of them helps to find, one path per target and baseline.

    Args:
        path: How features move.
        modality: What gradients are taken for.
        finish_with: From the input tensor's shape to units.
        baseline: Where paths start, as the user said it.
    """

    path: GuidedPath
    modality: TensorModality  # type: ignore[misc]
    finish_with: Finish
    baseline: Any = field(default=None, compare=False)

    @property
    def effort(self) -> str:
        """The number of steps."""
        return f"n_steps={self.path.n_steps}"

    @property
    def signed(self) -> bool:
        """As the reduction over channels says."""
        return self.finish_with.signed

    def rows(self, layout: Layout) -> int:
        return (self.path.n_steps + 1) * (len(self.baseline) if isinstance(self.baseline, list) else 1)

    def plan(self, case: Case) -> Plan[Explained]:
        raw = yield from self.raw(case)
        scores = self.finish(case, raw)
        gap = None
        if self.finish_with.sums:
            gap = yield from missing(case, self.modality, self._baselines(case), scores)
        return Explained(scores, None, gap)

    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        starts = self._baselines(case).to(case.device)
        ways = [(target, start) for target in range(len(case.targets)) for start in starts]
        found: list[Tensor] = []
        for begin in range(0, len(ways), case.block):
            plans = [self._one(case, target, start) for target, start in ways[begin : begin + case.block]]
            found += yield from together(plans)
        return torch.stack(found).unflatten(0, (len(case.targets), len(starts))).mean(1)

    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.finish_with(case, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        return {
            "baseline": self.modality.describe(self.baseline),
            "points": repr(self.path),
            "units": repr(self.finish_with),
        }

    def _baselines(self, case: Case) -> Float[Tensor, "b *s"]:
        return self.modality.baselines(case.sample, case.units, self.baseline, case.rng())

    def _one(self, case: Case, number: int, start: Float[Tensor, "*s"]) -> Plan[Float[Tensor, "*s"]]:
        target = case.targets.part(number, number + 1)
        end = self.modality.read(case.sample).to(start)
        reach = case.targets.reach
        # What comes behind a generated word has no gradient, and would go ahead of all that has.
        own = slice(None if reach is None else int(reach[number]))
        # Single precision would lose count of how much of the distance is left; some devices know no other.
        exact = torch.float32 if start.device.type == "mps" else torch.float64
        way = (end - start).to(exact)
        along, total, length = torch.zeros_like(way), torch.zeros_like(way), way.abs()
        for step in range(self.path.n_steps):
            here = (start + way * along).to(start)
            rows = self.modality.write(case.sample, case.units, here[None])
            answer = yield Ask(rows, target, self.modality.field)
            gradient = gradients_of(answer)[0, 0].to(way.device)
            moved = along.clone()
            moved[own] = self.path.advanced(along[own], length[own], gradient[own], step)
            total = total + way * (moved - along) * gradient
            along = moved
        return total.float()
