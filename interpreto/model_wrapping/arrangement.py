"""The rows of an ask in an order that suits the model, and the way back."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.rows import Rows


@dataclass(frozen=True, eq=False)
class DeduplicatedRows:
    """Rows to run, and where each row that was asked for is among them."""

    rows: Rows
    inverse: Int[Tensor, " p"]
