"""Guided IG's path: the features with the smallest gradients move first."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CLOSE = 1e-9
"""Distances are equal when they differ by less than this, relatively or at all."""


@final
@dataclass(frozen=True)
class GuidedPath:
    """A path on which, at every step, the features with the smallest gradients move towards the input.

    They move until the L1 distance to the input has fallen to that of the straight path. Where a feature is on its
    way from 0 to 1 never differs from where the straight path is by more than `max_dist`.

    Args:
        n_steps: Number of steps.
        fraction: Share of all features that are moved together, those with the smallest gradients first.
        max_dist: How far a feature may be ahead of the straight path or behind it.
    """

    n_steps: int = 32
    fraction: float = 0.25
    max_dist: float = 0.02

    def advanced(
        self, along: Float[Tensor, "*s"], length: Float[Tensor, "*s"], gradient: Float[Tensor, "*s"], step: int
    ) -> Float[Tensor, "*s"]:
        """Where features are after a step.

        Args:
            along: Where they are on their ways, from 0 to 1.
            length: How long their ways are.
            gradient: Of the score where they are.
            step: The number of the step, from 0 on.
        """
        straight = (step + 1) / self.n_steps
        lowest, highest = max(straight - self.max_dist, 0.0), min(straight + self.max_dist, 1.0)
        along = along.clamp(min=lowest)
        wanted = float(length.sum()) * (1 - straight)
        still = (along < highest) & (length > 0)
        size = gradient.abs()
        while (left := float((length * (1 - along)).sum())) - wanted > _CLOSE * max(1.0, left) and still.any():
            chosen = self._easiest(size, still)
            room = float(torch.where(chosen, length * (highest - along), 0.0).sum())
            if room > left - wanted:
                return torch.where(chosen, along + (highest - along) * (left - wanted) / room, along)
            along = torch.where(chosen, highest, along)
            still = still & ~chosen
        return along

    def _easiest(self, size: Float[Tensor, "*s"], still: Bool[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
        """Of the features that may still move those with the smallest gradients."""
        waiting = torch.where(still, size, torch.inf).flatten()
        rank = math.floor(self.fraction * (len(waiting) - 1))
        return (size <= ranked(waiting, rank)) & still


def ranked(values: Float[Tensor, " s"], rank: int) -> Float[Tensor, ""]:
    """The value of a rank, 0 for the smallest."""
    if values.device.type != "cpu":
        return values.kthvalue(rank + 1).values
    # Ten times faster than torch on a CPU.
    return torch.as_tensor(np.partition(values.numpy(), rank)[rank])
