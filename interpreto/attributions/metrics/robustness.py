"""Robustness: how much attributions change under small changes of the sample."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, skip_failed_samples
from interpreto.attributions.metrics.perturbation_metric import check_method
from interpreto.attributions.metrics.replay import run_on_samples
from interpreto.attributions.plans.base import Evaluation, PreparedSample, UnitAttribution
from interpreto.attributions.result import AttributionOutput
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun
from interpreto.option_kinds import checks_options
from interpreto.typing import UnitScores


class MaxSensitivity:
    r"""The largest relative change of the attributions under small changes of the sample (Yeh et al. 2019, arXiv
    1901.09392).

    \[ \max_{\delta} \; \frac{\lVert \phi(x + \delta) - \phi(x) \rVert}{\lVert \phi(x) \rVert} \]

    over random \(\delta\), uniform in every entry of the model's input tensor (pixel values, token embeddings), within
    `radius` times the tensor's range. Positions that belong to no unit are not changed. Low is good. 0 if attributions
    never change, infinite if they are 0 for the sample but not for a changed one. The maximum grows with `n_samples`,
    so compare values with the same number.

    Args:
        method: The method that explained the outputs, on the same model.
        radius: The largest change of an entry, as a share of the tensor's range.
        n_samples: Number of changed samples that are explained.
    """

    needs: ClassVar[Needs] = Needs.METHOD
    higher_is_better: ClassVar[bool] = False

    @checks_options
    def __init__(self, method: Explainer, *, radius: float = 0.02, n_samples: int = 10) -> None:
        self.method, self.radius, self.n_samples = method, radius, n_samples

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: object = None) -> MetricResult:
        """Measure attributions of this method.

        Args:
            outputs: The outputs of the method.
            inputs: The samples, in the same order; None uses the raw inputs that the outputs keep.

        Raises:
            InputError: if outputs and method do not belong together.
        """
        outputs = check_method(outputs, self.method)
        plan = self.method.plan
        done = run_on_samples(
            self.method.setup,
            outputs,
            inputs,
            self._measure,
            lambda layout: self.n_samples * (1 + plan.n_evaluations(layout)),
        )
        values = [torch.tensor(item.result, dtype=torch.float64) for item in done]
        return MetricResult(type(self).__name__, values, False, n_evaluations=sum(item.n_evaluations for item in done))

    def _measure(self, prepared: PreparedSample, attributions: UnitScores) -> PlanRun[list[float]]:
        """The largest relative change of the attributions of each target."""
        # The input tensor of gradients exists for every method, also for those that need no gradients.
        modality = self.method.setup.gradient_input()
        rng, tensor = prepared.rng(), modality.read(prepared.sample)
        scale = self.radius * float(tensor.max() - tensor.min())
        worst = [0.0] * len(attributions)
        for _ in range(self.n_samples):
            noise = scale * (2 * torch.rand(tensor.shape, generator=rng) - 1)
            # `write` keeps the sample's values at positions that belong to no unit.
            rows = modality.write(prepared.sample, prepared.units, (tensor + noise.to(tensor))[None])
            request = ModelRequest(rows, prepared.targets, capture=self.method.plan.needs.capture)
            response: ModelResponse = yield request
            changed = replace(
                prepared,
                sample=replace(prepared.sample, rows=rows),
                evaluation=Evaluation(response.scores[0]),
                # Methods on internals use what was captured in this run, which must be that of the changed sample.
                captured=None if response.captured is None else response.captured[0],
            )
            explained: UnitAttribution = yield from self.method.plan.run(changed)
            changes = _relative_changes(attributions, explained.restricted_to(prepared.rankable).scores)
            worst = [max(pair) for pair in zip(worst, changes, strict=True)]
        return worst


def _relative_changes(before: UnitScores, after: UnitScores) -> list[float]:
    """The norm of the difference relative to the norm of `before`, one per target."""
    original, changed = (scores.flatten(1).double().nan_to_num() for scores in (before, after))
    return [_ratio(*pair) for pair in zip((changed - original).norm(dim=1), original.norm(dim=1), strict=True)]


def _ratio(change: Float[Tensor, ""], size: Float[Tensor, ""]) -> float:
    if float(size) == 0:
        return math.inf if float(change) else 0.0
    return float(change / size)
