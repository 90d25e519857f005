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
class Head:
    """The inputs of the head at the requested positions.

    Attributes:
        positions: The positions that the head reads, counted from the first token that was sent.
        length: Number of tokens that were sent. An adapter may add tokens of its own in front.
        detach: Whether the head reads a leaf instead of the body's output.
        below: The hidden states from the body of the model; None before a run.
        leaf: The same, detached from the body, for gradients in two steps.
    """

    positions: Int[Tensor, " q"]
    length: int
    detach: bool = False
    below: Float[Tensor, "p q d"] | None = None
    leaf: Float[Tensor, "p q d"] | None = None

    def narrow(self, _module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook of the head."""
        hidden = self.below = self.narrowed(given[0])
        if self.detach:
            hidden = self.leaf = hidden.detach().requires_grad_()
        return (hidden, *given[1:])

    def narrowed(self, found: Float[Tensor, "p l d"]) -> Float[Tensor, "p q d"]:
        """Select the requested positions of hidden states or logits.

        Raises:
            ModelError: if there are fewer positions than tokens were sent.
        """
        # Prompt tuning adds virtual tokens in front of the text, which shift its positions.
        n_added = found.shape[1] - self.length
        if n_added < 0:
            raise ModelError(
                f"The model was sent {self.length} tokens but its head reads {found.shape[1]} positions: they cannot "
                "be assigned to tokens."
            )
        return found[:, self.positions + n_added]


@contextmanager
def restrict_head_to(module: nn.Module, positions: Int[Tensor, " q"], length: int, cut: bool = False) -> Iterator[Head]:
    """Restrict the head to some positions, whatever the model does around it (scaling or capping logits).

    Logits of every position would take more memory than the rest of the model's activations.

    Args:
        module: The output embedding.
        positions: The requested positions.
        length: Number of tokens that are sent.
        cut: Whether the head reads a leaf instead of the body's output. Every score depends only on the hidden state at
            its own position, so a single backward pass through the head serves all scores, and only the backward pass
            through the body is repeated for each.
    """
    head = Head(positions, length, cut)
    handle = module.register_forward_pre_hook(head.narrow)
    try:
        yield head
    finally:
        handle.remove()


def disjoint_groups(places: Bool[Tensor, "t q"]) -> list[list[int]]:
    """Targets in groups in which no two use the same position; found greedily."""
    groups: list[tuple[Tensor, list[int]]] = []
    for target, used in enumerate(places):
        for number, (occupied, members) in enumerate(groups):
            if not (occupied & used).any():
                groups[number] = (occupied | used, [*members, target])
                break
        else:
            groups.append((used, [target]))
    return [members for _, members in groups]


def gradients(
    scores: Float[Tensor, "p t"],
    places: Bool[Tensor, "p t q"],
    head: Head,
    leaf: Float[Tensor, "p *s"],
    in_one_pass: bool,
) -> Float[Tensor, "p t *s"]:
    """The gradient of every score with respect to the leaf of its own row.

    Args:
        scores: Scores of rows.
        places: Which of the head's positions each score uses.
        head: The detached inputs of the head; without them if the model computes its logits without calling it.
        leaf: The tensor with respect to which gradients are computed.
        in_one_pass: Whether the backward pass through the body is batched over targets (vmap), which needs more memory.
    """
    count = scores.shape[1]
    if head.below is None or head.leaf is None:
        per_target = [gradient_of(total, leaf, target + 1 < count) for target, total in enumerate(scores.sum(0))]
        return torch.stack(per_target, dim=1).float()
    head_gradients = head.leaf.new_zeros(count, *head.leaf.shape)
    # Targets that use different positions do not mix in the sum: the gradient at a position is that of its only target.
    for members in disjoint_groups(places.any(0)):
        (below,) = torch.autograd.grad(scores[:, members].sum(), head.leaf, retain_graph=True)
        for target in members:
            head_gradients[target] = below * places[:, target, :, None].to(below)
    if in_one_pass and count > 1:
        (per_target,) = torch.autograd.grad(head.below, leaf, head_gradients, is_grads_batched=True)
        return per_target.transpose(0, 1).float()
    per_target = [
        gradient_of(head.below, leaf, target + 1 < count, head_gradient)
        for target, head_gradient in enumerate(head_gradients)
    ]
    return torch.stack(per_target, dim=1).float()
