"""The pipeline without a method: samples are prepared, cut into units, settled, and worked on side by side."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from tqdm.auto import tqdm

from interpreto.attributions import granularity
from interpreto.attributions.assembly import Setup
from interpreto.attributions.granularity import DefaultGranularity, UnitSegmenter
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.plans.base import PreparedSample
from interpreto.attributions.scheduler import run_plans
from interpreto.errors import InputError, InterpretoError, OptionError, TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.working_copy import CannotCopyError
from interpreto.model_wrapping.messages import NamedTargets, PlanRun
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import per_sample
from interpreto.model_wrapping.wrapper import InferenceWrapper, check_not_a_table
from interpreto.typing import BYTES

Found = TypeVar("Found")
Item = TypeVar("Item")

_WINDOW = 4
"""How many batches' worth of samples are looked at together to run those of like length side by side."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A sample whose units and targets are settled.

    Attributes:
        prepared: What there is to work on.
        granularity: What cut it into units.
        labels: What a person sees of the units.
    """

    prepared: PreparedSample
    granularity: UnitSegmenter
    labels: Any

    @property
    def targets(self) -> NamedTargets:
        """What is asked about."""
        return self.prepared.targets


@dataclass(frozen=True, eq=False)
class Completed(Generic[Found]):
    """What came of one sample, the rows that it took, its share of the seconds, and notes on how the model was run."""

    opened: Opened
    result: Found
    n_evaluations: int
    seconds: float
    notes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Job(Generic[Found]):
    """What is done to each sample.

    Attributes:
        plan: The conversation about the sample of this number.
        n_evaluations: How many rows it will take, for the progress bar.
        cost_independent_of_units: Whether every unit comes for free, as it does with gradients, or costs a row.
        default_granularity: What cuts the sample of this number into units, where the user said nothing of granularity.
        capture: What the run of the unchanged sample is watched for.
        check: Refuses a sample before the model runs.
        single_sample_option: Which option holds what belongs to one sample; empty where none does.
    """

    plan: Callable[[int, Opened], PlanRun[Found]]
    n_evaluations: Callable[[Layout], int]
    cost_independent_of_units: bool
    default_granularity: Callable[[int, Sample], UnitSegmenter] | None = None
    capture: CaptureRequest | None = None
    check: Callable[[Sample, Layout], None] | None = None
    single_sample_option: str = ""


@dataclass(frozen=True, eq=False)
class FailedSample:
    """A sample that could not be explained, and why."""

    raw: Any
    error: Exception


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A wrapped model and the shared options, ready for any work.

    Attributes:
        setup: The wrapped model and the shared options.
        on_error: "raise" ends with the error of the first sample that cannot be explained, after those before it;
            "record" yields a `Failed` in its place and goes on.

    Raises:
        OptionError: if `on_error` is neither.
    """

    setup: Setup
    on_error: str = "raise"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)

    def all(self, inputs: Any, targets: Any, work: Job[Found]) -> Iterator[Completed[Found] | FailedSample]:
        """Work through samples that are all at hand: bad ones are told of before any is worked on.

        A list may hold samples that are prepared already, for those who work on the same ones again and again.

        Raises:
            InputError: if a sample cannot be read.
            TargetError: if a target does not exist or the list of targets has the wrong length.
        """
        wrapper = self.setup.wrapper
        check_not_a_table(inputs)
        ready = isinstance(inputs, list) and all(isinstance(one, Sample) for one in inputs)
        alone = not ready and wrapper.is_one(inputs)
        raws = list(inputs) if ready else list(self._raised(self._split(inputs)))
        if not raws:
            raise InputError("The list of inputs is empty: there is nothing to explain.")
        check_single_sample(work.single_sample_option, len(raws))
        given = wrapper.normalize_targets(targets, len(raws))
        specs = per_sample(given, len(raws), alone)
        own = isinstance(given, list)
        raws = [self._checked(raw, spec, None, own) for raw, spec in zip(raws, specs, strict=True)]
        if wrapper.ragged:
            # Texts are tokenised before any is explained, so that what cannot be read is told at once; images are
            # large and prepared as their turn comes.
            raws = list(self._raised(self._prepared(raws)))
            raws = [self._checked(raw, spec, raw, own) for raw, spec in zip(raws, specs, strict=True)]
        yield from self._windows(zip(raws, specs, strict=True), len(raws), work)

    def stream(self, inputs: Any, targets: Any, work: Job[Found]) -> Iterator[Completed[Found] | FailedSample]:
        """Work through samples from an iterator of any length; between two of them the model is as it was."""
        wrapper = self.setup.wrapper
        check_not_a_table(inputs)
        if wrapper.is_one(inputs):
            yield from self.all(inputs, targets, work)
            return
        raws = self._split(inputs)
        specs = wrapper.normalize_targets(targets)
        several = specs if isinstance(specs, list) else [specs]
        for spec in several:
            wrapper.check_target(per_sample([spec], 1, False)[0])
        pairs = _alongside(raws, several) if specs is several else ((raw, specs) for raw in raws)
        yield from self._windows(pairs, None, work)

    def _split(self, inputs: Any) -> Iterator[Any]:
        """The samples one by one; what is none is a `Failed`."""
        wrapper = self.setup.wrapper
        whole = isinstance(inputs, Mapping | tuple | BYTES)
        if wrapper.is_one(inputs) or whole or not isinstance(inputs, Iterable):
            yield from wrapper.split(inputs)
            return
        for item in inputs:
            try:
                yield from list(wrapper.split([item]))
            except InterpretoError as error:
                yield FailedSample(item, error)

    def _checked(self, raw: Any, spec: Any, sample: Any, own: bool) -> Any:
        """A sample whose target exists; a target of its own that does not is a failure of the sample."""
        if isinstance(raw, FailedSample):
            return raw
        try:
            self.setup.wrapper.check_target(spec, sample)
        except TargetError as error:
            if self.on_error == "raise" or not own:
                raise
            return FailedSample(raw, error)
        return raw

    def _prepared(self, raws: Sequence[Any]) -> list[Sample | FailedSample]:
        """Samples that are ready for the model, and those that could not be read."""
        known = (Sample, FailedSample)
        fresh = [number for number, raw in enumerate(raws) if not isinstance(raw, known)]
        found: list[Any] = list(raws)
        for number, sample in zip(fresh, self._prepared_all([raws[number] for number in fresh]), strict=True):
            found[number] = sample
        return found

    def _prepared_all(self, raws: Sequence[Any]) -> list[Sample | FailedSample]:
        if not raws:
            return []
        try:
            # Tensors made inside a caller's inference mode could not be used where gradients are taken.
            with torch.inference_mode(False):
                return list(self.setup.wrapper.prepare_all(raws))
        except Exception as error:
            if len(raws) == 1:
                return [FailedSample(raws[0], error)]
        return [sample for raw in raws for sample in self._prepared_all([raw])]

    def _windows(
        self, pairs: Iterable[tuple[Any, Any]], count: int | None, work: Job[Found]
    ) -> Iterator[Completed[Found] | FailedSample]:
        """Some samples at a time; the model is held only while a window is worked on."""
        pairs = iter(pairs)
        size = self.setup.batch_size * (_WINDOW if self.setup.wrapper.ragged else 1)
        with _progress(self.setup.show_progress) as bar:
            done, stop = 0, None
            while stop is None:
                window, stop = _take(pairs, size)
                samples = self._prepared([raw for raw, _ in window])
                check_single_sample(work.single_sample_option, done + len(window))
                numbers = range(done, done + len(window))
                samples = [self._check_sample(*pair, work) for pair in zip(numbers, samples, strict=True)]
                ready = list(zip(numbers, samples, [spec for _, spec in window], strict=True))
                yield from self._raised(self._outcomes(ready, bar, (count or 0) - done, work))
                done += len(window)
        if isinstance(stop, Exception):
            raise stop

    def _check_sample(self, number: int, sample: Sample | FailedSample, work: Job[Found]) -> Sample | FailedSample:
        """A sample that this work can be done to."""
        if work.check is None or isinstance(sample, FailedSample):
            return sample
        try:
            units = self._granularity(number, sample, work).units(sample)
            work.check(sample, Layout(units.shape, tuple(units.index.shape)))
        except Exception as error:
            if self.on_error == "raise":
                # An option that does not go with a sample is told before the model runs.
                raise
            return FailedSample(sample, error)
        return sample

    def _raised(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, up to the first failure if that is to be raised."""
        for item in items:
            if isinstance(item, FailedSample) and self.on_error == "raise":
                raise item.error
            yield item

    def _outcomes(
        self, window: list[tuple[int, Sample | FailedSample, Any]], bar: tqdm, left: int, work: Job[Found]
    ) -> Iterator[Completed[Found] | FailedSample]:
        """What comes of a window, in order; where errors are raised, up to the first of them."""
        failed = [place for place, (_, sample, _) in enumerate(window) if isinstance(sample, FailedSample)]
        if failed and self.on_error == "raise":
            window = window[: failed[0] + 1]
        ready = [item for item in window if not isinstance(item[1], FailedSample)]
        found = iter(self._run_together(ready, bar, left, work))
        for _, sample, _ in window:
            outcome = sample if isinstance(sample, FailedSample) else next(found, None)
            if outcome is None:
                return
            yield outcome

    def _run_together(
        self, window: list[tuple[int, Any, Any]], bar: tqdm, left: int, work: Job[Found]
    ) -> list[Completed[Found] | FailedSample]:
        """Samples worked on together and, where that fails, each alone, to tell whose failure it is."""
        if not window:
            return []
        try:
            return list(self._window_or_own_model(window, bar, left, work))
        except Exception as error:
            if len(window) == 1:
                return [FailedSample(window[0][1], error)]
        found: list[Completed[Found] | FailedSample] = []
        for item in window:
            found += self._run_together([item], bar, left, work)
            if isinstance(found[-1], FailedSample) and self.on_error == "raise":
                break
        return found

    def _granularity(self, number: int, sample: Sample, work: Job[Found]) -> UnitSegmenter:
        given = self.setup.granularity
        if given is None:
            modality = self.setup.wrapper.modality
            return (
                granularity.default_segmenter(sample, modality, work.cost_independent_of_units)
                if work.default_granularity is None
                else work.default_granularity(number, sample)
            )
        return given.segmenter(sample) if isinstance(given, DefaultGranularity) else given

    def _window_or_own_model(
        self, window: list[tuple[int, Sample, Any]], bar: tqdm, left: int, work: Job[Found]
    ) -> list[Completed[Found]]:
        """A window, on the user's own model once it has turned out that no copy of it can be used."""
        try:
            return self._window(window, bar, left, work)
        except CannotCopyError:
            return self._window(window, bar, left, work)

    def _window(
        self, window: list[tuple[int, Sample, Any]], bar: tqdm, left: int, work: Job[Found]
    ) -> list[Completed[Found]]:
        begin = time.perf_counter()
        # Neighbours of like length share batches with little padding.
        places = sorted(range(len(window)), key=lambda place: window[place][1].rows.length)
        several = max(left, len(window))
        with self.setup.wrapper.lease(self.setup.seed) as lease:
            shared: dict[Hashable, Any] = {}
            plans = (self._plan(*window[place], lease.wrapper, shared, bar, several, work) for place in places)
            found = run_plans(plans, lease.respond, self.setup.batch_size, bar.update, lease.wrapper.deduplicate)
            notes = lease.notes()
        seconds = (time.perf_counter() - begin) / len(window)
        done = {
            place: Completed(*pair, rows, seconds, notes) for place, (pair, rows) in zip(places, found, strict=True)
        }
        return [done[place] for place in range(len(window))]

    def _plan(
        self,
        number: int,
        sample: Sample,
        spec: Any,
        wrapper: InferenceWrapper,
        shared: dict[Hashable, Any],
        bar: tqdm,
        samples: int,
        work: Job[Found],
    ) -> PlanRun[tuple[Opened, Found]]:
        setup = self.setup
        chosen = self._granularity(number, sample, work)
        # Before the model runs, so that what cannot be cut into units is told at once.
        units = chosen.units(sample)
        resolved = yield from wrapper.resolve_targets(sample, spec, setup.seed, work.capture)
        if setup.granularity is None and resolved.captured is not None:
            chosen = granularity.of_layer_map(chosen, units, resolved.captured.shape[1:])
        if resolved.sample is not sample or resolved.captured is not None:
            units = chosen.units(resolved.sample)
        labels = chosen.labels(resolved.sample)
        targets = resolved.targets.by_unit(units.index, labels)
        scores = targets.select(resolved.outputs)[0]
        prepared = PreparedSample(
            resolved.sample,
            units,
            targets,
            scores,
            setup.seed,
            setup.batch_size,
            1,
            resolved.captured,
            wrapper.device,
            shared,
            wrapper.probabilities(resolved.targets, resolved.outputs),
        )
        rows = work.n_evaluations(prepared.layout)
        # The row of the unchanged sample has run and is counted already.
        bar.total = max(bar.total or 0, bar.n + rows, (1 + rows) * samples)
        opened = Opened(prepared, chosen, labels)
        found = yield from work.plan(number, opened)
        # Others run on; what the model remembers of this sample would take their memory.
        return replace(opened, prepared=replace(prepared, targets=targets.without_cache())), found


def check_on_error(on_error: str) -> None:
    """Refuse what is not a way to go on after an error.

    Raises:
        OptionError: if it is neither "raise" nor "record".
    """
    if on_error not in ("raise", "record"):
        raise OptionError(f"on_error={on_error!r} must be 'raise' or 'record'.")


def _take(pairs: Iterator[Any], size: int) -> tuple[list[Any], Exception | bool | None]:
    """The next items, and why there are no more: True at the end, or the error of whoever gives them."""
    found: list[Any] = []
    try:
        while len(found) < size:
            found.append(next(pairs))
    except StopIteration:
        return found, True
    except Exception as error:
        # What came before it is worked on first.
        return found, error
    return found, None


def check_single_sample(option: str, samples: int) -> None:
    """Refuse several samples where an option holds what belongs to one.

    Args:
        option: The option; empty where there is none such.
        samples: How many samples there are.

    Raises:
        OptionError: if it is so.
    """
    if option and samples > 1:
        raise OptionError(
            f"{option}= is an array, which belongs to one image, and there are several: give a method or a "
            "function of the image, or explain them one by one."
        )


def _alongside(samples: Iterable[Any], targets: list[Any]) -> Iterator[tuple[Any, Any]]:
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
