"""Faithfulness on random subsets: whether attributions predict the drop of the score when units are masked."""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from interpreto.attributions.assembly import Setup
from interpreto.attributions.metrics.metric_result import MetricResult
from interpreto.attributions.metrics.perturbation_metric import PerturbationMetric
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.base import Layout, Masker
from interpreto.attributions.perturbations.mask_generators.masks import blocks, each
from interpreto.attributions.plans.base import PreparedSample
from interpreto.model_wrapping.messages import ModelRequest, PlanRun
from interpreto.option_kinds import at_least, checks_options
from interpreto.typing import UnitScores


class _OnSubsets(PerturbationMetric):
    """Masks random subsets of units, and compares the sums of their attributions with the drops of the score."""

    n_samples: int

    def n_evaluations(self, layout: Layout) -> int:
        return self.n_samples

    def measure(self, prepared: PreparedSample, attributions: UnitScores, modality: Masker) -> PlanRun[list[float]]:
        rng, fully_masked = prepared.rng(), modality.fully_masked(prepared.sample, prepared.rng())
        # Units that cannot influence a target have NaN. Masking them changes nothing, so they count as 0.
        flat = attributions.flatten(1).double().nan_to_num()
        part_of_target = (
            torch.zeros_like(flat, dtype=torch.bool)
            if prepared.part_of_target is None
            else prepared.part_of_target.flatten(1)
        )
        sums, drops = [], []
        for size in blocks(self.n_samples, prepared.max_evaluations_per_request):
            cells = each(size, lambda: self.subset(flat.shape[1], rng))
            block_drops = []
            for start, stop in _runs(part_of_target):
                # Units that are part of a target are not masked for it: that would change the target itself.
                masks = cells.masked_fill(part_of_target[start], 0)
                block = modality.mask(
                    prepared.sample, fully_masked, prepared.units, masks.reshape(size, *prepared.units.shape)
                )
                response = yield ModelRequest(block.rows, prepared.targets.part(start, stop))
                block_drops.append(prepared.scores[start:stop].double() - response.scores.double())
            sums.append(cells.double() @ flat.T)
            drops.append(torch.cat(block_drops, dim=1))
        pairs = zip(torch.cat(sums).T, torch.cat(drops).T, strict=True)
        return [self.value(target_sums, target_drops) for target_sums, target_drops in pairs]

    def result(self, sample_results: list[list[float]], n_evaluations: int) -> MetricResult:
        values = [torch.tensor(sample_values, dtype=torch.float64) for sample_values in sample_results]
        return MetricResult(type(self).__name__, values, self.higher_is_better, n_evaluations=n_evaluations)

    def subset(self, count: int, rng: torch.Generator) -> Float[Tensor, " g"]:
        """A random mask, 1 for the units to mask."""
        cells = torch.zeros(count)
        cells[torch.randperm(count, generator=rng)[: self.size(count, rng)]] = 1
        return cells

    def size(self, count: int, rng: torch.Generator) -> int:
        """The number of units to mask: by default uniform from 1 to count - 1."""
        return int(torch.randint(1, max(count, 2), (), generator=rng))

    @abstractmethod
    def value(self, sums: Float[Tensor, " p"], drops: Float[Tensor, " p"]) -> float:
        """The metric of one target from sums of attributions and drops of the score, one each per subset."""


def _runs(own: Bool[Tensor, "t g"]) -> list[tuple[int, int]]:
    """Start and end of the runs of consecutive targets with the same `part_of_target`, which can share rows."""
    begins = [n for n in range(len(own)) if not n or not torch.equal(own[n], own[n - 1])]
    return list(pairwise([*begins, len(own)]))


