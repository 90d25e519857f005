"""Answers of a model that PyTorch can differentiate."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import ModelError
from interpreto.model_wrapping.conversation import Answer, Ask
from interpreto.model_wrapping.inside.guided import guided
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import device_of


def answers(asks: Sequence[Ask], outputs: Callable[[Rows], Float[Tensor, "p k"]], module: nn.Module) -> list[Answer]:
    """Run the rows of all asks as one batch; the asks are of one kind.

    Gradients are those of each row's own score, one backward pass per target, and exist only for the asked tensor:
    weights may be frozen and get no gradient.

    Args:
        asks: What is asked.
        outputs: Runs the model.
        module: The model.
    """
    rows, sizes = Rows.join([ask.rows for ask in asks], device_of(module)), [len(ask.rows) for ask in asks]
    field = asks[0].of
    if field is None:
        with torch.no_grad():
            found = _selected(asks, outputs(rows).split(sizes))
        return [Answer(scores.float().cpu()) for scores in found]
    leaf = rows.fields[field].detach().clone().requires_grad_()
    with torch.enable_grad():
        with guided(module) if asks[0].guided else nullcontext():
            made = outputs(rows.put(**{field: leaf}))
        found = _selected(asks, made.split(sizes))
        if not all(scores.requires_grad for scores in found):
            raise ModelError("The score does not depend on the input in a way that PyTorch can differentiate.")
        gradients = _gradients(found, leaf)
    parts = gradients.split(sizes)
    return [
        Answer(
            scores.detach().float().cpu(),
            # Rows of other samples may have been longer, or explained for more targets.
            part[:, : scores.shape[1], : ask.rows.fields[field].shape[1]],
        )
        for scores, part, ask in zip(found, parts, asks, strict=True)
    ]


def _selected(asks: Sequence[Ask], parts: Sequence[Float[Tensor, "_p k"]]) -> list[Float[Tensor, "_p _t"]]:
    return [ask.targets.select(part) for ask, part in zip(asks, parts, strict=True)]


def _gradients(found: Sequence[Float[Tensor, "_p _t"]], leaf: Float[Tensor, "p ..."]) -> Float[Tensor, "p t ..."]:
    count = max(scores.shape[1] for scores in found)
    stacked = []
    for target in range(count):
        total = torch.stack([scores[:, target].sum() for scores in found if target < scores.shape[1]]).sum()
        (gradient,) = torch.autograd.grad(total, leaf, retain_graph=target + 1 < count)
        stacked.append(gradient.float())
    return torch.stack(stacked, dim=1)
