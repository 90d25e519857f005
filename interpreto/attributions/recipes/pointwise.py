"""Gradients at points, each times a direction, summed up: gradients, products with the input, path integrals."""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.points import Mean, Sampled, jackknife
from interpreto.attributions.perturbations.seams import Layout, Perturbator, PointMethod, TensorModality
from interpreto.attributions.recipes.case import Case, Explained
from interpreto.attributions.recipes.differentiable import Differentiable, Finish, gradients_of, missing
from interpreto.model_wrapping.conversation import Ask, Plan, Targets
from interpreto.typing import UnitScores

_GRADIENT_BUDGET = 2**26
"""Numbers in the gradients of one ask, at most (256 MB): with many targets they are taken some at a time."""


@final
@dataclass(frozen=True)
class Pointwise(Differentiable):
    """Gradients at points, each times a direction, summed up.

    Args:
        perturbator: Where the points lie.
        finish_with: From the input tensor's shape to units.
        baseline: Where paths start, as the user said it.
        sampled: Whether points are random, so that there is a standard error.
        complete: Whether the sum of all scores is promised to be f(x) - f(baseline).
        guided: Whether only positive gradients pass activations.
    """

    perturbator: Perturbator[PointMethod, TensorModality]
    finish_with: Finish
    baseline: Any = field(default=None, compare=False)
    sampled: bool = False
    complete: bool = False
    guided: bool = False

    @property
    def modality(self) -> TensorModality:  # type: ignore[override]
        """What gradients are taken for."""
        return self.perturbator.modality

    @property
    def effort(self) -> str:
        """The number of points."""
        return self.perturbator.method.effort

    @property
    def signed(self) -> bool:
        """As the reduction over channels says."""
        return self.finish_with.signed

    def rows(self, layout: Layout) -> int:
        baselines = len(self.baseline) if isinstance(self.baseline, list) else 1
        return self.perturbator.method.count(baselines) + (baselines if self.complete else 0)

    def plan(self, case: Case) -> Plan[Explained]:
        raw, errors = yield from self._integrate(case, self.sampled)
        scores = self.finish(case, raw)
        gap = None
        if self.complete and self.finish_with.sums:
            start = self.perturbator.method.starts(self.modality.read(case.sample), self._baselines(case))
            gap = yield from missing(case, self.modality, start, scores)
        return Explained(scores, errors, gap)

    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        raw, _ = yield from self._integrate(case, False)
        return raw

    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.finish_with(case, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        parts = {"points": repr(self.perturbator.method), "units": repr(self.finish_with)}
        based = self.perturbator.method.from_baselines
        return {"baseline": self.modality.describe(self.baseline), **parts} if based else parts

    def _baselines(self, case: Case) -> Float[Tensor, "b *s"]:
        return self.modality.baselines(case.sample, case.units, self.baseline, case.rng())

    def _integrate(self, case: Case, errors: bool) -> Plan[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        # Where paths are dear to compute, as blurs are, the model's device does it.
        tensor = self.modality.read(case.sample).to(case.device)
        based = self.perturbator.method.from_baselines
        start = self._baselines(case).to(case.device) if based else tensor[None][:0]
        rows = min(case.block, self.perturbator.method.count(len(start))) * case.crowd
        step = max(1, _GRADIENT_BUDGET // (rows * tensor.numel()))
        parts = [case.targets.part(begin, begin + step) for begin in range(0, len(case.targets), step)]
        raws, spreads = [], []
        for targets in parts:
            raw, spread = yield from self._some_targets(case, tensor, start, targets, errors)
            raws.append(raw)
            spreads.append(spread)
        return torch.cat(raws), torch.cat([s for s in spreads if s is not None]) if errors else None

    def _some_targets(
        self, case: Case, tensor: Float[Tensor, "*s"], start: Float[Tensor, "b *s"], targets: Targets, errors: bool
    ) -> Plan[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        method, total = self.perturbator.method, torch.zeros(())
        fold = Sampled(Mean(), method.count(len(start)))
        for points in method.points(tensor, start, case.rng(), case.block):
            rows = self.modality.write(case.sample, case.units, points.tensors)
            answer = yield Ask(rows, targets, self.modality.field, guided=self.guided)
            gradients = gradients_of(answer)
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
        return fold.result(), jackknife([self.finish(case, raw) for raw in fold.without_each()])
