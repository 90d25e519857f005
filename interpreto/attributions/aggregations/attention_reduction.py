"""From attention probabilities, and gradients for them, to scores of positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.capture_request import AttentionLayer, CapturedAttention
from interpreto.option_kinds import call_function, check_choice

Attention = Float[Tensor, "p h q k"]

REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda values, axis: values.sum(axis),
    "mean": lambda values, axis: values.mean(axis),
    "max": lambda values, axis: values.amax(axis),
    "min": lambda values, axis: values.amin(axis),
    "prod": lambda values, axis: values.prod(axis),
}

_PROMPT_INDEPENDENT = 0.8
"""Positions above this share of the range of the empty prompt's map are those that the model always looks at."""

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda values: values,
    "relu": torch.relu,
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
}

RULES: dict[str, Callable[[Attention, Attention], Attention]] = {
    "attn": lambda attention, gradient: attention,
    "grad": lambda attention, gradient: gradient,
    "gradcam": lambda attention, gradient: gradient.relu() * attention,
    "agcam": lambda attention, gradient: gradient.relu() * attention.sigmoid(),
}


def read(seen: CapturedAttention, flow: Float[Tensor, "p q k"]) -> Float[Tensor, "p k"]:
    """The rows of a matrix that the output reads, weighted as it reads them."""
    return torch.einsum("pq,pqk->pk", seen.readout_weights, flow)


@final
@dataclass(frozen=True)
class Raw:
    """What the output looks at in the last asked layer; in the pooler where there is one and no layer was named."""

    head_reduce: str
    named: bool

    def __post_init__(self) -> None:
        check_choice("head_reduce", self.head_reduce, REDUCTIONS)

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        if seen.poolers and not self.named:
            return seen.readout_weights
        return read(seen, REDUCTIONS[self.head_reduce](seen.layers[-1].attention, 1))


@final
@dataclass(frozen=True)
class Rollout:
    """The product over layers of attention and identity, half each."""

    head_reduce: str
    discard_ratio: float

    def __post_init__(self) -> None:
        check_choice("head_reduce", self.head_reduce, REDUCTIONS)

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        flow = None
        for layer in seen.layers:
            step = self._step(REDUCTIONS[self.head_reduce](layer.attention, 1), seen.not_padding)
            flow = step if flow is None else step @ flow
        assert flow is not None
        return read(seen, flow)

    def _step(self, attention: Float[Tensor, "p l l"], real: Bool[Tensor, "p l"]) -> Float[Tensor, "p l l"]:
        if self.discard_ratio:
            # Padding comes after all that is attended to, so that it is no part of the share.
            order = attention.masked_fill(~real[:, None], -torch.inf).argsort(dim=-1, descending=True, stable=True)
            rank = order.argsort(dim=-1)
            kept = real.sum(-1) - (self.discard_ratio * real.sum(-1)).long()
            attention = attention * (rank < kept[:, None, None])
        step = attention + torch.eye(attention.shape[-1], device=attention.device)
        return step / step.sum(-1, keepdim=True)


@final
@dataclass(frozen=True)
class Products:
    """A function of attention and gradient, reduced over heads and layers, in the rows that the output reads."""

    rule: str | Callable[[Attention, Attention], Attention]
    activation: str | None = None
    head_reduce: str = "sum"
    layer_reduce: str = "sum"

    def __post_init__(self) -> None:
        if not callable(self.rule):
            check_choice("rule", self.rule, RULES)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("head_reduce", self.head_reduce, REDUCTIONS)
        check_choice("layer_reduce", self.layer_reduce, REDUCTIONS)

    def __repr__(self) -> str:
        rule = getattr(self.rule, "__name__", type(self.rule).__name__) if callable(self.rule) else self.rule
        return f"Products({rule}, {self.activation}, heads {self.head_reduce}, layers {self.layer_reduce})"

    @property
    def needs_gradients(self) -> bool:
        """Whether the rule looks at gradients."""
        return self.rule != "attn"

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        parts = [REDUCTIONS[self.head_reduce](self._product(layer), 1) for layer in seen.layers]
        return read(seen, REDUCTIONS[self.layer_reduce](torch.stack(parts), 0))

    def _product(self, layer: AttentionLayer) -> Attention:
        rule = self.rule if callable(self.rule) else RULES[self.rule]
        gradient = layer.attention if layer.gradient is None else layer.gradient
        found = ACTIVATIONS[self.activation](call_function("rule", rule, layer.attention, gradient))
        if not isinstance(found, Tensor) or found.shape != layer.attention.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"rule= must return a tensor of the shape of the attention, {tuple(layer.attention.shape)}; it "
                f"returned {shape}."
            )
        return found


