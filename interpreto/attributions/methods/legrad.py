"""LeGrad: gradients of the score that each layer's output would have, with respect to the layer's attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.attributions.plans.base import PreparedSample
from interpreto.attributions.plans.internals import MapCorrection
from interpreto.model_wrapping.capture_request import AttentionRequest, CapturedAttention, CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun
from interpreto.option_kinds import checks_options

EMPTY_PROMPT = "a photo of a"
"""A prompt that names no object."""
_PROMPT_INDEPENDENT = 0.8
"""Positions above this share of the range of the empty prompt's map are those that the model attends to anyway."""


@final
class LeGrad(Explainer):
    """Positive gradients of the score that each layer's output would have, with respect to the layer's attention.

    The output \\(Z^l\\) of block l is scored as if it were the last block, and the score s is differentiated with
    respect to the attention \\(A^l\\) of that block only. Positive gradients are averaged over heads h and queries q:

    $$\\phi = \\sum_l \\operatorname{mean}_{h, q} \\operatorname{relu}\\!\\left(
    \\frac{\\partial s(Z^l)}{\\partial A^l}\\right)$$

    For images of a CLIP-type model s is the similarity of the mean over all positions; for classifiers and texts it is
    the score of the position that the model reads. In models with an attention pooling head (SigLIP) each block's
    output is fed to that head, and the gradient of the attention of its query is taken. If such a model is trained with
    a sigmoid loss, positions above 0.8 in the map of the prompt "a photo of a", scaled to [0, 1], are set to 0.

    Args:
        layers: The first block to use, as an int (it and all later ones), or a list of blocks; negative numbers count
            from the end. By default the last two blocks, or the only one.

    Source:
        Bousselham et al. 2024, *LeGrad*, arXiv:2404.03214, sections 3.2 and 3.3. The numbers are those of the authors'
        `legrad_torch` 1.1, except that the similarity is multiplied by the logit scale and maps are not scaled to
        [0, 1].

    Example:
        >>> from interpreto import zoo
        >>> example = zoo.samples("shapes-clip", 1)[0]
        >>> LeGrad(*zoo.load("shapes-clip"))(example.input, example.label)[0]
        <LeGrad of 'a red triangle': patch, 1 x 8 x 8>
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layers: int | Sequence[int] | None = None,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(LeGrad, model, processor, options)
        wrapper = self.setup.wrapper
        # As in the authors' code: for images of CLIP-type models the mean over positions is compared with the prompt.
        dual = wrapper.dual_encoder if wrapper.inputs.spatial else None
        request = AttentionRequest(
            positive_gradients,
            layers,
            per_block_objective=True,
            readout="model" if dual is None else "mean",
            objective=_unnormalized if dual is not None and dual.has_attentional_pooler else None,
        )
        corrects = dual is not None and dual.has_sigmoid_loss
        correction = EmptyPromptCorrection() if corrects else None
        self.plan = self.setup.internals_plan(request, correction)


def _unnormalized(targets: Any) -> Any:
    """The objective of CoCa: the authors' release compares features of its blocks without normalizing them."""
    return targets.unnormalized()


def positive_gradients(captured: CapturedAttention) -> Float[Tensor, "p l"]:
    """Positive gradients of each block's score, averaged over heads and queries; those of the pooler if it has one."""
    maps = []
    for layer in captured.poolers or captured.layers:
        assert layer.gradient is not None
        positive = layer.gradient.relu().mean(1)
        if captured.poolers:
            # Only one query of a pooler is read: the others have no gradient, and a mean would count them.
            maps.append(positive.sum(1))
        else:
            real = captured.not_padding
            maps.append((positive * real[..., None]).sum(1) / real.sum(1, keepdim=True))
    return torch.stack(maps).sum(0)


@final
@dataclass(frozen=True)
class EmptyPromptCorrection(MapCorrection):
    """Suppresses the positions that an attention pooler attends to whatever the prompt is."""

    def correct(
        self, prepared: PreparedSample, request: CaptureRequest, maps: Float[Tensor, "t ..."]
    ) -> PlanRun[Float[Tensor, "t ..."]]:
        assert prepared.target_resolver is not None
        targets = yield from prepared.target_resolver.known_targets(EMPTY_PROMPT)
        # Always as a logit: the softmax over a single prompt is constant.
        response: ModelResponse = yield ModelRequest(prepared.sample.rows, targets.as_logits(), capture=request)
        assert response.captured is not None
        return suppress_prompt_independent(maps, response.captured[0])


def suppress_prompt_independent(
    maps: Float[Tensor, "t ..."], of_empty_prompt: Float[Tensor, "1 ..."]
) -> Float[Tensor, "t ..."]:
    """Maps with 0 at the positions that are high in the map of a prompt that names no object."""
    low, high = of_empty_prompt.min(), of_empty_prompt.max()
    scaled = (of_empty_prompt - low) / (high - low).clamp(min=1e-12)
    return maps.masked_fill(scaled > _PROMPT_INDEPENDENT, 0.0)
