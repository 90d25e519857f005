"""GuidedIG's path, on which the features with the smallest gradients move first."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CLOSE = 1e-9
"""Relative or absolute difference below which two distances count as equal."""


@final
@dataclass(frozen=True)
class GuidedPath:
    """A path on which the features with the smallest absolute gradients move towards the input at every step.

    They move until the L1 distance to the input is that of the straight path. The progress of a feature, from 0 at the
    baseline to 1 at the input, never differs by more than `max_dist` from that of the straight path.

    Args:
        n_steps: Number of steps.
        fraction: Share of all features that are moved together, those with the smallest gradients first.
        max_dist: The largest difference in progress between a feature and the straight path.

    Source:
        Kapishnikov et al. 2021, *Guided Integrated Gradients*, arXiv:2106.09788, algorithm 1.
    """

    n_steps: int = 32
    fraction: float = 0.25
    max_dist: float = 0.02

    def advanced(
        self, along: Float[Tensor, "*s"], length: Float[Tensor, "*s"], gradient: Float[Tensor, "*s"], step: int
    ) -> Float[Tensor, "*s"]:
        """The progress of the features after a step.

        Args:
            along: Their progress before it, from 0 to 1.
            length: Their distances from baseline to input.
            gradient: The gradient of the score at the current point.
            step: The number of the step, from 0.
        """
        straight = (step + 1) / self.n_steps
        lowest, highest = max(straight - self.max_dist, 0.0), min(straight + self.max_dist, 1.0)
        along = along.clamp(min=lowest)
        goal = float(length.sum()) * (1 - straight)
        movable = (along < highest) & (length > 0)
        size = gradient.abs()
        # `highest` limits how far one group of features moves, so that a step often takes several groups.
        while (rest := float((length * (1 - along)).sum())) - goal > _CLOSE * max(1.0, rest) and movable.any():
            chosen = self._easiest(size, movable)
            possible = float(torch.where(chosen, length * (highest - along), 0.0).sum())
            if possible > rest - goal:
                # All chosen features move by the same share of what they can, so that the goal is met exactly.
                return torch.where(chosen, along + (highest - along) * (rest - goal) / possible, along)
            along = torch.where(chosen, highest, along)
            movable = movable & ~chosen
        return along

    def _easiest(self, size: Float[Tensor, "*s"], still: Bool[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
        """The movable features whose absolute gradients are in the lowest `fraction` of all features."""
        # As in the authors' code, the quantile is over all features, with infinity for those that cannot move. Once
        # few are left it is infinite, and all of them are chosen.
        candidates = torch.where(still, size, torch.inf).flatten()
        rank = math.floor(self.fraction * (len(candidates) - 1))
        return (size <= ranked(candidates, rank)) & still


def ranked(values: Float[Tensor, " s"], rank: int) -> Float[Tensor, ""]:
    """The value of rank `rank` in ascending order, 0 for the smallest."""
    if values.device.type != "cpu":
        return values.kthvalue(rank + 1).values
    # np.partition is ten times faster than kthvalue on a CPU.
    return torch.as_tensor(np.partition(values.numpy(), rank)[rank])
