"""Gradients through models whose forward disables them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from interpreto.typing import TorchFunction

SET_GRAD_ENABLED: Any = torch._C._set_grad_enabled
"""The function behind `torch.no_grad`, `torch.enable_grad` and `torch.set_grad_enabled`."""


def without_gradients() -> AbstractContextManager[None]:
    """`torch.no_grad()`, unless gradients are disabled already.

    Only the model's own calls then reach `FirstRun` and `KeepGradientsEnabled`, which cannot tell them from ours.
    """
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()


class KeepGradientsEnabled(TorchFunctionMode):
    """Keeps gradients enabled while a forward runs: frozen parameters still pass gradients to the input."""

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        # The call is skipped; the exit of a no_grad context restores the previous mode and passes.
        if func is SET_GRAD_ENABLED and not args[0]:
            return None
        return func(*args, **(kwargs or {}))
