"""Autocast, except for operations in which a lower precision costs more than it saves."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interpreto.typing import TorchFunction


def at_least_float32(values: Tensor) -> Tensor:
    """Values in float32, or in float64 if they are: half precision loses small differences of scores."""
    return values if values.dtype == torch.float64 else values.float()


def precision(model: nn.Module, autocast: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Compute in `autocast` if it is set, except for the operations of `_Exact`."""
    return nullcontext() if autocast is None else _lower(model, autocast, device)


@contextmanager
def _lower(model: nn.Module, autocast: torch.dtype, device: torch.device) -> Iterator[None]:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    # The last linear layer in the order of registration is usually the head.
    with torch.autocast(device.type, dtype=autocast), _Exact(linear[-1].weight if linear else None, device.type):
        yield


class _Exact(TorchFunctionMode):
    """Disable autocast for two operations.

    The last linear layer, because rounding its output to bfloat16, with 8 bits, would hide the small differences
    between rows on which attributions are based. Attention on a CPU with gradients, because its backward pass in
    bfloat16 takes two to three times as long as in float32 (measured with torch 2.13).
    """

    def __init__(self, weight: Tensor | None, device: str) -> None:
        TorchFunctionMode.__init__(self)
        self.weight, self.device = weight, device

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if not self._needs_float32(func, args):
            return func(*args, **(kwargs or {}))
        with torch.autocast(self.device, enabled=False):
            return func(*map(_exact, args), **{name: _exact(value) for name, value in (kwargs or {}).items()})

    def _needs_float32(self, func: Any, args: Any) -> bool:
        if func is functional.linear:
            weight = self.weight
            # The layer is recognized by its weight: a function mode does not see modules.
            return weight is not None and weight.dtype == torch.float32 and len(args) > 1 and args[1] is weight
        if func is not functional.scaled_dot_product_attention or self.device != "cpu":
            return False
        return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in args)


def _exact(value: object) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
