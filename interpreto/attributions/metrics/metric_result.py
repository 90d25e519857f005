"""Results of metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError
from interpreto.type_guards import is_collection


class Needs(StrEnum):
    """What a metric needs besides the outputs of a method, at its construction or evaluation."""

    NOTHING = "nothing"
    MODEL = "a model and its processor"
    METHOD = "the method that made the outputs"
    MASKS = "masks of the ground truth"


@dataclass(frozen=True, eq=False)
class Curve:
    """A score between the unperturbed and the fully masked sample.

    Attributes:
        x: The share of units that has changed, `s`, from 0 to 1.
        y: The score at each share, `s`.
    """

    x: Float[Tensor, " s"]
    y: Float[Tensor, " s"]

    @property
    def area(self) -> float:
        """The area under the curve for x from 0 to 1, by the trapezoidal rule."""
        return float(torch.trapezoid(self.y.double(), self.x.double()))


@dataclass(frozen=True, eq=False)
class MetricResult:
    """The values of a metric.

    Attributes:
        metric: Name of the metric.
        values: One tensor per sample with a value per target; NaN if the metric is not defined.
        higher_is_better: Whether large values are good; None if neither is.
        curves: For metrics of curves, one list per sample with a curve per target; else None.
        n_evaluations: Number of evaluations of the model.
    """

    metric: str
    values: list[Float[Tensor, " t"]]
    higher_is_better: bool | None
    curves: list[list[Curve]] | None = None
    n_evaluations: int = 0

    @property
    def per_sample(self) -> Float[Tensor, " n"]:
        """The mean over targets of each sample, without undefined values."""
        return torch.stack([value.double().nanmean() for value in self.values])

    @property
    def mean(self) -> float:
        """The mean over samples, without undefined values."""
        return float(self.per_sample.nanmean())

    @property
    def median_curve(self) -> Curve:
        """The median at each x over the curves of all samples and targets, without undefined values.

        Raises:
            InputError: if the metric has no curves, or they have different x.
        """
        curves = [curve for sample_curves in self.curves or [] for curve in sample_curves]
        if not curves or any(curve.x.shape != curves[0].x.shape for curve in curves):
            raise InputError(
                f"{self.metric} has no curves, or curves of different lengths, so that they have no median."
            )
        return Curve(curves[0].x, torch.stack([curve.y.double() for curve in curves]).nanquantile(0.5, dim=0))

    def with_failed_samples(self, places: Sequence[int], count: int) -> "MetricResult":
        """The result with NaN inserted for samples that failed.

        Args:
            places: The indices of the samples of this result among all samples.
            count: Number of all samples.
        """
        values = [torch.full((1,), torch.nan, dtype=torch.float64) for _ in range(count)]
        curves: list[list[Curve]] = [[] for _ in range(count)]
        for number, place in enumerate(places):
            values[place] = self.values[number]
            curves[place] = [] if self.curves is None else self.curves[number]
        return replace(self, values=values, curves=None if self.curves is None else curves)

    def __repr__(self) -> str:
        return f"<{self.metric} of {len(self.values)} samples: {self.mean:.4g}>"


def skip_failed_samples(evaluate: Callable[..., MetricResult]) -> Callable[..., MetricResult]:
    """Decorate the `evaluate` of a metric to skip outputs of samples that failed; their value is NaN."""

    @wraps(evaluate)
    def evaluated(self: object, outputs: Any, *others: object, **named: object) -> MetricResult:
        # A single output must stay single, because `masks` then is one mask. An iterator can be read only once.
        given_outputs = outputs if isinstance(outputs, AttributionOutput) else list(outputs)
        all_outputs = as_list(given_outputs)
        succeeded = [number for number, output in enumerate(all_outputs) if output.error is None]
        if len(succeeded) == len(all_outputs):
            return evaluate(self, given_outputs, *others, **named)
        if not succeeded:
            raise InputError(f"There are no outputs to measure: {all_outputs[0].error}")
        # Inputs and masks are given per output, so those of failed samples are skipped too.
        others = tuple(_select(argument, succeeded, len(all_outputs)) for argument in others)
        named = {name: _select(argument, succeeded, len(all_outputs)) for name, argument in named.items()}
        return evaluate(self, [all_outputs[number] for number in succeeded], *others, **named).with_failed_samples(
            succeeded, len(all_outputs)
        )

    return evaluated


def _select(beside: object, kept: Sequence[int], count: int) -> Any:
    """The entries of an argument that belong to some of the outputs.

    Args:
        beside: The argument, with one entry per output, or None.
        kept: The indices of these outputs.
        count: Number of all outputs.

    Raises:
        InputError: if there is not one entry per output.
    """
    if beside is None:
        return None
    entries = list(beside) if is_collection(beside) else []
    if len(entries) != count:
        raise InputError(f"Some of the {count} outputs failed: pass a list with one input or mask per output.")
    return [entries[number] for number in kept]


def as_list(outputs: Any) -> list[AttributionOutput]:
    """Results as a list.

    Raises:
        InputError: if there are none, or something else is among them.
    """
    output_list = [outputs] if isinstance(outputs, AttributionOutput) else list(outputs)
    if not output_list:
        raise InputError("There are no outputs to measure.")
    for item in output_list:
        if not isinstance(item, AttributionOutput):
            raise InputError(f"Expected outputs of a method, got {type(item).__name__}.")
    return output_list
