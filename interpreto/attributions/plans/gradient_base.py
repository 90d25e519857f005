"""Plans with a raw attribution, which can be averaged over noisy inputs, and its reduction to scores of units."""

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import UnitReduction
from interpreto.attributions.perturbations.base import GradientInput, Reduction
from interpreto.attributions.plans.base import Plan, PlanNeeds, PreparedSample
from interpreto.errors import ModelError
from interpreto.model_wrapping.execution.finite_checks import all_finite
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun
from interpreto.typing import UnitScores


class SmoothablePlan(Plan):
    """A plan with a raw attribution, which a noise tunnel can average before it is reduced to scores of units."""

    @property
    @abstractmethod
    def gradient_input(self) -> GradientInput:
        """The tensor that gradients are taken for, and that noise is added to."""

    @property
    def has_input_shape(self) -> bool:
        """Whether the raw attribution has the shape of the input tensor, with its embedding or channel axis."""
        return True

    @property
    def needs(self) -> PlanNeeds:
        """The same gradients give the scores of all units."""
        return PlanNeeds(cost_independent_of_units=True, scores_first=False)

    @abstractmethod
    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t ..."]]:
        """The attribution of the input tensor, or a map over a layer's grid or over positions."""

    @abstractmethod
    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t ..."]) -> UnitScores:
        """Reduce the raw attribution to scores of units."""


@dataclass(frozen=True)
class ScoreReducer:
    """Reduces raw attributions to scores of units: over the embedding or channel axis, then over positions.

    Attributes:
        reduction: Reduction of the embedding or channel axis: "sum", "norm", "abs_sum" or "max_abs".
        unit_reduction: Reduction of positions to units.
    """

    reduction: Reduction
    unit_reduction: UnitReduction

    @property
    def signed(self) -> bool:
        """Whether scores have signs: only sums do."""
        return self.reduction == "sum"

    @property
    def preserves_sum(self) -> bool:
        """Whether the sum over units is the sum of the raw attribution."""
        return self.reduction == "sum" and (self.unit_reduction.pooling, self.unit_reduction.resize) == ("sum", "sum")

    def __call__(
        self, prepared: PreparedSample, gradient_input: GradientInput, raw: Float[Tensor, "t *s"]
    ) -> UnitScores:
        # Units are pooled on the CPU, where their index is and where results are returned.
        return prepared.units.to_units(gradient_input.reduce(raw.cpu(), self.reduction), self.unit_reduction)


def finite_gradients(response: ModelResponse) -> Float[Tensor, "p t ..."]:
    """The gradients of a response.

    Raises:
        ModelError: if they are NaN or infinite.
    """
    gradients = response.gradients
    assert gradients is not None
    if not all_finite(gradients):
        raise ModelError(
            "The gradient is NaN or infinite at a point that the method evaluates, so that attributions are undefined. "
            "Another baseline may help, or a dtype with a larger range."
        )
    return gradients


def scores_of_starts(
    prepared: PreparedSample, gradient_input: GradientInput, starts: Float[Tensor, "b *s"]
) -> PlanRun[Float[Tensor, "b t"]]:
    """Evaluate the starts of paths, such as baselines."""
    response = yield ModelRequest(gradient_input.write(prepared.sample, prepared.units, starts), prepared.targets)
    return response.scores


def completeness_gap(
    prepared: PreparedSample, start_scores: Float[Tensor, "b t"], scores: UnitScores
) -> Float[Tensor, " t"]:
    """The completeness gap f(x) - f(x') - sum_i phi_i of every target, with the mean over several baselines x'."""
    return prepared.scores - start_scores.mean(0) - scores.flatten(1).sum(1)
