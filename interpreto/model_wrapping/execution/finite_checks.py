"""Checks that scores and features are finite."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.targets import AllOutputs


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; both propagate to the minimum and maximum, which one pass computes."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def check_scores(scores: Float[Tensor, "p t"], names: Sequence[str]) -> None:
    """Check that the target scores of an unperturbed sample are finite; other outputs are not checked.

    Args:
        scores: The scores of the targets.
        names: The names of the targets.

    Raises:
        ModelError: if a score is NaN or infinite.
    """
    if all_finite(scores):
        return
    target = int((~scores.isfinite()).any(0).nonzero()[0, 0])
    raise ModelError(
        f"The model's score of {names[target]!r} is not finite for the unperturbed sample "
        f"({float(scores[0, target])}): its weights or the input contain NaN or overflow, or the model masks this "
        "output, so attributions would be meaningless."
    )


def check_features(features: Float[Tensor, "p d"]) -> None:
    """Check that the features of an unperturbed sample are finite.

    Raises:
        ModelError: if a value is NaN or infinite.
    """
    if not all_finite(features):
        raise ModelError(
            f"The model's features of the unperturbed sample are not finite ({features[0].tolist()[:4]}...): its "
            "weights or the input contain NaN or overflow, so attributions would be meaningless."
        )


def check_perturbed_scores(request: ModelRequest, response: ModelResponse) -> None:
    """Check that scores of perturbed inputs are not NaN, from which no attribution can be computed.

    Raises:
        ModelError: if one is NaN.
    """
    for part, result in zip(request.flattened, response.flattened, strict=True):
        if not isinstance(part.targets, AllOutputs) and bool(result.scores.isnan().any()):
            raise ModelError(
                f"The model's score is not a number (NaN) for {int(result.scores.isnan().any(-1).sum())} of "
                f"{len(result.scores)} perturbed copies of the input, as when it divides by the standard deviation "
                "of an input that has become constant: choose another removal= or baseline=."
            )
