"""Insertion and deletion: what becomes of the score as units go, or come, in the order of their attributions."""

from functools import lru_cache
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.metrics.measured import Curve, Measured
from interpreto.attributions.metrics.modelled import ModelledMetric, as_probability
from interpreto.attributions.perturbations.masks import at_least
from interpreto.attributions.perturbations.seams import Layout, MaskModality
from interpreto.attributions.recipes.case import Case
from interpreto.attributions.setup import Options, Setup
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.typing import UnitScores


class _Curve(ModelledMetric):
    """The area below a score's curve as units change in the order of their attributions."""

    inserts: ClassVar[bool]

    def __init__(self, model: Any, processor: Any = None, *, n_steps: int = 20, **options: Unpack[Options]) -> None:
        at_least("n_steps", n_steps, 1)
        self.setup = Setup.of(type(self), model, processor, as_probability(model, dict(options)))
        self.n_steps = n_steps

    def rows(self, layout: Layout) -> int:
        return min(self.n_steps, layout.count)

    def measure(self, case: Case, attributions: UnitScores, modality: MaskModality) -> Plan[list[Curve]]:
        blank = modality.blank(case.sample, case.rng())
        curves = []
        for target, scores in enumerate(attributions.flatten(1)):
            counts, cells = self._path(scores)
            part = case.targets.part(target, target + 1)
            found = [case.scores[target : target + 1]] if not self.inserts else []
            rows = cells.reshape(len(cells), *case.units.shape)
            # The end that nothing hides has been scored already.
            rows = rows[:-1] if self.inserts else rows[1:]
            for some in rows.split(case.block):
                block = modality.hide(case.sample, blank, case.units, some)
                answer = yield Ask(block.rows, part)
                found.append(answer.scores[:, 0])
            if self.inserts:
                found.append(case.scores[target : target + 1])
            curves.append(Curve(counts / counts[-1], torch.cat(found)))
        return curves

    def _path(self, scores: Float[Tensor, " g"]) -> tuple[Int[Tensor, " s"], Float[Tensor, "s g"]]:
        """How many units have changed at every step, and what is hidden then."""
        # Ties keep the order of the units; those without a say, which sorting puts first, never change.
        rank = scores.argsort(descending=True, stable=True).argsort()
        silent = scores.isnan()
        rank = rank - silent.sum() if silent.any() else rank
        count = len(scores) - int(silent.sum())
        counts = _counts(count, min(self.n_steps, count))
        changed = rank < counts[:, None]
        return counts, ((~changed if self.inserts else changed) & ~silent).float()

    def measured(self, found: list[list[Curve]], rows: int) -> Measured:
        values = [torch.tensor([curve.area for curve in curves]) for curves in found]
        return Measured(type(self).__name__, values, self.higher_is_better, found, rows)


@lru_cache(maxsize=256)
def _counts(units: int, steps: int) -> Int[Tensor, " s"]:
    """How many units have changed at every step."""
    return torch.linspace(0, units, steps + 1).round().long()


class Deletion(_Curve):
    r"""How fast the score falls as units are hidden, the highest attributions first.

    With g units in the order of their attributions, x_k the share of units that are hidden after step k and p(x_k) the
    score of the target then,

    \[ \text{Deletion} = \sum_{k=1}^{K} \frac{p(x_{k-1}) + p(x_k)}{2} (x_k - x_{k-1}), \qquad x_0 = 0, \; x_K = 1 . \]

    Low is good. The score is the target's softmax probability unless `inference_mode=` says otherwise
    (for `joint=True` the log-probability). Ties keep the
    order of the units; units without a say in a target are never hidden for it. With K that divides g this is the
    area that RISE's authors compute (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_steps: K; at most the number of units.
        options: Options of every method; `removal=` says what hiding means.
    """

    inserts = higher_is_better = False


class Insertion(_Curve):
    r"""How fast the score rises as units are shown, the highest attributions first, beginning with a hidden sample.

    The area as of `Deletion`, with x the share of units that are shown. High is good (Petsiuk et al. 2018,
    arXiv 1806.07421, who begin with a blurred image: `removal="blur"`).

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_steps: In how many steps units are shown; at most their number.
        options: Options of every method; `removal=` says what hiding means.
    """

    inserts = higher_is_better = True
