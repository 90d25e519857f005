"""From gradients at points to attributions of the input tensor."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

GROUPS = 20
"""Samples are dealt into at most this many groups for the jackknife: its error bars are then right to some 16 %."""


class Statistic(ABC):
    """What is made of attributions that vary from sample to sample, one tensor per sample."""

    @abstractmethod
    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        """The statistic of `count` samples.

        Args:
            count: Number of samples.
            first: Sum of the samples' differences from `origin`.
            second: Sum of the squares of these.
            origin: What the sums are relative to.
        """


@final
@dataclass(frozen=True)
class Mean(Statistic):
    """The mean."""

    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        return origin + first / count


@final
@dataclass(frozen=True)
class MeanSquare(Statistic):
    """The mean of the squares."""

    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        return second / count + 2 * origin * first / count + origin.square()


@final
@dataclass(frozen=True)
class Variance(Statistic):
    """The variance, with n in the denominator."""

    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        return (second / count - (first / count).square()).clamp(min=0)


@final
@dataclass(eq=False)
class Sampled:
    """A fold over samples that keeps sums per group, so that every statistic comes with its jackknife."""

    statistic: Statistic
    count: int
    seen: int = 0
    origin: Tensor = field(default_factory=lambda: torch.zeros(()))
    first: Tensor = field(default_factory=lambda: torch.zeros(()))
    second: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, values: Float[Tensor, "p t *s"]) -> None:
        """Take in some samples."""
        if not self.seen:
            # Relative to the first sample the sums of squares keep their digits, and equal samples vary by exactly 0.
            self.origin = values[0].clone()
            shape = (min(self.count, GROUPS), *values.shape[1:])
            self.first, self.second = values.new_zeros(shape), values.new_zeros(shape)
        groups = (torch.arange(self.seen, self.seen + len(values)) % len(self.first)).to(values.device)
        self.first.index_add_(0, groups, values - self.origin)
        self.second.index_add_(0, groups, (values - self.origin).square())
        self.seen += len(values)

    def result(self) -> Float[Tensor, "t *s"]:
        """The statistic of all samples."""
        return self.statistic.of(self.seen, self.first.sum(0), self.second.sum(0), self.origin)

    def without_each(self) -> Iterator[Float[Tensor, "t *s"]]:
        """The statistic without each of the groups in turn."""
        groups = len(self.first)
        first, second = self.first.sum(0), self.second.sum(0)
        for group in range(groups):
            left = self.seen - len(range(group, self.seen, groups))
            yield self.statistic.of(left, first - self.first[group], second - self.second[group], self.origin)


def jackknife(estimates: list[Tensor]) -> Tensor:
    """The standard error of an estimate from its values without each group of samples."""
    stacked = torch.stack(estimates)
    groups = len(estimates)
    return ((groups - 1) / groups * (stacked - stacked.mean(0)).square().sum(0)).sqrt()
