"""Rows: what goes through a model, stacked, whatever the modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LazyBlend:
    """A field of rows that lie between two, made only when and where they run.

    Until then there is no more of it in memory, and no more to move to an accelerator, than the two and the masks.

    Attributes:
        start: What a row is where its mask is 0, one row.
        end: What it is where its mask is 1, one row.
        masks: The masks, in whatever form is small.
        to_positions: Makes of masks what can be multiplied with rows that are cut.
        view_shape: The shape of a row with some axes split in two, so that a mask value serves a stretch of positions;
            None if no axis is split.
    """

    start: Float[Tensor, "1 *s"]
    end: Float[Tensor, "1 *s"]
    masks: Float[Tensor, "p ..."]
    to_positions: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p ..."]]
    view_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the field once it is made."""
        return (self.masks.shape[0], *self.start.shape[1:])

    def take(self, chosen: slice | Int[Tensor, " q"]) -> "LazyBlend":
        """Some of the rows."""
        return LazyBlend(self.start, self.end, self.masks[chosen], self.to_positions, self.view_shape)

    def write_to(self, out: Float[Tensor, "p *s"]) -> None:
        """Write the rows to where they are wanted."""
        here, there, masks = (tensor.to(out.device) for tensor in (self.start, self.end, self.masks))
        axes = self.view_shape or here.shape[1:]
        torch.lerp(here.reshape(1, *axes), there.reshape(1, *axes), self.to_positions(masks), out=out.view(-1, *axes))


