"""Autocast, kept in float32 where a lower precision costs more than it gains."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def at_least_float32(values: Tensor) -> Tensor:
    """Numbers in float32, or in float64 where they are: in half precision small differences of scores are lost."""
    return values if values.dtype == torch.float64 else values.float()


def precision(model: nn.Module, autocast: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Compute in `autocast` where it was asked for, all but what `_Exact` keeps."""
    return nullcontext() if autocast is None else _lower(model, autocast, device)


@contextmanager
def _lower(model: nn.Module, autocast: torch.dtype, device: torch.device) -> Iterator[None]:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with torch.autocast(device.type, dtype=autocast), _Exact(linear[-1].weight if linear else None, device.type):
        yield


class _Exact(TorchFunctionMode):
    """Leave autocast for two operations.

    The last linear layer: rounding its output to bfloat16, 8 bits, would drown the small differences between rows that
    attributions are made of. Attention on a CPU where gradients are taken: its backward pass in bfloat16 takes
    two to three times as long as in float32 (measured with torch 2.13).
    """

    def __init__(self, weight: Tensor | None, device: str) -> None:
        TorchFunctionMode.__init__(self)
        self.weight, self.device = weight, device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._kept(func, args):
            return func(*args, **(kwargs or {}))
        with torch.autocast(self.device, enabled=False):
            return func(*map(_exact, args), **{name: _exact(value) for name, value in (kwargs or {}).items()})

    def _kept(self, func: Any, args: Any) -> bool:
        if func is functional.linear:
            weight = self.weight
            return weight is not None and weight.dtype == torch.float32 and len(args) > 1 and args[1] is weight
        if func is not functional.scaled_dot_product_attention or self.device != "cpu":
            return False
        return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in args)


def _exact(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
