"""The engine of models that run in PyTorch as a whole: scores, gradients and captured internals of a batch."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.model_wrapping.execution.autograd import Autograd
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.parts import Engine
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, provenance


@runtime_checkable
class CapturesInternals(Protocol):
    """Runs a model for requests that capture internals."""

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]: ...

    def notes(self) -> dict[str, str]: ...


@final
class TorchEngine(Engine):
    """Runs a PyTorch model.

    Args:
        module: The model.
        forward: From rows to outputs `p k`.
        capture: Runs the model for requests with a `capture`.
        config: The model's config, for the record.
        runtime: The options of running the model.
        part_of: The part of the model that runs given rows; None if all rows run the whole model.
        gradient_obstacle: Why there are no gradients for the input, as a sentence; empty if there are.
        may_read_padding: Whether padding may change scores.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[Rows], Float[Tensor, "p k"]],
        capture: CapturesInternals,
        config: object,
        runtime: Runtime,
        *,
        part_of: Callable[[Rows], Hashable] | None = None,
        gradient_obstacle: str = "",
        may_read_padding: bool = False,
    ) -> None:
        self.module, self.forward, self.capture = module, forward, capture
        self.config, self.runtime = config, runtime
        self.gradient_obstacle, self.may_read_padding = gradient_obstacle, may_read_padding
        self._part_of, self._autograd = part_of, Autograd(module, forward)

    def part_of(self, rows: Rows) -> Hashable:
        return None if self._part_of is None else self._part_of(rows)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self._autograd.respond(requests) if requests[0].capture is None else self.capture.respond(requests)

    def notes(self) -> dict[str, Any]:
        return dict(self.capture.notes())

    def provenance(self) -> dict[str, Any]:
        assert self.module is not None
        return provenance(self.module, self.config, self.runtime)
