"""The records of a comparison: the results of one method on one sample, and failures among them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interpreto.attributions.result import AttributionOutput

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Record:
    """One method on one sample.

    Attributes:
        method: The method's name.
        sample: The index of the sample.
        output: The output of the method; None if it failed.
        error: The kind and message of the method's error; empty if it did not fail.
        values: The value of each metric, the mean over targets; NaN if it is undefined.
        metric_errors: The kind and message of the error of each metric that failed.
        memory: Peak memory in gigabytes, above what was in use before.
    """

    method: str
    sample: int
    output: AttributionOutput | None
    error: str = ""
    values: dict[str, float] = field(default_factory=dict)
    metric_errors: dict[str, str] = field(default_factory=dict)
    memory: float = float("nan")


@dataclass(frozen=True)
class Failure:
    """A method, or a metric of it, that failed on some samples with the same error.

    Attributes:
        method: The method's name.
        metric: The metric's name; None if the method itself failed.
        error: The kind of the error and its message.
        samples: The indices of the samples.
    """

    method: str
    metric: str | None
    error: str
    samples: tuple[int, ...]

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.samples[:5])) + (", …" if len(self.samples) > 5 else "")
        plural = f"{len(self.samples)} samples" if len(self.samples) > 1 else "1 sample"
        subject = f"{self.metric} of {self.method}" if self.metric else self.method
        return f"{subject} failed on {plural} ({numbers}): {self.error}"


def failures(records: Sequence[Record]) -> list[Failure]:
    """The failures among records: one for each method, metric and error."""
    groups: dict[tuple[str, str | None, str], list[int]] = {}
    for record in records:
        if record.error:
            groups.setdefault((record.method, None, record.error), []).append(record.sample)
        for metric, error in record.metric_errors.items():
            groups.setdefault((record.method, metric, error), []).append(record.sample)
    return [Failure(*reason, tuple(sorted(samples))) for reason, samples in groups.items()]


def each(
    work: Callable[[list[int]], Sequence[Result]], items: list[int], on_error: str = "record"
) -> tuple[dict[int, Result], dict[int, Exception]]:
    """Process items as one batch; if that fails, process each item separately.

    Args:
        work: Maps a list of items to one result per item.
        items: The numbers of the items.
        on_error: "raise" raises the error of the first item that fails separately.

    Returns:
        The results and the errors by item.
    """
    if not items:
        return {}, {}
    try:
        return dict(zip(items, work(items), strict=True)), {}
    except Exception as error:
        if len(items) == 1:
            if on_error == "raise":
                raise
            return {}, {items[0]: error}
    # Outside of the except block, so that the traceback of the batch does not keep its tensors in memory.
    outcomes = [each(work, [item], on_error) for item in items]
    return (
        {item: result for results, _ in outcomes for item, result in results.items()},
        {item: error for _, errors in outcomes for item, error in errors.items()},
    )


def error_line(error: Exception) -> str:
    """The kind and message of an error, as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
