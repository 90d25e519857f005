"""Units: which positions of one sample make up each element that gets a score."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interpreto.errors import OptionError, choices

POOLINGS = ("mean", "sum", "max", "min", "signed_max", "first", "last")
RESIZES = ("area", "sum", "bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Combine:
    """How scores of positions become scores of units: `pooling` for texts, `resize` for images."""

    pooling: str = "mean"
    resize: str = "area"

    def __post_init__(self) -> None:
        for option, known in (("pooling", POOLINGS), ("resize", RESIZES)):
            value = getattr(self, option)
            if value not in known:
                raise OptionError(f"There is no {option}={value!r}: {choices(value, known)}")


@dataclass(frozen=True, eq=False)
class Units(ABC):
    """A partition of some of the positions.

    Attributes:
        index: The unit of every position, -1 for positions that belong to none.
        shape: `(g,)`, or `(h, w)` where units lie on a grid.
    """

    index: Int[Tensor, "*l"]
    shape: tuple[int, ...]

    @property
    def movable(self) -> Bool[Tensor, "*l"]:
        """The positions that belong to a unit."""
        return self.index >= 0

    @property
    def first(self) -> Int[Tensor, "*g"]:
        """The first position of every unit, in the order of the flattened positions."""
        flat = self.index.flatten()
        out = torch.full((int(torch.tensor(self.shape).prod()),), len(flat))
        inside = flat >= 0
        out.scatter_reduce_(0, flat[inside], torch.arange(len(flat))[inside], "amin")
        return out.reshape(self.shape)

    def spread(self, cells: Float[Tensor, "p *g"]) -> Float[Tensor, "p *l"]:
        """The value of its unit at every position, 0 where there is none."""
        flat = cells.flatten(1)
        padded = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
        # Index -1 finds the zero that was put last.
        return padded[:, self.index]

    def reduce(self, scores: Float[Tensor, "t *l"], how: str) -> Float[Tensor, "t *g"]:
        """Scores of units by pooling those of their positions.

        `signed_max` takes the score of largest magnitude with its sign.
        """
        inside = self.movable
        values, index = scores[:, inside], self.index[inside].to(scores.device)
        if how in ("first", "last"):
            order = index if how == "first" else index.flip(0)
            values = values if how == "first" else values.flip(1)
            fresh = torch.ones_like(order, dtype=torch.bool)
            fresh[1:] = order[1:] != order[:-1]
            values, index = values[:, fresh], order[fresh]
            how = "sum"
        if how == "signed_max":
            top, low = self._scattered(values, index, "amax"), self._scattered(values, index, "amin")
            return torch.where(top >= -low, top, low)
        return self._scattered(values, index, {"max": "amax", "min": "amin"}.get(how, how))

    def _scattered(self, values: Float[Tensor, "t s"], index: Int[Tensor, " s"], how: str) -> Float[Tensor, "t *g"]:
        count = int(torch.tensor(self.shape).prod())
        out = values.new_zeros(len(values), count)
        out.scatter_reduce_(1, index.expand_as(values), values, how, include_self=False)
        return out.reshape(len(values), *self.shape)

    @abstractmethod
    def combine(self, scores: Float[Tensor, "t *l"], how: Combine) -> Float[Tensor, "t *g"]:
        """Scores of units from those of all positions."""

    @abstractmethod
    def fit(self, scores: Float[Tensor, "t *cells"], resize: str) -> Float[Tensor, "t *g"]:
        """Scores of units from those of a method's own cells."""


@final
class TextUnits(Units):
    """Units of a text: one list."""

    def combine(self, scores: Float[Tensor, "t l"], how: Combine) -> Float[Tensor, "t g"]:
        return self.reduce(scores, how.pooling)

    def fit(self, scores: Float[Tensor, "t g"], resize: str) -> Float[Tensor, "t g"]:
        return scores


@final
class ImageUnits(Units):
    """Units of an image on a grid."""

    def combine(self, scores: Float[Tensor, "t H W"], how: Combine) -> Float[Tensor, "t h w"]:
        if how.resize in ("area", "sum"):
            return self.reduce(scores, "mean" if how.resize == "area" else "sum")
        return resized(scores, self.shape, how.resize)

    def fit(self, scores: Float[Tensor, "t a b"], resize: str) -> Float[Tensor, "t h w"]:
        return scores if scores.shape[1:] == self.shape else resized(scores, self.shape, resize)


def resized(scores: Float[Tensor, "t a b"], size: tuple[int, ...], how: str) -> Float[Tensor, "t h w"]:
    """A map at another resolution; `sum` keeps the total, the others the level."""
    if how in ("area", "sum"):
        out = nn.functional.interpolate(scores[:, None], size=size, mode="area")[:, 0]
        return out * (scores[0].numel() / out[0].numel()) if how == "sum" else out
    smooth = how in ("bilinear", "bicubic")
    corners = False if smooth else None
    return nn.functional.interpolate(scores[:, None], size=size, mode=how, align_corners=corners)[:, 0]
