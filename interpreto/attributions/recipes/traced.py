"""What a probe finds inside the model, as scores of units."""

from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained
from interpreto.attributions.recipes.differentiable import Differentiable
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.model_wrapping.inside.probe import AttentionProbe, FeatureProbe, Probe
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class Traced(Differentiable):
    """What a probe finds inside the model.

    Args:
        looks: What is asked.
        modality: What noise would be added to.
        pooling: How scores of tokens become those of a unit.
        resize: How a map becomes one of units; None is bilinear where these are finer than it, else their mean.
    """

    looks: Probe = field(repr=False)
    modality: TensorModality = field(repr=False)  # type: ignore[misc]
    pooling: str = "mean"
    resize: str | None = None

    @property
    def whole(self) -> bool:
        """What is averaged is a map of a layer."""
        return False

    @property
    def probe(self) -> Probe | None:
        """What the run of the unchanged sample is watched for."""
        # With heads merged the model's scores are not its own.
        merges = isinstance(self.looks, AttentionProbe) and self.looks.merge
        return None if merges else self.looks

    @property
    def signed(self) -> bool:
        """Attention has no sign, and of gradients on it positive ones are taken."""
        return False

    @property
    def rectifies(self) -> bool:
        """Grad-CAM does."""
        return isinstance(self.looks, FeatureProbe)

    def rows(self, layout: Layout) -> int:
        return 0 if self.probe is not None else 1

    def plan(self, case: Case) -> Plan[Explained]:
        raw = yield from self.raw(case)
        return Explained(self.finish(case, raw))

    def raw(self, case: Case) -> Plan[Float[Tensor, "t ..."]]:
        if case.inside is not None:
            return case.inside
        answer = yield Ask(case.sample.rows, case.targets, probe=self.looks)
        assert answer.inside is not None
        return answer.inside[0]

    def finish(self, case: Case, raw: Float[Tensor, "t ..."]) -> UnitScores:
        return case.units.gather(raw, self.pooling, self.resize)

    def describe(self) -> dict[str, Any]:
        looks = self.looks
        if isinstance(looks, AttentionProbe):
            return {"inside": repr(looks.rule), "layers": repr(looks.layers)}
        layer = "the last one with places" if looks.layer is None else looks.layer
        layer = layer if isinstance(layer, str) else type(layer).__name__
        return {"inside": looks.rule.__name__, "layer": layer}
