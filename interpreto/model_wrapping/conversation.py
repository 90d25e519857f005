"""What a plan and a wrapper say to each other.

A plan is a generator: it yields an `Ask`, is sent the `Answer`, and returns what it was made to find out. It knows
nothing of batches; whoever drives it packs the rows of many plans together.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.model_wrapping.inside.probe import Probe
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
    def reach(self) -> Int[Tensor, " t"] | None:
        """How many positions, from the first on, can have a say in each target; None where all can."""
        ...

    def own_positions(self, length: int) -> Bool[Tensor, "t l"] | None:
        """Which positions of a text are part of each target; None where targets are no part of the sample."""
        ...

    def by_unit(self, index: Int[Tensor, "*l"], labels: Any) -> "NamedTargets":
        """The targets at the granularity of the units, where outputs belong to units: each unit's as one."""
        ...

    def without_memory(self) -> "NamedTargets":
        """The same without what the model has computed, which takes memory and serves while it runs alone."""
        ...


@dataclass(frozen=True, eq=False)
class Settled:
    """What became of a sample and of the user's wish once the model has seen both.

    Attributes:
        sample: The sample with all that the model reads: a prompt goes on with what is generated.
        targets: What is explained.
        outputs: The model's outputs on the unchanged sample, from which targets select their scores.
        inside: What came of the probe, where there was one: scores `t h w` or `t l`.
    """

    sample: Sample
    targets: NamedTargets
    outputs: Float[Tensor, "1 *k"]
    inside: Float[Tensor, "t ..."] | None = None


@dataclass(frozen=True, eq=False)
class Ask:
    """Rows, and what is wanted of them.

    Attributes:
        rows: What goes through the model.
        targets: Whose scores are wanted.
        of: The field whose gradients are wanted too, one per score.
        keep: Whether what the model has computed of the rows is wanted too, to go on from there.
        probe: What is wanted of the model's inside too, for every target of every row.
        guided: Whether only positive gradients are to pass activations, on the way to what `of` names.
        beside: More asks, with targets of their own, which need no answer to this one.
    """

    rows: Rows
    targets: Targets
    of: str | None = None
    keep: bool = False
    probe: Probe | None = None
    guided: bool = False
    beside: tuple["Ask", ...] = ()

    @property
    def kind(self) -> tuple[object, ...]:
        """Asks of one kind can share a batch."""
        return (self.of, self.keep, self.probe, self.guided, self.rows.shape)

    @property
    def nbytes(self) -> int | float:
        """How much memory the rows and their gradients take; infinite where the model keeps what it computes of them.

        Blends are counted before they are made; asks beside this one, scores and what a probe finds are not.
        """
        if self.keep:
            return math.inf
        if self.of is None:
            return self.rows.nbytes
        return self.rows.nbytes + len(self.targets) * self.rows.fields[self.of].numel() * _FLOAT

    @property
    def all(self) -> tuple["Ask", ...]:
        """This ask and those beside it."""
        return (replace(self, beside=()), *self.beside) if self.beside else (self,)

    @staticmethod
    def of_all(asks: Sequence["Ask"]) -> "Ask":
        """Several asks as one."""
        return replace(asks[0], beside=tuple(asks[1:])) if len(asks) > 1 else asks[0]


@dataclass(frozen=True, eq=False)
class Answer:
    """Scores of the rows and, where asked for, gradients `p t *shape` of every score for its own row, or what was kept.

    Scores are `p t`, or all outputs `p *k` where these were the target. `inside` is what came of the probe: scores
    `p t h w` on the layer's grid of patches, or `p t l` of tokens. `beside` answers the asks beside this one.
    """

    scores: Float[Tensor, "p *k"]
    gradients: Float[Tensor, "p t ..."] | None = None
    kept: Any = None
    inside: Float[Tensor, "p t ..."] | None = None
    beside: tuple["Answer", ...] = ()

    @property
    def all(self) -> tuple["Answer", ...]:
        """This answer and those beside it."""
        return (replace(self, beside=()), *self.beside) if self.beside else (self,)

    @staticmethod
    def joined(answers: Sequence["Answer"]) -> "Answer":
        """The answers of rows as that of all of them; of several, what was kept of each is not."""
        if len(answers) == 1:
            return answers[0]
        gradients = [answer.gradients for answer in answers if answer.gradients is not None]
        inside = [answer.inside for answer in answers if answer.inside is not None]
        return Answer(
            torch.cat([answer.scores for answer in answers]),
            torch.cat(gradients) if gradients else None,
            inside=torch.cat(inside) if inside else None,
        )

    @staticmethod
    def of_all(answers: Sequence["Answer"]) -> "Answer":
        """Several answers as one."""
        return replace(answers[0], beside=tuple(answers[1:])) if len(answers) > 1 else answers[0]


Plan = Generator[Ask, Answer, Found]
