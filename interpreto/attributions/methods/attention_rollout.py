"""Attention without gradients: raw attention of one layer, and attention rollout over several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.attributions.aggregations.attention_reduction import REDUCTIONS, AxisReduction, rows_read
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import AttentionRequest, CapturedAttention
from interpreto.option_kinds import checks_options


@final
class RawAttention(Explainer):
    """The attention of the position that the output reads, in the last layer.

    That is the class token's row for most image models and encoders, the last token's for decoders, and the mean over
    rows for models that take the mean. It shows where a model attends, not what it does with what it reads: the map is
    the same for every target.

    Args:
        layers: The layer to read: the last one of these, -1 by default. Models with an attention pooler (SigLIP) are
            read there unless a layer is named.
        head_reduce: How heads are reduced to one: "mean", "sum", "max", "min", "prod".

    Source:
        Bahdanau et al. 2014, arXiv:1409.0473; for its limits as an explanation see Jain and Wallace 2019,
        arXiv:1902.10186.

    Example:
        >>> from interpreto import zoo
        >>> RawAttention(*zoo.load("reviews-bert"))("A dull film")[0].attributions.shape
        torch.Size([1, 3])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layers: int | Sequence[int] | None = None,
        head_reduce: AxisReduction = "mean",
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(RawAttention, model, processor, options)
        rule = LastLayer(head_reduce, layers is not None)
        request = AttentionRequest(rule, -1 if layers is None else layers, gradients=False)
        self.plan = self.setup.internals_plan(request)


@final
@dataclass(frozen=True)
class LastLayer:
    """The rows of the last captured layer that the output reads; those of the pooler if there is one.

    Args:
        head_reduce: How heads are reduced to one.
        layers_named: Whether the user named layers, so that the pooler is not read.
    """

    head_reduce: AxisReduction
    layers_named: bool

    def __call__(self, captured: CapturedAttention) -> Float[Tensor, "p l"]:
        if captured.poolers and not self.layers_named:
            return captured.readout_weights
        return rows_read(captured, REDUCTIONS[self.head_reduce](captured.layers[-1].attention, 1))


@final
class AttentionRollout(Explainer):
    """Attention multiplied over layers, with the residual connection as an identity.

    With heads reduced to one, every layer mixes each position's attention with the position itself, half each, and the
    layers are multiplied; the row that the output reads is the map. The map is the same for every target.

    $$R = \\prod_{l} \\operatorname{normalise}(A^l + I)$$

    Args:
        layers: From this layer on, or these; all by default.
        head_reduce: How heads are reduced to one: "mean", "max", "min", "sum", "prod".
        discard_ratio: Share of each row's attention, the smallest values, that is set to 0.

    Source:
        Abnar and Zuidema 2020, *Quantifying Attention Flow in Transformers*, arXiv:2005.00928, section 3.

    Example:
        >>> from interpreto import zoo
        >>> AttentionRollout(*zoo.load("reviews-bert"))("A dull film")[0].attributions.sum() < 1
        tensor(True)
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layers: int | Sequence[int] = 0,
        head_reduce: AxisReduction = "mean",
        discard_ratio: float = 0.0,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(AttentionRollout, model, processor, options)
        rule = Rollout(head_reduce, discard_ratio)
        self.plan = self.setup.internals_plan(AttentionRequest(rule, layers, gradients=False))


@final
@dataclass(frozen=True)
class Rollout:
    """The product over layers of attention and identity, half each."""

    head_reduce: AxisReduction
    discard_ratio: float

    def __call__(self, captured: CapturedAttention) -> Float[Tensor, "p l"]:
        flow = None
        for layer in captured.layers:
            step = self._step(REDUCTIONS[self.head_reduce](layer.attention, 1), captured.not_padding)
            flow = step if flow is None else step @ flow
        assert flow is not None
        return rows_read(captured, flow)

    def _step(self, attention: Float[Tensor, "p l l"], not_padding: Bool[Tensor, "p l"]) -> Float[Tensor, "p l l"]:
        if self.discard_ratio:
            # Padding is ranked last, so that the share is one of the row's own length, whatever the batch.
            order = attention.masked_fill(~not_padding[:, None], -torch.inf).argsort(
                dim=-1, descending=True, stable=True
            )
            rank = order.argsort(dim=-1)
            length = not_padding.sum(-1)
            kept = length - (self.discard_ratio * length).long()
            attention = attention * (rank < kept[:, None, None])
        step = attention + torch.eye(attention.shape[-1], device=attention.device)
        return step / step.sum(-1, keepdim=True)
