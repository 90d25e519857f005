"""Any differentiable recipe, averaged over noisy copies of the input."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.points import Sampled, Statistic, jackknife
from interpreto.attributions.driver import together
from interpreto.attributions.granularity import Unitization
from interpreto.attributions.perturbations.masks import blocks
from interpreto.attributions.perturbations.points import noisy
from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained
from interpreto.attributions.recipes.differentiable import Differentiable, Finish
from interpreto.model_wrapping.conversation import Plan
from interpreto.model_wrapping.inside.probe import Probe
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores


@final
@dataclass(frozen=True)
class Smoothed(Differentiable):
    """Any recipe that has a raw attribution, under Gaussian noise on its input.

    Args:
        inner: What is smoothed.
        statistic: Mean, mean square or variance over the noisy copies.
        finish_with: None finishes as the inner recipe does, and so do recipes whose raw attribution has no embedding
            or channel axis.
        n_samples: Number of noisy copies.
        noise: Standard deviation as a share of the input's range.
    """

    inner: Differentiable
    statistic: Statistic
    finish_with: Finish | None = None
    n_samples: int = 25
    noise: float = 0.15

    @property
    def modality(self) -> TensorModality:  # type: ignore[override]
        """What gradients are taken for."""
        return self.inner.modality

    @property
    def probe(self) -> Probe | None:
        """What the unchanged sample is watched for: it tells the grid on which copies will be seen."""
        return self.inner.probe

    @property
    def signed(self) -> bool:
        """As what is smoothed, but for squares and variances."""
        return self.inner.signed if self.finish_with is None else self.finish_with.signed

    @property
    def fine(self) -> bool:
        """Whether every unit comes for free."""
        return self.inner.fine

    @property
    def whole(self) -> bool:
        """Whether what is averaged has the shape of the input tensor."""
        return self.inner.whole

    @property
    def granularity(self) -> Unitization | None:
        """What gets a score where the user does not say."""
        return self.inner.granularity

    @property
    def alone(self) -> str:
        """Which option belongs to one sample."""
        return self.inner.alone

    def check(self, sample: Sample, layout: Layout) -> None:
        self.inner.check(sample, layout)

    def rows(self, layout: Layout) -> int:
        return self.n_samples * self.inner.rows(layout)

    def plan(self, case: Case) -> Plan[Explained]:
        fold = yield from self._fold(case)
        errors = jackknife([self.finish(case, raw) for raw in fold.without_each()]) if self.n_samples > 1 else None
        return Explained(self.finish(case, fold.result()), errors)

    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        fold = yield from self._fold(case)
        return fold.result()

    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        own = self.finish_with if self.whole else None
        return self.inner.finish(case, raw) if own is None else own(case, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        smoothing = f"{self.statistic!r} of {self.n_samples} samples with noise {self.noise}"
        own = {} if self.finish_with is None else {"units": repr(self.finish_with)}
        return {**self.inner.describe(), **own, "smoothing": smoothing}

    def _fold(self, case: Case) -> Plan[Sampled]:
        tensor, rng = self.modality.read(case.sample), case.rng()
        fold = Sampled(self.statistic, self.n_samples)
        for rows in blocks(self.n_samples, case.block):
            copies = self.modality.write(case.sample, case.units, noisy(tensor, rows, self.noise, rng))
            cases = [self._copy(case, copies.take(slice(row, row + 1)), fold.seen + row, rows) for row in range(rows)]
            fold.add(torch.stack((yield from together([self.inner.raw(one) for one in cases]))))
        return fold

    def _copy(self, case: Case, rows: Rows, number: int, crowd: int) -> Case:
        """The case of one noisy copy, with random numbers of its own and its share of a batch."""
        return replace(
            case,
            sample=replace(case.sample, rows=rows),
            inside=None,
            seed=(case.seed * 1_000_003 + number + 1) % 2**63,
            block=max(1, case.block // crowd),
            crowd=case.crowd * crowd,
        )
