"""The pipeline, once for all methods: prepare, units, perturb, score, aggregate, combine, result."""

import time
from abc import ABC
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from tqdm.auto import tqdm

from interpreto.attributions import granularity, provenance
from interpreto.attributions.driver import drive
from interpreto.attributions.granularity import Unitization
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.attributions.recipes.differentiable import Differentiable
from interpreto.attributions.result import AttributionOutput
from interpreto.attributions.setup import Setup
from interpreto.errors import InputError, TargetError
from interpreto.model_wrapping.conversation import NamedTargets, Plan
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import per_sample


@dataclass(frozen=True, eq=False)
class _Finished:
    """All that a result tells of one sample."""

    case: Case
    granularity: Unitization
    labels: Any
    targets: NamedTargets
    explained: Explained


_WINDOW = 4
"""How many batches' worth of samples are looked at together to run those of like length side by side."""


class Explainer(ABC):
    """A method on a model. Every method is a choice of parts: its `recipe`; all else happens here.

    Attributes:
        setup: The wrapped model and the shared options.
        recipe: What the method does to one sample.
    """

    setup: Setup
    recipe: Recipe

    def __call__(self, inputs: Any, targets: Any = None) -> list[AttributionOutput]:
        """The same as `explain`."""
        return self.explain(inputs, targets)

    def explain(self, inputs: Any, targets: Any = None) -> list[AttributionOutput]:
        """Explain each sample's targets.

        Args:
            inputs: Texts or images, one or several, in any form that the modality knows.
            targets: None for the predicted class; a class index or label, a `Contrast`, "all" or a function of the
                outputs for every sample; a tuple of these for several targets; a list with one entry per sample.

        Returns:
            One output per sample, in order.

        Raises:
            InputError: if a sample cannot be explained.
            TargetError: if a target does not exist or the list of targets has the wrong length.
        """
        wrapper = self.setup.wrapper
        alone = wrapper.is_one(inputs)
        raws = list(wrapper.split(inputs))
        if not raws:
            raise InputError("The list of inputs is empty: there is nothing to explain.")
        specs = per_sample(wrapper.plain(targets), len(raws), alone)
        for spec in specs:
            wrapper.check_target(spec)
        pairs = zip(map(self._prepared, raws), specs, strict=True)
        if wrapper.ragged:
            # Texts are tokenised before any is explained, so that what cannot be read is told at once; images are
            # large and prepared as their turn comes.
            pairs = list(pairs)
            for sample, spec in pairs:
                wrapper.check_target(spec, sample)
        return list(self._windows(pairs, len(raws)))

    def stream(self, inputs: Any, targets: Any = None) -> Iterator[AttributionOutput]:
        """Explain samples from an iterator of any length, yielding outputs in order as they finish.

        `targets` is as for `explain`; a list is read along with the inputs. Between outputs the model is as it was.
        """
        wrapper = self.setup.wrapper
        if wrapper.is_one(inputs):
            yield from self.explain(inputs, targets)
            return
        samples = map(self._prepared, wrapper.split(inputs))
        specs = wrapper.plain(targets)
        several = specs if isinstance(specs, list) else [specs]
        for spec in several:
            wrapper.check_target(per_sample([spec], 1, False)[0])
        pairs = _alongside(samples, several) if specs is several else ((sample, specs) for sample in samples)
        yield from self._windows(pairs, None)

    def _prepared(self, raw: Any) -> Sample:
        # Tensors made inside a caller's inference mode could not be used where gradients are taken.
        with torch.inference_mode(False):
            return self.setup.wrapper.prepare(raw)

    def _windows(self, pairs: Iterable[tuple[Sample, Any]], count: int | None) -> Iterator[AttributionOutput]:
        """Work through the samples some at a time; the model is held only while a window is worked on."""
        pairs = iter(pairs)
        size = self.setup.batch_size * (_WINDOW if self.setup.wrapper.ragged else 1)
        with _progress(self.setup.show_progress) as bar:
            done = 0
            while window := list(islice(pairs, size)):
                outputs = self._window(window, bar, (count or 0) - done)
                done += len(window)
                yield from outputs

    def _window(self, window: list[tuple[Sample, Any]], bar: tqdm, left: int) -> list[AttributionOutput]:
        wrapper, begin = self.setup.wrapper, time.perf_counter()
        # Neighbours of like length share batches with little padding.
        numbers = sorted(range(len(window)), key=lambda number: window[number][0].rows.length)
        plans = (self._plan(*window[number], bar, max(left, len(window))) for number in numbers)
        with wrapper.borrowed():
            found = drive(plans, wrapper.answer, self.setup.batch_size, bar.update, wrapper.arrange)
        seconds = (time.perf_counter() - begin) / len(window)
        outputs = dict(zip(numbers, found, strict=True))
        return [self._output(*outputs[number], seconds) for number in range(len(window))]

    def _plan(self, sample: Sample, spec: Any, bar: tqdm, samples: int) -> Plan[_Finished]:
        setup = self.setup
        fine = isinstance(self.recipe, Differentiable)
        chosen = setup.granularity or granularity.natural(sample, setup.wrapper.modality, fine)
        # Before the model runs, so that what cannot be cut into units is told at once.
        units = chosen.units(sample)
        settled = yield from setup.wrapper.settle(sample, spec, setup.seed)
        if settled.sample is not sample:
            units = chosen.units(settled.sample)
        labels = chosen.labels(settled.sample)
        targets = settled.targets.by_unit(units.index, labels)
        case = Case(settled.sample, units, targets, targets.select(settled.outputs)[0], setup.seed, setup.batch_size)
        rows = self.recipe.rows(case.layout)
        # The row of the unchanged sample has run and is counted already.
        bar.total = max(bar.total or 0, bar.n + rows, (1 + rows) * samples)
        explained = yield from self.recipe.plan(case)
        return _Finished(case, chosen, labels, targets, explained.within(case.visible))

    def _output(self, finished: _Finished, rows: int, seconds: float) -> AttributionOutput:
        case, explained = finished.case, finished.explained
        return AttributionOutput(
            attributions=explained.scores,
            elements=finished.labels,
            targets=finished.targets.values,
            target_names=finished.targets.names,
            scores=case.scores,
            task=self.setup.wrapper.task,
            modality=self.setup.wrapper.modality,
            granularity=granularity.name_of(finished.granularity),
            raw_input=case.sample.raw,
            standard_errors=explained.standard_errors,
            completeness_gap=explained.gap,
            n_rows=rows,
            info=provenance.record(self.setup, self.recipe, seconds),
        )


def _alongside(samples: Iterable[Sample], targets: list[Any]) -> Iterator[tuple[Sample, Any]]:
    """Each sample with its entry of the list."""
    count = 0
    for count, sample in enumerate(samples, start=1):
        if count > len(targets):
            raise TargetError(f"targets is a list of {len(targets)} but there is a sample number {count}.")
        yield sample, per_sample([targets[count - 1]], 1, False)[0]
    if count < len(targets):
        raise TargetError(f"targets is a list of {len(targets)} but there were only {count} samples.")


def _progress(show: bool | None) -> tqdm:
    """A bar over rows; without a wish of the user only on a terminal or in a notebook."""
    return tqdm(unit="row", desc="explaining", delay=1.0, leave=False, disable=None if show is None else not show)
