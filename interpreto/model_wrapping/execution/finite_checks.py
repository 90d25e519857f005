"""Whether numbers are finite."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite: both show in the extremes, which are found in one pass."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def check_scores(scores: Float[Tensor, "p t"], names: Sequence[str]) -> None:
    """Refuse targets whose score of an unchanged sample is no finite number; other outputs may be anything.

    Args:
        scores: Of the targets.
        names: Of the targets.

    Raises:
        ModelError: if one is not.
    """
    if all_finite(scores):
        return
    target = int((~scores.isfinite()).any(0).nonzero()[0, 0])
    raise ModelError(
        f"The model's score of {names[target]!r} is not finite for the unchanged sample ({float(scores[0, target])}): "
        "its weights or the input hold NaN or overflow, or the model masks this output, so no attribution would mean "
        "anything."
    )


def check_features(features: Float[Tensor, "p d"]) -> None:
    """Refuse features of an unchanged sample that are no finite numbers.

    Raises:
        ModelError: if they are not.
    """
    if not all_finite(features):
        raise ModelError(
            f"The model's features of the unchanged sample are not finite ({features[0].tolist()[:4]}...): its weights "
            "or the input hold NaN or overflow, so no attribution would mean anything."
        )
