"""Insertion and deletion: what becomes of the score as units go, or come, in the order of their attributions."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.metrics.measured import Curve, Measured
from interpreto.attributions.metrics.modelled import ModelledMetric, as_probability
from interpreto.attributions.perturbations.seams import Layout, MaskModality
from interpreto.attributions.recipes.case import Case
from interpreto.attributions.setup import Options, Setup
from interpreto.model_wrapping.conversation import Ask, Plan
from interpreto.model_wrapping.rows import Rows
from interpreto.option_kinds import checks_options
from interpreto.typing import UnitScores


@dataclass(frozen=True, eq=False)
class _Course:
    """A curve on its way.

    Attributes:
        shares: The share of units that have changed at every step.
        scores: What was found, from the whole sample on.
        end: Where the score of the hidden sample will be found, if it was asked for with another sample.
    """

    shares: Float[Tensor, " s"]
    scores: Float[Tensor, " _p"]
    end: list[Float[Tensor, " 1"]]

    def curve(self, backwards: bool) -> Curve:
        """The curve, once all that was asked for is answered."""
        y = torch.cat([self.scores, *self.end])
        return Curve(self.shares, y.flip(0) if backwards else y)


class _Curve(ModelledMetric):
    """The area below a score's curve as units change in the order of their attributions."""

    inserts: ClassVar[bool]

    @checks_options
    def __init__(self, model: Any, processor: Any = None, *, n_steps: int = 20, **options: Unpack[Options]) -> None:
        self.setup = Setup.of(type(self), model, processor, as_probability(model, dict(options)))
        self.n_steps = n_steps

    def rows(self, layout: Layout) -> int:
        return min(self.n_steps, layout.count)

    def measure(self, case: Case, attributions: UnitScores, modality: MaskModality) -> Plan[list[_Course]]:
        blank, courses = _blank(case, modality), []
        for target, scores in enumerate(attributions.flatten(1).numpy()):
            shares, cells = self._path(scores)
            part, found = case.targets.part(target, target + 1), [case.scores[target : target + 1]]
            name = _end_name(case, modality, target, cells)
            asked = name in case.shared
            end = [] if name is None else case.shared.setdefault(name, [])
            if asked:
                cells = cells[:-1]
            for start in range(0, len(cells), case.block):
                some = torch.from_numpy(cells[start : start + case.block]).reshape(-1, *case.units.shape)
                answer = yield Ask(modality.hide(case.sample, blank, case.units, some).rows, part)
                found.append(answer.scores[:, 0])
            # A copy: answers may be views of all that the model said.
            whole = torch.cat(found)
            if not asked and name is not None:
                end.append(whole[-1:])
            courses.append(_Course(shares, whole, end if asked else []))
        return courses

    def _path(self, scores: Float[np.ndarray, " g"]) -> tuple[Float[Tensor, " s"], Float[np.ndarray, "_s g"]]:
        """The share of units that have changed at every step, and what is hidden, from little to all."""
        # Ties keep the order of the units; those without a say come last, and never change.
        order = (-scores).argsort(kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        silent = np.isnan(scores)
        count = len(scores) - int(np.count_nonzero(silent))
        counts, shares = _steps(count, min(self.n_steps, count))
        hidden = (rank >= counts[-2::-1, None]) & ~silent if self.inserts else rank < counts[1:, None]
        return shares.clone(), hidden.astype(np.float32)

    def measured(self, found: list[list[_Course]], rows: int) -> Measured:
        curves = [[course.curve(self.inserts) for course in courses] for courses in found]
        values = [torch.tensor([curve.area for curve in some]) for some in curves]
        return Measured(type(self).__name__, values, self.higher_is_better, curves, rows)


def _blank(case: Case, modality: MaskModality) -> Rows:
    """The sample with everything hidden, made once for those with the very same; only what is hidden may be read."""
    name = modality.blank_name(case.sample)
    if name is None:
        return modality.blank(case.sample, case.rng())
    key = ("blank", name)
    if key not in case.shared:
        case.shared[key] = modality.blank(case.sample, case.rng())
    return case.shared[key]


def _end_name(case: Case, modality: MaskModality, target: int, cells: Float[np.ndarray, "s g"]) -> Hashable:
    """What the score of the hidden sample is called among samples that share it; None where they do not."""
    blank = modality.blank_name(case.sample)
    if blank is None or not len(cells) or not cells[-1].all() or not case.units.whole:
        return None
    # Functions and contrasts of them may not be told apart.
    value = case.targets.values[target]
    return ("end", blank, value) if isinstance(value, int) else None


@lru_cache(maxsize=256)
def _steps(units: int, steps: int) -> tuple[Int[np.ndarray, " s"], Float[Tensor, " s"]]:
    """How many units have changed at every step, and which share of them."""
    counts = torch.linspace(0, units, steps + 1).round().long()
    return counts.numpy(), counts / counts[-1]


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
