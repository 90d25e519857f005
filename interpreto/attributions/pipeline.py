"""The pipeline without a method: samples are read, segmented into units, resolved, and worked on side by side."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from tqdm.auto import tqdm

from interpreto.attributions import granularity
from interpreto.attributions.assembly import Setup
from interpreto.attributions.granularity import DefaultGranularity, UnitSegmenter
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.plans.base import PlanNeeds, PreparedSample
from interpreto.attributions.scheduler import run_plans
from interpreto.errors import CannotCopyError, OptionError
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import InferenceWrapper, TargetedSample
from interpreto.typing import OnError

Found = TypeVar("Found")

_WINDOW = 4
"""Number of batches' worth of samples that are sorted by length, to run those of similar length side by side."""


@dataclass(frozen=True, eq=False)
class Completed(Generic[Found]):
    """The result for one sample.

    Attributes:
        prepared: The sample.
        result: What its job returned.
        n_evaluations: Number of evaluations, the unperturbed one among them.
        seconds: The sample's share of the time of its window.
        notes: How the model was run, for the record.
    """

    prepared: PreparedSample
    result: Found
    n_evaluations: int
    seconds: float
    notes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class FailedSample:
    """A sample that could not be explained, and why."""

    raw: Any
    error: Exception


@dataclass(frozen=True, eq=False)
class Job(Generic[Found]):
    """What is done to each sample.

    Attributes:
        run: The plan for the sample of this number.
        n_evaluations: Number of evaluations of a sample, for the progress bar.
        needs: What the pipeline does before the plan starts.
        segmenter: The granularity of the sample of this number, if the user names none; None for `needs.granularity`.
        check: Checks a sample before the model runs.
    """

    run: Callable[[int, PreparedSample], PlanRun[Found]]
    n_evaluations: Callable[[Layout], int]
    needs: PlanNeeds
    segmenter: Callable[[int, Sample], UnitSegmenter] | None = None
    check: Callable[[Sample, Layout], None] | None = None


