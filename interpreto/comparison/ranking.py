"""Who is best, and how sure that is: means, intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from interpreto.comparison.bootstrap import Interval, difference, interval

MIN_SAMPLES = 6
"""Samples without which nothing is said of a difference: of fewer ones a bootstrap is sure far too often, 11 % of the
time instead of 5 % of four. With six, differences of one sign have a chance of 3 %."""


@dataclass(frozen=True)
class RankedMethod:
    """One method by one metric.

    Attributes:
        method: The method's name.
        metric: The metric's name.
        control: Whether it is one of the honest baselines.
        mean: The mean over samples and its interval.
        to_best: The paired difference to the best method, this one minus that one; None where the metric does not
            judge or no method has a value.
        to_random: The paired difference to random scores, where the metric judges.
        best: Whether it is the best method: of those with values for most samples the one with the best mean.
    """

    method: str
    metric: str
    control: bool
    mean: Interval
    to_best: Interval | None
    to_random: Interval | None
    best: bool
    higher_is_better: bool | None

    @property
    def not_worse_than_best(self) -> bool:
        """Whether it is the best method, or cannot be told from it, or is better (which only a control can be).

        Never of fewer than six samples, of which nothing is sure.
        """
        if self.to_best is None or self.to_best.count < MIN_SAMPLES:
            return False
        return self.best or not self.to_best.excludes(0) or self._better(self.to_best)

    @property
    def beats_random(self) -> bool | None:
        """Whether it is better than random scores for sure; None where that cannot be said."""
        if self.to_random is None or self.to_random.count < MIN_SAMPLES:
            return None
        return self.to_random.excludes(0) and self._better(self.to_random)

    def _better(self, than: Interval) -> bool:
        return than.mean > 0 if self.higher_is_better else than.mean < 0


def rank_methods(
    metric: str,
    values: Mapping[str, Float[Tensor, " n"]],
    controls: Sequence[str],
    higher_is_better: bool | None,
    n_bootstrap: int,
    seed: int,
) -> list[RankedMethod]:
    """Every method by one metric.

    Args:
        metric: Its name.
        values: For every method one value per sample, NaN where there is none.
        controls: The methods that cannot be best.
        higher_is_better: Whether large values are good.
        n_bootstrap: Resamples of the intervals.
        seed: Where resampling starts.
    """
    best = None if higher_is_better is None else _best(values, controls, higher_is_better)
    random = values.get("RandomScores")

    def against(method: str, other: Float[Tensor, " n"] | None) -> Interval | None:
        if higher_is_better is None or other is None:
            return None
        return difference(values[method], other, n_bootstrap, seed)

    return [
        RankedMethod(
            method=method,
            metric=metric,
            control=method in controls,
            mean=interval(own, n_bootstrap, seed),
            to_best=None if best is None else against(method, values[best]),
            to_random=None if method == "RandomScores" else against(method, random),
            best=method == best,
            higher_is_better=higher_is_better,
        )
        for method, own in values.items()
    ]


def _best(values: Mapping[str, Float[Tensor, " n"]], controls: Sequence[str], higher: bool) -> str | None:
    known = {m: v[~v.isnan()] for m, v in values.items() if m not in controls}
    # Who failed on some samples may have failed on the hard ones.
    most = max((len(v) for v in known.values()), default=0)
    means = {m: float(v.mean()) for m, v in known.items() if len(v) == most and most}
    if not means:
        return None
    return (max if higher else min)(means, key=lambda method: means[method])


@dataclass(frozen=True, eq=False)
class Conclusion:
    """What one metric says with each removal operator.

    Attributes:
        metric: The metric's name.
        removals: The operators.
        best: The best method with each.
        not_worse_than_best: The methods that cannot be told from it, it among them.
        agreement: Rank correlation, between operators, of the methods' means, `r r`; NaN with fewer than three methods.
    """

    metric: str
    removals: tuple[str, ...]
    best: tuple[str | None, ...]
    not_worse_than_best: tuple[tuple[str, ...], ...]
    agreement: Float[Tensor, "r r"]


def conclusion(metric: str, by_removal: Mapping[str, Sequence[RankedMethod]]) -> Conclusion:
    """Hold the standings with several removal operators against each other."""
    methods = [[one for one in some if not one.control] for some in by_removal.values()]
    means = torch.tensor([[one.mean.mean for one in some] for some in methods])
    count = len(by_removal)
    agreement = torch.full((count, count), torch.nan)
    for row in range(count):
        for column in range(count):
            seen = ~(means[row].isnan() | means[column].isnan())
            pair = means[row][seen].numpy(), means[column][seen].numpy()
            if len(pair[0]) > 2 and all(len(set(one.tolist())) > 1 for one in pair):
                agreement[row, column] = float(np.corrcoef(rankdata(pair[0]), rankdata(pair[1]))[0, 1])
    return Conclusion(
        metric,
        tuple(by_removal),
        tuple(next((one.method for one in some if one.best), None) for some in methods),
        tuple(tuple(one.method for one in some if one.not_worse_than_best) for some in methods),
        agreement,
    )
