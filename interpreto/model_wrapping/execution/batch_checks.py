"""Checks of a model, made once by running it: whether rows may share a batch, and whether they may be padded."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from interpreto.errors import BatchWarning
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, Respond
from interpreto.model_wrapping.targets import AllOutputs

_MAX_LENGTHS = 8
"""Maximum number of lengths for which rows are compared alone and padded."""
_TOLERANCE = 1e-4
"""Relative tolerance between batches; half precision exceeds it, so that rows of different lengths run separately."""


@dataclass
class PaddingCheck:
    """Runs rows of different lengths separately if padding changes a model's scores.

    Some models read padding in spite of the attention mask: through convolutions, pooling, or embeddings of neighbours.

    Attributes:
        invariant: Whether a padded row scores as it does alone; None before the first padded batch.
        checked_length: The longest row of the check; it is repeated for rows more than twice as long.
    """

    invariant: bool | None = None
    checked_length: int = 0

    def respond(self, requests: Sequence[ModelRequest], run: Respond) -> list[ModelResponse]:
        """Run requests that share a batch key, rows of one length at a time if padding matters.

        Args:
            requests: The requests.
            run: Runs requests as one batch.
        """
        lengths = sorted({request.rows.length for request in requests if len(request.rows)})
        if len(lengths) > 1 and self.invariant is not False and lengths[-1] > 2 * self.checked_length:
            self.invariant, self.checked_length = _is_padding_invariant(requests, run), lengths[-1]
        if len(lengths) < 2 or self.invariant:
            return run(requests)
        responses: dict[int, ModelResponse] = {}
        for length in lengths:
            indices = [index for index, request in enumerate(requests) if request.rows.length == length]
            responses |= dict(zip(indices, run([requests[index] for index in indices]), strict=True))
        return [responses[index] for index in range(len(requests))]


@dataclass
class BatchCheck:
    """Runs rows one at a time if a model's scores of a row depend on the other rows of its batch.

    This is the case for dynamically quantised layers, which share a scale, for normalization without running
    statistics, which shares a mean, and for dropout that is never switched off, which draws another mask for each row.

    Attributes:
        tolerance: Relative tolerance of scores between batches.
        invariant: Whether a row scores as it does alone; None before the first batch with several rows.
    """

    tolerance: float
    invariant: bool | None = None

    def respond(
        self,
        requests: Sequence[ModelRequest],
        run: Respond,
        remembered: Callable[[], AbstractContextManager[None]],
    ) -> list[ModelResponse]:
        """Run requests that share a batch key, one row at a time if the batch matters.

        Args:
            requests: The requests.
            run: Runs requests as one batch.
            remembered: A context that restores the model's buffers when it ends.
        """
        if (
            self.invariant
            or sum(len(request.rows) for request in requests) < 2
            or any(request.return_cache for request in requests)
        ):
            return run(requests)
        if self.invariant is None:
            index = max(index for index, request in enumerate(requests) if len(request.rows))
            # The last row: what depends on earlier rows of a batch shows there. Both runs start from the same buffers.
            last = requests[index].rows.take(slice(len(requests[index].rows) - 1, None))
            with remembered():
                (single,) = run([replace(requests[index], rows=last, gradient_field=None, capture=None)])
            with remembered():
                batch = run(requests)
            self.invariant = alike(single.scores, batch[index].scores[-1:], self.tolerance)
            if self.invariant:
                return batch
            warnings.warn(
                "The scores of this model for an input depend on the other inputs of its batch or on earlier ones, as "
                "with dynamic quantisation, dropout that is never switched off, or normalisation without running "
                "statistics: inputs are run one at a time, which is slower.",
                BatchWarning,
                stacklevel=2,
            )
        return [self._one_by_one(request, run) for request in requests]

    @staticmethod
    def _one_by_one(request: ModelRequest, run: Respond) -> ModelResponse:
        singles = [
            run([replace(request, rows=request.rows.take(slice(row, row + 1)))])[0] for row in range(len(request.rows))
        ]
        return ModelResponse.concatenate(singles) if singles else run([request])[0]


def alike(one: Float[Tensor, "..."], other: Float[Tensor, "..."], tolerance: float = _TOLERANCE) -> bool:
    """Whether scores are equal up to rounding; outputs that the model masks are infinite in both, and are ignored."""
    is_finite = one.isfinite() & other.isfinite()
    one, other = one.where(is_finite, 0), other.where(is_finite, 0)
    # Relative to the largest score, as rounding is, but absolute for scores below 1.
    return bool((one - other).abs().max() <= tolerance * (1 + one.abs().max()))


def _is_padding_invariant(requests: Sequence[ModelRequest], run: Respond) -> bool:
    """Whether rows of several lengths have the same scores alone and padded to the longest.

    The effect of padding may depend on its amount, as for models that read windows of a fixed size.
    """
    rows = {request.rows.length: request.rows for request in requests if len(request.rows)}
    lengths = sorted(rows)
    step = -(-len(lengths) // _MAX_LENGTHS)
    chosen = [*lengths[:-1:step], lengths[-1]]
    single = [ModelRequest(rows[length].take(slice(1)), AllOutputs()) for length in chosen]
    padded = run(single)
    return all(alike(run([one])[0].scores, both.scores) for one, both in zip(single[:-1], padded[:-1], strict=True))
