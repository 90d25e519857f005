"""A comparison's numbers as rows, for files and data frames."""

import csv
import io
import math
from typing import Any

from interpreto.comparison.bootstrap import Interval

Rows = tuple[list[str], list[list[Any]]]
"""The names of the columns, and the rows."""


def scores(comparison: Any) -> Rows:
    """One row per method and metric."""
    header = [
        "method", "control", "metric", "higher_is_better", "mean", "low", "high", "count",
        "to_best", "to_best_low", "to_best_high", "not_worse_than_best", "beats_random", "rows", "seconds", "gigabytes",
    ]  # fmt: skip
    costs = {cost.method: cost for cost in comparison.costs}
    rows = []
    for one in comparison.ranking:
        cost, gap = costs[one.method], one.to_best or Interval(math.nan, math.nan, math.nan, 0)
        mean = [one.mean.mean, one.mean.low, one.mean.high, one.mean.count]
        start = [one.method, one.control, one.metric, one.higher_is_better, *mean, gap.mean, gap.low, gap.high]
        rows.append([*start, one.not_worse_than_best, one.beats_random, cost.rows, cost.seconds, cost.memory])
    return header, rows


def values(comparison: Any) -> Rows:
    """One row per method, metric and sample."""
    rows = [
        [method, metric, number, value]
        for metric in comparison.metrics
        for method, found in comparison.values(metric).items()
        for number, value in enumerate(found.tolist())
    ]
    return ["method", "metric", "sample", "value"], rows


def as_csv(header: list[str], rows: list[list[Any]]) -> str:
    """Rows as CSV, nothing where there is no number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows(["" if isinstance(v, float) and math.isnan(v) else v for v in row] for row in rows)
    return buffer.getvalue()
