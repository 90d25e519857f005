"""Scores of a PyTorch model, and their gradients."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, reduce
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.model_wrapping.execution.gradient_check import (
    GradientCheck,
    gradient_of,
    not_differentiable_error,
    run_with_gradients,
)
from interpreto.model_wrapping.execution.gradient_mode import without_gradients
from interpreto.model_wrapping.execution.guided_backprop import guided
from interpreto.model_wrapping.execution.precision import at_least_float32
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import placement_of


@final
class Autograd:
    """Computes the scores of a PyTorch model and their gradients.

    Args:
        module: The model.
        outputs: Runs it.
    """

    def __init__(self, module: nn.Module, outputs: Callable[[Rows], Float[Tensor, "p k"]]) -> None:
        self.module, self.outputs = module, outputs
        self._gradient = GradientCheck()

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests that share a batch key as one batch.

        Gradients are those of each row's own score, with one backward pass per target, and only with respect to the
        requested field: weights may be frozen and get no gradient.
        """
        module, outputs = self.module, self.outputs
        device, dtype = placement_of(module)
        rows = Rows.join([request.rows for request in requests], device)
        sizes = [len(request.rows) for request in requests]
        field = requests[0].gradient_field
        if field is None:
            with without_gradients():
                parts = outputs(rows).split(sizes)
                selected = _selected(requests, parts)
            return [
                ModelResponse(_on_cpu(scores), outputs=_on_cpu(part) if request.return_outputs else None)
                for request, scores, part in zip(requests, selected, parts, strict=True)
            ]
        # A clone, because rows may be views of a user's tensor or expanded without memory of their own.
        leaf = rows.fields[field].detach().clone().requires_grad_()
        with torch.enable_grad():
            with guided(module) if requests[0].guided else nullcontext():
                all_outputs = run_with_gradients(lambda: outputs(rows.replace(**{field: leaf})))
            selected = _selected(requests, all_outputs.split(sizes))
            if not all(scores.requires_grad for scores in selected):
                raise not_differentiable_error()
            gradients = _gradients(selected, leaf)
        targets = getattr(requests[0].targets, "values", None)
        # Guided gradients differ from finite differences on purpose, and half precision is too coarse to compare.
        if (
            not requests[0].guided
            and dtype in (torch.float32, torch.float64)
            and not self._gradient.has_checked(targets)
        ):
            scores = partial(_scores_of_row, outputs, rows.take(slice(1)), requests[0], field)
            self._gradient.check(scores, leaf.detach()[:1], gradients[:1, : selected[0].shape[1]], targets)
        parts = gradients.split(sizes)
        return [
            ModelResponse(
                _on_cpu(scores.detach()),
                # Rows of other samples in the batch may be longer, or explained for more targets.
                part[:, : scores.shape[1], : request.rows.fields[field].shape[1]],
            )
            for scores, part, request in zip(selected, parts, requests, strict=True)
        ]


def _on_cpu(values: Tensor) -> Tensor:
    return at_least_float32(values).cpu()


def _scores_of_row(
    outputs: Callable[[Rows], Float[Tensor, "p k"]],
    one: Rows,
    request: ModelRequest,
    field: str,
    x: Float[Tensor, "p ..."],
) -> Float[Tensor, "p t"]:
    """The scores of a request's targets for copies of one row with other values of a field."""
    return request.targets.select(outputs(one.expand(len(x), **{field: x})))


def _selected(requests: Sequence[ModelRequest], parts: Sequence[Float[Tensor, "_p k"]]) -> list[Float[Tensor, "_p _t"]]:
    return [request.targets.select(part) for request, part in zip(requests, parts, strict=True)]


def _gradients(all_scores: Sequence[Float[Tensor, "_p _t"]], leaf: Float[Tensor, "p ..."]) -> Float[Tensor, "p t ..."]:
    count = max(scores.shape[1] for scores in all_scores)
    stacked = []
    for target in range(count):
        # Rows of a batch do not influence each other, so the gradient of their sum is that of each row's own score.
        total = reduce(torch.add, (scores[:, target].sum() for scores in all_scores if target < scores.shape[1]))
        stacked.append(gradient_of(total, leaf, target + 1 < count).float())
    return torch.stack(stacked, dim=1) if count > 1 else stacked[0][:, None]
