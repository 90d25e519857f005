"""Whether numbers are finite."""

import math

import torch
from torch import Tensor

from interpreto.errors import ModelError


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite: both show in the extremes, which are found in one pass."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def check_outputs(outputs: Tensor, what: str = "outputs for") -> None:
    """Refuse what a model says of an unchanged sample if it is no number.

    Raises:
        ModelError: if it is not.
    """
    if not all_finite(outputs):
        raise ModelError(
            f"The model's {what} the unchanged sample are not finite ({outputs[0].tolist()[:4]}...): its weights "
            "or the input hold NaN or overflow, so no attribution would mean anything."
        )
