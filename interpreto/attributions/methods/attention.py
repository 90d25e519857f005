"""Methods that read attention: RawAttention, AttentionRollout, AttentionSaliency, AGCam, GenericAttention."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack, final

from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import Generic, Products, Raw, Rollout
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import AttentionRequest
from interpreto.option_kinds import checks_options


@final
class RawAttention(Explainer):
    """Where the output looks: the attention of the position that it reads, in the last layer.

    A class token's row for most image models and encoders, the last token's for decoders, the mean over rows where a
    model takes the mean. It says where a model looks, not what it makes of it: the same map for every target.

    Args:
        layers: The layer that is read: the last one of these, -1 by default. Models with an attention pooler (SigLIP)
            are read there unless a layer is named.
        head_reduce: How heads become one: "mean", "sum", "max", "min", "prod".

    Source:
        Bahdanau et al. 2014, arXiv:1409.0473; what it can and cannot tell: Jain and Wallace 2019, arXiv:1902.10186.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] | None = None,
        head_reduce: str = "mean",
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(RawAttention, model, processor, options)
        rule = Raw(head_reduce, layers is not None)
        chosen = -1 if layers is None else layers
        self.plan = self.setup.internals_plan(AttentionRequest(rule, chosen, gradients=False))


@final
class AttentionRollout(Explainer):
    """How attention passes positions on from layer to layer.

    With heads reduced to one, every layer mixes what it attends to with what it was, half each, and the layers are
    multiplied; the row that the output reads is the map. The same map for every target.

    $$R = \\prod_{l} \\operatorname{normalise}(A^l + I)$$

    Args:
        layers: From this layer on, or these; all by default.
        head_reduce: How heads become one: "mean", "max", "min", "sum", "prod".
        discard_ratio: Share of each row's attention, the smallest, that is set to 0.

    Source:
        Abnar and Zuidema 2020, *Quantifying Attention Flow in Transformers*, arXiv:2005.00928, section 3.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] = 0,
        head_reduce: str = "mean",
        discard_ratio: float = 0.0,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(AttentionRollout, model, processor, options)
        rule = Rollout(head_reduce, discard_ratio)
        self.plan = self.setup.internals_plan(AttentionRequest(rule, layers, gradients=False))


@final
class AttentionSaliency(Explainer):
    """A function of attention A and its gradient G, summed over heads and layers, in the row that the output reads.

    Args:
        rule: "attn" A, "grad" G, "gradcam" relu(G) A, "agcam" relu(G) sigmoid(A), or a function of the two, each
            `p h q k`, that returns the same shape.
        layers: From this layer on, or these; all by default.
        layer_reduce: How layers become one: "sum", "mean", "max", "min", "prod".
        head_reduce: How heads become one, likewise.
        activation: What is done to the rule's result first: "relu", "abs", "sigmoid" or nothing.

    Source:
        The family that Chefer et al. 2021, arXiv:2012.09838, and Leem and Seo 2024, arXiv:2402.04563, compare.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        rule: str | Callable[[Tensor, Tensor], Tensor] = "gradcam",
        layers: int | Sequence[int] = 0,
        layer_reduce: str = "sum",
        head_reduce: str = "sum",
        activation: str | None = None,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(AttentionSaliency, model, processor, options)
        products = Products(rule, activation, head_reduce, layer_reduce)
        probe = AttentionRequest(products, layers, gradients=products.needs_gradients)
        self.plan = self.setup.internals_plan(probe)


@final
class AGCam(Explainer):
    """Positive gradients of attention, weighted by the sigmoid of the attention itself, summed over heads and layers.

    The sigmoid keeps the few peaks of a softmax from drowning all else. `AttentionSaliency` with `rule="agcam"`.

    $$\\phi = \\sum_{l, h} \\operatorname{relu}(G^{l, h}) \\, \\sigma(A^{l, h})$$

    Args:
        layers: From this layer on, or these; all by default.

    Source:
        Leem and Seo 2024, *Attention Guided CAM*, arXiv:2402.04563.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] = 0,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(AGCam, model, processor, options)
        self.plan = self.setup.internals_plan(AttentionRequest(Products("agcam"), layers))


@final
class GenericAttention(Explainer):
    """Relevance propagated by attention times its positive gradient, layer by layer.

    $$R \\leftarrow R + \\operatorname{mean}_h \\operatorname{relu}(G^l A^l) \\, R, \\quad R = I$$

    The row that the output reads is the map, without what a position is to itself before any attention.

    Args:
        layers: From this layer on, or these; all by default.

    Source:
        Chefer et al. 2021, *Generic Attention-model Explainability*, arXiv:2103.15679, section 3 (self-attention).
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] = 0,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(GenericAttention, model, processor, options)
        self.plan = self.setup.internals_plan(AttentionRequest(Generic(), layers))