@dataclass(frozen=True, eq=False)
class _Item:
    """A sample of a window, with its number and its units; an item that failed has neither sample nor units."""

    number: int
    targeted: TargetedSample
    segmenter: UnitSegmenter | None = None
    units: granularity.Units | None = None

    @property
    def length(self) -> int:
        assert self.targeted.sample is not None
        return self.targeted.sample.rows.length

    def failed(self, error: Exception) -> FailedSample:
        return FailedSample(self.targeted.sample or self.targeted.raw, error)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A wrapped model and the shared options, for any job.

    Attributes:
        setup: The wrapped model and the shared options.
        on_error: "raise" ends with the error of the first sample that cannot be explained, after those before it;
            "record" yields a `FailedSample` in its place and continues.
    """

    setup: Setup
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)

    @property
    def _keeps_errors(self) -> bool:
        return self.on_error == "record"

    def all(self, inputs: Any, targets: Any, job: Job[Found]) -> Iterator[Completed[Found] | FailedSample]:
        """Work through samples that are all available: mistakes are reported before any sample is worked on.

        Raises:
            InputError: if a sample cannot be read.
            TargetError: if a target does not exist or the list of targets has the wrong length.
        """
        items = self.setup.wrapper.read(inputs, targets, self._keeps_errors)
        check_single_sample(job.needs.single_sample_option, len(items))
        yield from self._windows(items, len(items), job)

    def stream(self, inputs: Any, targets: Any, job: Job[Found]) -> Iterator[Completed[Found] | FailedSample]:
        """Work through samples of an iterator of any length; between two of them the model is as it was."""
        yield from self._windows(self.setup.wrapper.read_stream(inputs, targets, self._keeps_errors), None, job)

    def _windows(
        self, items: Iterable[TargetedSample], count: int | None, job: Job[Found]
    ) -> Iterator[Completed[Found] | FailedSample]:
        """Some samples at a time; the model is leased only while a window is worked on."""
        items = iter(items)
        size = self.setup.batch_size * (_WINDOW if self.setup.wrapper.inputs.ragged else 1)
        with _progress(self.setup.show_progress) as bar:
            done, stop = 0, None
            while stop is None:
                window, stop = _take(items, size)
                check_single_sample(job.needs.single_sample_option, done + len(window))
                prepared = self.setup.wrapper.prepare(window)
                ready = [self._segmented(done + number, item, job) for number, item in enumerate(prepared)]
                yield from self._raised(self._outcomes(ready, bar, (count or 0) - done, job))
                done += len(window)
        if isinstance(stop, Exception):
            raise stop

    def _segmented(self, number: int, targeted: TargetedSample, job: Job[Found]) -> _Item:
        """A sample with its units, if the job can be done to it."""
        sample = targeted.sample
        if sample is None or targeted.error is not None:
            return _Item(number, targeted)
        try:
            segmenter = self._segmenter(number, sample, job)
            units = segmenter.units(sample)
            if job.check is not None:
                job.check(sample, Layout(units.shape, tuple(units.index.shape)))
        except Exception as error:
            if not self._keeps_errors:
                # Options that do not fit a sample are reported before the model runs.
                raise
            return _Item(number, replace(targeted, error=error))
        return _Item(number, targeted, segmenter, units)

    def _segmenter(self, number: int, sample: Sample, job: Job[Found]) -> UnitSegmenter:
        given, needs = self.setup.granularity, job.needs
        if isinstance(given, DefaultGranularity):
            return given.segmenter(sample)
        if given is not None:
            return given
        if job.segmenter is not None:
            return job.segmenter(number, sample)
        if needs.granularity is not None:
            return needs.granularity
        return granularity.default_segmenter(sample, self.setup.wrapper.modality, needs.cost_independent_of_units)

    def _raised(self, outcomes: Iterable[Completed[Found] | FailedSample]) -> Iterator[Completed[Found] | FailedSample]:
        """The same outcomes, up to the first failure if that is raised."""
        for outcome in outcomes:
            if isinstance(outcome, FailedSample) and not self._keeps_errors:
                raise outcome.error
            yield outcome

    def _outcomes(
        self, window: Sequence[_Item], bar: tqdm, left: int, job: Job[Found]
    ) -> Iterator[Completed[Found] | FailedSample]:
        """The outcomes of a window, in order; up to the first failure if that is raised."""
        failed = [place for place, item in enumerate(window) if item.targeted.error is not None]
        if failed and not self._keeps_errors:
            window = window[: failed[0] + 1]
        found = iter(self._run_together([item for item in window if item.targeted.error is None], bar, left, job))
        for item in window:
            error = item.targeted.error
            outcome = next(found, None) if error is None else item.failed(error)
            if outcome is None:
                return
            yield outcome

    def _run_together(
        self, window: Sequence[_Item], bar: tqdm, left: int, job: Job[Found]
    ) -> list[Completed[Found] | FailedSample]:
        """Samples worked on together and, if that fails, one by one, to find which of them fails."""
        if not window:
            return []
        try:
            return list(self._window_or_own_model(window, bar, left, job))
        except Exception as error:
            if len(window) == 1:
                return [window[0].failed(error)]
        found: list[Completed[Found] | FailedSample] = []
        for item in window:
            found += self._run_together([item], bar, left, job)
            if isinstance(found[-1], FailedSample) and not self._keeps_errors:
                break
        return found

    def _window_or_own_model(
        self, window: Sequence[_Item], bar: tqdm, left: int, job: Job[Found]
    ) -> list[Completed[Found]]:
        """A window, on the user's own model if a run shows that no copy of it can be used."""
        try:
            return self._window(window, bar, left, job)
        except CannotCopyError:
            return self._window(window, bar, left, job)

    def _window(self, window: Sequence[_Item], bar: tqdm, left: int, job: Job[Found]) -> list[Completed[Found]]:
        begin = time.perf_counter()
        # Neighbours of similar length share batches with little padding.
        order = sorted(range(len(window)), key=lambda place: window[place].length)
        n_samples = max(left, len(window))
        setup = self.setup
        with setup.wrapper.lease(setup.seed) as lease:
            wrapper, shared = lease.wrapper, dict[Hashable, Any]()
            prefetch = wrapper.targets.prefetch([item.targeted.spec for item in window])
            run_plans([prefetch], lease.respond, setup.batch_size, bar.update)
            runs = (self._run(window[place], wrapper, shared, bar, n_samples, job) for place in order)
            found = run_plans(runs, lease.respond, setup.batch_size, bar.update, wrapper.engine.deduplicate)
            notes = lease.notes()
        seconds = (time.perf_counter() - begin) / len(window)
        done = {
            place: Completed(*result, n_evaluations, seconds, notes)
            for place, (result, n_evaluations) in zip(order, found, strict=True)
        }
        return [done[place] for place in range(len(window))]

    def _run(
        self,
        item: _Item,
        wrapper: InferenceWrapper,
        shared: dict[Hashable, Any],
        bar: tqdm,
        n_samples: int,
        job: Job[Found],
    ) -> PlanRun[tuple[PreparedSample, Found]]:
        prepared = yield from self._prepared(item, wrapper, shared, job.needs)
        n_evaluations = job.n_evaluations(prepared.layout)
        # The evaluation of the unperturbed sample is counted already.
        bar.total = max(bar.total or 0, bar.n + n_evaluations, (1 + n_evaluations) * n_samples)
        result = yield from job.run(item.number, prepared)
        # Free this sample's key/value cache: others are still running.
        return replace(prepared, targets=prepared.targets.without_cache()), result

    def _prepared(
        self, item: _Item, wrapper: InferenceWrapper, shared: dict[Hashable, Any], needs: PlanNeeds
    ) -> PlanRun[PreparedSample]:
        """Run the unperturbed sample, and find its targets and its final units."""
        setup, sample, units, segmenter = self.setup, item.targeted.sample, item.units, item.segmenter
        assert sample is not None
        assert units is not None
        assert segmenter is not None
        resolved = yield from wrapper.targets.resolve(sample, item.targeted.spec, setup.seed, needs.capture)
        captured = resolved.unperturbed.captured
        if setup.granularity is None and captured is not None:
            segmenter = granularity.of_layer_map(segmenter, units, captured.shape[2:])
        if resolved.sample is not sample or segmenter is not item.segmenter:
            # A prompt has its continuation now, or a layer its own grid.
            units = segmenter.units(resolved.sample)
        labels = segmenter.labels(resolved.sample)
        targets, outputs = resolved.targets, resolved.unperturbed.outputs
        of_targets = setup.target_segmenter
        if of_targets is not None and (prompt := resolved.sample.prompt) is not None:
            targets = targets.by_unit(of_targets.units(prompt).index, of_targets.labels(prompt))
        elif units.token_start is not None:
            # By default generated tokens are grouped as the units of the prompt are.
            targets = targets.by_unit(units.index, labels)
        assert outputs is not None
        return PreparedSample(
            item.targeted.raw,
            resolved.sample,
            segmenter,
            units,
            labels,
            targets,
            targets.select(outputs)[0],
            resolved.unperturbed,
            setup.seed,
            setup.batch_size,
            device=wrapper.engine.device,
            shared=shared,
            probabilities=wrapper.targets.probabilities(resolved.targets, outputs),
        )


