"""What a metric found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError


class Needs(StrEnum):
    """What a metric is made with or must be told, beyond the outputs."""

    NOTHING = "nothing"
    MODEL = "a model and its processor"
    METHOD = "the method that made the outputs"
    MASKS = "masks of what decides"


@dataclass(frozen=True, eq=False)
class Curve:
    """A score along the way from the whole sample to the hidden one, or back.

    Attributes:
        x: The share of units that is changed, `s`, from 0 to 1.
        y: The score at each share, `s`.
    """

    x: Float[Tensor, " s"]
    y: Float[Tensor, " s"]

    @property
    def area(self) -> float:
        """The area below, by the trapezoid rule, x from 0 to 1."""
        return float(torch.trapezoid(self.y.double(), self.x.double()))


@dataclass(frozen=True, eq=False)
class MetricResult:
    """Values of a metric.

    Attributes:
        metric: Its name.
        values: One tensor per sample with a value per target; NaN where the metric is not defined.
        higher_is_better: Whether large values are good; None where the metric does not judge.
        curves: For metrics that rest on curves, one list per sample with a curve per target.
        n_evaluations: How many rows went through the model.
    """

    metric: str
    values: list[Float[Tensor, " t"]]
    higher_is_better: bool | None
    curves: list[list[Curve]] | None = None
    n_evaluations: int = 0

    @property
    def per_sample(self) -> Float[Tensor, " n"]:
        """The mean over the targets of each sample for which it is defined."""
        return torch.stack([value.double().nanmean() for value in self.values])

    @property
    def mean(self) -> float:
        """The mean over the samples for which it is defined."""
        return float(self.per_sample.nanmean())

    @property
    def median_curve(self) -> Curve:
        """The median, at each x, of the curves of all samples and targets for which it is defined.

        Raises:
            InputError: if the metric rests on no curves, or they have different x.
        """
        curves = [curve for some in self.curves or [] for curve in some]
        if not curves or any(curve.x.shape != curves[0].x.shape for curve in curves):
            raise InputError(
                f"{self.metric} has no curves, or curves of different lengths: there is no median of them."
            )
        return Curve(curves[0].x, torch.stack([curve.y.double() for curve in curves]).nanquantile(0.5, dim=0))

    def with_failed_samples(self, places: Sequence[int], count: int) -> "MetricResult":
        """The same as values of these of so many samples; the others have none."""
        values = [torch.full((1,), torch.nan, dtype=torch.float64) for _ in range(count)]
        curves: list[list[Curve]] = [[] for _ in range(count)]
        for number, place in enumerate(places):
            values[place] = self.values[number]
            curves[place] = [] if self.curves is None else self.curves[number]
        return replace(self, values=values, curves=None if self.curves is None else curves)

    def __repr__(self) -> str:
        return f"<{self.metric} of {len(self.values)} samples: {self.mean:.4g}>"


def skip_failed_samples(evaluate: Callable[..., MetricResult]) -> Callable[..., MetricResult]:
    """Let a metric's `evaluate` pass over outputs of samples that failed: their value is NaN, which no mean counts."""

    @wraps(evaluate)
    def evaluated(self: Any, outputs: Any, *others: Any, **named: Any) -> MetricResult:
        every = outputs if isinstance(outputs, AttributionOutput) else list(outputs)
        found = as_list(every)
        kept = [number for number, output in enumerate(found) if output.error is None]
        if len(kept) == len(found):
            return evaluate(self, every, *others, **named)
        if not kept:
            raise InputError(f"There are no outputs to measure: {found[0].error}")
        others = tuple(_kept(one, kept, len(found)) for one in others)
        named = {name: _kept(one, kept, len(found)) for name, one in named.items()}
        return evaluate(self, [found[number] for number in kept], *others, **named).with_failed_samples(
            kept, len(found)
        )

    return evaluated


def _kept(beside: Any, kept: Sequence[int], count: int) -> Any:
    """Of what is given beside outputs, one for each, what belongs to some of them."""
    if beside is None:
        return None
    several = list(beside) if isinstance(beside, Iterable) and not isinstance(beside, str | Mapping) else []
    if len(several) != count:
        raise InputError(f"Some of the {count} outputs failed: give a list of as many inputs or masks beside them.")
    return [several[number] for number in kept]


def as_list(outputs: Any) -> list[AttributionOutput]:
    """Results as a list.

    Raises:
        InputError: if there are none, or something else is among them.
    """
    found = [outputs] if isinstance(outputs, AttributionOutput) else list(outputs)
    if not found:
        raise InputError("There are no outputs to measure.")
    for item in found:
        if not isinstance(item, AttributionOutput):
            raise InputError(f"Expected outputs of a method, got {type(item).__name__}.")
    return found
