"""Recipes whose raw attribution has the shape of the input tensor, and how it becomes scores of units."""

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import Combine
from interpreto.attributions.perturbations.seams import REDUCTIONS, TensorModality
from interpreto.attributions.recipes.case import Case, Recipe
from interpreto.errors import OptionError, choices
from interpreto.model_wrapping.conversation import Plan
from interpreto.typing import UnitScores


class Differentiable(Recipe):
    """A recipe whose raw attribution has the shape of the input tensor, so that it can be averaged under noise."""

    modality: TensorModality

    @abstractmethod
    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        """The attribution of the input tensor, with embedding or channel axis."""

    @abstractmethod
    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        """Scores of units from the raw attribution."""


@dataclass(frozen=True)
class Finish:
    """How raw attributions become scores of units: over the embedding or channel axis, then over positions."""

    reduction: str
    combine: Combine

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise OptionError(f"There is no reduction={self.reduction!r}: {choices(self.reduction, REDUCTIONS)}")

    @property
    def sums(self) -> bool:
        """Whether totals survive."""
        return self.reduction == "sum" and (self.combine.pooling, self.combine.resize) == ("sum", "sum")

    def __call__(self, case: Case, modality: TensorModality, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return case.units.combine(modality.reduce(raw.cpu(), self.reduction), self.combine)
