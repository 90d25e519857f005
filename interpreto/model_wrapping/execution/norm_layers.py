"""Gradients of batch and instance normalization for a batch of one row."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


def keep_layout(module: nn.Module) -> None:
    """Give normalization layers inputs and gradients in a memory layout for which PyTorch's gradient is correct.

    On a CPU the backward pass of `batch_norm` reads a gradient in the wrong order if it is channels last, the input is
    not, and the batch has one row, whose stride is meaningless (seen in torch 2.6 and 2.14). This happens if tokens are
    made of a normalized feature map by `flatten(2).transpose(1, 2)`, as in many hybrids of convolutions and attention.

    Args:
        module: A copy of the user's model, or a model from which the caller removes the hooks of this function.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm | _InstanceNorm):
            part.register_forward_pre_hook(_enter)
            part.register_forward_hook(_leave)


def _enter(_part: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # The first argument is the input, unless it is passed by keyword; subclasses may take others.
    inputs = (x.contiguous() if len(x) == 1 and x.stride(0) != x.numel() else x for x in given[:1])
    return (*inputs, *given[1:])


def _leave(_part: nn.Module, _given: object, output: Tensor) -> None:
    if output.requires_grad and len(output) == 1:
        output.register_hook(Tensor.contiguous)
