"""Hide parts, score the rows, aggregate: the one recipe of all methods that need no gradient."""

from dataclasses import dataclass
from typing import Any, final

from interpreto.attributions.aggregations.masks import MaskAggregator
from interpreto.attributions.granularity import Unitization
from interpreto.attributions.granularity.units import RESIZES
from interpreto.attributions.perturbations.seams import Layout, MaskMethod, MaskModality, Perturbator
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.model_wrapping.sample import Sample
from interpreto.option_kinds import check_choice

_AHEAD = 2**18
"""Positions of the rows that are made at once, at most: long texts would take more memory there than in the model."""


@final
@dataclass(frozen=True)
class Hiding(Recipe):
    """Hide parts, score the rows, aggregate.

    Args:
        perturbator: Which parts, and what hiding means.
        aggregator: What the scores say about the units.
        resize: How scores on a grid of the method's own reach the units.
        in_cells: Whether the aggregator wants the masks as the method made them rather than what they hid of units.
        cut: What gets a score where the user does not say.
    """

    perturbator: Perturbator[MaskMethod, MaskModality]
    aggregator: MaskAggregator
    resize: str = "bilinear"
    in_cells: bool = False
    cut: Unitization | None = None

    def __post_init__(self) -> None:
        check_choice("resize", self.resize, RESIZES)

    @property
    def granularity(self) -> Unitization | None:
        """What gets a score where the user does not say."""
        return self.cut

    @property
    def signed(self) -> bool:
        """As the aggregator says."""
        return self.aggregator.signed

    def check(self, sample: Sample, layout: Layout) -> None:
        # A window that does not fit is told when its places are counted.
        self.rows(layout)

    def rows(self, layout: Layout) -> int:
        return self.perturbator.method.count(layout)

    def plan(self, case: Case) -> Plan[Explained]:
        method, modality = self.perturbator.method, self.perturbator.modality
        rng = case.rng()
        blank = modality.blank(case.sample, case.rng())
        fold = self.aggregator.start(case.scores, case.visible)
        ahead = min(modality.ahead, _AHEAD // (case.block * case.sample.rows.length))
        for cells in method.masks(case.layout, rng, case.block * max(1, ahead)):
            block = modality.hide(case.sample, blank, case.units, cells)
            answer = yield Ask(block.rows, case.targets)
            fold.add(answer.scores, cells if self.in_cells else block.hidden)
        found = fold.result()
        scores = case.units.fit(found.scores, self.resize)
        errors = found.standard_errors
        gap = None if found.empty is None else case.scores - found.empty - scores.flatten(1).sum(1)
        return Explained(scores, None if errors is None else case.units.fit(errors, self.resize), gap)

    def describe(self) -> dict[str, Any]:
        return {
            "removal": self.perturbator.modality.describe(),
            "perturbation": repr(self.perturbator.method),
            "aggregation": repr(self.aggregator),
        }
