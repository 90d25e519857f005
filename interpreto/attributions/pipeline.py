"""The steps that all methods and metrics share: read samples, segment them into units, resolve targets, run plans."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from tqdm.auto import tqdm

from interpreto.attributions import granularity
from interpreto.attributions.assembly import Setup
from interpreto.attributions.granularity import DefaultGranularity, UnitSegmenter
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.plans.base import Evaluation, PlanNeeds, PreparedSample
from interpreto.attributions.scheduler import join_two, run_plans
from interpreto.errors import CannotCopyError, OptionError
from interpreto.model_wrapping.execution.finite_checks import check_perturbed_scores
from interpreto.model_wrapping.messages import PlanRun, ResolvedSample
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import InferenceWrapper, TargetedSample
from interpreto.typing import OnError

Result = TypeVar("Result")

_WINDOW = 4
"""Number of batches whose samples are sorted by length together, so that batches need little padding."""


@dataclass(frozen=True, eq=False)
class Completed(Generic[Result]):
    """The result for one sample.

    Attributes:
        prepared: The sample.
        result: The return value of the job's plan.
        n_evaluations: Number of evaluations, including that of the unperturbed sample.
        seconds: The run time of the sample's window, divided by the number of samples.
        run_info: How the model was run, for the `info` of the result.
    """

    prepared: PreparedSample
    result: Result
    n_evaluations: int
    seconds: float
    run_info: dict[str, Any]


@dataclass(frozen=True, eq=False)
class FailedSample:
    """A sample that could not be explained, and why."""

    raw: Any
    error: Exception


@dataclass(frozen=True, eq=False)
class Job(Generic[Result]):
    """What the pipeline computes for each sample.

    Attributes:
        create_plan: Creates the plan of a sample, given its index and the sample.
        n_evaluations: Number of evaluations of a sample, for the progress bar.
        needs: What the plan requires of the pipeline.
        segmenter: From the number of a sample and the sample to its granularity, if the user does not choose one; None
            for `needs.granularity`.
        check: Validates a sample before the model runs.
    """

    create_plan: Callable[[int, PreparedSample], PlanRun[Result]]
    n_evaluations: Callable[[Layout], int]
    needs: PlanNeeds
    segmenter: Callable[[int, Sample], UnitSegmenter] | None = None
    check: Callable[[Sample, Layout], None] | None = None


@dataclass(frozen=True, eq=False)
class _Item:
    """A sample of a window with its number and its units; segmenter and units are None if `targeted.error` is set."""

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
    """Runs jobs on a wrapped model.

    Attributes:
        setup: The wrapped model and the shared options.
        on_error: "raise" raises the error of the first sample that fails, after the results of the samples before it
            (`run_all` raises errors that are known without the model at once); "record" yields a `FailedSample`
            instead and continues.
    """

    setup: Setup
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)

    @property
    def _records_errors(self) -> bool:
        return self.on_error == "record"

    def run_all(self, inputs: object, targets: object, job: Job[Result]) -> Iterator[Completed[Result] | FailedSample]:
        """Run a job on samples that are all available; invalid samples and targets are reported before the model runs.

        Raises:
            InputError: if a sample cannot be read.
            TargetError: if a target does not exist or the list of targets has the wrong length.
        """
        items = self.setup.wrapper.read(inputs, targets, self._records_errors)
        check_single_sample(job.needs.single_sample_option, len(items))
        yield from self._windows(items, len(items), job)

    def stream(self, inputs: object, targets: object, job: Job[Result]) -> Iterator[Completed[Result] | FailedSample]:
        """Run a job on samples of an iterator of any length; the model is in its original state between two results."""
        yield from self._windows(self.setup.wrapper.read_stream(inputs, targets, self._records_errors), None, job)

    def _windows(
        self, items: Iterable[TargetedSample], count: int | None, job: Job[Result]
    ) -> Iterator[Completed[Result] | FailedSample]:
        """Process one window of samples at a time; the model is leased only while a window is processed."""
        items = iter(items)
        size = self.setup.batch_size * (_WINDOW if self.setup.wrapper.inputs.ragged else 1)
        with _progress(self.setup.show_progress) as bar:
            n_completed, stop = 0, None
            while stop is None:
                window, stop = _take(items, size)
                check_single_sample(job.needs.single_sample_option, n_completed + len(window))
                items_read = self.setup.wrapper.prepare(window)
                segmented = [
                    self._segmented(n_completed + number, item, job, is_stream=count is None)
                    for number, item in enumerate(items_read)
                ]
                yield from self._raise_failures(self._outcomes(segmented, bar, (count or 0) - n_completed, job))
                n_completed += len(window)
        if isinstance(stop, Exception):
            raise stop

    def _segmented(self, number: int, targeted: TargetedSample, job: Job[Result], *, is_stream: bool) -> _Item:
        """Segment a sample into units, and check that the job supports it."""
        sample = targeted.sample
        if sample is None or targeted.error is not None:
            return _Item(number, targeted)
        try:
            segmenter = self._segmenter(number, sample, job)
            units = segmenter.units(sample)
            if job.check is not None:
                job.check(sample, Layout(units.shape, tuple(units.index.shape)))
        except Exception as error:
            if not (self._records_errors or is_stream):
                # Raised before the model runs on other samples of the window; a stream yields their results first.
                raise
            return _Item(number, replace(targeted, error=error))
        return _Item(number, targeted, segmenter, units)

    def _segmenter(self, number: int, sample: Sample, job: Job[Result]) -> UnitSegmenter:
        chosen, needs = self.setup.granularity, job.needs
        if isinstance(chosen, DefaultGranularity):
            return chosen.segmenter(sample)
        if chosen is not None:
            return chosen
        if job.segmenter is not None:
            return job.segmenter(number, sample)
        if needs.granularity is not None:
            return needs.granularity
        return granularity.default_segmenter(sample, self.setup.wrapper.modality, needs.cost_independent_of_units)

    def _raise_failures(
        self, outcomes: Iterable[Completed[Result] | FailedSample]
    ) -> Iterator[Completed[Result] | FailedSample]:
        """Yield the outcomes; raise the error of the first failure unless errors are recorded."""
        for outcome in outcomes:
            if isinstance(outcome, FailedSample) and not self._records_errors:
                raise outcome.error
            yield outcome

    def _outcomes(
        self, window: Sequence[_Item], bar: tqdm, n_remaining: int, job: Job[Result]
    ) -> Iterator[Completed[Result] | FailedSample]:
        """The outcomes of a window in order; if errors are raised, only up to the first failure."""
        failed = [index for index, item in enumerate(window) if item.targeted.error is not None]
        if failed and not self._records_errors:
            window = window[: failed[0] + 1]
        valid = [item for item in window if item.targeted.error is None]
        outcomes = iter(self._run_together(valid, bar, n_remaining, job))
        for item in window:
            error = item.targeted.error
            outcome = next(outcomes, None) if error is None else item.failed(error)
            if outcome is None:
                return
            yield outcome

    def _run_together(
        self, window: Sequence[_Item], bar: tqdm, n_remaining: int, job: Job[Result]
    ) -> list[Completed[Result] | FailedSample]:
        """Run samples together and, if that fails, one by one, to find which of them fails."""
        if not window:
            return []
        try:
            return list(self._run_window(window, bar, n_remaining, job))
        except Exception as error:
            if len(window) == 1:
                return [window[0].failed(error)]
        outcomes: list[Completed[Result] | FailedSample] = []
        for item in window:
            outcomes += self._run_together([item], bar, n_remaining, job)
            if isinstance(outcomes[-1], FailedSample) and not self._records_errors:
                break
        return outcomes

    def _run_window(
        self, window: Sequence[_Item], bar: tqdm, n_remaining: int, job: Job[Result]
    ) -> list[Completed[Result]]:
        """Run a window; a second time, on the user's model itself, if the model turns out not to support copies."""
        try:
            return self._run_leased(window, bar, n_remaining, job)
        except CannotCopyError:
            # The pool has recorded the failure: the second lease is of the user's model itself.
            return self._run_leased(window, bar, n_remaining, job)

    def _run_leased(
        self, window: Sequence[_Item], bar: tqdm, n_remaining: int, job: Job[Result]
    ) -> list[Completed[Result]]:
        begin = time.perf_counter()
        # Samples of similar length share batches with little padding.
        order = sorted(range(len(window)), key=lambda index: window[index].length)
        n_samples = max(n_remaining, len(window))
        setup = self.setup
        with setup.wrapper.lease(setup.seed) as lease:
            wrapper, shared = lease.wrapper, dict[Hashable, Any]()
            prefetch = wrapper.targets.prefetch([item.targeted.spec for item in window])
            run_plans([prefetch], lease.respond, setup.batch_size, bar.update)
            runs = (self._run(window[index], wrapper, shared, bar, n_samples, job) for index in order)
            results = run_plans(runs, lease.respond, setup.batch_size, bar.update, wrapper.engine.deduplicate)
            notes = lease.notes()
        seconds = (time.perf_counter() - begin) / len(window)
        completed = {
            index: Completed(*result, n_evaluations, seconds, notes)
            for index, (result, n_evaluations) in zip(order, results, strict=True)
        }
        return [completed[index] for index in range(len(window))]

    def _run(
        self,
        item: _Item,
        wrapper: InferenceWrapper,
        shared: dict[Hashable, object],
        bar: tqdm,
        n_samples: int,
        job: Job[Result],
    ) -> PlanRun[tuple[PreparedSample, Result]]:
        """Evaluate the unperturbed sample and run the plan: after it, or together with it if the plan allows this."""
        assert item.targeted.sample is not None
        sample, spec, needs = item.targeted.sample, item.targeted.spec, job.needs
        known = None if needs.scores_first else (yield from wrapper.targets.known_targets(spec))
        resolution = wrapper.targets.resolve(sample, spec, self.setup.seed, needs.capture)
        if known is None:
            resolved = yield from resolution
            prepared = self._prepared(item, wrapper, shared, resolved)
            _complete(prepared, wrapper, resolved)
        else:
            prepared = self._prepared(item, wrapper, shared, ResolvedSample(sample, known))
        n_evaluations = job.n_evaluations(prepared.layout)
        # `bar.n` may already include the evaluation of this unperturbed sample.
        bar.total = max(bar.total or 0, bar.n + n_evaluations, (1 + n_evaluations) * n_samples)
        plan = _checked(job.create_plan(item.number, prepared))
        if known is None:
            result = yield from plan
        else:
            _, result = yield from join_two(_evaluate(prepared, wrapper, resolution), plan)
        # Free this sample's key/value cache: others are still running.
        return replace(prepared, targets=prepared.targets.without_cache()), result

    def _prepared(
        self, item: _Item, wrapper: InferenceWrapper, shared: dict[Hashable, object], resolved: ResolvedSample
    ) -> PreparedSample:
        """The sample with its targets and its final units."""
        setup, units, segmenter = self.setup, item.units, item.segmenter
        assert units is not None
        assert segmenter is not None
        captured = None if resolved.unperturbed is None else resolved.unperturbed.captured
        if setup.granularity is None and captured is not None:
            segmenter = granularity.of_layer_map(segmenter, units, captured.shape[2:])
        if resolved.sample is not item.targeted.sample or segmenter is not item.segmenter:
            # Generation has appended the continuation, or the units are now the cells of the captured layer.
            units = segmenter.units(resolved.sample)
        labels = segmenter.labels(resolved.sample)
        targets, target_segmenter = resolved.targets, setup.target_segmenter
        if target_segmenter is not None and (prompt := resolved.sample.prompt) is not None:
            targets = targets.by_unit(target_segmenter.units(prompt).index, target_segmenter.labels(prompt))
        elif units.token_start is not None:
            # By default, generated tokens are grouped into targets as the prompt is into units.
            targets = targets.by_unit(units.index, labels)
        return PreparedSample(
            item.targeted.raw,
            resolved.sample,
            segmenter,
            units,
            labels,
            targets,
            Evaluation(),
            setup.seed,
            setup.batch_size,
            device=wrapper.engine.device,
            shared=shared,
            target_resolver=wrapper.targets,
            captured=None if captured is None else captured[0],
        )


