"""Watching a run of a model: what is kept of it, and what gradients are then taken for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType

from jaxtyping import Float
from torch import Tensor


class Capture(ABC):
    """A run of a model that is watched, as a context; what it says holds until the context ends."""

    @abstractmethod
    def __enter__(self) -> "Capture": ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        """The outputs whose targeted scores are summed before gradients are taken."""

    @abstractmethod
    def leaves(self) -> list[Tensor]:
        """What gradients are taken for; nothing where none are wanted."""

    @abstractmethod
    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p ..."]:
        """Scores of positions, of one target of each row."""
