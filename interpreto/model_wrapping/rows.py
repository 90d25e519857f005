"""Rows: model inputs that are stacked along the batch axis, for all modalities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LazyBlend:
    """A field of rows that interpolate between two tensors, computed only when and where the rows run.

    Row i is `torch.lerp(start, end, mask_i)`. Until it is computed, only the two tensors and the masks need memory and
    have to be copied to an accelerator.

    Attributes:
        start: The value where the mask is 0, one row.
        end: The value where the mask is 1, one row.
        masks: The masks in a compact form, such as one value per unit.
        to_positions: Expands compact masks to a shape that broadcasts with rows of shape `view_shape`.
        view_shape: The shape of a row in which some axes are split in two, so that one mask value broadcasts over a
            block of positions; None if no axis is split.
    """

    start: Float[Tensor, "1 *s"]
    end: Float[Tensor, "1 *s"]
    masks: Float[Tensor, "p ..."]
    to_positions: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p ..."]]
    view_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the computed field."""
        return (self.masks.shape[0], *self.start.shape[1:])

    def take(self, index: slice | Int[Tensor, " q"]) -> "LazyBlend":
        """Select some of the rows."""
        return LazyBlend(self.start, self.end, self.masks[index], self.to_positions, self.view_shape)

    def write_to(self, out: Float[Tensor, "p *s"]) -> None:
        """Compute the rows on the device of a tensor, and write them to it."""
        start, end, masks = (tensor.to(out.device) for tensor in (self.start, self.end, self.masks))
        shape = self.view_shape or start.shape[1:]
        torch.lerp(start.reshape(1, *shape), end.reshape(1, *shape), self.to_positions(masks), out=out.view(-1, *shape))


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch of model inputs: one tensor per field, such as `input_ids`.

    The first axis of every field is the batch axis. Fields without a batch axis are not allowed.

    Attributes:
        fields: From the names of fields to tensors.
        padding: The padding value of each field whose second axis is a sequence axis of variable length. Sequences are
            padded on the right when rows of different lengths are joined.
        blends: Fields that are not computed yet; `join` and `to` compute them. They never have a sequence axis.
    """

    fields: Mapping[str, Shaped[Tensor, "p ..."]]
    padding: Mapping[str, int | float] = field(default_factory=dict)
    blends: Mapping[str, LazyBlend] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.fields:
            return next(iter(self.fields.values())).shape[0]
        return next(iter(self.blends.values())).masks.shape[0]

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields, including blends."""
        return frozenset(self.fields) | frozenset(self.blends)

    @property
    def length(self) -> int:
        """The sequence length, including padding; 1 if no field has a sequence axis."""
        return max((self.fields[name].shape[1] for name in self.padding if name in self.fields), default=1)

    @property
    def shape(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The name of each field with the shape of a row, without sequence axes. Rows of equal shape can be joined."""
        fields = chain(self.fields.items(), self.blends.items())
        return tuple((name, tuple(values.shape[2 if name in self.padding else 1 :])) for name, values in fields)

    @property
    def nbytes(self) -> int:
        """The memory that the rows use; only the masks are counted for blends."""
        return sum(
            tensor.nbytes for tensor in chain(self.fields.values(), (blend.masks for blend in self.blends.values()))
        )

    def take(self, index: slice | Int[Tensor, " q"]) -> "Rows":
        """Select some of the rows."""
        return Rows(
            {name: tensor[index] for name, tensor in self.fields.items()},
            self.padding,
            {name: blend.take(index) for name, blend in self.blends.items()},
        )

    def expand(self, count: int, **fields: Tensor | LazyBlend) -> "Rows":
        """Repeat a single row `count` times, without copying memory, with some fields replaced or added."""
        assert not self.blends
        # Fields that are replaced are included, so that the order of fields stays the same.
        expanded = {name: t if name in fields else t.expand(count, *t.shape[1:]) for name, t in self.fields.items()}
        return Rows(expanded, self.padding).replace(**fields)

    def replace(self, **fields: Tensor | LazyBlend) -> "Rows":
        """Copy these rows, with some fields replaced or added."""
        replaced = {**self.fields, **self.blends, **fields}
        return Rows(
            {name: values for name, values in replaced.items() if isinstance(values, Tensor)},
            self.padding,
            {name: values for name, values in replaced.items() if isinstance(values, LazyBlend)},
        )

    def unique(self) -> "tuple[Rows, Int[Tensor, ' p']] | None":
        """The unique rows in order of first occurrence, and for every row its index among them.

        None if a field is a blend: blends are not compared, because that would require computing them.
        """
        if self.blends:
            return None
        keys = [_row_key(tensor) for tensor in self.fields.values() if not _is_constant(tensor)]
        if not keys:
            return self.take(slice(1)), torch.zeros(len(self), dtype=torch.long)
        # One `unique` over the columns of all fields; a float field becomes one column of indices, see `_row_key`.
        _, inverse = torch.cat([key.cpu() for key in keys], dim=1).unique(dim=0, return_inverse=True)
        count = int(inverse.max()) + 1
        # `unique` sorts by value; renumber the unique rows by the index of their first occurrence.
        first_index = torch.full((count,), len(inverse)).scatter_reduce_(0, inverse, torch.arange(len(inverse)), "amin")
        order = first_index.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(count)
        return self.take(first_index[order]), rank[inverse]

    def first_difference(self, reference: "Rows") -> Int[Tensor, " p"]:
        """The first position at which each row differs from a reference row; the sequence length if they are equal.

        It is 0 for rows that differ in a field without a sequence axis, such as pixel values.

        Args:
            reference: One row.
        """
        length = self.length
        first = torch.full((len(self),), length)
        if self.blends or self.names != reference.names:
            return torch.zeros_like(first)
        for name, tensor in self.fields.items():
            other = reference.fields[name]
            if _is_constant(tensor) and tensor.data_ptr() == other.data_ptr():
                continue
            differs = (tensor != other).cpu()
            if name not in self.padding:
                first = first.where(~differs.flatten(1).any(1), 0)
                continue
            differs = differs.flatten(2).any(2) if differs.ndim > 2 else differs
            first = first.minimum(torch.where(differs.any(1), differs.long().argmax(1), length))
        return first

    def to(self, device: torch.device) -> "Rows":
        """Copy these rows to a device, with blends computed.

        Always a copy, because some models modify their inputs in place.
        """
        computed = Rows.join([self], device)
        return Rows({name: tensor.to(device, copy=True) for name, tensor in computed.fields.items()}, computed.padding)

    @staticmethod
    def join(parts: Sequence["Rows"], device: torch.device | None = None) -> "Rows":
        """Concatenate rows; sequences are padded to the longest, and blends are computed.

        Args:
            parts: Rows of equal shape.
            device: The device on which to compute blends; None for the device of the blends. Fields of which no part is
                a blend stay on their device.
        """
        if len(parts) == 1 and not parts[0].blends:
            return parts[0]
        first = parts[0]
        length = max(part.length for part in parts)
        fields = {}
        for name in chain(first.fields, first.blends):
            if any(name in part.blends for part in parts):
                fields[name] = _computed(parts, name, device)
                continue
            tensors = [part.fields[name] for part in parts]
            if name in first.padding:
                tensors = [_pad(tensor, length, first.padding[name]) for tensor in tensors]
            fields[name] = torch.cat(tensors)
        return Rows(fields, first.padding)


@dataclass(frozen=True, eq=False)
class DeduplicatedRows:
    """The unique rows of a request.

    Attributes:
        rows: The unique rows, in the order that is most efficient for the model.
        inverse: For every requested row its index in `rows`, as from `torch.unique(return_inverse=True)`.
    """

    rows: Rows
    inverse: Int[Tensor, " p"]


def _is_constant(tensor: Tensor) -> bool:
    """Whether all rows share the same memory, as after `Rows.expand`."""
    return len(tensor) > 1 and tensor.stride(0) == 0


def _row_key(tensor: Shaped[Tensor, "p ..."]) -> Int[Tensor, "p q"]:
    """Columns of integers that are equal for equal rows, and different for different rows."""
    flat = tensor.flatten(1)
    if not flat.is_floating_point():
        return flat.long()
    return flat.unique(dim=0, return_inverse=True)[1][:, None]


def _computed(parts: Sequence[Rows], name: str, device: torch.device | None) -> Float[Tensor, "p ..."]:
    """Concatenate a field that is a blend in some parts, without intermediate copies."""
    blend = next(part.blends[name] for part in parts if name in part.blends)
    sizes = [len(part) for part in parts]
    out = blend.start.new_empty((sum(sizes), *blend.shape[1:]), device=device)
    for part, rows in zip(parts, out.split(sizes), strict=True):
        if name in part.blends:
            part.blends[name].write_to(rows)
        else:
            rows.copy_(part.fields[name])
    return out


def _pad(tensor: Shaped[Tensor, "p l ..."], length: int, value: int | float) -> Shaped[Tensor, "p m ..."]:
    n_padding = length - tensor.shape[1]
    if not n_padding:
        return tensor
    padding = tensor.new_full((tensor.shape[0], n_padding, *tensor.shape[2:]), value)
    return torch.cat([tensor, padding], dim=1)
