"""Performance information curves: the prediction as a function of the information that is revealed."""

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
"""The shares of revealed pixels in the authors' code."""
CURVES = ("sic", "aic")
_POINTS = 1000
"""Number of intervals at which curves are evaluated, so that curves of different samples have a common grid."""


class Pic(PerturbationMetric):
    r"""Performance information curves (Kapishnikov et al. 2019, arXiv 1906.02825, section 4): how much information must
    be revealed, highest attributions first, until the model predicts as it does for the whole sample.

    A random hundredth of the positions is revealed from the beginning. At every threshold, this share of positions,
    those with the highest attributions, is revealed too. Other pixels are interpolated linearly from the revealed ones,
    and other words are masked as with `removal=`. With the compressed size I (lossless WebP; zlib for texts), the
    prediction p, index 0 for the beginning and 1 for the whole sample, the curve goes through

    \[ x_k = \frac{I_k - I_0}{I_1 - I_0}, \qquad y_k = \max_{j \le k} \frac{p_j - p_0}{p_1 - p_0}, \]

    both clipped to [0, 1], from (0, 0) to (1, 1), with straight lines between points. The value is the area under the
    curve at 1,001 points, and `curves` has the curve. High is good. For the softmax information curve (SIC), p is the
    probability of the target; for the accuracy information curve (AIC), whether the target is the predicted class. NaN
    if the curve is not defined: if p_1 is below `min_score`, p_0 is not below p_1, or I_0 is not below I_1. The authors
    report the area under the median curve over images: `evaluate(...).median_curve`.

    Agrees with the authors' package `saliency` if units are pixels; units with equal attributions are revealed
    together. Texts are an extension of the paper.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        curve: "sic" or "aic".
        thresholds: The shares of positions that are revealed, in ascending order.
        initial_fraction: The share of positions that is revealed from the beginning, at random.
        min_score: The smallest prediction for the whole sample with which a curve is defined.
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
        if not thresholds or not all(0 < share < 1 for share in thresholds) or list(thresholds) != sorted(thresholds):
            raise OptionError(f"thresholds={thresholds!r} must be shares between 0 and 1, in ascending order.")
        self.setup = Setup.create(type(self), model, processor, as_probability(model, dict(options)))
        self.curve, self.thresholds, self.initial_fraction, self.min_score = (
            curve,
            tuple(thresholds),
            initial_fraction,
            min_score,
        )
        if curve == "aic" and self.setup.wrapper.targets.generated:
            raise OptionError("curve='aic' needs a predicted class; generated texts have none.")

    def perturbator(self) -> Revealer:
        return self.setup.revealer()

    @property
    def depends_on_removal(self) -> bool:
        # Pixels that are not revealed are interpolated instead of removed.
        return not self.setup.wrapper.inputs.spatial

    def n_evaluations(self, layout: Layout) -> int:
        return len(self.thresholds) + 1

    def measure(
        self, prepared: PreparedSample, attributions: UnitScores, modality: Revealer
    ) -> PlanRun[list[Curve | None]]:
        initial = modality.initially_revealed(prepared.sample, prepared.units, self.initial_fraction, prepared.rng())
        # The whole sample is evaluated again, because partial images are rounded to 8 bits, which changes its score.
        full = modality.reveal(prepared.sample, torch.ones_like(initial)[None])
        best = yield from self._predictions(prepared, full.rows)
        curves = []
        for target, scores in enumerate(attributions):
            if float(best[0, target]) < self.min_score:
                curves.append(None)
                continue
            masks = self._revealed(prepared, scores, initial)
            predictions, sizes = [], []
            for block in masks.split(prepared.max_evaluations_per_request):
                partial = modality.reveal(prepared.sample, block)
                block_predictions = yield from self._predictions(prepared, partial.rows)
                predictions.append(block_predictions[:, target])
                sizes.append(partial.sizes)
            curves.append(_curve(torch.cat([*predictions, best[:, target]]), torch.cat([*sizes, full.sizes])))
        return curves

    def _predictions(self, prepared: PreparedSample, rows: Any) -> PlanRun[Float[Tensor, "p t"]]:
        """The probability of every target for every row, or 1 where it is the predicted class (AIC)."""
        if self.curve == "sic":
            response = yield ModelRequest(rows, prepared.targets)
            return response.scores
        values = prepared.targets.values
        if not all(isinstance(value, int) for value in values):
            raise TargetError(f"curve='aic' needs classes as targets; {prepared.targets.names} are not all classes.")
        response = yield ModelRequest(rows, AllOutputs())
        return (response.scores.argmax(1)[:, None] == torch.tensor(values)).float()

    def _revealed(
        self, prepared: PreparedSample, scores: Float[Tensor, "*g"], known: Bool[Tensor, "*l"]
    ) -> Bool[Tensor, "p *l"]:
        """The masks of revealed positions: the initial one, and one per threshold.

        Args:
            prepared: The sample.
            scores: The attributions of one target.
            known: The positions that are revealed from the beginning.
        """
        # Units that cannot influence the target (NaN) come last.
        lowest = scores.nan_to_num(torch.inf).min() - 1
        position_scores = prepared.units.to_positions(scores.nan_to_num(float(lowest))[None])[0]
        assigned = prepared.units.assigned
        # Thresholds are quantiles over positions, as in the authors' code, so that ties are revealed together.
        cutoffs = np.quantile(position_scores[assigned].double().numpy(), [1 - share for share in self.thresholds])
        return torch.stack([known, *(known | (assigned & (position_scores.double() >= cut)) for cut in cutoffs)])

    def result(self, found: list[list[Curve | None]], rows: int) -> MetricResult:
        undefined = Curve(torch.linspace(0, 1, _POINTS + 1), torch.full((_POINTS + 1,), torch.nan))
        curves = [[undefined if curve is None else curve for curve in sample_curves] for sample_curves in found]
        values = [torch.tensor([curve.area for curve in sample_curves]) for sample_curves in curves]
        return MetricResult(type(self).__name__, values, True, curves, rows)


def _curve(predictions: Float[Tensor, " p"], sizes: Tensor) -> Curve | None:
    """The curve through points, from the initially revealed sample to the whole sample; None if it is not defined.

    Args:
        predictions: The prediction at every point.
        sizes: The compressed size at every point, in bytes.
    """
    scores, bytes_ = predictions.double().numpy(), sizes.double().numpy()
    if scores[0] >= scores[-1] or bytes_[0] >= bytes_[-1]:
        return None
    x = ((bytes_ - bytes_[0]) / (bytes_[-1] - bytes_[0])).clip(0, 1)[1:-1]
    # Monotone, as in the paper: revealing more must not lower the curve.
    y = np.maximum.accumulate(((scores - scores[0]) / (scores[-1] - scores[0])).clip(0, 1)[1:-1])
    # Compressed sizes need not increase with the revealed share, and np.interp needs sorted x.
    order = np.argsort(x, kind="stable")
    grid = np.linspace(0, 1, _POINTS + 1)
    line = np.interp(grid, [0.0, *x[order], 1.0], [0.0, *y[order], 1.0])
    return Curve(torch.from_numpy(grid), torch.from_numpy(line))
