"""Insertion and deletion: what becomes of the score as units go, or come, in the order of their attributions."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.assembly import Setup
from interpreto.attributions.metrics.metric_result import Curve, MetricResult
from interpreto.attributions.metrics.perturbation_metric import PerturbationMetric, as_probability
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.base import Layout, Masker
from interpreto.attributions.plans.base import PreparedSample
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.model_wrapping.rows import Rows
from interpreto.option_kinds import checks_options
from interpreto.typing import UnitScores


@dataclass(frozen=True, eq=False)
class _PerturbationCurve:
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


class _InsertionDeletion(PerturbationMetric):
    """The area below a score's curve as units change in the order of their attributions."""

    inserts: ClassVar[bool]

    @checks_options
    def __init__(self, model: Any, processor: Any = None, *, n_steps: int = 20, **options: Unpack[Options]) -> None:
        self.setup = Setup.create(type(self), model, processor, as_probability(model, dict(options)))
        self.n_steps = n_steps

    def n_evaluations(self, layout: Layout) -> int:
        return min(self.n_steps, layout.count)

    def measure(
        self, prepared: PreparedSample, attributions: UnitScores, modality: Masker
    ) -> PlanRun[list[_PerturbationCurve]]:
        blank, courses = _fully_masked(prepared, modality), []
        for target, scores in enumerate(attributions.flatten(1).numpy()):
            shares, cells = self._path(scores)
            part, found = prepared.targets.part(target, target + 1), [prepared.scores[target : target + 1]]
            name = _end_key(prepared, modality, target, cells)
            asked = name in prepared.shared
            end = [] if name is None else prepared.shared.setdefault(name, [])
            if asked:
                cells = cells[:-1]
            for start in range(0, len(cells), prepared.max_evaluations_per_request):
                some = torch.from_numpy(cells[start : start + prepared.max_evaluations_per_request]).reshape(
                    -1, *prepared.units.shape
                )
                response = yield ModelRequest(modality.mask(prepared.sample, blank, prepared.units, some).rows, part)
                found.append(response.scores[:, 0])
            # A copy: responses may be views of the outputs of the whole batch.
            whole = torch.cat(found)
            if not asked and name is not None:
                end.append(whole[-1:])
            courses.append(_PerturbationCurve(shares, whole, end if asked else []))
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

    def result(self, found: list[list[_PerturbationCurve]], rows: int) -> MetricResult:
        curves = [[course.curve(self.inserts) for course in courses] for courses in found]
        values = [torch.tensor([curve.area for curve in some]) for some in curves]
        return MetricResult(type(self).__name__, values, self.higher_is_better, curves, rows)


def _fully_masked(prepared: PreparedSample, modality: Masker) -> Rows:
    """The sample with everything hidden, made once for those with the very same; only what is hidden may be read."""
    name = modality.fully_masked_key(prepared.sample)
    if name is None:
        return modality.fully_masked(prepared.sample, prepared.rng())
    key = ("blank", name)
    if key not in prepared.shared:
        prepared.shared[key] = modality.fully_masked(prepared.sample, prepared.rng())
    return prepared.shared[key]


def _end_key(prepared: PreparedSample, modality: Masker, target: int, cells: Float[np.ndarray, "s g"]) -> Hashable:
    """What the score of the hidden sample is called among samples that share it; None where they do not."""
    blank = modality.fully_masked_key(prepared.sample)
    if blank is None or not len(cells) or not cells[-1].all() or not prepared.units.covers_input:
        return None
    # Functions and contrasts of them may not be told apart.
    value = prepared.targets.values[target]
    return ("end", blank, value) if isinstance(value, int) else None


@lru_cache(maxsize=256)
def _steps(units: int, steps: int) -> tuple[Int[np.ndarray, " s"], Float[Tensor, " s"]]:
    """How many units have changed at every step, and which share of them."""
    counts = torch.linspace(0, units, steps + 1).round().long()
    return counts.numpy(), counts / counts[-1]


class Deletion(_InsertionDeletion):
    r"""How fast the score falls as units are hidden, the highest attributions first.

    With g units in the order of their attributions, x_k the share of units that are hidden after step k and p(x_k) the
    score of the target then,

    \[ \text{Deletion} = \sum_{k=1}^{K} \frac{p(x_{k-1}) + p(x_k)}{2} (x_k - x_{k-1}), \qquad x_0 = 0, \; x_K = 1 . \]

    Low is good. The score is the target's softmax probability unless `inference_mode=` says otherwise
    (for `target_granularity="sequence"` the log-probability). Ties keep the
    order of the units; units without a say in a target are never hidden for it. With K that divides g this is the
    area that RISE's authors compute (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_steps: K; at most the number of units.
        options: Options of every method; `removal=` says what hiding means.
    """

    inserts = higher_is_better = False


class Insertion(_InsertionDeletion):
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
