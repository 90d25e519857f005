"""The interface of plans: what a plan needs, what it gets, and what it returns."""

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
from interpreto.model_wrapping.parts import TargetResolver
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores


@dataclass(frozen=True)
class PlanNeeds:
    """What a plan needs from the pipeline before it starts.

    Attributes:
        capture: Internals to capture in the run of the unperturbed sample; None for none.
        granularity: The granularity if the user passes none; None for the default of the sample.
        cost_independent_of_units: Whether the number of evaluations does not depend on the number of units, as with
            gradients.
        single_sample_option: The name of an option whose value is an array for one sample, so that only one sample can
            be explained; empty if there is none.
        scores_first: Whether the plan reads `PreparedSample.scores` before the response to its first request. If not,
            the unperturbed sample shares a batch with that request when its targets are known without outputs.
    """

    capture: CaptureRequest | None = None
    granularity: UnitSegmenter | None = None
    cost_independent_of_units: bool = False
    single_sample_option: str = ""
    scores_first: bool = True


@dataclass(eq=False)
class Evaluation:
    """The result of the unperturbed sample, set when it has run.

    Attributes:
        scores: The scores of the targets; None before.
        probabilities: Probabilities of the targets, None for targets that have none; None if outputs are not classes.
    """

    scores: Float[Tensor, " t"] | None = None
    probabilities: tuple[float | None, ...] | None = None


@dataclass(frozen=True, eq=False)
class PreparedSample:
    """One sample, its units and targets, and the model's response to it.

    Attributes:
        raw: The sample in the user's form.
        sample: The sample; a prompt with its continuation.
        segmenter: The segmenter that made the units.
        units: The units that get scores.
        labels: What represents each unit to the user: pieces of text, or boxes.
        targets: The targets that are explained.
        evaluation: The result of the unperturbed sample.
        seed: Seed of the random numbers, the same for every sample.
        max_evaluations_per_request: The largest number of rows to send in one request.
        n_concurrent: The number of copies of this sample that send requests at the same time, and share the memory.
        device: The device that the model runs on.
        shared: A dictionary shared by all samples that are explained together, for results that they can reuse.
        target_resolver: Resolves further targets on the model that runs.
        captured: Scores computed from captured internals in the run of the unperturbed sample; None if none were
            captured.
    """

    raw: Any
    sample: Sample
    segmenter: UnitSegmenter
    units: Units
    labels: Any
    targets: NamedTargets
    evaluation: Evaluation
    seed: int
    max_evaluations_per_request: int
    n_concurrent: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shared: dict[Hashable, Any] = field(default_factory=dict)
    target_resolver: TargetResolver | None = None
    captured: Float[Tensor, "t ..."] | None = None

    @property
    def layout(self) -> Layout:
        """The shapes of the units and of the positions that they consist of."""
        return Layout(self.units.shape, tuple(self.units.index.shape))

    @property
    def scores(self) -> Float[Tensor, " t"]:
        """The targets' scores of the unperturbed sample."""
        scores = self.evaluation.scores
        assert scores is not None, "a plan that reads scores before its first response needs `scores_first`"
        return scores

    @property
    def causal_limit(self) -> Int[Tensor, " t"] | None:
        """The number of leading tokens that can influence each target; None if units are not made of tokens."""
        return None if self.units.token_start is None else self.targets.causal_limit

    @property
    def can_influence(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can influence which target; None if all can."""
        limit, start = self.causal_limit, self.units.token_start
        # A unit of several tokens can influence a target as soon as its first token can.
        return None if limit is None or start is None else start < limit[:, None]

    @property
    def part_of_target(self) -> Bool[Tensor, "t *g"] | None:
        """Which units contain tokens of the target itself, among those that can influence it; None if none does."""
        # A target of several tokens depends on its own earlier tokens, which then are in a unit with a score.
        can_influence, positions = self.can_influence, self.targets.own_positions(len(self.units.index))
        if can_influence is None or positions is None:
            return None
        part_of_target = self.units.pool(positions.float(), "max").bool() & can_influence
        return part_of_target if part_of_target.any() else None

    @property
    def rankable(self) -> Bool[Tensor, "t *g"] | None:
        """Which units can influence a target and are not part of it, and so can be ranked; None if all can."""
        can_influence, part_of_target = self.can_influence, self.part_of_target
        return can_influence if can_influence is None or part_of_target is None else can_influence & ~part_of_target

    def rng(self) -> torch.Generator:
        """A new generator with the seed: random numbers of a sample do not depend on the samples before it."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class UnitAttribution:
    """The attribution of a sample's units.

    Attributes:
        scores: Scores per target and unit.
        standard_errors: Standard errors of the scores; None if nothing was sampled.
        completeness_gap: The promised sum minus the sum of the scores, per target; None if no sum is promised.
        segments: The rank of the segment of every position, from 1, for methods that rank segments of an image.
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
    """A configured method, independent of the model: the requests that explain one sample."""

    @property
    def needs(self) -> PlanNeeds:
        """What the plan needs from the pipeline before it starts."""
        return PlanNeeds()

    @property
    def accuracy_option(self) -> str:
        """The option that reduces the completeness gap, such as "n_steps=32"; empty if there is none."""
        return ""

    @property
    def signed(self) -> bool:
        """Whether the sign of a score says if the unit raises or lowers the target's score."""
        return True

    @property
    def rectifies(self) -> bool:
        """Whether negative scores are set to 0, so that a map can be 0 everywhere."""
        return False

    def check(self, sample: Sample, layout: Layout) -> None:
        """Check a sample before the model runs.

        Raises:
            InterpretoError: if the method cannot explain the sample with these options.
        """
        return

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """Expected number of evaluations of a sample, for the progress bar."""

    @abstractmethod
    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        """Explain one sample."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Entries for the `info` of a result besides the options, such as the removal or baseline that was used."""
