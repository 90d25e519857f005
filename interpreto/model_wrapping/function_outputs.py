"""What the functions of from_callables return, checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping import images

ScoreFunction = Callable[[Any], Any]
"""From samples to scores `n k`, one column per class."""


def checked_scores(result: Any, rows: int, classes: int | None) -> Float[Tensor, "p k"]:
    """The scores that a function returned.

    Args:
        result: What it returned.
        rows: How many samples it was given.
        classes: How many classes there are, where that is known.

    Raises:
        ModelError: if they have another shape, or hold NaN.
    """
    outputs = torch.from_numpy(checked_array("scores", result, (rows, classes), "k", np.float64))
    if not outputs.shape[1]:
        raise ModelError("scores= must return a column for each class; it returned none.")
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
