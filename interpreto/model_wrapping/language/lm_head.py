"""The output head of a language model, applied at the asked positions alone."""

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
    """What passed into the head at the asked positions.

    Attributes:
        positions: What the head reads, counted from the first token that was sent.
        length: How many tokens were sent. An adapter may put tokens of its own before them.
        detach: Whether it reads a leaf instead of the body's output.
        below: The hidden states as the body of the model left them; None as long as none came.
        leaf: The same, cut off from the body, where gradients are taken in two steps.
    """

    positions: Int[Tensor, " q"]
    length: int
    detach: bool = False
    below: Float[Tensor, "p q d"] | None = None
    leaf: Float[Tensor, "p q d"] | None = None

    def narrow(self, _module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """A hook before the head."""
        hidden = self.below = self.narrowed(given[0])
        if self.detach:
            hidden = self.leaf = hidden.detach().requires_grad_()
        return (hidden, *given[1:])

    def narrowed(self, found: Float[Tensor, "p l d"]) -> Float[Tensor, "p q d"]:
        """What the model says at the asked positions, of what it says at all of them.

        Raises:
            ModelError: if there are fewer positions than tokens were sent.
        """
        added = found.shape[1] - self.length
        if added < 0:
            raise ModelError(
                f"The model was sent {self.length} tokens and its head reads {found.shape[1]} positions: which token "
                "each of them belongs to cannot be told."
            )
        return found[:, self.positions + added]


@contextmanager
def restrict_head_to(module: nn.Module, positions: Int[Tensor, " q"], length: int, cut: bool = False) -> Iterator[Head]:
    """Let the head see only these positions, whatever the model does around it (scaling, capping of logits).

    Logits at every position would be larger than all else that a model computes.

    Args:
        module: The output embedding.
        positions: The asked ones.
        length: How many tokens are sent.
        cut: Whether the head reads a leaf instead of the body's output. Every score rests on the hidden state at its
            own position, so that one pass back through the head serves all scores, and only the body is gone through
            again for each.
    """
    head = Head(positions, length, cut)
    handle = module.register_forward_pre_hook(head.narrow)
    try:
        yield head
    finally:
        handle.remove()


def disjoint_groups(places: Bool[Tensor, "t q"]) -> list[list[int]]:
    """Targets in groups in which no two rest on the same position."""
    found: list[tuple[Tensor, list[int]]] = []
    for target, own in enumerate(places):
        for number, (taken, members) in enumerate(found):
            if not (taken & own).any():
                found[number] = (taken | own, [*members, target])
                break
        else:
            found.append((own, [target]))
    return [members for _, members in found]


def gradients(
    scores: Float[Tensor, "p t"],
    places: Bool[Tensor, "p t q"],
    head: Head,
    leaf: Float[Tensor, "p l d"],
    in_one_pass: bool,
) -> Float[Tensor, "p t l d"]:
    """The gradient of every score for the leaf of its own row.

    Args:
        scores: Of rows.
        places: On which of the positions that the head saw each score rests.
        head: What the head saw, cut; nothing where the model computes its logits without calling it.
        leaf: What gradients are taken for.
        in_one_pass: Whether all targets go back through the body as one, or one after the other.
    """
    count = scores.shape[1]
    if head.below is None or head.leaf is None:
        found = [gradient_of(total, leaf, target + 1 < count) for target, total in enumerate(scores.sum(0))]
        return torch.stack(found, dim=1).float()
    seeds = head.leaf.new_zeros(count, *head.leaf.shape)
    for members in disjoint_groups(places.any(0)):
        (below,) = torch.autograd.grad(scores[:, members].sum(), head.leaf, retain_graph=True)
        for target in members:
            seeds[target] = below * places[:, target, :, None].to(below)
    if in_one_pass and count > 1:
        (found,) = torch.autograd.grad(head.below, leaf, seeds, is_grads_batched=True)
        return found.transpose(0, 1).float()
    found = [gradient_of(head.below, leaf, target + 1 < count, seed) for target, seed in enumerate(seeds)]
    return torch.stack(found, dim=1).float()
