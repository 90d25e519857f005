"""Maps that are zero everywhere after a rectifier: one warning per run, and a note in the record of each result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import ZeroMapWarning

ZERO_MAPS = "zero_maps"
"""Key of the record of a result that lists the targets whose map is 0 everywhere."""


def zero_targets(scores: Float[Tensor, "t *g"], names: Sequence[str]) -> list[str]:
    """The names of targets whose scores are 0 everywhere."""
    return [name for name, one in zip(names, scores, strict=True) if one.numel() and not bool(one.nan_to_num().any())]


@dataclass
class ZeroMapCheck:
    """Finds results with a map of zeros.

    Attributes:
        method: The method's name.
        n_outputs: How many outputs were looked at.
        n_zero: How many of them have a target whose map is 0 everywhere.
    """

    category: ClassVar[type[Warning]] = ZeroMapWarning

    method: str
    n_outputs: int = 0
    n_zero: int = 0

    def add(self, number: int, output: AttributionOutput) -> None:
        """Look at the result of a sample."""
        self.n_outputs += 1
        self.n_zero += bool(output.info.get(ZERO_MAPS))

    def message(self) -> str:
        """How many results have such a map, and what to do."""
        if not self.n_zero:
            return ""
        return (
            f"{self.method} gives maps that are 0 everywhere for {self.n_zero} of {self.n_outputs} samples: every "
            "weighted sum of channels is negative, and only positive ones are kept. Take another layer=, or a method "
            "that keeps signs (Saliency, IntegratedGradients, Occlusion)."
        )
