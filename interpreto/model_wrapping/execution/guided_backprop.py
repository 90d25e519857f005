"""Guided backpropagation: activations pass on only positive gradients."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interpreto.errors import UnsupportedError
from interpreto.typing import TorchFunction

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
    functional.rrelu,
    functional.softplus,
    functional.threshold,
    torch.celu,
    torch.celu_,
    torch.selu,
    torch.selu_,
    torch.prelu,
    torch.rrelu,
    torch.rrelu_,
    torch.threshold,
)
_NAMES = re.compile("relu|gelu|silu|swish|mish", re.IGNORECASE)


class _Guided(TorchFunctionMode):
    """Adds a hook to the output of every activation function; the function itself is unchanged, in place or not."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.relu, self.others = False, set[str]()

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        output = func(*args, **(kwargs or {}))
        if func in _RELU or func in _LIKE_RELU:
            self.add_hook(output, func.__name__.strip("_"))
        return output

    def add_hook(self, output: object, name: str) -> None:
        """Record the activation, and set negative gradients of its output to 0."""
        # Modules and functions are named once: `SiLUActivation` is "silu", `leaky_relu` is "leakyrelu".
        kind = name.lower().replace("_", "").removesuffix("activation")
        if kind in ("relu", "relu6"):
            self.relu = True
        else:
            self.others.add(kind)
        if isinstance(output, Tensor) and output.requires_grad:
            # A hook on the tensor gets the sum of the gradients of all its uses, also after in-place operations.
            output.register_hook(lambda gradient: gradient.clamp(min=0))


@contextmanager
def guided(module: nn.Module) -> Iterator[None]:
    """A context in which gradients that pass an activation function of a model are set to 0 where they are negative.

    The method is defined for ReLU; GELU, SiLU and similar activations are treated alike, with a warning. Activations
    are recognised as functions of PyTorch, and by class name if a module implements them with other operations.

    Args:
        module: The model.

    Raises:
        UnsupportedError: if the model calls no ReLU and no similar activation in this context.
    """
    mode = _Guided()

    def forward_hook(part: nn.Module, _inputs: object, output: object) -> None:
        mode.add_hook(output, type(part).__name__)

    handles = [part.register_forward_hook(forward_hook) for part in module.modules() if _is_activation(part)]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()
    name = type(module).__name__
    if not mode.relu and not mode.others:
        raise UnsupportedError(f"{name} has no ReLU, GELU or SiLU, which GuidedBackprop needs.")
    if mode.others:
        warnings.warn(
            f"GuidedBackprop is meant for ReLU; {name} uses {', '.join(sorted(mode.others))}, whose negative "
            "gradients are set to 0 as well: interpret the attributions with care.",
            stacklevel=3,
        )


def _is_activation(part: nn.Module) -> bool:
    """Whether a module is an activation: its class has such a name, and it has no parameters or submodules."""
    has_content = any(True for _ in part.children()) or any(True for _ in part.parameters())
    return not has_content and _NAMES.search(type(part).__name__) is not None
