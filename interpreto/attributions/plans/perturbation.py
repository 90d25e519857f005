"""The plan of perturbation methods: mask units, run the perturbed rows, aggregate their scores."""

from dataclasses import dataclass
from typing import Any, final

from interpreto.attributions.aggregations.masks import MaskAccumulator, MaskAggregator
from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.granularity.units import Resize
from interpreto.attributions.perturbations.base import Layout, Masker, MaskGenerator, Perturbator
from interpreto.attributions.plans.base import Plan, PlanNeeds, PreparedSample, UnitAttribution
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.model_wrapping.sample import Sample

_MAX_POSITIONS = 2**18
"""Number of tokens in one request up to which several batches are prepared at once. A request is at least one batch."""


@final
@dataclass(frozen=True)
class PerturbationPlan(Plan):
    """Mask units, run the perturbed rows, aggregate their scores.

    Args:
        perturbator: Generates masks and applies them to samples.
        aggregator: Turns scores of rows into scores of units.
        resize: Interpolation from the method's own grid to the units, one of `Resize`.
        use_raw_masks: Whether the aggregator gets the masks as generated, rather than the masked share of each unit.
        granularity: The granularity if the user passes none.
    """

    perturbator: Perturbator[MaskGenerator, Masker]
    aggregator: MaskAggregator
    resize: Resize = "bilinear"
    use_raw_masks: bool = False
    granularity: UnitSegmenter | None = None

    @property
    def needs(self) -> PlanNeeds:
        """A granularity, if the method has its own. Masked rows can run before the unperturbed sample is scored."""
        return PlanNeeds(granularity=self.granularity, scores_first=False)

    @property
    def signed(self) -> bool:
        """Signed if the aggregator is."""
        return self.aggregator.signed

    def check(self, sample: Sample, layout: Layout) -> None:
        # Raises an OptionError if a window does not fit the image or `n_samples` is too small for a Sobol design.
        self.n_evaluations(layout)

    def n_evaluations(self, layout: Layout) -> int:
        return self.perturbator.method.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        generator, masker = self.perturbator.method, self.perturbator.modality
        # Two generators with the same seed, so that masks do not depend on the random numbers of removal="noise".
        rng = prepared.rng()
        fully_masked = masker.fully_masked(prepared.sample, prepared.rng())
        accumulator: MaskAccumulator | None = None
        # Several batches per request, up to `_MAX_POSITIONS`, so that rows of long texts do not exhaust the memory.
        n_batches = min(
            masker.n_prefetched_batches,
            _MAX_POSITIONS // (prepared.max_evaluations_per_request * prepared.sample.rows.length),
        )
        for masks in generator.masks(prepared.layout, rng, prepared.max_evaluations_per_request * max(1, n_batches)):
            perturbed = masker.mask(prepared.sample, fully_masked, prepared.units, masks)
            response = yield ModelRequest(perturbed.rows, prepared.targets)
            if accumulator is None:
                # The scores of the unperturbed sample arrive with the first response at the latest.
                accumulator = self.aggregator.start(prepared.scores, prepared.can_influence)
            accumulator.add(response.scores, masks if self.use_raw_masks else perturbed.masked_share)
        assert accumulator is not None
        estimate = accumulator.result()
        scores = prepared.units.resize_to_units(estimate.scores, self.resize)
        errors = estimate.standard_errors
        # The opposite sign of captum's convergence delta: f(x) - f(masked) - the sum over units.
        completeness_gap = (
            None
            if estimate.fully_masked_scores is None
            else prepared.scores - estimate.fully_masked_scores - scores.flatten(1).sum(1)
        )
        return UnitAttribution(
            scores, None if errors is None else prepared.units.resize_to_units(errors, self.resize), completeness_gap
        )

    def describe(self) -> dict[str, Any]:
        return {
            "removal": self.perturbator.modality.describe(),
            "perturbation": repr(self.perturbator.method),
            "aggregation": repr(self.aggregator),
        }
