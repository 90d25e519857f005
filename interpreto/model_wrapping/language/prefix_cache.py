"""What a causal model has computed of a text, to go on from where a changed copy begins to differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from interpreto.model_wrapping.rows import DeduplicatedRows, Rows
from interpreto.model_wrapping.sample import EMBEDDINGS

Layers = Sequence[tuple[Float[Tensor, "1 h l d"], Float[Tensor, "1 h l e"]]]
"""Keys and values of every layer."""


_CUT = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that keep keys and values, which can be cut at any position."""


def can_crop_cache(model: Any) -> bool:
    """Whether all that a model remembers of a text is keys and values: a recurrent state cannot be cut."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not getattr(model, "_is_stateful", False) and set(kinds) <= _CUT


def new_cache() -> DynamicCache:
    """A cache that keeps every key.

    One made from the model's config would drop those outside a sliding window, and its slices would be wrong without
    an error.
    """
    return DynamicCache()


def holds_all_positions(cache: DynamicCache, length: int) -> bool:
    """Whether every layer of a cache that was given to a model holds so many positions, and nothing else."""
    layers: list[Any] = cache.layers
    return bool(layers) and all(
        isinstance(layer, DynamicLayer) and layer.get_seq_length() == length for layer in layers
    )


def read_cache(cache: DynamicCache, row: int, length: int) -> Layers:
    """The keys and values of one row in a cache."""
    layers: list[Any] = cache.layers
    return [(layer.keys[row : row + 1, :, :length], layer.values[row : row + 1, :, :length]) for layer in layers]


class _Prefix(DynamicLayer):
    """Keys and values of the first positions, the same for all rows; what comes behind is used and forgotten."""

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_options: Any) -> tuple[Tensor, Tensor]:
        before: Any = (self.keys, self.values)
        keys, values = (
            torch.cat([old.expand(len(new), -1, -1, -1), new], dim=-2)
            for old, new in zip(before, (key_states, value_states), strict=True)
        )
        return keys, values


def resume(layers: Layers, begin: int) -> Cache:
    """A cache that holds the positions before `begin`."""
    out = []
    for keys, values in layers:
        layer = _Prefix()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :begin], values[:, :, :begin]
        out.append(layer)
    return Cache(layers=out)


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """The unchanged text as the model read it.

    Attributes:
        rows: Its one row.
        scores: What every token of the targets scored.
        layers: Keys and values; None where changed copies run whole.
    """

    rows: Rows
    scores: Float[Tensor, " m"]
    layers: Layers | None

    def of_tokens(self, kept: Bool[Tensor, " m"]) -> "PrefixCache":
        """The same for some of the tokens."""
        return replace(self, scores=self.scores[kept])


def first_differences(rows: Rows, unchanged: Rows) -> Int[Tensor, " p"]:
    """The first position at which each row differs from the unchanged one; the length where none does."""
    if EMBEDDINGS in rows.fields:
        # Tokens do not tell where rows of embeddings differ: anywhere.
        return torch.zeros(len(rows), dtype=torch.long)
    pairs = ((rows.fields[name], unchanged.fields[name]) for name in ("input_ids", "attention_mask"))
    differs = torch.stack([one != other for one, other in pairs]).any(0)
    return torch.where(differs.any(1), differs.long().argmax(1), differs.shape[1])


def deduplicated(rows: Rows, unchanged: Rows) -> DeduplicatedRows | None:
    """Rows in the order in which they begin to differ from the unchanged one, latest first; equal rows once.

    None where tokens do not tell rows apart.
    """
    if EMBEDDINGS in rows.fields:
        return None
    both = torch.cat([rows.fields["input_ids"], rows.fields["attention_mask"]], dim=1)
    _, back = both.unique(dim=0, return_inverse=True)
    firsts = torch.full((int(back.max()) + 1,), len(back)).scatter_reduce_(0, back, torch.arange(len(back)), "amin")
    order = first_differences(rows.take(firsts), unchanged).argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return DeduplicatedRows(rows.take(firsts[order]), place[back])
