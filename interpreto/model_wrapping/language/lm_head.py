"""The output head of a language model, restricted to the requested positions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError
from interpreto.model_wrapping.execution.gradient_check import gradient_of


@dataclass(eq=False)
class HeadInput:
    """The input of the head at the requested positions, recorded by a hook.

    Attributes:
        positions: The positions that the head reads, counted from the first token that is passed to the model.
        length: Number of tokens that are passed to the model. An adapter may add tokens of its own in front.
        detach: Whether the head reads a leaf instead of the body's output.
        hidden: The hidden states from the body of the model; None before a run.
        detached_hidden: The same, detached from the body, for gradients in two steps.
    """

    positions: Int[Tensor, " q"]
    length: int
    detach: bool = False
    hidden: Float[Tensor, "p q d"] | None = None
    detached_hidden: Float[Tensor, "p q d"] | None = None

    def pre_hook(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook of the head."""
        hidden = self.hidden = self.select_positions(args[0])
        if self.detach:
            hidden = self.detached_hidden = hidden.detach().requires_grad_()
        return (hidden, *args[1:])

    def select_positions(self, states: Float[Tensor, "p l d"]) -> Float[Tensor, "p q d"]:
        """Select the requested positions of hidden states or logits.

        Raises:
            ModelError: if the head reads fewer positions than tokens are passed to the model.
        """
        # Prompt tuning adds virtual tokens in front of the text, which shift its positions.
        n_added = states.shape[1] - self.length
        if n_added < 0:
            raise ModelError(
                f"The model was sent {self.length} tokens but its head reads {states.shape[1]} positions: they cannot "
                "be assigned to tokens."
            )
        return states[:, self.positions + n_added]


@contextmanager
def restrict_head_to(
    module: nn.Module, positions: Int[Tensor, " q"], length: int, detach: bool = False
) -> Iterator[HeadInput]:
    """Restrict the head to some positions, whatever the model does around it (scaling or capping logits).

    Logits of every position would take more memory than the rest of the model's activations.

    Args:
        module: The LM head, as from `get_output_embeddings()`.
        positions: The requested positions.
        length: Number of tokens that are passed to the model.
        detach: Whether the head reads a leaf instead of the body's output. Every score depends only on the hidden state
            at its own position, so a single backward pass through the head serves all scores, and only the backward
            pass through the body is repeated for each.
    """
    head = HeadInput(positions, length, detach)
    handle = module.register_forward_pre_hook(head.pre_hook)
    try:
        yield head
    finally:
        handle.remove()


def disjoint_groups(position_mask: Bool[Tensor, "t q"]) -> list[list[int]]:
    """Targets in groups in which no two use the same position; found greedily."""
    groups: list[tuple[Tensor, list[int]]] = []
    for target, used in enumerate(position_mask):
        for number, (occupied, members) in enumerate(groups):
            if not (occupied & used).any():
                groups[number] = (occupied | used, [*members, target])
                break
        else:
            groups.append((used, [target]))
    return [members for _, members in groups]


def gradients(
    scores: Float[Tensor, "p t"],
    position_mask: Bool[Tensor, "p t q"],
    head: HeadInput,
    inputs: Float[Tensor, "p *s"],
    in_one_pass: bool,
) -> Float[Tensor, "p t *s"]:
    """The gradient of every score with respect to the inputs of its own row.

    Args:
        scores: Scores of rows.
        position_mask: Which of the head's positions each score uses; `t` are targets.
        head: The recorded input of the head; its tensors are None if the model computes its logits without calling it.
        inputs: The tensor with respect to which gradients are computed.
        in_one_pass: Whether the backward pass through the body is batched over targets (vmap), which needs more memory.
    """
    count = scores.shape[1]
    if head.hidden is None or head.detached_hidden is None:
        per_target = [gradient_of(total, inputs, target + 1 < count) for target, total in enumerate(scores.sum(0))]
        return torch.stack(per_target, dim=1).float()
    head_gradients = head.detached_hidden.new_zeros(count, *head.detached_hidden.shape)
    # Targets that use different positions do not mix in the sum: the gradient at a position is that of its only target.
    for members in disjoint_groups(position_mask.any(0)):
        (gradient,) = torch.autograd.grad(scores[:, members].sum(), head.detached_hidden, retain_graph=True)
        for target in members:
            head_gradients[target] = gradient * position_mask[:, target, :, None].to(gradient)
    if in_one_pass and count > 1:
        (per_target,) = torch.autograd.grad(head.hidden, inputs, head_gradients, is_grads_batched=True)
        return per_target.transpose(0, 1).float()
    per_target = [
        gradient_of(head.hidden, inputs, target + 1 < count, head_gradient)
        for target, head_gradient in enumerate(head_gradients)
    ]
    return torch.stack(per_target, dim=1).float()
