"""Generic attention explainability: relevance propagated through the layers by attention and its gradient."""

from collections.abc import Sequence
from typing import Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import rows_read
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import AttentionRequest, CapturedAttention
from interpreto.option_kinds import checks_options


@final
class GenericAttention(Explainer):
    """Relevance propagated by attention times its positive gradient, layer by layer.

    $$R \\leftarrow R + \\operatorname{mean}_h \\operatorname{relu}(G^l A^l) \\, R, \\quad R = I$$

    The row that the output reads is the map, without the identity that the relevance starts from.

    Args:
        layers: From this layer on, or these; all by default.

    Source:
        Chefer et al. 2021, *Generic Attention-model Explainability*, arXiv:2103.15679, section 3 (self-attention).

    Example:
        >>> from interpreto import zoo
        >>> (GenericAttention(*zoo.load("reviews-bert"))("A dull film")[0].attributions >= 0).all()
        tensor(True)
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layers: int | Sequence[int] = 0,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(GenericAttention, model, processor, options)
        self.plan = self.setup.internals_plan(AttentionRequest(propagated_relevance, layers))


def propagated_relevance(captured: CapturedAttention) -> Float[Tensor, "p l"]:
    """Relevance that goes from layer to layer by attention times positive gradient, and by the residual connection."""
    attention = captured.layers[0].attention
    identity = torch.eye(attention.shape[-1], device=attention.device).expand(len(attention), -1, -1)
    relevance = identity
    for layer in captured.layers:
        assert layer.gradient is not None
        relevance = relevance + (layer.gradient * layer.attention).relu().mean(1) @ relevance
    # The identity is the same for every input: it is not relevance that attention passed on.
    return rows_read(captured, relevance - identity)
