"""Performance information curves: how good the prediction gets as information is told in the order of attributions."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.attributions.assembly import Setup
from interpreto.attributions.metrics.metric_result import Curve, MetricResult
from interpreto.attributions.metrics.perturbation_metric import PerturbationMetric, as_probability
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.base import Layout, Revealer
from interpreto.attributions.plans.base import PreparedSample
from interpreto.errors import OptionError, TargetError
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.model_wrapping.targets import AllOutputs
from interpreto.option_kinds import check_choice, checks_options
from interpreto.typing import UnitScores

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)
"""The shares of pixels at which the authors look."""
CURVES = ("sic", "aic")
_POINTS = 1000


class Pic(PerturbationMetric):
    r"""Performance information curves (Kapishnikov et al. 2019, arXiv 1906.02825, section 4): how much information must
    be told, the highest attributions first, until the model predicts as it does for the whole sample.

    A sample begins with a random hundredth of its positions; then, threshold by threshold, the share of positions with
    the highest attributions is told too. Pixels that are not told are interpolated linearly from those that are; words
    are hidden as `removal=` says. With I the compressed size (lossless WebP; zlib for texts) and p the prediction,
    0 standing for the beginning and 1 for the whole sample, the curve goes through

    \[ x_k = \frac{I_k - I_0}{I_1 - I_0}, \qquad y_k = \max_{j \le k} \frac{p_j - p_0}{p_1 - p_0}, \]

    both cut to [0, 1], from (0, 0) to (1, 1), by straight lines. The value is the area below it, at 1,001 points, and
    `curves` holds the curve; high is good. The softmax curve (SIC) takes the target's probability for p, the accuracy
    curve (AIC) whether the target is what the model predicts. NaN where the curve is not defined: p_1 below
    `min_score`, p_0 not below p_1, I_0 not below I_1. The authors draw the median curve over images:
    `evaluate(...).median_curve`, whose area is what they report.

    Agrees with the authors' package `saliency` where units are pixels; where several units share an attribution they
    are told together. Texts are beyond the paper.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        curve: "sic" or "aic".
        thresholds: The shares of positions that are told.
        initial_fraction: Of positions that are told from the beginning, at random.
        min_score: What the model must give the whole sample.
        options: Options of every method.
    """

    higher_is_better = True

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        curve: str = "sic",
        thresholds: Sequence[float] = THRESHOLDS,
        initial_fraction: float = 0.01,
        min_score: float = 0.8,
        **options: Unpack[Options],
    ) -> None:
        check_choice("curve", curve, CURVES)
        if not thresholds or not all(0 < one < 1 for one in thresholds) or list(thresholds) != sorted(thresholds):
            raise OptionError(f"thresholds={thresholds!r} must be shares between 0 and 1, in ascending order.")
        self.setup = Setup.create(type(self), model, processor, as_probability(model, dict(options)))
        self.curve, self.thresholds, self.initial_fraction, self.min_score = (
            curve,
            tuple(thresholds),
            initial_fraction,
            min_score,
        )
        if curve == "aic" and self.setup.wrapper.task == "text-generation":
            raise OptionError("curve='aic' asks whether a class is predicted; generated texts have none.")

    def perturbator(self) -> Revealer:
        return self.setup.revealer()

    @property
    def depends_on_removal(self) -> bool:
        # Pixels that are not told are interpolated.
        return self.setup.wrapper.modality == "text"

    def n_evaluations(self, layout: Layout) -> int:
        return len(self.thresholds) + 1

    def measure(
        self, prepared: PreparedSample, attributions: UnitScores, modality: Revealer
    ) -> PlanRun[list[Curve | None]]:
        known = modality.initially_revealed(prepared.sample, prepared.units, self.initial_fraction, prepared.rng())
        whole = modality.reveal(prepared.sample, torch.ones_like(known)[None])
        best = yield from self._predictions(prepared, whole.rows)
        curves = []
        for target, scores in enumerate(attributions):
            if float(best[0, target]) < self.min_score:
                curves.append(None)
                continue
            masks = self._revealed(prepared, scores, known)
            predictions, sizes = [], []
            for some in masks.split(prepared.max_evaluations_per_request):
                told = modality.reveal(prepared.sample, some)
                found = yield from self._predictions(prepared, told.rows)
                predictions.append(found[:, target])
                sizes.append(told.sizes)
            curves.append(_curve(torch.cat([*predictions, best[:, target]]), torch.cat([*sizes, whole.sizes])))
        return curves

    def _predictions(self, prepared: PreparedSample, rows: Any) -> PlanRun[Float[Tensor, "p t"]]:
        if self.curve == "sic":
            response = yield ModelRequest(rows, prepared.targets)
            return response.scores
        values = prepared.targets.values
        if not all(isinstance(value, int) for value in values):
            raise TargetError(
                f"curve='aic' asks whether a class is predicted; {prepared.targets.names} are not all classes."
            )
        response = yield ModelRequest(rows, AllOutputs())
        return (response.scores.argmax(1)[:, None] == torch.tensor(values)).float()

    def _revealed(
        self, prepared: PreparedSample, scores: Float[Tensor, "*g"], known: Bool[Tensor, "*l"]
    ) -> Bool[Tensor, "p *l"]:
        """What is told at the beginning and at every threshold."""
        # Units without a say come last.
        lowest = scores.nan_to_num(torch.inf).min() - 1
        places = prepared.units.to_positions(scores.nan_to_num(float(lowest))[None])[0]
        inside = prepared.units.assigned
        ends = np.quantile(places[inside].double().numpy(), [1 - share for share in self.thresholds])
        return torch.stack([known, *(known | (inside & (places.double() >= end)) for end in ends)])

    def result(self, found: list[list[Curve | None]], rows: int) -> MetricResult:
        nothing = Curve(torch.linspace(0, 1, _POINTS + 1), torch.full((_POINTS + 1,), torch.nan))
        curves = [[nothing if curve is None else curve for curve in some] for some in found]
        values = [torch.tensor([curve.area for curve in some]) for some in curves]
        return MetricResult(type(self).__name__, values, True, curves, rows)


def _curve(predictions: Float[Tensor, " p"], sizes: Tensor) -> Curve | None:
    """The curve through points from the beginning, first, to the whole sample, last; None where there is none."""
    scores, bytes_ = predictions.double().numpy(), sizes.double().numpy()
    if scores[0] >= scores[-1] or bytes_[0] >= bytes_[-1]:
        return None
    x = ((bytes_ - bytes_[0]) / (bytes_[-1] - bytes_[0])).clip(0, 1)[1:-1]
    y = np.maximum.accumulate(((scores - scores[0]) / (scores[-1] - scores[0])).clip(0, 1)[1:-1])
    order = np.argsort(x, kind="stable")
    grid = np.linspace(0, 1, _POINTS + 1)
    line = np.interp(grid, [0.0, *x[order], 1.0], [0.0, *y[order], 1.0])
    return Curve(torch.from_numpy(grid), torch.from_numpy(line))
