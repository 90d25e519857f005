"""Bootstrap confidence intervals of means over samples, and of paired differences."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, norm
from scipy.stats import t as student
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: The mean over the samples that have a value; NaN if there are none.
        low: The lower end; NaN for fewer than two samples.
        high: The upper end; NaN for fewer than two samples.
        count: The number of samples that have a value.
    """

    mean: float
    low: float
    high: float
    count: int

    def excludes(self, value: int | float) -> bool:
        """Whether a value is outside of the interval; False without an interval."""
        # Comparisons with NaN are False.
        return value < self.low or value > self.high


def interval(values: Float[Tensor, " n"], n_bootstrap: int = 2000, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The mean of values and its bootstrap interval.

    The expanded percentile interval: percentiles of the resampled means, at a confidence level that is raised by as
    much as Student's interval is wider than the normal one (Hesterberg 2015, arXiv:1411.5279). Plain percentiles cover
    92 % instead of 95 % with 20 samples.

    NaN values are ignored. There is no interval if a value is infinite. Equal values have an interval of width 0. The
    same seed gives the same interval.
    """
    defined = values[~values.isnan()].double().numpy()
    if not len(defined):
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(defined.mean())
    # Resampled means of infinite values would be infinite or NaN.
    if len(defined) < 2 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, len(defined))
    # Equal values may differ by rounding; an interval as wide as that noise would mean nothing.
    if np.ptp(defined) <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, len(defined))
    n = len(defined)
    # sqrt(n / (n - 1)): the bootstrap divides the variance by n, not by n - 1.
    expanded = float(2 * norm.cdf((n / (n - 1)) ** 0.5 * student.ppf((1 + confidence) / 2, n - 1)) - 1)
    limits = bootstrap(
        (defined,),
        np.mean,
        n_resamples=n_bootstrap,
        confidence_level=expanded,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(limits.low), float(limits.high), len(defined))


def difference(
    values: Float[Tensor, " n"], others: Float[Tensor, " n"], n_bootstrap: int = 2000, seed: int = 0
) -> Interval:
    """The mean paired difference and its interval, over the samples that have both values.

    Paired, because samples differ more than methods do: the variance between samples cancels.
    """
    return interval(values - others, n_bootstrap, seed)
