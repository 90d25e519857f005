"""The metric of the sum that methods promise."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from interpreto.attributions.convergence import relative_gap
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.result import AttributionOutput


class Completeness:
    r"""The completeness gap relative to the sum that the method promises.

    \[ \frac{\big| f(x) - f(x') - \sum_i \phi_i \big|}{\big| f(x) - f(x') \big|} \]

    0 is best. NaN for methods that promise no sum, and if the score difference is 0.
    """

    needs: ClassVar[Needs] = Needs.NOTHING
    higher_is_better: ClassVar[bool] = False

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput]) -> MetricResult:
        """Measure attributions.

        Raises:
            InputError: if there are none.
        """
        values = []
        for output in as_list(outputs):
            if output.completeness_gap is None:
                values.append(torch.full((len(output.target_names),), torch.nan))
                continue
            values.append(relative_gap(output))
        return MetricResult(type(self).__name__, values, False)
