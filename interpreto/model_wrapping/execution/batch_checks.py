"""What is found out once about a model by running it: whether rows may share a batch, and be padded in it."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from interpreto.errors import BatchWarning, ModelError
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, Respond
from interpreto.model_wrapping.targets import AllOutputs

_LENGTHS = 8
"""Of how many lengths rows are looked at alone and padded, at most."""
_TOLERANCE = 1e-4
"""By how much scores of one row may differ between batches; half precision rounds more, and runs lengths apart."""


@dataclass
class PaddingCheck:
    """Keeps rows of different lengths apart where padding changes what a model says of the shorter ones.

    Some models read padding in spite of the attention mask: by convolutions, by pooling, by embeddings of neighbours.

    Attributes:
        invariant: Whether a padded row scores as it does alone; None as long as none was padded.
        checked_length: The longest row that was looked at: of rows more than twice as long nothing is known.
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
            self.invariant, self.checked_length = _scores_alike(requests, run), lengths[-1]
        if len(lengths) < 2 or self.invariant:
            return run(requests)
        found: dict[int, ModelResponse] = {}
        for length in lengths:
            places = [place for place, request in enumerate(requests) if request.rows.length == length]
            found |= dict(zip(places, run([requests[place] for place in places]), strict=True))
        return [found[place] for place in range(len(requests))]


@dataclass
class BatchCheck:
    """Runs rows one at a time where what a model says of a row depends on the other rows of its batch.

    Some models do: dynamically quantised layers share a scale, normalisations without running statistics share a mean,
    and dropout that is never switched off draws another mask for each row.

    Attributes:
        invariant: Whether a row scores as it does alone; None as long as no rows shared a batch.
    """

    invariant: bool | None = None

    def respond(
        self,
        requests: Sequence[ModelRequest],
        run: Respond,
        tolerance: float,
        remembered: Callable[[], AbstractContextManager[None]],
    ) -> list[ModelResponse]:
        """Run requests that share a batch key, rows one at a time if their batch matters.

        Args:
            requests: The requests.
            run: Runs requests as one batch.
            tolerance: By how much a score may differ between batches by rounding, as a share of it.
            remembered: A context after which the model has forgotten what ran in it.
        """
        if (
            self.invariant
            or sum(len(request.rows) for request in requests) < 2
            or any(request.return_cache for request in requests)
        ):
            return run(requests)
        if self.invariant is None:
            place = max(place for place, request in enumerate(requests) if len(request.rows))
            last = requests[place].rows.take(slice(len(requests[place].rows) - 1, None))
            with remembered():
                (alone,) = run([replace(requests[place], rows=last, gradient_field=None, capture=None)])
            with remembered():
                together = run(requests)
            self.invariant = alike(alone.scores, together[place].scores[-1:], tolerance)
            if self.invariant:
                return together
            warnings.warn(
                "What this model says of an input depends on the other inputs of its batch or on earlier ones, as with "
                "dynamic quantisation, dropout that is never switched off, or normalisation without running "
                "statistics: inputs are run one at a time, which takes longer.",
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


def check_numbers(requests: Sequence[ModelRequest], responses: Sequence[ModelResponse]) -> None:
    """Refuse scores of changed inputs that are not numbers: no attribution could be made of them.

    Raises:
        ModelError: if one is NaN.
    """
    for request, response in zip(requests, responses, strict=True):
        if not isinstance(request.targets, AllOutputs) and bool(response.scores.isnan().any()):
            raise ModelError(
                f"The model's score is not a number (NaN) for {int(response.scores.isnan().any(-1).sum())} of "
                f"{len(response.scores)} changed copies of the input, as where it divides by the deviation of an input "
                "that has become constant: choose another removal= or baseline=."
            )


def alike(one: Float[Tensor, "..."], other: Float[Tensor, "..."], tolerance: float = _TOLERANCE) -> bool:
    """Whether scores are the same but for rounding; outputs that a model masks are infinite in both."""
    known = one.isfinite() & other.isfinite()
    one, other = one.where(known, 0), other.where(known, 0)
    return bool((one - other).abs().max() <= tolerance * (1 + one.abs().max()))


def _scores_alike(requests: Sequence[ModelRequest], run: Respond) -> bool:
    """Whether rows of several lengths say the same alone and beside the longest.

    What a model makes of padding may depend on how much there is, as where it reads windows of a fixed size.
    """
    rows = {request.rows.length: request.rows for request in requests if len(request.rows)}
    lengths = sorted(rows)
    step = -(-len(lengths) // _LENGTHS)
    chosen = [*lengths[:-1:step], lengths[-1]]
    single = [ModelRequest(rows[length].take(slice(1)), AllOutputs()) for length in chosen]
    beside = run(single)
    return all(alike(run([one])[0].scores, both.scores) for one, both in zip(single[:-1], beside[:-1], strict=True))
