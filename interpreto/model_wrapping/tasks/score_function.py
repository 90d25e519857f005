"""Functions that stand in for models, and the arrays that they return, checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.inputs import image as images

ScoreFunction = Callable[[Any], Any]
"""From samples to scores `n k`, one column per class."""


@final
@dataclass(frozen=True)
class FunctionConfig:
    """What the config of a classifier says, for functions.

    Attributes:
        id2label: Names of the classes; None if they have none.
    """

    id2label: dict[int, str] | None


@final
class CheckedScores:
    """A score function whose results are checked.

    Args:
        scores: The function.
        labels: Names of the classes.
    """

    def __init__(self, scores: ScoreFunction, labels: Sequence[str] | None) -> None:
        self.scores = scores
        self.config = FunctionConfig(None if labels is None else dict(enumerate(labels)))
        self._n_classes = None if labels is None else len(labels)
        self.n_labels = self._n_classes

    def provenance(self) -> dict[str, Any]:
        """The function's name, and the precision of its scores."""
        name = getattr(self.scores, "__qualname__", type(self.scores).__name__)
        return {"model": f"function {name}", "dtype": "float64", "device": "cpu"}

    def __call__(self, given: Any, count: int) -> Float[Tensor, "p k"]:
        """The scores that the function returns for samples.

        Args:
            given: The samples.
            count: Number of samples.

        Raises:
            ModelError: if the scores have another shape than before, or are not finite.
        """
        scores = checked_array("scores", self.scores(given), (count, self._n_classes), "k", np.float64)
        outputs = torch.from_numpy(scores)
        if not outputs.shape[1]:
            raise ModelError("scores= must return a column for each class; it returned none.")
        # All later scores must have as many columns.
        self._n_classes = outputs.shape[1]
        return outputs


def checked_array(
    name: str, result: Any, shape: tuple[int | None, ...], axes: str, dtype: type = np.float32
) -> np.ndarray:
    """What a function returned.

    Args:
        name: The option that is the function.
        result: What it returned.
        shape: The extents that it must have, None where any will do.
        axes: A letter for each extent that may be any.
        dtype: What it becomes.

    Raises:
        ModelError: if its shape is wrong or it holds NaN.
    """
    try:
        array = np.asarray(images.to_array(result) if isinstance(result, Tensor) else result)
    except ValueError as error:
        raise ModelError(f"{name}= must return an array; what it returned cannot be one: {error}.") from error
    free = iter(axes)
    wanted = tuple(next(free) if extent is None else extent for extent in shape)
    fits = array.ndim == len(shape) and all(e in (None, a) for e, a in zip(shape, array.shape, strict=True))
    if not fits:
        raise ModelError(f"{name}= must return an array of shape {wanted}; it returned {array.shape}.")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ModelError(f"{name}= must return real numbers; it returned {array.dtype}.")
    array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ModelError(f"{name}= returned NaN or infinite values.")
    return array
