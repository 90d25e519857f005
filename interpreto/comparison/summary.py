"""The statistics of a comparison, as its tables, figures and report show them."""

from dataclasses import dataclass

from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.ranking import Conclusion, RankedMethod
from interpreto.comparison.records import Failure


@dataclass(frozen=True)
class Cost:
    """The cost of a method.

    Attributes:
        method: The method's name.
        n_evaluations: Evaluations of the model per sample.
        seconds: Wall time per sample.
        memory: Peak memory in gigabytes for the few samples that were explained together, above what was in use before;
            NaN on systems that do not report it.
    """

    method: str
    n_evaluations: float
    seconds: float
    memory: float


@dataclass(frozen=True, eq=False)
class Summary:
    """Statistics over all samples of a comparison.

    Attributes:
        config: What was compared, by what, and how.
        ranking: Every method by every metric.
        costs: The cost of every method.
        conclusions: What metrics conclude with each removal operator, if there are several.
        failures: Methods and metrics that failed, on which samples, and why.
        n_records: Number of pairs of a method and a sample with a result or an error.
        explained: The samples with an output of at least one method, in order.
    """

    config: ComparisonConfig
    ranking: list[RankedMethod]
    costs: list[Cost]
    conclusions: list[Conclusion]
    failures: list[Failure]
    n_records: int
    explained: list[int]

    def of_metric(self, metric: str) -> list[RankedMethod]:
        """All methods by one metric."""
        return [ranked for ranked in self.ranking if ranked.metric == metric]

    def ranked(self, method: str, metric: str) -> RankedMethod:
        """One method by one metric."""
        return next(ranked for ranked in self.of_metric(metric) if ranked.method == method)
