"""Recipes whose raw attribution can be averaged under noise on the input, and how it becomes scores of units."""

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import Combine
from interpreto.attributions.perturbations.seams import REDUCTIONS, TensorModality
from interpreto.attributions.recipes.case import Case, Recipe
from interpreto.errors import ModelError
from interpreto.model_wrapping.conversation import Answer, Ask, Plan
from interpreto.model_wrapping.finite import all_finite
from interpreto.option_kinds import check_choice
from interpreto.typing import UnitScores


class Differentiable(Recipe):
    """A recipe with something to average under noise on the input, before units are made of it."""

    modality: TensorModality

    @property
    def whole(self) -> bool:
        """Whether what is averaged has the shape of the input tensor, with embedding or channel axis."""
        return True

    @property
    def fine(self) -> bool:
        """Whether every unit comes for free."""
        return self.whole

    @abstractmethod
    def raw(self, case: Case) -> Plan[Float[Tensor, "t ..."]]:
        """The attribution of the input tensor, or a map of a layer or of the positions."""

    @abstractmethod
    def finish(self, case: Case, raw: Float[Tensor, "t ..."]) -> UnitScores:
        """Scores of units from the raw attribution."""


@dataclass(frozen=True)
class Finish:
    """How raw attributions become scores of units: over the embedding or channel axis, then over positions."""

    reduction: str
    combine: Combine

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, REDUCTIONS)

    @property
    def signed(self) -> bool:
        """Whether scores have signs."""
        return self.reduction == "sum"

    @property
    def sums(self) -> bool:
        """Whether totals survive."""
        return self.reduction == "sum" and (self.combine.pooling, self.combine.resize) == ("sum", "sum")

    def __call__(self, case: Case, modality: TensorModality, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return case.units.combine(modality.reduce(raw.cpu(), self.reduction), self.combine)


def gradients_of(answer: Answer) -> Float[Tensor, "p t ..."]:
    """The gradients of an answer.

    Raises:
        ModelError: if they are not finite.
    """
    gradients = answer.gradients
    assert gradients is not None
    if not all_finite(gradients):
        raise ModelError(
            "The gradient is NaN or infinite at a point that the method looks at, so that no attribution would mean "
            "anything: another baseline may help, or a wider dtype."
        )
    return gradients


def missing(
    case: Case, modality: TensorModality, starts: Float[Tensor, "b *s"], scores: UnitScores
) -> Plan[Float[Tensor, " t"]]:
    """By how much the units miss the difference between the sample's scores and those where paths start."""
    answer = yield Ask(modality.write(case.sample, case.units, starts), case.targets)
    return case.scores - answer.scores.mean(0) - scores.flatten(1).sum(1)
