"""Gradients through models whose forward switches them off."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_SET: Any = torch._C._set_grad_enabled
"""What `torch.no_grad`, `torch.enable_grad` and `torch.set_grad_enabled` call."""


class NoGradDetector(TorchFunctionMode):
    """Notices whether a forward switches gradients off, as for a backbone that is not trained.

    Attributes:
        used: Whether it did.
    """

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.used = self.used or (func is _SET and not args[0])
        return func(*args, **(kwargs or {}))


class KeepGradientsEnabled(TorchFunctionMode):
    """Keeps gradients on while a forward runs: parameters that are not trained still pass gradients to the input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _SET and not args[0]:
            return None
        return func(*args, **(kwargs or {}))