def check_on_error(on_error: str) -> None:
    """Check the option `on_error`.

    Raises:
        OptionError: if it is neither "raise" nor "record".
    """
    if on_error not in ("raise", "record"):
        raise OptionError(f"on_error={on_error!r} must be 'raise' or 'record'.")


def _take(items: Iterator[TargetedSample], size: int) -> tuple[list[TargetedSample], Exception | bool | None]:
    """The next items, and why there are no more: True at the end, or the error that the iterator raised."""
    found: list[TargetedSample] = []
    try:
        while len(found) < size:
            found.append(next(items))
    except StopIteration:
        return found, True
    except Exception as error:
        # The samples before it are explained first.
        return found, error
    return found, None


def check_single_sample(option: str, n_samples: int) -> None:
    """Refuse several samples if an option holds an array that belongs to one.

    Args:
        option: The option; empty if there is none.
        n_samples: Number of samples.

    Raises:
        OptionError: if there are several samples and such an option.
    """
    if option and n_samples > 1:
        raise OptionError(
            f"{option}= is an array, which belongs to one image, and there are several: pass a method or a function of "
            "the image, or explain them one by one."
        )


def _progress(show: bool | None) -> tqdm:
    """A bar over evaluations; by default only on a terminal or in a notebook."""
    return tqdm(unit="row", desc="explaining", delay=1.0, leave=False, disable=None if show is None else not show)
