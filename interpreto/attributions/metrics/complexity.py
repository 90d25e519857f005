"""Metrics of how concentrated attributions are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.result import AttributionOutput


class ComplexityMetric(ABC):
    """A measure of how concentrated absolute scores are, over the units that can influence the target."""

    needs: ClassVar[Needs] = Needs.NOTHING
    higher_is_better: ClassVar[bool | None] = None

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput]) -> MetricResult:
        """Measure attributions.

        Raises:
            InputError: if there are none.
        """
        # NaN marks units that cannot influence a target or are part of it; they do not count as units here.
        values = [
            torch.stack(
                [self.value(scores[~scores.isnan()].double().abs()) for scores in output.ranking_scores.flatten(1)]
            )
            for output in as_list(outputs)
        ]
        return MetricResult(type(self).__name__, values, None)

    @abstractmethod
    def value(self, scores: Float[Tensor, " g"]) -> Float[Tensor, ""]:
        """The value for the absolute scores of one target."""


class Entropy(ComplexityMetric):
    r"""Entropy of the shares of absolute attributions, divided by its largest possible value log g.

    \[ -\frac{1}{\log g} \sum_i q_i \log q_i, \qquad q_i = \frac{|\phi_i|}{\sum_j |\phi_j|} \]

    0 if one unit has all of the attribution, 1 if all units have the same (also if all are 0). It measures how simple a
    map is, not how faithful.
    """

    def value(self, scores: Float[Tensor, " g"]) -> Float[Tensor, ""]:
        total = scores.sum()
        if len(scores) < 2:
            return torch.zeros((), dtype=torch.float64)
        if total == 0:
            return torch.ones((), dtype=torch.float64)
        # entr(p) = -p log p with entr(0) = 0, where p * p.log() is NaN.
        shares = scores / total
        return torch.special.entr(shares).sum() / torch.tensor(float(len(scores)), dtype=torch.float64).log()


class Gini(ComplexityMetric):
    r"""Gini coefficient of absolute attributions.

    \[ \frac{\sum_i (2 i - g - 1) \, |\phi|_{(i)}}{g \sum_i |\phi_i|} \]

    with \(|\phi|_{(i)}\) in ascending order. 0 if all units have the same attribution (also if all are 0), (g - 1) / g
    if one unit has all of it. It measures how simple a map is, not how faithful; Chalasani et al. (2020, arXiv
    1810.06583) use it for sparseness.
    """

    def value(self, scores: Float[Tensor, " g"]) -> Float[Tensor, ""]:
        g, total = len(scores), scores.sum()
        if total == 0:
            return torch.zeros((), dtype=torch.float64)
        ranks = 2 * torch.arange(1, g + 1, dtype=torch.float64) - g - 1
        return (ranks * scores.sort().values).sum() / (g * total)
