"""Attributions from captured internals: attention, or activations of a layer, and their gradients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.plans.base import PlanNeeds, PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import SmoothablePlan
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.typing import UnitScores


class MapCorrection(ABC):
    """Changes the maps of a sample; it may send requests of its own."""

    @abstractmethod
    def correct(
        self, prepared: PreparedSample, request: CaptureRequest, maps: Float[Tensor, "t ..."]
    ) -> PlanRun[Float[Tensor, "t ..."]]:
        """The corrected maps.

        Args:
            prepared: The sample.
            request: The capture request from which the maps were computed.
            maps: The maps, one per target.
        """


@final
@dataclass(frozen=True)
class InternalsPlan(SmoothablePlan):
    """Maps that a rule computes from captured internals.

    Args:
        request: What is captured, and the rule.
        modality: The tensor that a noise tunnel adds noise to.
        pooling: How scores of tokens become scores of units, one of `Pooling`.
        resize: How a map becomes scores of units, one of `Resize`; None is "bilinear" if units are finer than the map,
            else "area".
        correction: Changes the maps; None for no correction.
    """

    request: CaptureRequest = field(repr=False)
    modality: GradientInput = field(repr=False)
    pooling: str = "mean"
    resize: str | None = None
    correction: MapCorrection | None = None

    @property
    def gradient_input(self) -> GradientInput:
        """The modality's tensor."""
        return self.modality

    @property
    def has_input_shape(self) -> bool:
        """The raw attribution is a map of a layer."""
        return False

    @property
    def needs(self) -> PlanNeeds:
        """Internals are captured in the run of the unperturbed sample."""
        # If the capture changes the outputs of the model, the explained scores must come from a run of their own.
        return PlanNeeds(capture=None if self.request.changes_outputs else self.request)

    @property
    def signed(self) -> bool:
        """Not signed: attention is not negative, and rules keep only the positive part of gradients."""
        return False

    @property
    def rectifies(self) -> bool:
        """Whether the rule does, as that of Grad-CAM."""
        return self.request.rectifies

    def n_evaluations(self, layout: Layout) -> int:
        return (self.needs.capture is None) + (self.correction is not None)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        raw = yield from self.raw_attribution(prepared)
        return UnitAttribution(self.to_unit_scores(prepared, raw))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t ..."]]:
        maps = prepared.captured
        # Noisy copies of a sample have not been run yet, nor have samples with merged heads.
        if maps is None:
            response = yield ModelRequest(prepared.sample.rows, prepared.targets, capture=self.request)
            assert response.captured is not None
            maps = response.captured[0]
        if self.correction is None:
            return maps
        return (yield from self.correction.correct(prepared, self.request, maps))

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t ..."]) -> UnitScores:
        return prepared.units.from_layer_map(raw, self.pooling, self.resize)

    def describe(self) -> dict[str, Any]:
        return dict(self.request.describe())