@dataclass(frozen=True, eq=False)
class Rows:
    """Model inputs of several rows, one tensor per field with the rows in front.

    Rows never hold anything that is not one entry per row.

    Attributes:
        fields: The tensors.
        padding: Names the fields that are ragged along their second axis, with the value that fills them up on the
            right when rows of different lengths are joined.
        blends: Fields that are still to be made, as `join` does. They are never ragged.
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
        """The names of all fields, lazy ones among them."""
        return frozenset(self.fields) | frozenset(self.blends)

    @property
    def length(self) -> int:
        """Positions of a ragged row, padding included; 1 where nothing is ragged."""
        return max((self.fields[name].shape[1] for name in self.padding if name in self.fields), default=1)

    @property
    def shape(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The fields and the shape of a row in each, ragged axes left out: rows of one shape can be joined."""
        whole = chain(self.fields.items(), self.blends.items())
        return tuple((name, tuple(values.shape[2 if name in self.padding else 1 :])) for name, values in whole)

    @property
    def nbytes(self) -> int:
        """How much memory the rows take, blends before they are made."""
        return sum(tensor.nbytes for tensor in chain(self.fields.values(), (one.masks for one in self.blends.values())))

    def take(self, chosen: slice | Int[Tensor, " q"]) -> "Rows":
        """Some of the rows."""
        return Rows(
            {name: tensor[chosen] for name, tensor in self.fields.items()},
            self.padding,
            {name: blend.take(chosen) for name, blend in self.blends.items()},
        )

    def expand(self, count: int, **fields: Tensor | LazyBlend) -> "Rows":
        """`count` copies of a single row, without copying memory, with some fields exchanged or added."""
        assert not self.blends
        # What is exchanged is left as it is, to keep the order of the fields.
        same = {name: t if name in fields else t.expand(count, *t.shape[1:]) for name, t in self.fields.items()}
        return Rows(same, self.padding).replace(**fields)

    def replace(self, **fields: Tensor | LazyBlend) -> "Rows":
        """These rows with some fields exchanged or added."""
        whole = {**self.fields, **self.blends, **fields}
        return Rows(
            {name: values for name, values in whole.items() if isinstance(values, Tensor)},
            self.padding,
            {name: values for name, values in whole.items() if isinstance(values, LazyBlend)},
        )

    def unique(self) -> "tuple[Rows, Int[Tensor, ' p']] | None":
        """The distinct rows, in the order in which they first occur, and the place of every row among them.

        None if a field is a blend, which cannot be compared before it is made.
        """
        if self.blends:
            return None
        keys = [_row_key(tensor) for tensor in self.fields.values() if not _is_constant(tensor)]
        if not keys:
            return self.take(slice(1)), torch.zeros(len(self), dtype=torch.long)
        # Integers of several fields are compared at once; each float field becomes one column of indices.
        _, inverse = torch.cat([key.cpu() for key in keys], dim=1).unique(dim=0, return_inverse=True)
        count = int(inverse.max()) + 1
        firsts = torch.full((count,), len(inverse)).scatter_reduce_(0, inverse, torch.arange(len(inverse)), "amin")
        order = firsts.argsort()
        place = torch.empty_like(order)
        place[order] = torch.arange(count)
        return self.take(firsts[order]), place[inverse]

    def first_difference(self, reference: "Rows") -> Int[Tensor, " p"]:
        """The first position at which each row differs from a reference row; the length if it does not.

        Rows that differ in a field without positions, such as pixel values, differ from the first position on.
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
        """A copy of these rows on a device, all fields made. Models get copies: some change their inputs in place."""
        made = Rows.join([self], device)
        return Rows({name: tensor.to(device, copy=True) for name, tensor in made.fields.items()}, made.padding)

    @staticmethod
    def join(parts: Sequence["Rows"], device: torch.device | None = None) -> "Rows":
        """All rows in one, the ragged fields padded on the right to the longest, blends made.

        Args:
            parts: Rows of one shape.
            device: Where fields are made of which a part is a blend; None is where the blends are. What is there
                already stays where it is.
        """
        if len(parts) == 1 and not parts[0].blends:
            return parts[0]
        first = parts[0]
        length = max(part.length for part in parts)
        fields = {}
        for name in chain(first.fields, first.blends):
            if any(name in part.blends for part in parts):
                fields[name] = _made(parts, name, device)
                continue
            tensors = [part.fields[name] for part in parts]
            if name in first.padding:
                tensors = [_fill(tensor, length, first.padding[name]) for tensor in tensors]
            fields[name] = torch.cat(tensors)
        return Rows(fields, first.padding)


@dataclass(frozen=True, eq=False)
class DeduplicatedRows:
    """Rows to run, equal ones once.

    Attributes:
        rows: The distinct rows, in the order in which they run best.
        inverse: For every requested row its place among them, as from `torch.unique(return_inverse=True)`.
    """

    rows: Rows
    inverse: Int[Tensor, " p"]


def _is_constant(tensor: Tensor) -> bool:
    """Whether all rows are views of the same memory, as `Rows.expand` makes them."""
    return len(tensor) > 1 and tensor.stride(0) == 0


def _row_key(tensor: Shaped[Tensor, "p ..."]) -> Int[Tensor, "p q"]:
    """Integers that are equal for equal rows."""
    flat = tensor.flatten(1)
    if not flat.is_floating_point():
        return flat.long()
    return flat.unique(dim=0, return_inverse=True)[1][:, None]


def _made(parts: Sequence[Rows], name: str, device: torch.device | None) -> Float[Tensor, "p ..."]:
    """A field of which some rows are blends: all are written to the place where they are to lie, once."""
    blend = next(part.blends[name] for part in parts if name in part.blends)
    sizes = [len(part) for part in parts]
    out = blend.start.new_empty((sum(sizes), *blend.shape[1:]), device=device)
    for part, rows in zip(parts, out.split(sizes), strict=True):
        if name in part.blends:
            part.blends[name].write_to(rows)
        else:
            rows.copy_(part.fields[name])
    return out


def _fill(tensor: Shaped[Tensor, "p l ..."], length: int, value: int | float) -> Shaped[Tensor, "p m ..."]:
    missing = length - tensor.shape[1]
    if not missing:
        return tensor
    padding = tensor.new_full((tensor.shape[0], missing, *tensor.shape[2:]), value)
    return torch.cat([tensor, padding], dim=1)
