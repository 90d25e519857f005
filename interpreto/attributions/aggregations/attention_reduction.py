"""What rules over captured attention share: reductions over heads and layers, and the rows that the output reads."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.model_wrapping.capture_request import CapturedAttention

AxisReduction = Literal["sum", "mean", "max", "min", "prod"]

REDUCTIONS: dict[AxisReduction, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda values, axis: values.sum(axis),
    "mean": lambda values, axis: values.mean(axis),
    "max": lambda values, axis: values.amax(axis),
    "min": lambda values, axis: values.amin(axis),
    "prod": lambda values, axis: values.prod(axis),
}


def rows_read(captured: CapturedAttention, flow: Float[Tensor, "p q k"]) -> Float[Tensor, "p k"]:
    """The rows of a matrix that the output reads, weighted as it reads them."""
    return torch.einsum("pq,pqk->pk", captured.readout_weights, flow)


def merge_heads(heads: Float[Tensor, "p h l d"]) -> Float[Tensor, "p l hd"]:
    """The heads of each position as one vector."""
    return heads.transpose(1, 2).flatten(2)
