"""What functions of any samples share as models, and what they return, checked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.messages import PlanRun, ResolvedSample
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import named
from interpreto.model_wrapping.tasks.classification import settle
from interpreto.model_wrapping.wrapper import InferenceWrapper

ScoreFunction = Callable[[Any], Any]
"""From samples to scores `n k`, one column per class."""


class FunctionWrapper(InferenceWrapper):
    """A function from samples to scores, one column per class.

    Args:
        scores: The function.
        labels: Names of the classes.
    """

    def __init__(self, scores: ScoreFunction, labels: Sequence[str] | None) -> None:
        self.scores, self.labels = scores, None if labels is None else tuple(labels)
        self._classes = None if labels is None else len(labels)

    @property
    def id2label(self) -> dict[int, str] | None:
        """The names of the classes, as a model's config has them."""
        return None if self.labels is None else dict(enumerate(self.labels))

    @property
    def explained_score(self) -> str | None:
        return None

    def check_target(self, spec: Any, sample: Any = None) -> None:
        if self.labels is not None and spec is not None:
            named(spec, self.labels)

    def resolve_targets(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        return settle(sample, spec, self, capture)

    def provenance(self) -> dict[str, Any]:
        name = getattr(self.scores, "__qualname__", type(self.scores).__name__)
        return {"model": f"function {name}", "dtype": "float64", "device": "cpu"}

    def outputs_of(self, given: Any, rows: int) -> Float[Tensor, "p k"]:
        """The scores that the function returns.

        Args:
            given: The samples.
            rows: How many there are.

        Raises:
            ModelError: if they have another shape than before, or hold NaN.
        """
        outputs = torch.from_numpy(checked_array("scores", self.scores(given), (rows, self._classes), "k", np.float64))
        if not outputs.shape[1]:
            raise ModelError("scores= must return a column for each class; it returned none.")
        # Whatever comes later must have as many.
        self._classes = outputs.shape[1]
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