def _evaluate(
    prepared: PreparedSample, wrapper: InferenceWrapper, resolution: PlanRun[ResolvedSample]
) -> PlanRun[None]:
    """Evaluate an unperturbed sample whose plan has already started."""
    resolved = yield from resolution
    _complete(prepared, wrapper, resolved)


def _checked(plan: PlanRun[Result]) -> PlanRun[Result]:
    """The same plan, stopped by an error if a score is NaN."""
    try:
        request = next(plan)
        while True:
            response = yield request
            check_perturbed_scores(request, response)
            request = plan.send(response)
    except StopIteration as stop:
        return stop.value


def _complete(prepared: PreparedSample, wrapper: InferenceWrapper, resolved: ResolvedSample) -> None:
    """Set the scores and probabilities of an unperturbed sample that has run."""
    assert resolved.unperturbed is not None
    outputs = resolved.unperturbed.outputs
    assert outputs is not None
    prepared.evaluation.scores = prepared.targets.select(outputs)[0]
    prepared.evaluation.probabilities = wrapper.targets.probabilities(resolved.targets, outputs)


def check_on_error(on_error: str) -> None:
    """Check the option `on_error`.

    Raises:
        OptionError: if it is neither "raise" nor "record".
    """
    if on_error not in ("raise", "record"):
        raise OptionError(f"on_error={on_error!r} must be 'raise' or 'record'.")


def _take(items: Iterator[TargetedSample], size: int) -> tuple[list[TargetedSample], Exception | bool | None]:
    """Take at most `size` items.

    Returns:
        The items, and None if there may be more, True if the iterator is exhausted, or the error that it raised.
    """
    window: list[TargetedSample] = []
    try:
        while len(window) < size:
            window.append(next(items))
    except StopIteration:
        return window, True
    except Exception as error:
        # Returned rather than raised, so that the samples before it are explained first.
        return window, error
    return window, None


def check_single_sample(option: str, n_samples: int) -> None:
    """Check that there is only one sample if an option is an array for a single image.

    Args:
        option: Name of the option; empty if there is none.
        n_samples: Number of samples.

    Raises:
        OptionError: if there are several samples.
    """
    if option and n_samples > 1:
        raise OptionError(
            f"{option}= is an array for one image, but there are several images: pass a method or a function of the "
            "image, or explain the images one by one."
        )


def _progress(show: bool | None) -> tqdm:
    """A progress bar that counts evaluations; by default only on a terminal or in a notebook."""
    return tqdm(
        unit="evaluation", desc="explaining", delay=1.0, leave=False, disable=None if show is None else not show
    )
