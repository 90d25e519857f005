"""What a comparison keeps of one method on one sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interpreto.attributions.result import AttributionOutput

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Record:
    """One method on one sample.

    Attributes:
        method: The method's name.
        sample: The number of the sample.
        output: What the method said; None where it failed.
        error: Why it failed, empty where it did not.
        values: What each metric gave, the mean over the targets; NaN where it is not defined.
        metric_errors: Why a metric failed, for those that did.
        memory: Gigabytes taken at the peak, above what was in use.
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
    """A method, or a metric of it, that failed on some samples for one reason.

    Attributes:
        method: The method's name.
        metric: The metric's name; None where the method itself failed.
        error: The kind of the error and its message.
        samples: The numbers of the samples.
    """

    method: str
    metric: str | None
    error: str
    samples: tuple[int, ...]

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.samples[:5])) + (", …" if len(self.samples) > 5 else "")
        plural = f"{len(self.samples)} samples" if len(self.samples) > 1 else "1 sample"
        where = f"{self.metric} of {self.method}" if self.metric else self.method
        return f"{where} failed on {plural} ({numbers}): {self.error}"


def failures(records: Sequence[Record]) -> list[Failure]:
    """The failures among records, one for each reason."""
    found: dict[tuple[str, str | None, str], list[int]] = {}
    for record in records:
        if record.error:
            found.setdefault((record.method, None, record.error), []).append(record.sample)
        for metric, error in record.metric_errors.items():
            found.setdefault((record.method, metric, error), []).append(record.sample)
    return [Failure(*reason, tuple(sorted(samples))) for reason, samples in found.items()]


def each(
    work: Callable[[list[Item]], Sequence[Found]], items: list[Item], on_error: str = "record"
) -> list[Found | Exception]:
    """Work on items together; if that fails, on each of them alone, with its error in place of what failed.

    Args:
        work: What is done.
        items: What it is done to.
        on_error: "raise" lets out the error of the first item that fails alone.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except Exception as error:
        if len(items) == 1:
            if on_error == "raise":
                raise
            return [error]
    return [found for item in items for found in each(work, [item], on_error)]


def error_line(error: Exception) -> str:
    """An error in one line, with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
