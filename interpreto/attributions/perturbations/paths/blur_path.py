"""The path from a blurred to a sharp sample, and blurs as products of matrices."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import PathGenerator, PathPoints
from interpreto.attributions.perturbations.paths.points import check_rule, nodes

_STEP = 0.01
"""The difference of widths over which the slope of a blur is taken."""
_WIDEST = 10_000
"""The widest blur, as wide as the largest images are."""
_REACH = 4.0
"""A Gaussian is cut off after so many standard deviations."""


@final
@dataclass(frozen=True)
class BlurPath(PathGenerator):
    """The path from a blurred to a sharp sample: Gaussian blurs of decreasing width, with zeros beyond the border.

    Args:
        n_steps: Number of blurs.
        max_sigma: Width of the widest blur, a standard deviation in positions.
        rule: One of `RULES`, over the widths.
        axes: Along which axes of the tensor to blur.
    """

    n_steps: int = 32
    max_sigma: float = 50.0
    rule: str = "riemann-left"
    axes: tuple[int, ...] = (1, 2)

    from_baselines = False

    def __post_init__(self) -> None:
        check_rule(self.rule, self.n_steps)

    @property
    def accuracy_option(self) -> str:
        return f"n_steps={self.n_steps}"

    def n_points(self, baselines: int) -> int:
        return self.n_steps

    def starts(self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        return blurred(tensor, torch.tensor([self.max_sigma], dtype=torch.float64), self.axes)[0]

    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        places, weights = nodes(self.n_steps, self.rule)
        for some, weight in zip(places.split(size), weights.split(size), strict=True):
            blurs, slopes = blurred(tensor, some.double() * self.max_sigma, self.axes)
            # The path runs from the blurred sample to the sharp one, so as widths fall.
            yield PathPoints(blurs, slopes, -self.max_sigma * weight)


def gaussian(sigmas: Float[Tensor, " p"], size: int) -> Float[Tensor, "p s"]:
    """What a Gaussian of each width weighs at distances 0, 1, ..., cut off and normalised; widths of 0 are no blur."""
    reach = (_REACH * sigmas + 0.5).floor()[:, None]
    distance = torch.arange(max(size, int(reach.max()) + 1), dtype=torch.float64)
    weights = torch.exp(-0.5 * (distance / sigmas[:, None].clamp(min=1e-9)).square())
    weights = torch.where(distance <= reach, weights, 0.0)
    return (weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1]))[:, :size]


def blurred(
    tensor: Float[Tensor, "*s"], sigmas: Float[Tensor, " p"], axes: tuple[int, ...]
) -> tuple[Float[Tensor, "p *s"], Float[Tensor, "p *s"]]:
    """A tensor under Gaussian blurs, and by how much each changes with its width: a forward difference.

    A blur is a product with one small matrix per axis. Differences are taken of the matrices, in double precision:
    of the blurred tensors themselves they would keep three digits.
    """
    # Along some of the axes the width is that of the blur, along the others that of the next one.
    found, wider, slopes = tensor[None], tensor[None], None
    for axis in axes:
        size = tensor.shape[axis]
        apart = (torch.arange(size)[:, None] - torch.arange(size)).abs()
        here, there = gaussian(sigmas, size), gaussian(sigmas + _STEP, size)
        matrix, next_, change = (w.to(tensor)[:, apart] for w in (here, there, (there - here) / _STEP))
        grown = _along(change, wider, axis)
        slopes = grown if slopes is None else _along(matrix, slopes, axis) + grown
        found = _along(matrix, found, axis)
        if axis != axes[-1]:
            wider = _along(next_, wider, axis)
    assert slopes is not None
    return found, slopes


def _along(matrices: Float[Tensor, "p i j"], tensors: Float[Tensor, "_p *s"], axis: int) -> Float[Tensor, "p *s"]:
    """Each tensor's axis times its own matrix."""
    moved = tensors.movedim(axis + 1, -1)
    found = moved.flatten(1, -2) @ matrices.mT
    return found.unflatten(1, moved.shape[1:-1]).movedim(-1, axis + 1)
