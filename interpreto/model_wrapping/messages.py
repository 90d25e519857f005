"""Requests to a model and its responses.

A plan is a generator: it yields a `ModelRequest`, is sent the `ModelResponse`, and returns its result. Plans know
nothing of batches: the scheduler packs the rows of many plans into one.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import Scores

Result = TypeVar("Result")

_FLOAT = 4
"""Bytes of a number in a gradient."""


@runtime_checkable
class Targets(Protocol):
    """The outputs of the model that are explained for one sample."""

    def __len__(self) -> int: ...

    def select(self, outputs: Float[Tensor, "p *k"]) -> Scores:
        """The scores of the targets in the outputs of rows."""
        ...

    def part(self, start: int, stop: int) -> "Targets":
        """The targets from `start` to `stop`."""
        ...


@runtime_checkable
class NamedTargets(Targets, Protocol):
    """Targets with values and names, for results."""

    @property
    def values(self) -> tuple[Any, ...]:
        """Class indices, token ids, contrasts or functions."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        ...

    @property
    def spec(self) -> Any:
        """The targets as a user would pass them, to explain the same ones again."""
        ...

    @property
    def causal_limit(self) -> Int[Tensor, " t"] | None:
        """The number of leading positions that can influence each target; None if all positions can."""
        ...

    def own_positions(self, length: int) -> Bool[Tensor, "t l"] | None:
        """The positions of a text that are part of each target; None if targets are not part of the sample."""
        ...

    def by_unit(self, index: Int[Tensor, "*l"], labels: object) -> "NamedTargets":
        """Targets at the granularity of the units, if outputs belong to units: one target per unit."""
        ...

    def without_cache(self) -> "NamedTargets":
        """The same without a key/value cache, which takes memory and is needed only while the sample is explained."""
        ...


@dataclass(frozen=True, eq=False)
class ModelRequest:
    """Rows to run, and what to return of them.

    Attributes:
        rows: Model inputs.
        targets: The targets whose scores are returned.
        gradient_field: The field for which the gradient of every score is returned; None for no gradients.
        return_outputs: Whether all outputs are returned too.
        return_cache: Whether the key/value cache of the rows is returned, for later rows to resume from.
        capture: Internals to capture, for every target of every row.
        guided: Whether only positive gradients pass activations.
        additional_requests: Requests with targets of their own that do not depend on the response to this one.
    """

    rows: Rows
    targets: Targets
    gradient_field: str | None = None
    return_outputs: bool = False
    return_cache: bool = False
    capture: CaptureRequest | None = None
    guided: bool = False
    additional_requests: tuple["ModelRequest", ...] = ()

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Requests with equal keys can share a batch."""
        return (self.gradient_field, self.return_cache, self.capture, self.guided, self.rows.shape)

    @property
    def nbytes(self) -> int | float:
        """Memory of the rows and their gradients; infinite if a cache is returned.

        Lazy blends count with their masks. Scores, captured internals and additional requests do not count.
        """
        if self.return_cache:
            return math.inf
        if self.gradient_field is None:
            return self.rows.nbytes
        return self.rows.nbytes + len(self.targets) * self.rows.fields[self.gradient_field].numel() * _FLOAT

    @property
    def flattened(self) -> tuple["ModelRequest", ...]:
        """This request without its additional requests, and these."""
        own = replace(self, additional_requests=()) if self.additional_requests else self
        return (own, *self.additional_requests)

    @staticmethod
    def combine(requests: Sequence["ModelRequest"]) -> "ModelRequest":
        """Several requests as one."""
        return replace(requests[0], additional_requests=tuple(requests[1:])) if len(requests) > 1 else requests[0]


@dataclass(frozen=True, eq=False)
class ModelResponse:
    """What a request asked for.

    Attributes:
        scores: Scores of the targets, `p t`; all outputs `p *k` if these were the target.
        gradients: Gradients of every score, `p t *shape`.
        outputs: All outputs.
        cache: The key/value cache.
        captured: What was computed from captured internals: scores `p t h w` on a layer's grid of patches, or `p t l`.
        additional_responses: Responses to the additional requests.
    """

    scores: Float[Tensor, "p *k"]
    gradients: Float[Tensor, "p t ..."] | None = None
    outputs: Float[Tensor, "p ..."] | None = None
    cache: Any = None
    captured: Float[Tensor, "p t ..."] | None = None
    additional_responses: tuple["ModelResponse", ...] = ()

    @property
    def flattened(self) -> tuple["ModelResponse", ...]:
        """This response without its additional responses, and these."""
        own = replace(self, additional_responses=()) if self.additional_responses else self
        return (own, *self.additional_responses)

    def take(self, rows: slice) -> "ModelResponse":
        """The response of some of the rows, without their cache."""
        gradients, outputs, captured = (
            None if values is None else values[rows] for values in (self.gradients, self.outputs, self.captured)
        )
        return ModelResponse(self.scores[rows], gradients, outputs, captured=captured)

    @staticmethod
    def concatenate(responses: Sequence["ModelResponse"]) -> "ModelResponse":
        """The response of all rows from those of parts of them; the caches of several parts are left out."""
        if len(responses) == 1:
            return responses[0]
        return ModelResponse(
            torch.cat([response.scores for response in responses]),
            _joined([response.gradients for response in responses]),
            _joined([response.outputs for response in responses]),
            captured=_joined([response.captured for response in responses]),
        )

    @staticmethod
    def combine(responses: Sequence["ModelResponse"]) -> "ModelResponse":
        """Several responses as one."""
        return replace(responses[0], additional_responses=tuple(responses[1:])) if len(responses) > 1 else responses[0]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


@dataclass(frozen=True, eq=False)
class ResolvedSample:
    """A sample whose targets are known.

    Attributes:
        sample: The sample with all that the model reads: a prompt continues with what is generated.
        targets: What is explained.
        unperturbed: The response to the unperturbed sample, with all outputs; None before it has run.
    """

    sample: Sample
    targets: NamedTargets
    unperturbed: ModelResponse | None = None


PlanRun = Generator[ModelRequest, ModelResponse, Result]
"""A running plan."""
Respond = Callable[[Sequence[ModelRequest]], list[ModelResponse]]
"""Runs requests that share a batch key."""
