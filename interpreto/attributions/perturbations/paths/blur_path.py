"""The path of blur integrated gradients (Xu et al. 2020, arXiv:2004.03383), with Gaussian blurs as matrix products."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import PathGenerator, PathPoints
from interpreto.attributions.perturbations.paths.points import QuadratureRule, check_n_steps, quadrature
from interpreto.option_kinds import at_least

_STEP = 0.01
"""Step, in pixels or tokens, of the forward difference with respect to sigma."""
_TRUNCATE = 4.0
"""The radius of a kernel in standard deviations, like `truncate` of scipy's `gaussian_filter`."""


@final
@dataclass(frozen=True)
class BlurPath(PathGenerator):
    """The path from a blurred to a sharp sample: Gaussian blurs of decreasing width, with zeros beyond the border.

    Args:
        n_steps: Number of blurs.
        max_sigma: Standard deviation of the widest blur, in pixels or tokens.
        rule: The quadrature rule over the widths.
        axes: The axes of the tensor that are blurred.
    """

    n_steps: int = 32
    max_sigma: float = 50.0
    rule: QuadratureRule = "riemann-left"
    axes: tuple[int, ...] = (1, 2)

    from_baselines = False

    def __post_init__(self) -> None:
        check_n_steps(self.rule, self.n_steps)
        if self.rule == "riemann-left":
            # The first node is the sharp sample, where the derivative with respect to sigma is 0.
            at_least("n_steps", self.n_steps, 2)

    @property
    def accuracy_option(self) -> str:
        return f"n_steps={self.n_steps}"

    def n_points(self, baselines: int) -> int:
        return self.n_steps

    def starts(self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"]) -> Float[Tensor, "_b *s"]:
        return blurred(tensor, torch.tensor([self.max_sigma], dtype=torch.float64), self.axes)[0]

    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        alphas, weights = quadrature(self.n_steps, self.rule)
        for alpha, weight in zip(alphas.split(size), weights.split(size), strict=True):
            blurs, derivatives = blurred(tensor, alpha.double() * self.max_sigma, self.axes)
            # The path runs from the blurred sample to the sharp one, with falling widths, hence the minus sign.
            yield PathPoints(blurs, derivatives, -self.max_sigma * weight)


def half_gaussian(sigmas: Float[Tensor, " p"], size: int) -> Float[Tensor, "p s"]:
    """One side of the Gaussian kernel of each sigma, at distances 0, 1, ... below `size`.

    The whole symmetric kernel sums to 1. A sigma of 0 does not blur: its weights are 1, 0, 0, ...
    """
    # Normalised over the whole kernel, also where it is longer than the axis: what is beyond the border counts as 0.
    radius = (_TRUNCATE * sigmas + 0.5).floor()[:, None]
    distance = torch.arange(max(size, int(radius.max()) + 1), dtype=torch.float64)
    weights = torch.exp(-0.5 * (distance / sigmas[:, None].clamp(min=1e-9)).square())
    weights = torch.where(distance <= radius, weights, 0.0)
    # Distance 0 occurs once in the kernel, all others twice.
    return (weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1]))[:, :size]


def blurred(
    tensor: Float[Tensor, "*s"], sigmas: Float[Tensor, " p"], axes: tuple[int, ...]
) -> tuple[Float[Tensor, "p *s"], Float[Tensor, "p *s"]]:
    """The tensor blurred with each sigma, and the derivative of each blur with respect to sigma.

    A Gaussian blur is separable: one matrix product per axis. The derivative is a forward difference with step `_STEP`
    of the kernels, in float64: a difference of blurred float32 tensors would keep only three digits.
    """
    # With A_i, the blur of axis i at sigma, and B_i, that at sigma + step, B2 B1 - A2 A1 = A2 (B1 - A1) + (B2 - A2) B1:
    # one term per axis, for which `wider` is the tensor blurred at sigma + step along the axes before it.
    blurs, wider, derivatives = tensor[None], tensor[None], None
    for axis in axes:
        size = tensor.shape[axis]
        distance = (torch.arange(size)[:, None] - torch.arange(size)).abs()
        kernel, next_kernel = half_gaussian(sigmas, size), half_gaussian(sigmas + _STEP, size)
        matrix, next_matrix, change = (
            w.to(tensor)[:, distance] for w in (kernel, next_kernel, (next_kernel - kernel) / _STEP)
        )
        term = _multiply_axis(change, wider, axis)
        derivatives = term if derivatives is None else _multiply_axis(matrix, derivatives, axis) + term
        blurs = _multiply_axis(matrix, blurs, axis)
        if axis != axes[-1]:
            wider = _multiply_axis(next_matrix, wider, axis)
    assert derivatives is not None
    return blurs, derivatives


def _multiply_axis(
    matrices: Float[Tensor, "p i j"], tensors: Float[Tensor, "_p *s"], axis: int
) -> Float[Tensor, "p *s"]:
    """Multiply an axis of each tensor, or of the only tensor, by each matrix."""
    moved = tensors.movedim(axis + 1, -1)
    product = moved.flatten(1, -2) @ matrices.mT
    return product.unflatten(1, moved.shape[1:-1]).movedim(-1, axis + 1)
