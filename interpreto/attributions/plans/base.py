"""What every plan is given, and what it returns."""

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
from interpreto.model_wrapping.messages import ModelResponse, NamedTargets, PlanRun
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores


@dataclass(frozen=True)
class PlanNeeds:
    """What a plan needs of the pipeline before it starts.

    Attributes:
        capture: Internals to capture in the run of the unperturbed sample; None for none.
        granularity: What gets a score if the user names no granularity; None for the default of the sample.
        cost_independent_of_units: Whether the number of evaluations does not depend on the number of units, as with
            gradients.
        single_sample_option: The option that holds an array for one sample, so that there can be no other; empty if
            there is none.
    """

    capture: CaptureRequest | None = None
    granularity: UnitSegmenter | None = None
    cost_independent_of_units: bool = False
    single_sample_option: str = ""


@dataclass(frozen=True, eq=False)
class PreparedSample:
    """One sample, its units and targets, and the model's response to it.

    Attributes:
        raw: The sample in the user's form.
        sample: The sample; a prompt with its continuation.
        segmenter: What made the units.
        units: What gets a score.
        labels: What a person sees of each unit: pieces of text, or boxes.
        targets: What is explained.
        scores: The targets' scores of the unperturbed sample.
        unperturbed: The model's response to the unperturbed sample.
        seed: Start of the randomness, afresh for every sample.
        max_evaluations_per_request: The number of rows to send at a time.
        n_concurrent: The number of samples like this one that send requests at the same time, and share the memory.
        device: The device that the model runs on.
        shared: Shared by all samples that are explained together, for what one of them computes for the others.
        probabilities: Of the targets, None for those that have none; None if outputs are not classes.
    """

    raw: Any
    sample: Sample
    segmenter: UnitSegmenter
    units: Units
    labels: Any
    targets: NamedTargets
    scores: Float[Tensor, " t"]
    unperturbed: ModelResponse
    seed: int
    max_evaluations_per_request: int
    n_concurrent: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shared: dict[Hashable, Any] = field(default_factory=dict)
    probabilities: tuple[float | None, ...] | None = None

    @property
    def layout(self) -> Layout:
        """The shape of the units, and of the positions beneath them."""
        return Layout(self.units.shape, tuple(self.units.index.shape))

    @property
    def captured(self) -> Float[Tensor, "t ..."] | None:
        """What was computed from captured internals in the run of the unperturbed sample; None if none were."""
        captured = self.unperturbed.captured
        return None if captured is None else captured[0]

    @property
    def causal_limit(self) -> Int[Tensor, " t"] | None:
        """The number of leading tokens that can influence each target; None if units are not made of tokens."""
        return None if self.units.token_start is None else self.targets.causal_limit

    @property
    def can_influence(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can influence which target; None if all can."""
        limit, start = self.causal_limit, self.units.token_start
        return None if limit is None or start is None else start < limit[:, None]

    @property
    def part_of_target(self) -> Bool[Tensor, "t *g"] | None:
        """Which units are part of the target itself, among those that can influence it; None if none is."""
        can_influence, positions = self.can_influence, self.targets.own_positions(len(self.units.index))
        if can_influence is None or positions is None:
            return None
        found = self.units.pool(positions.float(), "max").bool() & can_influence
        return found if found.any() else None

    @property
    def rankable(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can be ranked by their scores for each target; None if all can."""
        can_influence, own = self.can_influence, self.part_of_target
        return can_influence if can_influence is None or own is None else can_influence & ~own

    def rng(self) -> torch.Generator:
        """A generator that gives every sample the same numbers, whatever ran before it."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class UnitAttribution:
    """The attribution of a sample's units.

    Attributes:
        scores: Per target and unit.
        standard_errors: Of the scores; None if nothing was sampled.
        completeness_gap: By how much the scores of each target miss the sum that the method promises.
        segments: The rank of the segment at every position, 1 first, for methods that rank segments of an image.
    """

    scores: UnitScores
    standard_errors: UnitScores | None = None
    completeness_gap: Float[Tensor, " t"] | None = None
    segments: Int[Tensor, "t *l"] | None = None

    def restricted_to(self, can_influence: Bool[Tensor, "t *g"] | None) -> "UnitAttribution":
        """The same with NaN for units that cannot influence a target."""
        if can_influence is None:
            return self
        errors = self.standard_errors
        return replace(
            self,
            scores=self.scores.masked_fill(~can_influence, torch.nan),
            standard_errors=None if errors is None else errors.masked_fill(~can_influence, torch.nan),
        )


class Plan(ABC):
    """A configured method, without a model."""

    @property
    def needs(self) -> PlanNeeds:
        """What the pipeline does before the plan starts."""
        return PlanNeeds()

    @property
    def accuracy_option(self) -> str:
        """The option that brings the sum of scores closer to what is promised, and its value; empty if none does."""
        return ""

    @property
    def signed(self) -> bool:
        """Whether the sign of a score says if the unit raises or lowers the target's score."""
        return True

    @property
    def rectifies(self) -> bool:
        """Whether negative sums become 0, so that a map may be 0 everywhere."""
        return False

    def check(self, sample: Sample, layout: Layout) -> None:
        """Check a sample before the model runs.

        Raises:
            InterpretoError: if the method cannot explain it with these options.
        """
        return

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """Number of evaluations of a sample, for the progress bar."""

    @abstractmethod
    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        """Explain one sample."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the record of a result says beyond the options: the removal or baseline that was used."""
