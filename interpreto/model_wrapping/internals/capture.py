"""The interface of a run of a model whose internals are captured."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType

from jaxtyping import Float
from torch import Tensor


class Capture(ABC):
    """A context in which a run of the model is captured; its results are valid until the context ends."""

    @abstractmethod
    def __enter__(self) -> "Capture": ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        """The outputs whose target scores are summed before gradients are computed."""

    @abstractmethod
    def leaves(self) -> list[Tensor]:
        """The tensors with respect to which gradients are computed; empty if none are needed."""

    @abstractmethod
    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p ..."]:
        """Scores of positions, for one target of each row."""
