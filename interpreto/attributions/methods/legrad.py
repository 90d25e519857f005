"""LeGrad: what every layer's output says of the target, by the gradient of that for the layer's attention."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack, final

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import Legrad, suppress_prompt_independent
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.attributions.plans.base import PreparedSample
from interpreto.attributions.plans.internals import MapCorrection
from interpreto.model_wrapping.capture_request import AttentionRequest, CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun
from interpreto.model_wrapping.parts import TargetResolver
from interpreto.option_kinds import checks_options

EMPTY_PROMPT = "a photo of a"
"""A prompt that names nothing."""


@final
class LeGrad(Explainer):
    """Positive gradients for the attention of each layer, of the score that the layer's own output would have.

    The output \\(Z^l\\) of a block is scored as if it were the last one, and reaches the attention of that block alone:

    $$\\phi = \\sum_l \\operatorname{mean}_{h, q} \\operatorname{relu}\\!\\left(
    \\frac{\\partial s(Z^l)}{\\partial A^l}\\right)$$

    On the image side of a CLIP-type model s is the similarity of the mean over all positions; on classifiers and texts
    it is the score of what the model itself reads. Where an attention pooler makes one vector of all positions (SigLIP)
    the attention is the pooler's, its one row that is read, once for every layer's output; for SigLIP, places that are
    above 0.8 in the map of the prompt "a photo of a", scaled to [0, 1], are set to 0.

    Args:
        layers: From this layer on, or these; by default the last two, or the one that there is.

    Source:
        Bousselham et al. 2024, *LeGrad*, arXiv:2404.03214, sections 3.2 and 3.3; numbers as released (`legrad_torch`
        1.1), up to the scale of the similarity and the scaling to [0, 1], which is for display.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] | None = None,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(LeGrad, model, processor, options)
        wrapper = self.setup.wrapper
        # The mean over positions is read on the image side of models with two towers.
        dual = wrapper.dual_encoder if wrapper.modality == "image" else None
        request = AttentionRequest(
            Legrad(),
            layers,
            per_block_objective=True,
            readout="model" if dual is None else "mean",
            objective=_unnormalized if dual is not None and dual.has_attentional_pooler else None,
        )
        corrects = dual is not None and dual.has_sigmoid_loss
        correction = EmptyPromptCorrection(wrapper.targets) if corrects else None
        self.plan = self.setup.internals_plan(request, correction)


def _unnormalized(targets: Any) -> Any:
    """The objective of CoCa: the authors' release compares what its blocks say without scaling it to length 1."""
    return targets.unnormalized()


@final
@dataclass(frozen=True)
class EmptyPromptCorrection(MapCorrection):
    """Suppresses the positions that an attention pooler looks at whatever the prompt is.

    Attributes:
        resolver: Encodes the empty prompt.
    """

    resolver: TargetResolver = field(repr=False)

    def correct(
        self, prepared: PreparedSample, request: CaptureRequest, maps: Float[Tensor, "t ..."]
    ) -> PlanRun[Float[Tensor, "t ..."]]:
        targets = yield from self.resolver.encoded(EMPTY_PROMPT)
        # Its objective is always a logit: a probability among one prompt is constant.
        response: ModelResponse = yield ModelRequest(prepared.sample.rows, targets.as_logits(), capture=request)
        assert response.captured is not None
        return suppress_prompt_independent(maps, response.captured[0])
