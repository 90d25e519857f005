"""Guided backpropagation: only positive gradients pass activations."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interpreto.errors import UnsupportedError

_RELU = (
    functional.relu,
    functional.relu_,
    functional.relu6,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
)
_LIKE_RELU = (
    functional.gelu,
    functional.silu,
    functional.mish,
    functional.hardswish,
    functional.leaky_relu,
    functional.leaky_relu_,
    functional.elu,
    functional.elu_,
    functional.celu,
    functional.selu,
    functional.prelu,
)
_NAMES = re.compile("relu|gelu|silu|swish|mish", re.IGNORECASE)


class _Guided(TorchFunctionMode):
    """Watches for activations; functions are answered as they are, whatever is done in place."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.relu, self.others = False, set[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _RELU or func in _LIKE_RELU:
            self.let_pass(found, func.__name__.strip("_"))
        return found

    def let_pass(self, found: Any, name: str) -> None:
        """From now on only what is positive reaches whatever made this tensor."""
        # A module and the function that it calls are one.
        kind = name.lower().removesuffix("activation")
        if kind in ("relu", "relu6"):
            self.relu = True
        else:
            self.others.add(kind)
        if isinstance(found, Tensor) and found.requires_grad:
            # A hook on the tensor, for it sees the gradients of all that reads it summed up, in place or not.
            found.register_hook(lambda gradient: gradient.clamp(min=0))


@contextmanager
def guided(module: nn.Module) -> Iterator[None]:
    """While it is entered, a model's runs leave graphs in which only positive gradients pass activations.

    ReLU is meant by the method; GELU, SiLU and their kin are treated alike, with a warning. They are found as
    functions, and as modules of their own where a library writes them out.

    Raises:
        UnsupportedError: if no activation was met.
    """
    mode = _Guided()

    def leave(part: nn.Module, _given: Any, output: Any) -> None:
        mode.let_pass(output, type(part).__name__)

    handles = [part.register_forward_hook(leave) for part in module.modules() if _is_activation(part)]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()
    name = type(module).__name__
    if not mode.relu and not mode.others:
        raise UnsupportedError(f"{name} uses no ReLU, GELU or SiLU at which GuidedBackprop could hold gradients back.")
    if mode.others:
        warnings.warn(
            f"GuidedBackprop is meant for ReLU; {name} uses {', '.join(sorted(mode.others))}, where negative gradients "
            "are held back alike: read its maps with care.",
            stacklevel=3,
        )


def _is_activation(part: nn.Module) -> bool:
    """Whether a module is an activation alone: no weights, nothing inside, and the name of one."""
    inside = any(True for _ in part.children()) or any(True for _ in part.parameters())
    return not inside and _NAMES.search(type(part).__name__) is not None
