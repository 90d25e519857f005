"""What a probe finds inside the model, as scores of units."""

from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.plans.base import PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import SmoothablePlan
from interpreto.model_wrapping.capture_request import ActivationRequest, AttentionRequest, CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class InternalsPlan(SmoothablePlan):
    """What a probe finds inside the model.

    Args:
        looks: What is asked.
        modality: What noise would be added to.
        pooling: How scores of tokens become those of a unit.
        resize: How a map becomes one of units; None is bilinear where these are finer than it, else their mean.
    """

    internals_request: CaptureRequest = field(repr=False)
    modality: GradientInput = field(repr=False)  # type: ignore[misc]
    pooling: str = "mean"
    resize: str | None = None

    @property
    def has_input_shape(self) -> bool:
        """What is averaged is a map of a layer."""
        return False

    @property
    def capture(self) -> CaptureRequest | None:
        """What the run of the unchanged sample is watched for."""
        # With heads merged the model's scores are not its own.
        merges = isinstance(self.internals_request, AttentionRequest) and self.internals_request.merge
        return None if merges else self.internals_request

    @property
    def signed(self) -> bool:
        """Attention has no sign, and of gradients on it positive ones are taken."""
        return False

    @property
    def rectifies(self) -> bool:
        """Grad-CAM does."""
        return isinstance(self.internals_request, ActivationRequest)

    def n_evaluations(self, layout: Layout) -> int:
        return 0 if self.capture is not None else 1

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        raw = yield from self.raw_attribution(prepared)
        return UnitAttribution(self.to_unit_scores(prepared, raw))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t ..."]]:
        if prepared.captured is not None:
            return prepared.captured
        response = yield ModelRequest(prepared.sample.rows, prepared.targets, capture=self.internals_request)
        assert response.captured is not None
        return response.captured[0]

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t ..."]) -> UnitScores:
        return prepared.units.from_layer_map(raw, self.pooling, self.resize)

    def describe(self) -> dict[str, Any]:
        looks = self.internals_request
        if isinstance(looks, AttentionRequest):
            return {"inside": repr(looks.rule), "layers": repr(looks.layers)}
        layer = "the last one with places" if looks.layer is None else looks.layer
        layer = layer if isinstance(layer, str) else type(layer).__name__
        return {"inside": looks.rule.__name__, "layer": layer}
