"""How sure a mean over samples is: bootstrap intervals, plain and paired."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, norm
from scipy.stats import t as student
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with a given confidence.

    Attributes:
        mean: Over the samples for which there is a value; NaN without any.
        low: Lower end; NaN for fewer than two samples, of which no interval can be made.
        high: Upper end.
        count: How many samples there are.
    """

    mean: float
    low: float
    high: float
    count: int

    def excludes(self, value: int | float) -> bool:
        """Whether a value lies outside; without an interval nothing does."""
        return value < self.low or value > self.high


def interval(values: Float[Tensor, " n"], n_bootstrap: int = 2000, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The mean of values and its bootstrap interval.

    Percentiles of the resampled means, taken as much further out as Student's interval is wider than the normal one
    (Hesterberg 2015, arXiv 1411.5279): plain percentiles of 20 samples cover 92 % instead of 95 %.

    NaN values are left out; with infinite ones there is no interval. The same seed gives the same interval. Values that
    are all the same have an interval of no width.
    """
    known = values[~values.isnan()].double().numpy()
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(known.mean())
    # Infinite values have an infinite mean, of which no interval can be made.
    if len(known) < 2 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, len(known))
    if np.ptp(known) <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, len(known))
    n = len(known)
    further = float(2 * norm.cdf((n / (n - 1)) ** 0.5 * student.ppf((1 + confidence) / 2, n - 1)) - 1)
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=n_bootstrap,
        confidence_level=further,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(known))


def difference(
    values: Float[Tensor, " n"], others: Float[Tensor, " n"], n_bootstrap: int = 2000, seed: int = 0
) -> Interval:
    """The mean paired difference and its interval, over the samples for which there are both values."""
    return interval(values - others, n_bootstrap, seed)
