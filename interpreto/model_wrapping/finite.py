"""Whether numbers are finite."""

import math

import torch
from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite: both show in the extremes, which are found in one pass."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(float(low)) and math.isfinite(float(high))
