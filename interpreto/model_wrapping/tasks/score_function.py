"""Functions that are explained instead of PyTorch models, and the validation of the arrays they return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.parts import Engine

ScoreFunction = Callable[[Any], Any]
"""Takes n samples, and returns scores of shape `n k` for k classes."""


@final
@dataclass(frozen=True)
class FunctionConfig:
    """A minimal stand-in for a transformers config, with only `id2label`.

    Attributes:
        id2label: From class indices to class names; None if the classes have no names.
    """

    id2label: dict[int, str] | None


@final
class CheckedScores:
    """A score function whose return values are validated.

    Args:
        scores: The function.
        labels: Names of the classes; None if they have no names.
    """

    def __init__(self, scores: ScoreFunction, labels: Sequence[str] | None) -> None:
        self.scores = scores
        self.config = FunctionConfig(None if labels is None else dict(enumerate(labels)))
        self._n_classes = None if labels is None else len(labels)
        self.n_labels = self._n_classes

    def provenance(self) -> dict[str, Any]:
        """The function's name, the dtype of its scores and the device, for the `info` of a result."""
        name = getattr(self.scores, "__qualname__", type(self.scores).__name__)
        return {"model": f"function {name}", "dtype": "float64", "device": "cpu"}

    def __call__(self, samples: object, n_samples: int) -> Float[Tensor, "p k"]:
        """Call the function on samples.

        Args:
            samples: The samples, in the form that the function expects.
            n_samples: Number of samples.

        Raises:
            ModelError: if the scores are not finite, or the number of classes differs from that of an earlier call.
        """
        scores = checked_array("scores", self.scores(samples), (n_samples, self._n_classes), "k", np.float64)
        outputs = torch.from_numpy(scores)
        if not outputs.shape[1]:
            raise ModelError("scores= must return one column per class; it returned an array without columns.")
        # Later calls must return the same number of columns.
        self._n_classes = outputs.shape[1]
        return outputs


class ScoreFunctionEngine(Engine):
    """An engine that calls functions; its provenance is that of the function of scores."""

    scores: CheckedScores

    def provenance(self) -> dict[str, Any]:
        return self.scores.provenance()


def checked_array(
    option: str, result: object, shape: tuple[int | None, ...], free_axes: str, dtype: type = np.float32
) -> np.ndarray:
    """Convert a function's return value to an array and validate it.

    Args:
        option: Name of the option that the function was passed as, for error messages.
        result: The return value.
        shape: Expected shape; None for a dimension of any size.
        free_axes: A letter for each None in `shape`, for error messages.
        dtype: The dtype of the array.

    Raises:
        ModelError: if the shape is wrong, or a value is not a finite real number.
    """
    try:
        array = np.asarray(images.to_array(result) if isinstance(result, Tensor) else result)
    except ValueError as error:
        raise ModelError(
            f"{option}= must return an array; its return value cannot be converted to one: {error}"
        ) from error
    letters = iter(free_axes)
    expected = tuple(next(letters) if size is None else size for size in shape)
    matches = array.ndim == len(shape) and all(size in (None, n) for size, n in zip(shape, array.shape, strict=True))
    if not matches:
        raise ModelError(f"{option}= must return an array of shape {expected}; it returned {array.shape}.")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ModelError(f"{option}= must return real numbers; it returned {array.dtype}.")
    array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ModelError(f"{option}= returned NaN or infinite values.")
    return array
