"""Keys and values of the unperturbed text, from which perturbed copies resume where they begin to differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from interpreto.model_wrapping.rows import DeduplicatedRows, Rows

Layers = Sequence[tuple[Float[Tensor, "1 h l d"], Float[Tensor, "1 h l e"]]]
"""Keys and values of every layer."""

_CROPPABLE = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose state is keys and values, which can be cropped at any position."""


def can_crop_cache(model: Any) -> bool:
    """Whether a model's state is keys and values alone: a recurrent state cannot be cropped."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not getattr(model, "_is_stateful", False) and set(kinds) <= _CROPPABLE


def new_cache() -> DynamicCache:
    """A cache that keeps every key.

    A cache made from the model's config would drop keys outside a sliding window, and slices of it would be wrong
    without an error.
    """
    return DynamicCache()


def holds_all_positions(cache: DynamicCache, length: int) -> bool:
    """Whether every layer of a cache that a model has filled has keys and values of exactly so many positions."""
    layers: list[Any] = cache.layers
    return bool(layers) and all(
        isinstance(layer, DynamicLayer) and layer.get_seq_length() == length for layer in layers
    )


def read_cache(cache: DynamicCache, row: int, length: int) -> Layers:
    """The keys and values of one row in a cache."""
    layers: list[Any] = cache.layers
    return [(layer.keys[row : row + 1, :, :length], layer.values[row : row + 1, :, :length]) for layer in layers]


class _Prefix(DynamicLayer):
    """Keys and values of the first positions, shared by all rows; those of later positions are not kept."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_options: object
    ) -> tuple[Tensor, Tensor]:
        prefix: Any = (self.keys, self.values)
        keys, values = (
            torch.cat([old.expand(len(new), -1, -1, -1), new], dim=-2)
            for old, new in zip(prefix, (key_states, value_states), strict=True)
        )
        return keys, values


def resume(layers: Layers, begin: int) -> Cache:
    """A cache of the positions before `begin`."""
    out = []
    for keys, values in layers:
        layer = _Prefix()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :begin], values[:, :, :begin]
        out.append(layer)
    return Cache(layers=out)


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """The model's state after the unperturbed text.

    Attributes:
        rows: The text, one row.
        scores: The score of every token of the targets.
        layers: Keys and values; None if perturbed copies run from the first position.
    """

    rows: Rows
    scores: Float[Tensor, " m"]
    layers: Layers | None

    def of_tokens(self, kept: Bool[Tensor, " m"]) -> "PrefixCache":
        """The same for some of the tokens."""
        return replace(self, scores=self.scores[kept])


def deduplicated(rows: Rows, unperturbed: Rows) -> DeduplicatedRows | None:
    """Equal rows once, in the order in which they begin to differ from the unperturbed one, latest first.

    Batches of neighbours then share the longest prefix. None if rows cannot be compared.
    """
    distinct = rows.unique()
    if distinct is None:
        return None
    kept, inverse = distinct
    order = kept.first_difference(unperturbed).argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return DeduplicatedRows(kept.take(order), place[inverse])