class SensitivityN(_OnSubsets):
    r"""Pearson correlation, over random subsets S of size n, of the sum of attributions with the drop of the score.

    \[ \operatorname{corr}_S \Big( \sum_{i \in S} \phi_i, \; f(x) - f(x_{\setminus S}) \Big) \]

    From -1 to 1, high is good. 0 if the sums do not vary, as for constant attributions; NaN if the score never changes.
    Units that cannot influence a target count as 0 (Ancona et al. 2018, arXiv 1711.06104).

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n: Number of units to mask, or their share if below 1.
        n_samples: Number of subsets.
        options: Options of every method.
    """

    higher_is_better = True

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n: int | float = 0.2,
        n_samples: int = 128,
        **options: Unpack[Options],
    ) -> None:
        at_least("n_samples", n_samples, 3)
        self.setup = Setup.create(type(self), model, processor, options)
        self.n, self.n_samples = n, n_samples

    def size(self, count: int, rng: torch.Generator) -> int:
        return max(1, min(count, round(self.n * count) if self.n < 1 else int(self.n)))

    def value(self, sums: Float[Tensor, " p"], drops: Float[Tensor, " p"]) -> float:
        return correlation(sums, drops)


class MuFidelity(_OnSubsets):
    r"""Spearman correlation, over random subsets of random size, of the sum of attributions with the drop of the score.

    Like `SensitivityN`, but on ranks (differences below 1e-5 of the largest value are ties) and with sizes drawn
    uniformly from 1 to g - 1, so that no size has to be chosen. Bhatt et al. (2020, arXiv 2005.00631) use Pearson's
    correlation and one size.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_samples: Number of subsets.
        options: Options of every method.
    """

    higher_is_better = True

    @checks_options
    def __init__(
        self, model: object, processor: object = None, *, n_samples: int = 128, **options: Unpack[Options]
    ) -> None:
        at_least("n_samples", n_samples, 3)
        self.setup = Setup.create(type(self), model, processor, options)
        self.n_samples = n_samples

    def value(self, sums: Float[Tensor, " p"], drops: Float[Tensor, " p"]) -> float:
        return correlation(ranks(sums), ranks(drops))


class Infidelity(_OnSubsets):
    r"""The mean squared error of the attributions as a prediction of the drop of the score.

    \[ \frac{\mathbb{E}_S \big( \beta \sum_{i \in S} \phi_i - (f(x) - f(x_{\setminus S})) \big)^2}
            {\mathbb{E}_S \big( f(x) - f(x_{\setminus S}) \big)^2} \]

    over random subsets S of random size, with the factor \(\beta\) that minimises it, so that methods with attributions
    of any scale can be compared: 0 is best, and attributions of 0 have the value 1. With `normalize=False` it is the
    numerator with \(\beta = 1\). Yeh et al. (2019, arXiv 1901.09392) multiply gradient-like attributions by the
    perturbation; here an attribution is already the contribution of a unit. NaN if the score never changes.

    Args:
        model: The model that was explained.
        processor: Its processor or tokenizer.
        n_samples: Number of subsets.
        normalize: Whether to divide by the mean squared drop, with the best \(\beta\).
        options: Options of every method.
    """

    higher_is_better = False

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 128,
        normalize: bool = True,
        **options: Unpack[Options],
    ) -> None:
        at_least("n_samples", n_samples, 3)
        self.setup = Setup.create(type(self), model, processor, options)
        self.n_samples, self.normalize = n_samples, normalize

    def value(self, sums: Float[Tensor, " p"], drops: Float[Tensor, " p"]) -> float:
        if not self.normalize:
            return float((sums - drops).square().mean())
        power, total = float(sums.square().sum()), float(drops.square().sum())
        if total == 0:
            return math.nan
        # The least-squares factor; all sums are 0 if all attributions are.
        beta = float(sums @ drops) / power if power else 0.0
        return float((beta * sums - drops).square().sum()) / total


def ranks(values: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Ranks from 1, the mean rank for ties; differences as small as the rounding errors of a model are ties."""
    # Without ties, masks that change nothing would get ranks from the noise of float32 kernels.
    largest = float(values.abs().max())
    rounded = (values / largest).numpy().round(5) if largest else values.numpy()
    return torch.from_numpy(rankdata(rounded))


def correlation(one: Float[Tensor, " p"], other: Float[Tensor, " p"]) -> float:
    """Pearson's correlation: 0 if the first is constant, NaN if the second is."""
    one, other = one - one.mean(), other - other.mean()
    # Equal numbers differ from their mean by rounding errors, so constants are compared with a tolerance.
    if float(other.abs().max()) <= 1e-12:
        return math.nan
    power = float(one.norm() * other.norm())
    return float(one @ other) / power if power > 1e-12 * float(other.norm()) else 0.0
