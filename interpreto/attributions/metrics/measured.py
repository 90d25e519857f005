"""What a metric found."""

from dataclasses import dataclass
from enum import StrEnum
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
class Measured:
    """Values of a metric.

    Attributes:
        metric: Its name.
        values: One tensor per sample with a value per target; NaN where the metric is not defined.
        higher_is_better: Whether large values are good; None where the metric does not judge.
        curves: For metrics that rest on curves, one list per sample with a curve per target.
        n_rows: How many rows went through the model.
    """

    metric: str
    values: list[Float[Tensor, " t"]]
    higher_is_better: bool | None
    curves: list[list[Curve]] | None = None
    n_rows: int = 0

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

    def __repr__(self) -> str:
        return f"<{self.metric} of {len(self.values)} samples: {self.mean:.4g}>"


def listed(outputs: Any) -> list[AttributionOutput]:
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
