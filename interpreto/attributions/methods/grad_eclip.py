"""Grad-ECLIP: values of the last attention, weighted by the gradient at the position that the output reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import merge_heads as merged
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.errors import ModelError
from interpreto.model_wrapping.capture_request import AttentionLayer, AttentionRequest, CapturedAttention
from interpreto.option_kinds import checks_options


@final
class GradEclip(Explainer):
    """Values of the last attention, weighted by the gradient of its output at the position read, and by similarity.

    $$\\phi_i = \\operatorname{relu}\\Big(\\sum_c g_c \\, v_{ic} \\, \\lambda_i\\Big), \\quad
    g = \\frac{\\partial s}{\\partial o_{\\text{read}}}$$

    with o the output of the attention before its projection, and the loosened similarity \\(\\lambda_i\\) the cosine of
    the projected query and key, scaled to [0, 1] over the patches, or over the tokens between start and end. Maps of
    several layers are summed, and so are those of several positions if a model reads their mean.

    Args:
        layers: From this layer on, or these; the last one by default.
        similarity: Whether to weight by \\(\\lambda\\).
        merge_heads: Whether these layers are computed with all heads as one, as in the released code, rather than with
            the model's own heads.

    Source:
        Zhao et al. 2024, *Gradient-based Visual Explanation for Transformer-based CLIP*, arXiv:2502.18816, section 3.

    Example:
        >>> from interpreto import zoo
        >>> example = zoo.samples("shapes-clip", 1)[0]
        >>> GradEclip(*zoo.load("shapes-clip"))(example.input, example.label)[0]
        <GradEclip of 'a red triangle': patch, 1 x 8 x 8>
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layers: int | Sequence[int] = -1,
        similarity: bool = True,
        merge_heads: bool = False,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(GradEclip, model, processor, options)
        request = AttentionRequest(WeightedValues(similarity), layers, values=True, merge=merge_heads)
        self.plan = self.setup.internals_plan(request)


@final
@dataclass(frozen=True)
class WeightedValues:
    """Values weighted by the gradient of the attention's output at the positions read, and by similarity."""

    similarity: bool

    def __call__(self, captured: CapturedAttention) -> Float[Tensor, "p l"]:
        return torch.stack([self._of_layer(layer, captured) for layer in captured.poolers or captured.layers]).sum(0)

    def _of_layer(self, layer: AttentionLayer, captured: CapturedAttention) -> Float[Tensor, "p l"]:
        assert layer.output_gradient is not None
        assert layer.value is not None
        gradients, values = merged(layer.output_gradient), merged(layer.value)
        if not captured.poolers:
            # In all but the last layer the score has gradients at other positions too, which the formula leaves out.
            gradients = gradients * (captured.readout_weights > 0)[..., None]
        products = torch.einsum("pqc,pkc->pqk", gradients, values)
        if self.similarity:
            products = products * self._loosened_similarity(layer, captured)
        return products.sum(1).relu()

    def _loosened_similarity(self, layer: AttentionLayer, captured: CapturedAttention) -> Float[Tensor, "p q k"]:
        """The cosine of the projected query and key, scaled to [0, 1] over the displayable positions."""
        if layer.project is None:
            raise ModelError("similarity=True needs the layer that joins the heads, which was not found in this model.")
        query, key = (
            torch.nn.functional.normalize(layer.project(merged(part)), dim=-1)
            for part in (layer.query, layer.key)
            if part is not None
        )
        cosine = query @ key.mT
        shown = captured.displayable[:, None]
        low = cosine.masked_fill(~shown, torch.inf).amin(-1, keepdim=True)
        high = cosine.masked_fill(~shown, -torch.inf).amax(-1, keepdim=True)
        # Start and end tokens may lie outside the range of those that are shown.
        return ((cosine - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