@final
@dataclass(frozen=True)
class Generic:
    """Relevance that goes from layer to layer with attention times positive gradient, and stays where it is."""

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        first = seen.layers[0].attention
        own = torch.eye(first.shape[-1], device=first.device).expand(len(first), -1, -1)
        relevance = own
        for layer in seen.layers:
            assert layer.gradient is not None
            relevance = relevance + (layer.gradient * layer.attention).relu().mean(1) @ relevance
        # What a position is to itself without any attention says nothing.
        return read(seen, relevance - own)


@final
@dataclass(frozen=True)
class Legrad:
    """Positive gradients of each block's score for its attention, over heads and queries; of the pooler if there is."""

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        maps = []
        for layer in seen.poolers or seen.layers:
            assert layer.gradient is not None
            positive = layer.gradient.relu().mean(1)
            if seen.poolers:
                # Only one query of a pooler is read, so that the others have no gradient.
                maps.append(positive.sum(1))
            else:
                maps.append((positive * seen.not_padding[..., None]).sum(1) / seen.not_padding.sum(1, keepdim=True))
        return torch.stack(maps).sum(0)


@final
@dataclass(frozen=True)
class Eclip:
    """Values weighted by the gradient of the attention's output, where the output reads, and by similarity."""

    similarity: bool

    def __call__(self, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        return torch.stack([self._layer(layer, seen) for layer in seen.poolers or seen.layers]).sum(0)

    def _layer(self, layer: AttentionLayer, seen: CapturedAttention) -> Float[Tensor, "p l"]:
        assert layer.output_gradient is not None
        assert layer.value is not None
        slopes, values = _joined(layer.output_gradient), _joined(layer.value)
        if not seen.poolers:
            # In lower layers the score reaches other queries too.
            slopes = slopes * (seen.readout_weights > 0)[..., None]
        found = torch.einsum("pqc,pkc->pqk", slopes, values)
        if self.similarity:
            found = found * self._loosened(layer, seen)
        return found.sum(1).relu()

    def _loosened(self, layer: AttentionLayer, seen: CapturedAttention) -> Float[Tensor, "p q k"]:
        """How like a query's and a key's projections are, from 0 for the least to 1 for the most among the shown."""
        if layer.project is None:
            raise ModelError("similarity=True needs the layer that joins the heads, which was not found in this model.")
        query, key = (
            torch.nn.functional.normalize(layer.project(_joined(part)), dim=-1)
            for part in (layer.query, layer.key)
            if part is not None
        )
        cosine = query @ key.mT
        shown = seen.displayable[:, None]
        low = cosine.masked_fill(~shown, torch.inf).amin(-1, keepdim=True)
        high = cosine.masked_fill(~shown, -torch.inf).amax(-1, keepdim=True)
        return ((cosine - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def suppress_prompt_independent(
    maps: Float[Tensor, "t ..."], of_empty_prompt: Float[Tensor, "1 ..."]
) -> Float[Tensor, "t ..."]:
    """Maps with 0 at the positions that are high in the map of a prompt that names nothing."""
    low, high = of_empty_prompt.min(), of_empty_prompt.max()
    scaled = (of_empty_prompt - low) / (high - low).clamp(min=1e-12)
    return maps.masked_fill(scaled > _PROMPT_INDEPENDENT, 0.0)


def _joined(heads: Float[Tensor, "p h l d"]) -> Float[Tensor, "p l hd"]:
    return heads.transpose(1, 2).flatten(2)
