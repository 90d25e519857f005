"""Statistics over sampled attributions of the input tensor, with jackknife standard errors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

GROUPS = 20
"""Largest number of groups of the jackknife; the relative error of a standard error is 1 / sqrt(2 * 20) = 16 %."""


class Statistic(ABC):
    """A statistic of sampled attributions, one tensor per sample, computed from their first two moments."""

    signed: ClassVar[bool] = False
    """Whether the statistic keeps the signs of attributions."""
    min_samples: ClassVar[int] = 1
    """The smallest number of samples whose statistic depends on their values."""

    @abstractmethod
    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        """The statistic of `count` samples.

        Args:
            count: Number of samples.
            first: Sum of the differences between samples and `origin`.
            second: Sum of the squares of these differences.
            origin: The point that the sums are relative to.
        """


@final
@dataclass(frozen=True)
class Mean(Statistic):
    """The mean."""

    signed = True

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

    min_samples = 2

    def of(self, count: int, first: Tensor, second: Tensor, origin: Tensor) -> Tensor:
        return (second / count - (first / count).square()).clamp(min=0)


@final
@dataclass(eq=False)
class SampleAccumulator:
    """Accumulates sums over samples per group, from which the statistic and its jackknife estimates are computed.

    Attributes:
        statistic: The statistic.
        count: The number of samples that will be added.
        seen: The number of samples added so far.
        origin: The first sample.
        first: Sum of the differences from `origin`, per group.
        second: Sum of the squares of these differences, per group.
    """

    statistic: Statistic
    count: int
    seen: int = 0
    origin: Tensor = field(default_factory=lambda: torch.zeros(()))
    first: Tensor = field(default_factory=lambda: torch.zeros(()))
    second: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, values: Float[Tensor, "p t *s"]) -> None:
        """Add samples."""
        if not self.seen:
            # Relative to the first sample, sums of squares of similar samples lose few digits to cancellation, and the
            # variance of equal samples is exactly 0.
            self.origin = values[0].clone()
            shape = (min(self.count, GROUPS), *values.shape[1:])
            self.first, self.second = values.new_zeros(shape), values.new_zeros(shape)
        # Samples are assigned to groups in turn, so that the groups do not depend on how samples are batched.
        groups = (torch.arange(self.seen, self.seen + len(values)) % len(self.first)).to(values.device)
        self.first.index_add_(0, groups, values - self.origin)
        self.second.index_add_(0, groups, (values - self.origin).square())
        self.seen += len(values)

    def result(self) -> Float[Tensor, "t *s"]:
        """The statistic of all samples."""
        return self.statistic.of(self.seen, self.first.sum(0), self.second.sum(0), self.origin)

    def leave_one_out(self) -> Iterator[Float[Tensor, "t *s"]]:
        """The statistic of all samples outside a group, for every group in turn."""
        groups = len(self.first)
        first, second = self.first.sum(0), self.second.sum(0)
        for group in range(groups):
            remaining = self.seen - len(range(group, self.seen, groups))
            yield self.statistic.of(remaining, first - self.first[group], second - self.second[group], self.origin)


def jackknife(estimates: list[Tensor]) -> Tensor:
    """The jackknife standard error of an estimate, from its values without each group of samples."""
    stacked = torch.stack(estimates)
    groups = len(estimates)
    return ((groups - 1) / groups * (stacked - stacked.mean(0)).square().sum(0)).sqrt()
