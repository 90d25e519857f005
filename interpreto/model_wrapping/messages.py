"""What a plan and a wrapper say to each other.

A plan is a generator: it yields an `Ask`, is sent the `Answer`, and returns what it was made to find out. It knows
nothing of batches; whoever drives it packs the rows of many plans together.
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

Found = TypeVar("Found")

_FLOAT = 4
"""Bytes of a number in a gradient."""


@runtime_checkable
class Targets(Protocol):
    """The outputs of the model that are explained for one sample."""

    def __len__(self) -> int: ...

    def select(self, outputs: Float[Tensor, "p *k"]) -> Scores:
        """Targeted scores of rows."""
        ...

    def part(self, start: int, stop: int) -> "Targets":
        """Some of the targets."""
        ...


@runtime_checkable
class NamedTargets(Targets, Protocol):
    """Targets that a result can tell of."""

    @property
    def values(self) -> tuple[Any, ...]:
        """What each target is."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What to call it."""
        ...

    @property
    def causal_limit(self) -> Int[Tensor, " t"] | None:
        """How many positions, from the first on, can have a say in each target; None where all can."""
        ...

    def own_positions(self, length: int) -> Bool[Tensor, "t l"] | None:
        """Which positions of a text are part of each target; None where targets are no part of the sample."""
        ...

    def by_unit(self, index: Int[Tensor, "*l"], labels: Any) -> "NamedTargets":
        """The targets at the granularity of the units, where outputs belong to units: each unit's as one."""
        ...

    def without_cache(self) -> "NamedTargets":
        """The same without what the model has computed, which takes memory and serves while it runs alone."""
        ...


@dataclass(frozen=True, eq=False)
class ResolvedSample:
    """What became of a sample and of the user's wish once the model has seen both.

    Attributes:
        sample: The sample with all that the model reads: a prompt goes on with what is generated.
        targets: What is explained.
        outputs: The model's outputs on the unchanged sample, from which targets select their scores.
        captured: What came of the probe, where there was one: scores `t h w` or `t l`.
    """

    sample: Sample
    targets: NamedTargets
    outputs: Float[Tensor, "1 *k"]
    captured: Float[Tensor, "t ..."] | None = None


@dataclass(frozen=True, eq=False)
class ModelRequest:
    """Rows, and what is wanted of them.

    Attributes:
        rows: What goes through the model.
        targets: Whose scores are wanted.
        gradient_field: The field whose gradients are wanted too, one per score.
        return_cache: Whether what the model has computed of the rows is wanted too, to go on from there.
        capture: What is wanted of the model's inside too, for every target of every row.
        guided: Whether only positive gradients are to pass activations, on the way to what `of` names.
        additional_requests: More asks, with targets of their own, which need no answer to this one.
    """

    rows: Rows
    targets: Targets
    gradient_field: str | None = None
    return_cache: bool = False
    capture: CaptureRequest | None = None
    guided: bool = False
    additional_requests: tuple["ModelRequest", ...] = ()

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Asks of one kind can share a batch."""
        return (self.gradient_field, self.return_cache, self.capture, self.guided, self.rows.shape)

    @property
    def nbytes(self) -> int | float:
        """How much memory the rows and their gradients take; infinite where the model keeps what it computes of them.

        Blends are counted before they are made; asks beside this one, scores and what a probe finds are not.
        """
        if self.return_cache:
            return math.inf
        if self.gradient_field is None:
            return self.rows.nbytes
        return self.rows.nbytes + len(self.targets) * self.rows.fields[self.gradient_field].numel() * _FLOAT

    @property
    def flattened(self) -> tuple["ModelRequest", ...]:
        """This ask and those beside it."""
        return (
            (replace(self, additional_requests=()), *self.additional_requests) if self.additional_requests else (self,)
        )

    @staticmethod
    def combine(requests: Sequence["ModelRequest"]) -> "ModelRequest":
        """Several asks as one."""
        return replace(requests[0], additional_requests=tuple(requests[1:])) if len(requests) > 1 else requests[0]


@dataclass(frozen=True, eq=False)
class ModelResponse:
    """Scores of the rows and, where asked for, gradients `p t *shape` of every score for its own row, or what was kept.

    Scores are `p t`, or all outputs `p *k` where these were the target. `inside` is what came of the probe: scores
    `p t h w` on the layer's grid of patches, or `p t l` of tokens. `beside` answers the asks beside this one.
    """

    scores: Float[Tensor, "p *k"]
    gradients: Float[Tensor, "p t ..."] | None = None
    cache: Any = None
    captured: Float[Tensor, "p t ..."] | None = None
    additional_responses: tuple["ModelResponse", ...] = ()

    @property
    def flattened(self) -> tuple["ModelResponse", ...]:
        """This answer and those beside it."""
        return (
            (replace(self, additional_responses=()), *self.additional_responses)
            if self.additional_responses
            else (self,)
        )

    @staticmethod
    def concatenate(responses: Sequence["ModelResponse"]) -> "ModelResponse":
        """The answers of rows as that of all of them; of several, what was kept of each is not."""
        if len(responses) == 1:
            return responses[0]
        gradients = [response.gradients for response in responses if response.gradients is not None]
        inside = [response.captured for response in responses if response.captured is not None]
        return ModelResponse(
            torch.cat([response.scores for response in responses]),
            torch.cat(gradients) if gradients else None,
            captured=torch.cat(inside) if inside else None,
        )

    @staticmethod
    def combine(responses: Sequence["ModelResponse"]) -> "ModelResponse":
        """Several answers as one."""
        return replace(responses[0], additional_responses=tuple(responses[1:])) if len(responses) > 1 else responses[0]


PlanRun = Generator[ModelRequest, ModelResponse, Found]
Respond = Callable[[Sequence[ModelRequest]], list[ModelResponse]]
