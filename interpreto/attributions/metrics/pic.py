"""Performance information curves: the prediction as a function of the information that is revealed."""

from collections.abc import Sequence
from typing import Any, Literal, Unpack

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
from interpreto.option_kinds import checks_options
from interpreto.type_guards import are_all
from interpreto.typing import UnitScores

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)
"""The fractions of revealed pixels in the authors' code."""
PicCurve = Literal["sic", "aic"]
_INTERVALS = 1000
"""Number of intervals between the points at which curves are evaluated; all curves share these points."""


class Pic(PerturbationMetric):
    r"""Performance information curves (Kapishnikov et al. 2019, arXiv 1906.02825, section 4): how much information must
    be revealed, highest attributions first, until the model predicts as it does for the whole sample.

    Initially, a random 1 % of the positions is revealed. Each threshold reveals, in addition, that fraction of the
    positions: those with the highest attributions. Pixels that are not revealed are interpolated linearly from those
    that are; words that are not revealed are masked as with `removal=`. Let I_k be the compressed size (lossless WebP;
    zlib for texts) and p_k the prediction at threshold k, with index 0 for the initially revealed sample, and I and p
    those of the whole sample. The curve goes through the points

    \[ x_k = \frac{I_k - I_0}{I - I_0}, \qquad y_k = \max_{j \le k} \frac{p_j - p_0}{p - p_0}, \]

    both clipped to [0, 1], from (0, 0) to (1, 1), and is linear between them. The value is the area under the curve,
    evaluated at 1,001 points; `curves` contains the curve. High values are good. For the softmax information curve
    (SIC), p is the probability of the target; for the accuracy information curve (AIC), p is 1 if the target is the
    predicted class, else 0. The value is NaN if the curve is not defined: if p < `min_score`, p_0 >= p or I_0 >= I. The
    authors report the area under the median curve over images: `evaluate(...).median_curve`.

    Agrees with the authors' package `saliency` if units are pixels; units with equal attributions are revealed
    together. Texts are an extension of the paper.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        curve: "sic" or "aic".
        thresholds: The fractions of positions that are revealed, in ascending order.
        initial_fraction: The fraction of positions that is revealed initially, chosen at random.
        min_score: The smallest prediction for the whole sample; below it the curve is not defined.
        options: Options of every method.
    """

    higher_is_better = True

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        curve: PicCurve = "sic",
        thresholds: Sequence[float] = THRESHOLDS,
        initial_fraction: float = 0.01,
        min_score: float = 0.8,
        **options: Unpack[Options],
    ) -> None:
        if (
            not thresholds
            or not all(0 < fraction < 1 for fraction in thresholds)
            or list(thresholds) != sorted(thresholds)
        ):
            raise OptionError(f"thresholds={thresholds!r} must be fractions between 0 and 1, in ascending order.")
        self.setup = Setup.create(type(self), model, processor, as_probability(model, dict(options)))
        self.curve, self.thresholds, self.initial_fraction, self.min_score = (
            curve,
            tuple(thresholds),
            initial_fraction,
            min_score,
        )
        if curve == "aic" and self.setup.wrapper.targets.generated:
            raise OptionError("curve='aic' needs a predicted class; text generation does not have one.")

    def perturbator(self) -> Revealer:
        return self.setup.revealer()

    @property
    def depends_on_removal(self) -> bool:
        # Pixels that are not revealed are interpolated instead of removed.
        return not self.setup.wrapper.inputs.spatial

    def n_evaluations(self, layout: Layout) -> int:
        # The whole sample, the initially revealed one, and one per threshold, for one target.
        return len(self.thresholds) + 2

    def measure(
        self, prepared: PreparedSample, attributions: UnitScores, revealer: Revealer
    ) -> PlanRun[list[Curve | None]]:
        initial = revealer.initially_revealed(prepared.sample, prepared.units, self.initial_fraction, prepared.rng())
        # Partial images are rounded to 8 bits. The whole sample is evaluated again with the same rounding.
        full = revealer.reveal(prepared.sample, torch.ones_like(initial)[None])
        full_predictions = yield from self._predictions(prepared, full.rows)
        curves = []
        for target, scores in enumerate(attributions):
            if float(full_predictions[0, target]) < self.min_score:
                curves.append(None)
                continue
            masks = self._reveal_masks(prepared, scores, initial)
            predictions, sizes = [], []
            for block in masks.split(prepared.max_evaluations_per_request):
                partial = revealer.reveal(prepared.sample, block)
                block_predictions = yield from self._predictions(prepared, partial.rows)
                predictions.append(block_predictions[:, target])
                sizes.append(partial.sizes)
            predictions.append(full_predictions[:, target])
            sizes.append(full.sizes)
            curves.append(_curve(torch.cat(predictions), torch.cat(sizes)))
        return curves

    def _predictions(self, prepared: PreparedSample, rows: Any) -> PlanRun[Float[Tensor, "p t"]]:
        """For SIC the probability of each target; for AIC 1 if the target is the predicted class, else 0."""
        if self.curve == "sic":
            response = yield ModelRequest(rows, prepared.targets)
            return response.scores
        values = prepared.targets.values
        if not are_all(int, values):
            raise TargetError(f"curve='aic' needs classes as targets; {prepared.targets.names} are not all classes.")
        response = yield ModelRequest(rows, AllOutputs())
        return (response.scores.argmax(1)[:, None] == torch.tensor(values)).float()

    def _reveal_masks(
        self, prepared: PreparedSample, scores: Float[Tensor, "*g"], initial: Bool[Tensor, "*l"]
    ) -> Bool[Tensor, "p *l"]:
        """The masks of revealed positions: the initial mask, and one per threshold.

        Args:
            prepared: The sample.
            scores: The attributions of one target.
            initial: The positions that are revealed initially.
        """
        # Units that cannot influence the target have NaN, and are revealed last.
        below_all = scores.nan_to_num(torch.inf).min() - 1
        position_scores = prepared.units.to_positions(scores.nan_to_num(float(below_all))[None])[0]
        assigned = prepared.units.assigned
        # Thresholds are quantiles over positions, as in the authors' code, so that ties are revealed together.
        cutoffs = np.quantile(
            position_scores[assigned].double().numpy(), [1 - fraction for fraction in self.thresholds]
        )
        return torch.stack([initial, *(initial | (assigned & (position_scores.double() >= cut)) for cut in cutoffs)])

    def result(self, sample_results: list[list[Curve | None]], n_evaluations: int) -> MetricResult:
        undefined = Curve(torch.linspace(0, 1, _INTERVALS + 1), torch.full((_INTERVALS + 1,), torch.nan))
        curves = [
            [undefined if curve is None else curve for curve in sample_curves] for sample_curves in sample_results
        ]
        values = [torch.tensor([curve.area for curve in sample_curves]) for sample_curves in curves]
        return MetricResult(type(self).__name__, values, True, curves, n_evaluations)


def _curve(predictions: Float[Tensor, " p"], sizes: Tensor) -> Curve | None:
    """The curve from the initially revealed sample to the whole sample; None if it is not defined.

    Args:
        predictions: The prediction for each partially revealed sample, the whole sample last.
        sizes: The compressed size of each, in bytes.
    """
    p, size = predictions.double().numpy(), sizes.double().numpy()
    if p[0] >= p[-1] or size[0] >= size[-1]:
        return None
    x = ((size - size[0]) / (size[-1] - size[0])).clip(0, 1)[1:-1]
    # As in the paper, the curve must not decrease when more is revealed.
    y = np.maximum.accumulate(((p - p[0]) / (p[-1] - p[0])).clip(0, 1)[1:-1])
    # The compressed size may decrease when more is revealed, but np.interp needs sorted x.
    order = np.argsort(x, kind="stable")
    grid = np.linspace(0, 1, _INTERVALS + 1)
    curve_y = np.interp(grid, [0.0, *x[order], 1.0], [0.0, *y[order], 1.0])
    return Curve(torch.from_numpy(grid), torch.from_numpy(curve_y))
