"""What PyTorch keeps per thread and a run of ours changes: put back even where an interrupt comes between two lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode

_DEVICES = ("cpu", "cuda")
"""Types of devices that autocast is used on."""


@dataclass(frozen=True)
class ThreadState:
    """Gradient mode, autocast and function modes of the current thread."""

    gradients: bool
    modes: int
    autocast: tuple[tuple[bool, torch.dtype], ...]

    @staticmethod
    def now() -> "ThreadState":
        """The state of this thread."""
        return ThreadState(
            torch.is_grad_enabled(),
            len(_get_current_function_mode_stack()),
            tuple((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES),
        )

    def restore(self) -> None:
        """Put this thread back into this state; where it is in it already, nothing is done."""
        while len(_get_current_function_mode_stack()) > self.modes:
            _pop_mode()
        torch.set_grad_enabled(self.gradients)
        for device, (enabled, dtype) in zip(_DEVICES, self.autocast, strict=True):
            if torch.is_autocast_enabled(device) != enabled:
                # Weights that autocast has converted belong to the context that was left.
                torch.clear_autocast_cache()
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)


@contextmanager
def restored_thread_state() -> Iterator[None]:
    """Leave the thread as it was.

    Contexts restore what they changed, but an interrupt between the change and the context's own `try` passes them by.
    """
    state = ThreadState.now()
    try:
        try:
            yield
        finally:
            state.restore()
    finally:
        # A second time for an interrupt that came right before the first or during it.
        state.restore()
