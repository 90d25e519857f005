"""The numbers of a comparison as tables, for CSV files and data frames."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interpreto.comparison.bootstrap import Interval
from interpreto.comparison.summary import Summary

Rows = tuple[list[str], list[list[Any]]]
"""The names of the columns, and the rows."""


def scores(summary: Summary) -> Rows:
    """One row per method and metric."""
    # "low" and "high" are the ends of the 95 % interval of the mean, "to_best" is the paired difference to the best.
    header = [
        "method", "control", "metric", "higher_is_better", "mean", "low", "high", "count",
        "to_best", "to_best_low", "to_best_high", "not_worse_than_best", "beats_random",
        "n_evaluations", "seconds", "gigabytes",
    ]  # fmt: skip
    costs = {cost.method: cost for cost in summary.costs}
    rows = []
    for ranked in summary.ranking:
        cost, to_best = costs[ranked.method], ranked.to_best or Interval(math.nan, math.nan, math.nan, 0)
        mean = [ranked.mean.mean, ranked.mean.low, ranked.mean.high, ranked.mean.count]
        start = [
            ranked.method, ranked.control, ranked.metric, ranked.higher_is_better,
            *mean, to_best.mean, to_best.low, to_best.high,
        ]  # fmt: skip
        rows.append(
            [*start, ranked.not_worse_than_best, ranked.beats_random, cost.n_evaluations, cost.seconds, cost.memory]
        )
    return header, rows


def values(of_metrics: Mapping[str, Mapping[str, Float[Tensor, " n"]]]) -> Rows:
    """One row per method, metric and sample, from the values of every metric and method."""
    rows = [
        [method, metric, number, value]
        for metric, of_methods in of_metrics.items()
        for method, method_values in of_methods.items()
        for number, value in enumerate(method_values.tolist())
    ]
    return ["method", "metric", "sample", "value"], rows


def as_csv(header: list[str], rows: list[list[object]]) -> str:
    """Rows as CSV, with empty cells for NaN."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows(["" if isinstance(v, float) and math.isnan(v) else v for v in row] for row in rows)
    return buffer.getvalue()
