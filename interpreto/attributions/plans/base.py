"""What every recipe is given, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.granularity import Units, UnitSegmenter
from interpreto.attributions.perturbations.base import Layout
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.messages import NamedTargets, PlanRun
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class PreparedSample:
    """One sample and what is asked about it.

    Attributes:
        sample: The prepared sample.
        units: What gets a score.
        targets: What is explained.
        scores: The targets' scores on the unchanged sample.
        seed: Where randomness starts, afresh for every sample.
        max_evaluations_per_request: How many rows to ask for at a time.
        n_concurrent: How many cases like this one ask at the same time, to share what memory there is.
        captured: What a recipe's probe found in the run of the unchanged sample; None where none did.
        device: Where the model runs.
        probabilities: Of the targets, None for those that have none; None where outputs are not of classes.
        shared: What is worked on at the same time has this in common, to note here what others need not ask again.
    """

    sample: Sample
    units: Units
    targets: NamedTargets
    scores: Float[Tensor, " t"]
    seed: int
    max_evaluations_per_request: int
    n_concurrent: int = 1
    captured: Float[Tensor, "t ..."] | None = None
    device: torch.device = _CPU
    shared: dict[Hashable, Any] = field(default_factory=dict)
    probabilities: tuple[float | None, ...] | None = None

    @property
    def layout(self) -> Layout:
        """How the units lie."""
        return Layout(self.units.shape, tuple(self.units.index.shape))

    @property
    def can_influence(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can have a say in which target; None where all can."""
        reach = self.targets.causal_limit
        return None if reach is None else self.units.start < reach.reshape(-1, *[1] * len(self.units.shape))

    @property
    def part_of_target(self) -> Bool[Tensor, "t *g"] | None:
        """Which units with a say are part of the target itself; None where none is."""
        visible, positions = self.can_influence, self.targets.own_positions(len(self.units.index))
        if visible is None or positions is None:
            return None
        found = self.units.pool(positions.float(), "max").bool() & visible
        return found if found.any() else None

    @property
    def rankable(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can be put in order by their scores for each target; None where all can."""
        visible, own = self.can_influence, self.part_of_target
        return visible if visible is None or own is None else visible & ~own

    def rng(self) -> torch.Generator:
        """A generator that gives every sample the same numbers, whatever came before it."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class UnitAttribution:
    """Scores of a sample's units, their standard errors, and by how much they miss the promised sum.

    `segments` are the ranks of the stretches of an image that a method put in order, per position, 1 first.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    completeness_gap: Float[Tensor, " t"] | None = None
    segments: Int[Tensor, "t *l"] | None = None

    def restricted_to(self, can_influence: Bool[Tensor, "t *g"] | None) -> "UnitAttribution":
        """The same with NaN where a unit can have no say."""
        if can_influence is None:
            return self
        errors = self.standard_errors
        return replace(
            self,
            scores=self.scores.masked_fill(~can_influence, torch.nan),
            standard_errors=None if errors is None else errors.masked_fill(~can_influence, torch.nan),
        )


class Plan(ABC):
    """A method without a model."""

    @property
    def capture(self) -> CaptureRequest | None:
        """What the run of the unchanged sample is watched for; None where nothing is."""
        return None

    @property
    def cost_independent_of_units(self) -> bool:
        """Whether every unit comes for free, as it does with gradients, or costs a row."""
        return False

    @property
    def default_granularity(self) -> UnitSegmenter | None:
        """What gets a score where the user does not say; None is what is natural for the sample."""
        return None

    @property
    def single_sample_option(self) -> str:
        """Which option holds what belongs to one sample, so that there can be no other; empty where none does."""
        return ""

    @property
    def accuracy_option(self) -> str:
        """The option that brings the sum of the units closer to what is promised, and its value; empty if none does."""
        return ""

    @property
    def signed(self) -> bool:
        """Whether scores have signs: what raises the target's score and what lowers it."""
        return True

    @property
    def rectifies(self) -> bool:
        """Whether negative sums become 0, so that a map may be 0 everywhere."""
        return False

    def check(self, sample: Sample, layout: Layout) -> None:
        """Refuse a sample that cannot be explained, as far as that can be known before the model runs."""
        return

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """How many rows a sample will take, for the progress bar."""

    @abstractmethod
    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        """The conversation that explains one sample."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the record should say beyond the options: the removal or baseline that was used."""
