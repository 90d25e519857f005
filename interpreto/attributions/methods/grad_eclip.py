"""Grad-ECLIP: values of the last attention, weighted by the gradient where the output reads."""

from collections.abc import Sequence
from typing import Any, Unpack, final

from interpreto.attributions.aggregations.attention_reduction import Eclip
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import AttentionRequest
from interpreto.option_kinds import checks_options


@final
class GradEclip(Explainer):
    """Values of the last attention, weighted by the gradient of its output where the model reads, and by similarity.

    $$\\phi_i = \\operatorname{relu}\\Big(\\sum_c g_c \\, v_{ic} \\, \\lambda_i\\Big), \\quad
    g = \\frac{\\partial s}{\\partial o_{\\text{read}}}$$

    with o the output of the attention before its projection, and the loosened similarity \\(\\lambda_i\\) the cosine of
    the projected query and key, scaled to [0, 1] over what is shown: the patches, or the tokens between start and end.
    Maps of several layers are summed. Where a model reads several positions (their mean) their maps are summed as well.

    Args:
        layers: From this layer on, or these; the last one by default.
        similarity: Whether to weight by \\(\\lambda\\).
        merge_heads: Whether the asked layers are computed with all heads as one, as the released code does, rather than
            with the model's own.

    Source:
        Zhao et al. 2024, *Gradient-based Visual Explanation for Transformer-based CLIP*, arXiv:2502.18816, section 3.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] = -1,
        similarity: bool = True,
        merge_heads: bool = False,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(GradEclip, model, processor, options)
        probe = AttentionRequest(Eclip(similarity), layers, values=True, merge=merge_heads)
        self.plan = self.setup.internals_plan(probe)
