"""Mask units, run the perturbed rows, aggregate their scores: the plan of all methods that need no gradient."""

from dataclasses import dataclass
from typing import Any, final

from interpreto.attributions.aggregations.masks import MaskAggregator
from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.granularity.units import Resize
from interpreto.attributions.perturbations.base import Layout, Masker, MaskGenerator, Perturbator
from interpreto.attributions.plans.base import Plan, PlanNeeds, PreparedSample, UnitAttribution
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.model_wrapping.sample import Sample

_MAX_POSITIONS = 2**18
"""Positions of the rows that are made at once: of long texts they would take more memory than the model."""


@final
@dataclass(frozen=True)
class PerturbationPlan(Plan):
    """Mask units, run the perturbed rows, aggregate their scores.

    Args:
        perturbator: Which units, and what masking means.
        aggregator: From scores of rows to scores of units.
        resize: Interpolation from a grid of the method's own to the units.
        use_raw_masks: Whether the aggregator gets the masks as generated, rather than the share of each unit they mask.
        granularity: What gets a score if the user names no granularity.
    """

    perturbator: Perturbator[MaskGenerator, Masker]
    aggregator: MaskAggregator
    resize: Resize = "bilinear"
    use_raw_masks: bool = False
    granularity: UnitSegmenter | None = None

    @property
    def needs(self) -> PlanNeeds:
        """Windows of pixels score pixels."""
        return PlanNeeds(granularity=self.granularity)

    @property
    def signed(self) -> bool:
        """As the aggregator is."""
        return self.aggregator.signed

    def check(self, sample: Sample, layout: Layout) -> None:
        # Counting the places of a window that does not fit raises.
        self.n_evaluations(layout)

    def n_evaluations(self, layout: Layout) -> int:
        return self.perturbator.method.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        method, modality = self.perturbator.method, self.perturbator.modality
        rng = prepared.rng()
        fully_masked = modality.fully_masked(prepared.sample, prepared.rng())
        fold = self.aggregator.start(prepared.scores, prepared.can_influence)
        ahead = min(
            modality.n_prefetched_batches,
            _MAX_POSITIONS // (prepared.max_evaluations_per_request * prepared.sample.rows.length),
        )
        for cells in method.masks(prepared.layout, rng, prepared.max_evaluations_per_request * max(1, ahead)):
            block = modality.mask(prepared.sample, fully_masked, prepared.units, cells)
            response = yield ModelRequest(block.rows, prepared.targets)
            fold.add(response.scores, cells if self.use_raw_masks else block.masked_share)
        found = fold.result()
        scores = prepared.units.resize_to_units(found.scores, self.resize)
        errors = found.standard_errors
        gap = None if found.empty is None else prepared.scores - found.empty - scores.flatten(1).sum(1)
        return UnitAttribution(
            scores, None if errors is None else prepared.units.resize_to_units(errors, self.resize), gap
        )

    def describe(self) -> dict[str, Any]:
        return {
            "removal": self.perturbator.modality.describe(),
            "perturbation": repr(self.perturbator.method),
            "aggregation": repr(self.aggregator),
        }
