"""Points at which gradients are evaluated: the input, nodes of a straight path, random points; and noisy copies."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.base import PathGenerator, PathPoints
from interpreto.attributions.perturbations.mask_generators.masks import each
from interpreto.option_kinds import at_least

QuadratureRule = Literal["gauss-legendre", "trapezoid", "riemann-left", "riemann-right", "riemann-middle"]


@cache
def quadrature(n_steps: int, rule: QuadratureRule) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Nodes in [0, 1] and weights of a quadrature rule with `n_steps` nodes."""
    if rule == "gauss-legendre":
        x, w = np.polynomial.legendre.leggauss(n_steps)
        # From [-1, 1], where leggauss defines them, to [0, 1].
        x, w = (x + 1) / 2, w / 2
    elif rule == "trapezoid":
        x = np.linspace(0, 1, n_steps)
        w = np.full(n_steps, 1 / (n_steps - 1))
        w[[0, -1]] /= 2
    else:
        offset = {"riemann-left": 0.0, "riemann-right": 1.0, "riemann-middle": 0.5}[rule]
        x = (np.arange(n_steps) + offset) / n_steps
        w = np.full(n_steps, 1 / n_steps)
    return torch.from_numpy(x).float(), torch.from_numpy(w).float()


def check_n_steps(rule: QuadratureRule, n_steps: int) -> None:
    """Check the number of nodes of a quadrature rule.

    Raises:
        OptionError: if there are too few.
    """
    at_least("n_steps", n_steps, 2 if rule == "trapezoid" else 1)


def _column(values: Float[Tensor, " p"], like: Float[Tensor, "*s"]) -> Tensor:
    """One value per point, shaped to multiply tensors of the shape of `like`."""
    return values.to(like.device).reshape(-1, *[1] * like.ndim)


@final
@dataclass(frozen=True)
class AtInput(PathGenerator):
    """The input itself.

    Args:
        times_input: Whether the gradient is multiplied by the input; otherwise it is the attribution itself.
    """

    times_input: bool = False

    from_baselines = False

    def n_points(self, baselines: int) -> int:
        return 1

    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        multiplier = tensor if self.times_input else torch.ones_like(tensor)
        yield PathPoints(tensor[None], multiplier[None], torch.ones(1))


@final
@dataclass(frozen=True)
class LinearPath(PathGenerator):
    """The straight path from each baseline to the input, at the nodes of a quadrature rule.

    Args:
        n_steps: Number of nodes per baseline.
        rule: The quadrature rule.
    """

    n_steps: int = 32
    rule: QuadratureRule = "gauss-legendre"

    from_baselines = True

    def __post_init__(self) -> None:
        check_n_steps(self.rule, self.n_steps)

    @property
    def accuracy_option(self) -> str:
        return f"n_steps={self.n_steps}"

    def n_points(self, baselines: int) -> int:
        return self.n_steps * baselines

    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        alphas, weights = quadrature(self.n_steps, self.rule)
        # Blocks never mix baselines, so that one direction serves a whole block.
        for baseline in baselines:
            difference = tensor - baseline
            for alpha, weight in zip(alphas.split(size), weights.split(size), strict=True):
                on_path = torch.addcmul(baseline, _column(alpha, tensor), difference)
                yield PathPoints(on_path, difference[None], weight / len(baselines))


@final
@dataclass(frozen=True)
class RandomPathPoints(PathGenerator):
    """Random points on the straight paths from randomly chosen baselines to the input, stratified along the path.

    Args:
        n_samples: Number of points.
        noise_level: Standard deviation of Gaussian noise on the input, the end of the path, as a share of the input's
            range max x - min x.
    """

    n_samples: int = 512
    noise_level: float = 0.0

    from_baselines = True

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 2)

    @property
    def accuracy_option(self) -> str:
        return f"n_samples={self.n_samples}"

    def n_points(self, baselines: int) -> int:
        return self.n_samples

    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        baseline_index = torch.randint(len(baselines), (self.n_samples,), generator=rng).to(baselines.device)
        # One point in each of n equal intervals: unbiased, with less variance than independent points.
        jitter = torch.rand(self.n_samples, generator=rng)
        alphas = _column((torch.arange(self.n_samples) + jitter) / self.n_samples, tensor)
        for index, alpha in zip(baseline_index.split(size), alphas.split(size), strict=True):
            ends = noisy_copies(tensor, len(index), self.noise_level, rng) if self.noise_level else tensor[None]
            difference = ends - baselines[index]
            # With one baseline and no noise all points have the same direction, which need not be stored for each.
            direction = difference if len(baselines) > 1 or self.noise_level else difference[:1]
            on_path = torch.addcmul(baselines[index], alpha, difference)
            yield PathPoints(on_path, direction, torch.ones(len(index)) / self.n_samples)


def noisy_copies(
    tensor: Float[Tensor, "*s"], n_copies: int, noise_level: float, rng: torch.Generator
) -> Float[Tensor, "p *s"]:
    """Copies with Gaussian noise whose standard deviation is the share `noise_level` of the tensor's range."""
    sigma = noise_level * (tensor.max() - tensor.min())
    return tensor + sigma * each(n_copies, lambda: torch.randn(tensor.shape, generator=rng)).to(tensor)
