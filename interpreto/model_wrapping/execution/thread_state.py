"""PyTorch's per-thread state that runs change, and its restoration even after an interrupt between two lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode

_DEVICES = ("cpu", "cuda")
"""Device types for which autocast is used."""


@dataclass(frozen=True)
class ThreadState:
    """Gradient mode, autocast and function modes of the current thread."""

    gradients: bool
    modes: int
    autocast: tuple[tuple[bool, torch.dtype], ...]

    @staticmethod
    def now() -> "ThreadState":
        """The current state of this thread."""
        return ThreadState(
            torch.is_grad_enabled(),
            len(_get_current_function_mode_stack()),
            tuple((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES),
        )

    def restore(self) -> None:
        """Restore this state of the thread; unchanged parts are left alone."""
        while len(_get_current_function_mode_stack()) > self.modes:
            _pop_mode()
        torch.set_grad_enabled(self.gradients)
        for device, (enabled, dtype) in zip(_DEVICES, self.autocast, strict=True):
            if torch.is_autocast_enabled(device) != enabled:
                # Weights that autocast has converted and cached belong to the context that was interrupted.
                torch.clear_autocast_cache()
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)


@contextmanager
def restored_thread_state() -> Iterator[None]:
    """Restore the state of the thread when the context ends.

    Contexts restore what they change, but not if an interrupt arrives between the change and the context's own `try`.
    """
    state = ThreadState.now()
    try:
        try:
            yield
        finally:
            state.restore()
    finally:
        # Repeated in case a KeyboardInterrupt arrived right before the first restore or during it.
        state.restore()
