"""What a method is, apart from a model: a choice of parts, and the plan that puts them to work on one sample."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.aggregations.masks import MaskAggregator
from interpreto.attributions.aggregations.points import Mean, Sampled, Statistic, jackknife
from interpreto.attributions.driver import together
from interpreto.attributions.granularity import Combine, Units
from interpreto.attributions.perturbations.masks import at_least, blocks
from interpreto.attributions.perturbations.points import check_noise, noisy
from interpreto.attributions.perturbations.seams import (
    REDUCTIONS,
    Layout,
    MaskMethod,
    MaskModality,
    Perturbator,
    PointMethod,
    TensorModality,
)
from interpreto.errors import OptionError, choices
from interpreto.model_wrapping.conversation import Ask, Plan, Targets
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.typing import UnitScores

_GRADIENT_BUDGET = 2**26
"""Numbers in the gradients of one ask, at most (256 MB): with many targets they are taken some at a time."""


@dataclass(frozen=True, eq=False)
class Case:
    """One sample and what is asked about it.

    Attributes:
        sample: The prepared sample.
        units: What gets a score.
        targets: What is explained.
        scores: The targets' scores on the unchanged sample.
        seed: Where randomness starts, afresh for every sample.
        block: How many rows to ask for at a time.
        crowd: How many cases like this one ask at the same time, to share what memory there is.
    """

    sample: Sample
    units: Units
    targets: Targets
    scores: Float[Tensor, " t"]
    seed: int
    block: int
    crowd: int = 1

    @property
    def layout(self) -> Layout:
        """How the units lie."""
        return Layout(self.units.shape, tuple(self.units.index.shape))

    def rng(self) -> torch.Generator:
        """A generator that gives every sample the same numbers, whatever came before it."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Explained:
    """Scores of a sample's units, their standard errors, and by how much they miss the promised sum."""

    scores: UnitScores
    standard_errors: UnitScores | None = None
    gap: Float[Tensor, " t"] | None = None


class Recipe(ABC):
    """A method without a model."""

    @abstractmethod
    def rows(self, layout: Layout) -> int:
        """How many rows a sample will take, for the progress bar."""

    @abstractmethod
    def plan(self, case: Case) -> Plan[Explained]:
        """The conversation that explains one sample."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the record should say beyond the options: the removal or baseline that was used."""


@final
@dataclass(frozen=True)
class Hiding(Recipe):
    """Hide parts, score the rows, aggregate.

    Args:
        perturbator: Which parts, and what hiding means.
        aggregator: What the scores say about the units.
        resize: How scores on a grid of the method's own reach the units.
        in_cells: Whether the aggregator wants the masks as the method made them rather than what they hid of units.
    """

    perturbator: Perturbator[MaskMethod, MaskModality]
    aggregator: MaskAggregator
    resize: str = "bilinear"
    in_cells: bool = False

    def rows(self, layout: Layout) -> int:
        return self.perturbator.method.count(layout)

    def plan(self, case: Case) -> Plan[Explained]:
        method, modality = self.perturbator.method, self.perturbator.modality
        rng = case.rng()
        blank = modality.blank(case.sample, case.rng())
        fold = self.aggregator.start(case.scores)
        for cells in method.masks(case.layout, rng, case.block):
            block = modality.hide(case.sample, blank, case.units, cells)
            answer = yield Ask(block.rows, case.targets)
            fold.add(answer.scores, cells if self.in_cells else block.hidden)
        found = fold.result()
        scores = case.units.fit(found.scores, self.resize)
        errors = found.standard_errors
        gap = None if found.empty is None else case.scores - found.empty - scores.flatten(1).sum(1)
        return Explained(scores, None if errors is None else case.units.fit(errors, self.resize), gap)

    def describe(self) -> dict[str, Any]:
        return {
            "removal": self.perturbator.modality.describe(),
            "perturbation": repr(self.perturbator.method),
            "aggregation": repr(self.aggregator),
        }


class Differentiable(Recipe):
    """A recipe whose raw attribution has the shape of the input tensor, so that it can be averaged under noise."""

    modality: TensorModality

    @abstractmethod
    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        """The attribution of the input tensor, with embedding or channel axis."""

    @abstractmethod
    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        """Scores of units from the raw attribution."""


