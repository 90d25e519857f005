"""Rows: what goes through a model, stacked, whatever the modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Model inputs of several rows, one tensor per field with the rows in front.

    `padding` names the fields that are ragged along their second axis, with the value that fills them up on the right
    when rows of different lengths are joined. Rows never hold anything that is not one entry per row.
    """

    fields: Mapping[str, Shaped[Tensor, "p ..."]]
    padding: Mapping[str, int | float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    @property
    def length(self) -> int:
        """Positions of a ragged row, padding included; 1 where nothing is ragged."""
        return max((self.fields[name].shape[1] for name in self.padding if name in self.fields), default=1)

    @property
    def shape(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The fields and the shape of a row in each, ragged axes left out: rows of one shape can be joined."""
        return tuple((name, tuple(t.shape[2 if name in self.padding else 1 :])) for name, t in self.fields.items())

    def take(self, chosen: slice | Int[Tensor, " q"]) -> "Rows":
        """Some of the rows."""
        return replace(self, fields={name: tensor[chosen] for name, tensor in self.fields.items()})

    def repeat(self, count: int) -> "Rows":
        """`count` copies of a single row, without copying memory."""
        return replace(self, fields={name: t.expand(count, *t.shape[1:]) for name, t in self.fields.items()})

    def put(self, **fields: Tensor) -> "Rows":
        """These rows with some fields exchanged or added."""
        return replace(self, fields={**self.fields, **fields})

    def to(self, device: torch.device) -> "Rows":
        """These rows on a device."""
        return replace(self, fields={name: tensor.to(device) for name, tensor in self.fields.items()})

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """All rows in one, the ragged fields padded on the right to the longest."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        length = max(part.length for part in parts)
        fields = {}
        for name in first.fields:
            tensors = [part.fields[name] for part in parts]
            if name in first.padding:
                tensors = [_fill(tensor, length, first.padding[name]) for tensor in tensors]
            fields[name] = torch.cat(tensors)
        return replace(first, fields=fields)


def _fill(tensor: Shaped[Tensor, "p l ..."], length: int, value: int | float) -> Shaped[Tensor, "p m ..."]:
    missing = length - tensor.shape[1]
    if not missing:
        return tensor
    padding = tensor.new_full((tensor.shape[0], missing, *tensor.shape[2:]), value)
    return torch.cat([tensor, padding], dim=1)
