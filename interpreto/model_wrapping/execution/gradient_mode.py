"""Gradients through models whose forward disables them."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_SET_GRAD_ENABLED: Any = torch._C._set_grad_enabled
"""The function behind `torch.no_grad`, `torch.enable_grad` and `torch.set_grad_enabled`."""


class NoGradDetector(TorchFunctionMode):
    """Detects whether a forward disables gradients, as for a frozen backbone.

    Attributes:
        used: Whether it did.
    """

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.used = self.used or (func is _SET_GRAD_ENABLED and not args[0])
        return func(*args, **(kwargs or {}))


class KeepGradientsEnabled(TorchFunctionMode):
    """Keeps gradients enabled while a forward runs: frozen parameters still pass gradients to the input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The call is skipped; the exit of a no_grad context restores the previous mode and passes.
        if func is _SET_GRAD_ENABLED and not args[0]:
            return None
        return func(*args, **(kwargs or {}))