@dataclass(frozen=True)
class Finish:
    """How raw attributions become scores of units: over the embedding or channel axis, then over positions."""

    reduction: str
    combine: Combine

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise OptionError(f"There is no reduction={self.reduction!r}: {choices(self.reduction, REDUCTIONS)}")

    @property
    def sums(self) -> bool:
        """Whether totals survive."""
        return self.reduction == "sum" and (self.combine.pooling, self.combine.resize) == ("sum", "sum")

    def __call__(self, case: Case, modality: TensorModality, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return case.units.combine(modality.reduce(raw.cpu(), self.reduction), self.combine)


@final
@dataclass(frozen=True)
class Pointwise(Differentiable):
    """Gradients at points, each times a direction, summed up.

    Args:
        perturbator: Where the points lie.
        finish_with: From the input tensor's shape to units.
        baseline: Where paths start, as the user said it.
        sampled: Whether points are random, so that there is a standard error.
        complete: Whether the sum of all scores is promised to be f(x) - f(baseline).
    """

    perturbator: Perturbator[PointMethod, TensorModality]
    finish_with: Finish
    baseline: Any = field(default=None, compare=False)
    sampled: bool = False
    complete: bool = False

    @property
    def modality(self) -> TensorModality:  # type: ignore[override]
        """What gradients are taken for."""
        return self.perturbator.modality

    def rows(self, layout: Layout) -> int:
        baselines = len(self.baseline) if isinstance(self.baseline, list) else 1
        return self.perturbator.method.count(baselines) + (baselines if self.complete else 0)

    def plan(self, case: Case) -> Plan[Explained]:
        raw, errors = yield from self._integrate(case, self.sampled)
        scores = self.finish(case, raw)
        gap = None
        if self.complete and self.finish_with.sums:
            start = self._baselines(case)
            answer = yield Ask(self.modality.write(case.sample, case.units, start), case.targets)
            gap = case.scores - answer.scores.mean(0) - scores.flatten(1).sum(1)
        return Explained(scores, errors, gap)

    def raw(self, case: Case) -> Plan[Float[Tensor, "t *s"]]:
        raw, _ = yield from self._integrate(case, False)
        return raw

    def finish(self, case: Case, raw: Float[Tensor, "t *s"]) -> UnitScores:
        return self.finish_with(case, self.modality, raw)

    def describe(self) -> dict[str, Any]:
        parts = {"points": repr(self.perturbator.method), "units": repr(self.finish_with)}
        return {"baseline": self.modality.describe(self.baseline), **parts} if self.complete else parts

    def _baselines(self, case: Case) -> Float[Tensor, "b *s"]:
        return self.modality.baselines(case.sample, case.units, self.baseline, case.rng())

    def _integrate(self, case: Case, errors: bool) -> Plan[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        tensor, start = self.modality.read(case.sample), self._baselines(case)
        rows = min(case.block, self.perturbator.method.count(len(start))) * case.crowd
        step = max(1, _GRADIENT_BUDGET // (rows * tensor.numel()))
        parts = [case.targets.part(begin, begin + step) for begin in range(0, len(case.targets), step)]
        raws, spreads = [], []
        for targets in parts:
            raw, spread = yield from self._some_targets(case, tensor, start, targets, errors)
            raws.append(raw)
            spreads.append(spread)
        return torch.cat(raws), torch.cat([s for s in spreads if s is not None]) if errors else None

    def _some_targets(
        self, case: Case, tensor: Float[Tensor, "*s"], start: Float[Tensor, "b *s"], targets: Targets, errors: bool
    ) -> Plan[tuple[Float[Tensor, "t *s"], UnitScores | None]]:
        method, total = self.perturbator.method, torch.zeros(())
        fold = Sampled(Mean(), method.count(len(start)))
        for points in method.points(tensor, start, case.rng(), case.block):
            rows = self.modality.write(case.sample, case.units, points.tensors)
            answer = yield Ask(rows, targets, self.modality.field)
            assert answer.gradients is not None
            gradients = answer.gradients
            weights, directions = points.weights.to(gradients), points.directions.to(gradients)
            if errors:
                scale = weights.reshape(-1, *[1] * (gradients.ndim - 1)) * fold.count
                fold.add(gradients * directions[:, None] * scale)
            elif len(directions) == 1:
                total = total.to(gradients) + torch.tensordot(weights, gradients, dims=1) * directions[0]
            else:
                total = total.to(gradients) + torch.einsum("p,pt...,p...->t...", weights, gradients, directions)
        if not errors:
            return total, None
        return fold.result(), jackknife([self.finish(case, raw) for raw in fold.without_each()])


@final
@dataclass(frozen=True)
class Smoothed(Differentiable):
    """Any recipe that has a raw attribution, under Gaussian noise on its input.

    Args:
        inner: What is smoothed.
        statistic: Mean, mean square or variance over the noisy copies.
        finish_with: None finishes as the inner recipe does.
        n_samples: Number of noisy copies.
        noise: Standard deviation as a share of the input's range.
    """

    inner: Differentiable
    statistic: Statistic
    finish_with: Finish | None = None
    n_samples: int = 25
    noise: float = 0.15

    def __post_init__(self) -> None:
        at_least("n_samples", self.n_samples, 1)
        check_noise(self.noise)

    @property
    def modality(self) -> TensorModality:  # type: ignore[override]
        """What gradients are taken for."""
        return self.inner.modality

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
        return self.inner.finish(case, raw) if self.finish_with is None else self.finish_with(case, self.modality, raw)

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
            seed=(case.seed * 1_000_003 + number + 1) % 2**63,
            block=max(1, case.block // crowd),
            crowd=case.crowd * crowd,
        )
