"""Insertion and deletion: the score as units are inserted or deleted in the order of their attributions."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Unpack

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
    """The scores of a curve, perhaps still without its end.

    Attributes:
        shares: The share of units that have changed at every step.
        scores: The scores, from the unperturbed sample on.
        end: A list that will hold the score of the fully masked sample if another sample requests it; else empty.
    """

    shares: Float[Tensor, " s"]
    scores: Float[Tensor, " _p"]
    end: list[Float[Tensor, " 1"]]

    def curve(self, backwards: bool) -> Curve:
        """The curve, after all plans have ended."""
        y = torch.cat([self.scores, *self.end])
        return Curve(self.shares, y.flip(0) if backwards else y)


class _InsertionDeletion(PerturbationMetric):
    """The area under the curve of the score as units change in the order of their attributions."""

    inserts: ClassVar[bool]

    @checks_options
    def __init__(
        self, model: object, processor: object = None, *, n_steps: int = 20, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(type(self), model, processor, as_probability(model, dict(options)))
        self.n_steps = n_steps

    def n_evaluations(self, layout: Layout) -> int:
        return min(self.n_steps, layout.count)

    def measure(
        self, prepared: PreparedSample, attributions: UnitScores, modality: Masker
    ) -> PlanRun[list[_PerturbationCurve]]:
        fully_masked, curves = _fully_masked(prepared, modality), []
        for target, ranking in enumerate(attributions.flatten(1).numpy()):
            shares, cells = self._path(ranking)
            part, parts = prepared.targets.part(target, target + 1), [prepared.scores[target : target + 1]]
            # Images of one shape often have the same fully masked sample. The first plan that needs its score requests
            # it and puts it into the shared list; the others only refer to the list, which may be empty until all plans
            # have ended.
            key = _end_key(prepared, modality, target, cells)
            already_requested = key in prepared.shared
            end = [] if key is None else prepared.shared.setdefault(key, [])
            if already_requested:
                cells = cells[:-1]
            for start in range(0, len(cells), prepared.max_evaluations_per_request):
                masks = torch.from_numpy(cells[start : start + prepared.max_evaluations_per_request]).reshape(
                    -1, *prepared.units.shape
                )
                response = yield ModelRequest(
                    modality.mask(prepared.sample, fully_masked, prepared.units, masks).rows, part
                )
                parts.append(response.scores[:, 0])
            # cat() copies: responses can be views, which would keep the outputs of the whole batch in memory.
            scores = torch.cat(parts)
            if not already_requested and key is not None:
                end.append(scores[-1:])
            curves.append(_PerturbationCurve(shares, scores, end if already_requested else []))
        return curves

    def _path(self, scores: Float[np.ndarray, " g"]) -> tuple[Float[Tensor, " s"], Float[np.ndarray, "_s g"]]:
        """The share of units that have changed at every step, and the masks, from the smallest to the largest."""
        # A stable sort keeps ties in the order of the units. NaN, for units that cannot influence the target, sorts
        # last, and these units are never masked.
        order = (-scores).argsort(kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        excluded = np.isnan(scores)
        count = len(scores) - int(np.count_nonzero(excluded))
        counts, shares = _steps(count, min(self.n_steps, count))
        # Insertion is evaluated backwards, from the unperturbed sample to the fully masked one, so that both metrics
        # share their start and end; `curve` reverses it. The unperturbed sample has a score already, hence counts[1:].
        masks = (rank >= counts[-2::-1, None]) & ~excluded if self.inserts else rank < counts[1:, None]
        return shares.clone(), masks.astype(np.float32)

    def result(self, sample_results: list[list[_PerturbationCurve]], n_evaluations: int) -> MetricResult:
        curves = [[curve.curve(self.inserts) for curve in sample_curves] for sample_curves in sample_results]
        values = [torch.tensor([curve.area for curve in sample_curves]) for sample_curves in curves]
        return MetricResult(type(self).__name__, values, self.higher_is_better, curves, n_evaluations)


def _fully_masked(prepared: PreparedSample, modality: Masker) -> Rows:
    """The fully masked sample, created once for all samples with the same key.

    Only fields that masking replaces may be read from it, since the others are those of another sample.
    """
    masked_key = modality.fully_masked_key(prepared.sample)
    if masked_key is None:
        return modality.fully_masked(prepared.sample, prepared.rng())
    key = ("fully masked", masked_key)
    if key not in prepared.shared:
        prepared.shared[key] = modality.fully_masked(prepared.sample, prepared.rng())
    return prepared.shared[key]


def _end_key(prepared: PreparedSample, modality: Masker, target: int, cells: Float[np.ndarray, "s g"]) -> Hashable:
    """The key of the score of the fully masked sample in `shared`; None if it cannot be shared.

    It can be shared if the last mask covers the whole input, so that nothing of the sample is left.
    """
    masked_key = modality.fully_masked_key(prepared.sample)
    if masked_key is None or not len(cells) or not cells[-1].all() or not prepared.units.covers_input:
        return None
    # Only class indices: equality of functions, and of contrasts with functions, does not mean equal scores.
    value = prepared.targets.values[target]
    return ("end", masked_key, value) if isinstance(value, int) else None


@lru_cache(maxsize=256)
def _steps(units: int, steps: int) -> tuple[Int[np.ndarray, " s"], Float[Tensor, " s"]]:
    """The number and the share of units that have changed at every step."""
    counts = torch.linspace(0, units, steps + 1).round().long()
    return counts.numpy(), counts / counts[-1]


class Deletion(_InsertionDeletion):
    r"""The area under the score as units are masked, those with the highest attributions first.

    With the share x_k of units that are masked after step k, and the score p(x_k) of the target then,

    \[ \text{Deletion} = \sum_{k=1}^{K} \frac{p(x_{k-1}) + p(x_k)}{2} (x_k - x_{k-1}), \qquad x_0 = 0, \; x_K = 1 . \]

    Low is good. The score is the target's softmax probability unless `inference_mode=` is passed (for
    `target_granularity="sequence"` the log-probability). Ties keep the order of the units. Units that cannot influence
    a target are never masked for it. If K divides the number g of units, this is the area that the authors of RISE
    compute (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_steps: Number of steps K, at most the number of units.
        options: Options of every method; `removal=` is the replacement of masked units.
    """

    inserts = higher_is_better = False


class Insertion(_InsertionDeletion):
    r"""The area under the score as units are inserted into the fully masked sample, highest attributions first.

    The area is defined as for `Deletion`, with the share x of units that are inserted. High is good. Petsiuk et al.
    (2018, arXiv 1806.07421) start from a blurred image: `removal="blur"`.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_steps: Number of steps, at most the number of units.
        options: Options of every method; `removal=` is the replacement of masked units.
    """

    inserts = higher_is_better = True
