"""Recipes whose raw attribution can be averaged under noise on the input, and how it becomes scores of units."""

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import UnitReduction
from interpreto.attributions.perturbations.base import REDUCTIONS, GradientInput
from interpreto.attributions.plans.base import Plan, PreparedSample
from interpreto.errors import ModelError
from interpreto.model_wrapping.execution.finite_checks import all_finite
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun
from interpreto.option_kinds import check_choice
from interpreto.typing import UnitScores


class SmoothablePlan(Plan):
    """A recipe with something to average under noise on the input, before units are made of it."""

    modality: GradientInput

    @property
    def has_input_shape(self) -> bool:
        """Whether what is averaged has the shape of the input tensor, with embedding or channel axis."""
        return True

    @property
    def cost_independent_of_units(self) -> bool:
        """Whether every unit comes for free."""
        return self.has_input_shape

    @abstractmethod
    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t ..."]]:
        """The attribution of the input tensor, or a map of a layer or of the positions."""

    @abstractmethod
    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t ..."]) -> UnitScores:
        """Scores of units from the raw attribution."""


@dataclass(frozen=True)
class ScoreReducer:
    """How raw attributions become scores of units: over the embedding or channel axis, then over positions."""

    reduction: str
    unit_reduction: UnitReduction

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, REDUCTIONS)

    @property
    def signed(self) -> bool:
        """Whether scores have signs."""
        return self.reduction == "sum"

    @property
    def preserves_sum(self) -> bool:
        """Whether totals survive."""
        return self.reduction == "sum" and (self.unit_reduction.pooling, self.unit_reduction.resize) == ("sum", "sum")

    def __call__(self, prepared: PreparedSample, modality: GradientInput, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return prepared.units.to_units(modality.reduce(raw.cpu(), self.reduction), self.unit_reduction)


def finite_gradients(response: ModelResponse) -> Float[Tensor, "p t ..."]:
    """The gradients of an answer.

    Raises:
        ModelError: if they are not finite.
    """
    gradients = response.gradients
    assert gradients is not None
    if not all_finite(gradients):
        raise ModelError(
            "The gradient is NaN or infinite at a point that the method looks at, so that no attribution would mean "
            "anything: another baseline may help, or a wider dtype."
        )
    return gradients


def compute_completeness_gap(
    prepared: PreparedSample, modality: GradientInput, starts: Float[Tensor, "b *s"], scores: UnitScores
) -> PlanRun[Float[Tensor, " t"]]:
    """By how much the units miss the difference between the sample's scores and those where paths start."""
    response = yield ModelRequest(modality.write(prepared.sample, prepared.units, starts), prepared.targets)
    return prepared.scores - response.scores.mean(0) - scores.flatten(1).sum(1)
