"""Keys and values of the unperturbed text, from which perturbed copies resume where they begin to differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from interpreto.model_wrapping.rows import DeduplicatedRows, Rows

LayerKeyValues = Sequence[tuple[Float[Tensor, "1 h l d"], Float[Tensor, "1 h l e"]]]
"""Keys and values of every layer."""

_CROPPABLE = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose state is keys and values, which a `new_cache()` keeps for all positions and can be cropped."""


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
    """Whether every layer of a cache that a model has filled has keys and values of exactly `length` positions."""
    layers: list[Any] = cache.layers
    return bool(layers) and all(
        isinstance(layer, DynamicLayer) and layer.get_seq_length() == length for layer in layers
    )


def read_cache(cache: DynamicCache, row: int, length: int) -> LayerKeyValues:
    """The keys and values of the first `length` positions of one row in a cache."""
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


def resume(layers: LayerKeyValues, length: int) -> Cache:
    """A cache of the first `length` positions, from which rows resume."""
    out = []
    for keys, values in layers:
        layer = _Prefix()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :length], values[:, :, :length]
        out.append(layer)
    return Cache(layers=out)


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """What perturbed copies of a text reuse of its unperturbed run.

    Attributes:
        rows: The unperturbed text, one row.
        scores: The score of every token of the targets.
        layers: Keys and values; None if perturbed copies run from the first position.
    """

    rows: Rows
    scores: Float[Tensor, " m"]
    layers: LayerKeyValues | None

    def select_tokens(self, mask: Bool[Tensor, " m"]) -> "PrefixCache":
        """Keep only the scores of some tokens of the targets."""
        return replace(self, scores=self.scores[mask])


def deduplicate(rows: Rows, unperturbed: Rows) -> DeduplicatedRows | None:
    """Unique rows, sorted by the first position that differs from the unperturbed row, the latest first.

    Consecutive rows then share the longest prefix. None if rows cannot be compared.
    """
    unique = rows.unique()
    if unique is None:
        return None
    unique_rows, inverse = unique
    order = unique_rows.first_difference(unperturbed).argsort(descending=True, stable=True)
    new_index = torch.empty_like(order)
    new_index[order] = torch.arange(len(order))
    return DeduplicatedRows(unique_rows.take(order), new_index[inverse])
