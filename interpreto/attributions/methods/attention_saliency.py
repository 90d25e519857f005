"""Functions of attention and its gradient, summed over heads and layers: attention saliency and AG-CAM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import REDUCTIONS, AxisReduction, rows_read
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.errors import ModelError
from interpreto.model_wrapping.capture_request import AttentionLayer, AttentionRequest, CapturedAttention
from interpreto.option_kinds import call_function, checks_options
from interpreto.type_guards import function_name, shape_or_type

Attention = Float[Tensor, "p h q k"]
RuleName = Literal["attn", "grad", "gradcam", "agcam"]
Activation = Literal["relu", "abs", "sigmoid"]

RULES: dict[RuleName, Callable[[Attention, Attention], Attention]] = {
    "attn": lambda attention, gradient: attention,
    "grad": lambda attention, gradient: gradient,
    "gradcam": lambda attention, gradient: gradient.relu() * attention,
    # The sigmoid keeps the few peaks of a softmax from dominating the sum.
    "agcam": lambda attention, gradient: gradient.relu() * attention.sigmoid(),
}

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
}


@final
class AttentionSaliency(Explainer):
    """A function of attention A and its gradient G, reduced over heads and layers, in the row that the output reads.

    Args:
        rule: "attn" A, "grad" G, "gradcam" relu(G) A, "agcam" relu(G) sigmoid(A), or a function of the two, each
            `p h q k`, that returns the same shape.
        layers: From this layer on, or these; all by default.
        layer_reduce: How layers are reduced to one: "sum", "mean", "max", "min", "prod".
        head_reduce: How heads are reduced to one, likewise.
        activation: What is applied to the rule's result: "relu", "abs" or "sigmoid"; None for nothing.

    Source:
        The family that Chefer et al. 2021, arXiv:2012.09838, and Leem and Seo 2024, arXiv:2402.04563, compare.

    Example:
        >>> from interpreto import zoo
        >>> AttentionSaliency(*zoo.load("reviews-bert"), rule="grad")("A dull film")[0].attributions.shape
        torch.Size([1, 3])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        rule: RuleName | Callable[[Tensor, Tensor], Tensor] = "gradcam",
        layers: int | Sequence[int] = 0,
        layer_reduce: AxisReduction = "sum",
        head_reduce: AxisReduction = "sum",
        activation: Activation | None = None,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(AttentionSaliency, model, processor, options)
        products = Products(rule, activation, head_reduce, layer_reduce)
        self.plan = self.setup.internals_plan(AttentionRequest(products, layers, gradients=products.needs_gradients))


@final
class AGCam(Explainer):
    """Positive gradients of attention, weighted by the sigmoid of the attention itself, summed over heads and layers.

    Same as `AttentionSaliency` with `rule="agcam"`.

    $$\\phi = \\sum_{l, h} \\operatorname{relu}(G^{l, h}) \\, \\sigma(A^{l, h})$$

    Args:
        layers: From this layer on, or these; all by default.

    Source:
        Leem and Seo 2024, *Attention Guided CAM*, arXiv:2402.04563.

    Example:
        >>> from interpreto import zoo
        >>> (AGCam(*zoo.load("reviews-bert"))("A dull film")[0].attributions >= 0).all()
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
        self.setup = Setup.create(AGCam, model, processor, options)
        self.plan = self.setup.internals_plan(AttentionRequest(Products("agcam"), layers))


@final
@dataclass(frozen=True)
class Products:
    """A function of attention and gradient, reduced over heads and layers, in the rows that the output reads."""

    rule: RuleName | Callable[[Attention, Attention], Attention]
    activation: Activation | None = None
    head_reduce: AxisReduction = "sum"
    layer_reduce: AxisReduction = "sum"

    def __repr__(self) -> str:
        rule = function_name(self.rule) if callable(self.rule) else self.rule
        return f"Products({rule}, {self.activation}, heads {self.head_reduce}, layers {self.layer_reduce})"

    @property
    def needs_gradients(self) -> bool:
        """Whether the rule uses gradients."""
        return self.rule != "attn"

    def __call__(self, captured: CapturedAttention) -> Float[Tensor, "p l"]:
        parts = [REDUCTIONS[self.head_reduce](self._product(layer), 1) for layer in captured.layers]
        return rows_read(captured, REDUCTIONS[self.layer_reduce](torch.stack(parts), 0))

    def _product(self, layer: AttentionLayer) -> Attention:
        rule = self.rule if callable(self.rule) else RULES[self.rule]
        gradient = layer.attention if layer.gradient is None else layer.gradient
        product = call_function("rule", rule, layer.attention, gradient)
        if not isinstance(product, Tensor) or product.shape != layer.attention.shape:
            raise ModelError(
                f"rule= must return a tensor of the shape of the attention, {tuple(layer.attention.shape)}; it "
                f"returned {shape_or_type(product)}."
            )
        return product if self.activation is None else ACTIVATIONS[self.activation](product)
