"""Working copies of a model, each leased to one call at a time."""

import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, final, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interpreto.errors import CannotCopyError, ModelError, StochasticModelWarning
from interpreto.model_wrapping.execution.batch_checks import BatchCheck, PaddingCheck, alike
from interpreto.model_wrapping.execution.first_run import FirstRun
from interpreto.model_wrapping.execution.gradient_mode import KeepGradientsEnabled, without_gradients
from interpreto.model_wrapping.execution.module_state import ModuleState
from interpreto.model_wrapping.execution.randomness import OwnGenerator
from interpreto.model_wrapping.execution.working_copy import WorkingCopy, prepare
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.parts import Engine
from interpreto.model_wrapping.runtime import FLOAT32_TOLERANCE, Runtime, device_of, relative_tolerance

_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[Any]] = WeakKeyDictionary()
"""A lock per module of models that cannot be copied: two such models may share modules."""
_LOCKS_LOCK = threading.Lock()


@runtime_checkable
class Leasable(Protocol):
    """What a pool leases: an inference wrapper."""

    @property
    def engine(self) -> Engine: ...

    @property
    def runtime(self) -> Runtime | None: ...


Leased = TypeVar("Leased", bound=Leasable)


@dataclass(eq=False)
class Lease(Generic[Leased]):
    """A wrapper for the duration of one call.

    Attributes:
        wrapper: A wrapper of a working copy, or of the user's own model if it cannot be copied.
        copy: The working copy.
        seed: The seed of a model that draws random numbers in its forward.
        verified: The parts of the model of which one run has been checked.
        draws: Whether one of these runs drew random numbers.
        disables_gradients: Whether one of these runs disabled gradients.
        reason: Why there is no working copy.
        padding: Whether rows of different lengths may share a batch.
        batch: Whether rows may share a batch at all, for each part of the model.
    """

    wrapper: Leased
    copy: WorkingCopy | None = None
    seed: int = 0
    verified: set[Hashable] = field(default_factory=set)
    draws: bool = False
    disables_gradients: bool = False
    reason: str = ""
    padding: PaddingCheck = field(default_factory=PaddingCheck)
    batch: dict[Hashable, BatchCheck] = field(default_factory=dict)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests that share a batch key as one batch.

        Raises:
            CannotCopyError: if the first run shows that the copy behaves differently from the model.
        """
        engine, rows = self.wrapper.engine, requests[0].rows
        if engine.module is not None and len(rows) and engine.part_of(rows) not in self.verified:
            self._verify(requests[0])
        return self.padding.respond(requests, self._rows) if engine.may_read_padding else self._rows(requests)

    @property
    def _tolerance(self) -> float:
        module, runtime = self.wrapper.engine.module, self.wrapper.runtime
        return FLOAT32_TOLERANCE if module is None or runtime is None else relative_tolerance(module, runtime.autocast)

    def _rows(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        if self.wrapper.engine.module is None:
            # A user's function is not called more often than documented, so its batches are not checked.
            return self._run(requests)
        remember = self.copy.remembered if self.copy is not None else nullcontext
        part = self.wrapper.engine.part_of(requests[0].rows)
        if part not in self.batch:
            self.batch[part] = BatchCheck(self._tolerance)
        return self.batch[part].respond(requests, self._run, remember)

    def _run(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        if self.copy is not None:
            self.copy.reset_submodules()
        with ExitStack() as stack:
            # Every batch starts from the same seed, so that scores do not depend on the batches before it.
            if self.draws:
                stack.enter_context(OwnGenerator(self.seed))
            # Frozen backbones often run under no_grad, which would cut the gradient of the input.
            if self.disables_gradients and (requests[0].gradient_field is not None or requests[0].capture is not None):
                stack.enter_context(KeepGradientsEnabled())
            return self.wrapper.engine.respond(requests)

    def notes(self) -> dict[str, Any]:
        """How the model was run, for the record of a result."""
        copy_note = {} if self.copy is not None or not self.reason else {"working_copy": f"none: {self.reason}"}
        return {**copy_note, **self.wrapper.engine.notes()}

    def _verify(self, request: ModelRequest) -> None:
        # Without gradients and captures the run is cheapest, and tests the same modules.
        single_row = replace(request, rows=request.rows.take(slice(1)), gradient_field=None, capture=None, guided=False)
        original_parameters = set() if self.copy is None else self.copy.original_parameters
        with without_gradients(), FirstRun(self.seed, original_parameters) as run:
            scores = self.wrapper.engine.respond([single_row])[0].scores
        self.draws, self.disables_gradients = self.draws or run.draws, self.disables_gradients or run.disables_gradients
        self.verified.add(self.wrapper.engine.part_of(request.rows))
        if run.draws:
            self._check_deterministic(single_row, scores)
        if self.copy is not None:
            # Buffers that this run changed must not make the first call differ from later ones.
            self.copy.reset()

    def _check_deterministic(self, one: ModelRequest, scores: Tensor) -> None:
        """Warn if the scores of a model change with its random numbers."""
        with OwnGenerator(self.seed + 1):
            other_scores = self.wrapper.engine.respond([one])[0].scores
        if not alike(scores, other_scores, self._tolerance):
            warnings.warn(
                "This model draws random numbers when it runs, and its score depends on them, as with hashed attention "
                f"or dropout that is never switched off: the score of one draw is explained, seed={self.seed}. "
                "Explain with several seeds and compare.",
                StochasticModelWarning,
                stacklevel=2,
            )


@final
class ModelPool(Generic[Leased]):
    """Working copies of one model.

    A copy serves one call at a time, and a new one is made if none is free. Copies are replaced after the user has
    changed the structure of the model; the values of parameters are always those of the user's model. After an
    exception a copy is discarded. A model that cannot be copied runs itself, one call at a time: calls wait for a lock
    per module, and the state of the model is restored afterwards.

    Args:
        model: The user's model.
        wrap: Creates a wrapper of a copy.
        device: The device on which copies run; None for the model's own.

    Attributes:
        reason: Why there are no copies; empty if there are.
    """

    def __init__(
        self, model: nn.Module, wrap: Callable[[nn.Module], Leased], device: torch.device | str | None
    ) -> None:
        self.model, self.wrap, self.device = model, wrap, device
        self.reason = ""
        self._free: list[Lease[Leased]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Copies and locks stay in this process; another process makes its own.
        return {"model": self.model, "wrap": self.wrap, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"], state["wrap"], state["device"])

    @contextmanager
    def lease(self, seed: int) -> Iterator[Lease[Leased]]:
        """Lease a wrapper to one call.

        Raises:
            ModelError: if the model cannot be moved to the requested device.
        """
        target = self._target_device()
        lease = None if self.reason else self._free_or_new()
        if lease is None:
            with self._own_model(target, seed) as own_lease:
                yield own_lease
            return
        lease.seed = seed
        copy = lease.copy
        assert copy is not None
        if target is not None:
            copy.move(target)
        try:
            yield lease
        except CannotCopyError as error:
            self.reason = str(error)
            raise
        if target is not None:
            copy.release_device()
        with self._lock:
            # Reached only without an exception, after which the state of a copy would be unknown.
            self._free.append(lease)

    def _free_or_new(self) -> Lease[Leased] | None:
        """A free copy, or a new one; None if the model cannot be copied."""
        while True:
            with self._lock:
                lease = self._free.pop() if self._free else None
            if lease is None:
                break
            copy = lease.copy
            assert copy is not None
            # Outdated copies are dropped, and the loop tries the next free one.
            if copy.is_current():
                copy.reset()
                return lease
        try:
            copy = WorkingCopy(self.model)
        except CannotCopyError as error:
            self.reason = str(error)
            return None
        return Lease(self.wrap(copy.module), copy)

    def _target_device(self) -> torch.device | None:
        """The device to which copies are moved; None if they run where the model is.

        Raises:
            ModelError: if the model is sharded or quantised.
        """
        if self.device is None:
            return None
        # Resolves "cuda" to the current device, so that it equals the device of a tensor.
        target = torch.empty(0, device=self.device).device
        if target == device_of(self.model):
            return None
        if _is_pinned(self.model):
            raise ModelError(
                f"device={str(target)!r} would move a model that is sharded or quantised; pass device=None to run it "
                "where it is."
            )
        return target

    @contextmanager
    def _own_model(self, target: torch.device | None, seed: int) -> Iterator[Lease[Leased]]:
        """The user's own model under a lock, restored afterwards."""
        if target is not None:
            raise ModelError(
                f"device={str(target)!r} would move a model that cannot be copied ({self.reason}): move it yourself, "
                "and pass device=None."
            )
        with ExitStack() as stack:
            for lock in _locks(self.model):
                stack.enter_context(lock)
            state = ModuleState.of(self.model)
            try:
                try:
                    prepare(self.model)
                    yield Lease(self.wrap(self.model), None, seed, reason=self.reason)
                finally:
                    state.restore()
            finally:
                # Repeated in case a KeyboardInterrupt arrived right before the first restore or during it.
                state.restore()


def _locks(model: nn.Module) -> list[AbstractContextManager[Any]]:
    """The locks of all modules, in an order that is the same for all models, which avoids deadlocks."""
    with _LOCKS_LOCK:
        return [_LOCKS.setdefault(module, threading.RLock()) for module in sorted(model.modules(), key=id)]


def _is_pinned(model: Any) -> bool:
    devices = {parameter.device for parameter in model.parameters()}
    return (
        len(devices) > 1 or getattr(model, "hf_device_map", None) is not None or getattr(model, "is_quantized", False)
    )
