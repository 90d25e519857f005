"""What a probe finds inside the model, as scores of units."""

from dataclasses import dataclass, field
from typing import Any, final

from interpreto.attributions.perturbations.seams import Layout
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.model_wrapping.inside.probe import AttentionProbe, Probe


@final
@dataclass(frozen=True)
class Traced(Recipe):
    """What a probe finds inside the model.

    Args:
        looks: What is asked.
        pooling: How scores of tokens become those of a unit.
        resize: How a map becomes one of units; None is bilinear where these are finer than it, else their mean.
    """

    looks: Probe = field(repr=False)
    pooling: str = "mean"
    resize: str | None = None

    @property
    def probe(self) -> Probe | None:
        """What the run of the unchanged sample is watched for."""
        # With heads merged the model's scores are not its own.
        merges = isinstance(self.looks, AttentionProbe) and self.looks.merge
        return None if merges else self.looks

    def rows(self, layout: Layout) -> int:
        return 0 if self.probe is not None else 1

    def plan(self, case: Case) -> Plan[Explained]:
        inside = case.inside
        if inside is None:
            answer = yield Ask(case.sample.rows, case.targets, probe=self.looks)
            assert answer.inside is not None
            inside = answer.inside[0]
        return Explained(case.units.gather(inside, self.pooling, self.resize))

    def describe(self) -> dict[str, Any]:
        looks = self.looks
        if isinstance(looks, AttentionProbe):
            return {"inside": repr(looks.rule), "layers": repr(looks.layers)}
        layer = looks.layer if looks.layer is None or isinstance(looks.layer, str) else type(looks.layer).__name__
        return {"inside": looks.rule.__name__, "layer": layer}
