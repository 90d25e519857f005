"""What every recipe is given, and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.granularity import Unitization, Units
from interpreto.attributions.perturbations.seams import Layout
from interpreto.model_wrapping.conversation import NamedTargets, Plan
from interpreto.model_wrapping.inside.probe import Probe
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Case:
    """One sample and what is asked about it.

    Attributes:
        sample: The prepared sample.
        units: What gets a score.
        targets: What is explained.
        scores: The targets' scores on the unchanged sample.
        seed: Where randomness starts, afresh for every sample.
        block: How many rows to ask for at a time.
        crowd: How many cases like this one ask at the same time, to share what memory there is.
        inside: What a recipe's probe found in the run of the unchanged sample; None where none did.
        device: Where the model runs.
        probabilities: Of the targets, None for those that have none; None where outputs are not of classes.
        shared: What is worked on at the same time has this in common, to note here what others need not ask again.
    """

    sample: Sample
    units: Units
    targets: NamedTargets
    scores: Float[Tensor, " t"]
    seed: int
    block: int
    crowd: int = 1
    inside: Float[Tensor, "t ..."] | None = None
    device: torch.device = _CPU
    shared: dict[Hashable, Any] = field(default_factory=dict)
    probabilities: tuple[float | None, ...] | None = None

    @property
    def layout(self) -> Layout:
        """How the units lie."""
        return Layout(self.units.shape, tuple(self.units.index.shape))

    @property
    def visible(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can have a say in which target; None where all can."""
        reach = self.targets.reach
        return None if reach is None else self.units.first < reach.reshape(-1, *[1] * len(self.units.shape))

    @property
    def own(self) -> Bool[Tensor, "t *g"] | None:
        """Which units with a say are part of the target itself; None where none is."""
        visible, positions = self.visible, self.targets.own_positions(len(self.units.index))
        if visible is None or positions is None:
            return None
        found = self.units.reduce(positions.float(), "max").bool() & visible
        return found if found.any() else None

    @property
    def rankable(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can be put in order by their scores for each target; None where all can."""
        visible, own = self.visible, self.own
        return visible if visible is None or own is None else visible & ~own

    def rng(self) -> torch.Generator:
        """A generator that gives every sample the same numbers, whatever came before it."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Explained:
    """Scores of a sample's units, their standard errors, and by how much they miss the promised sum.

    `segments` are the ranks of the stretches of an image that a method put in order, per position, 1 first.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    gap: Float[Tensor, " t"] | None = None
    segments: Int[Tensor, "t *l"] | None = None

    def within(self, visible: Bool[Tensor, "t *g"] | None) -> "Explained":
        """The same with NaN where a unit can have no say."""
        if visible is None:
            return self
        errors = self.standard_errors
        return replace(
            self,
            scores=self.scores.masked_fill(~visible, torch.nan),
            standard_errors=None if errors is None else errors.masked_fill(~visible, torch.nan),
        )


class Recipe(ABC):
    """A method without a model."""

    @property
    def probe(self) -> Probe | None:
        """What the run of the unchanged sample is watched for; None where nothing is."""
        return None

    @property
    def fine(self) -> bool:
        """Whether every unit comes for free, as it does with gradients, or costs a row."""
        return False

    @property
    def granularity(self) -> Unitization | None:
        """What gets a score where the user does not say; None is what is natural for the sample."""
        return None

    @property
    def alone(self) -> str:
        """Which option holds what belongs to one sample, so that there can be no other; empty where none does."""
        return ""

    @property
    def effort(self) -> str:
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
    def rows(self, layout: Layout) -> int:
        """How many rows a sample will take, for the progress bar."""

    @abstractmethod
    def plan(self, case: Case) -> Plan[Explained]:
        """The conversation that explains one sample."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the record should say beyond the options: the removal or baseline that was used."""
