"""What a plan and a wrapper say to each other.

A plan is a generator: it yields an `Ask`, is sent the `Answer`, and returns what it was made to find out. It knows
nothing of batches; whoever drives it packs the rows of many plans together.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from interpreto.model_wrapping.rows import Rows
from interpreto.typing import Scores

Found = TypeVar("Found")


@runtime_checkable
class Targets(Protocol):
    """The outputs of the model that are explained for one sample."""

    def __len__(self) -> int: ...

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """Targeted scores of rows."""
        ...

    def part(self, start: int, stop: int) -> "Targets":
        """Some of the targets."""
        ...


@dataclass(frozen=True, eq=False)
class Ask:
    """Rows whose targeted scores are wanted, and perhaps the scores' gradients for the tensor in field `of`."""

    rows: Rows
    targets: Targets
    of: str | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Asks of one kind can share a batch."""
        return (self.of, self.rows.shape)


@dataclass(frozen=True, eq=False)
class Answer:
    """Scores of the rows and, where asked for, gradients `p t *shape` of every score for its own row."""

    scores: Scores
    gradients: Float[Tensor, "p t ..."] | None = None


Plan = Generator[Ask, Answer, Found]
