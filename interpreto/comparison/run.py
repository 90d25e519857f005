"""A comparison as it runs: some samples at a time, every method and metric on them, kept as they come."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from interpreto.attributions import granularity, provenance
from interpreto.attributions.granularity import Grid, Patches, Pixels
from interpreto.attributions.methods import RandomScores
from interpreto.attributions.pipeline import check_on_error, check_single_sample
from interpreto.attributions.result import AttributionOutput
from interpreto.comparison import candidates
from interpreto.comparison.candidates import MethodEntry, MetricEntry
from interpreto.comparison.comparison import Comparison
from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.fingerprint import digest
from interpreto.comparison.records import Record
from interpreto.comparison.run_store import RunStore
from interpreto.comparison.sample_batch import SampleBatch
from interpreto.errors import InputError, SavedFileError
from interpreto.model_wrapping.wrapper import TargetedSample
from interpreto.option_kinds import checks_options
from interpreto.typing import OnError


@checks_options
def compare(
    model: Any,
    processor: Any,
    inputs: Any,
    methods: Any = "all",
    metrics: Any = None,
    targets: Any = None,
    masks: Any = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    *,
    on_error: OnError = "record",
    removals: Any = (),
    corpus: Any = None,
    folder: str | Path | None = None,
    show_progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Compare methods on a model and on data: what each of them scores by each metric, how sure that is, what it costs.

    Honest baselines, which do not ask the model, are always compared too: random scores, the position alone, the norm
    of the input where the model has gradients, a Gaussian in the centre of images, the rarity of tokens where a corpus
    of texts is given. A method that fails on a sample is reported and the rest goes on. All methods explain the same
    targets in the same units, unless a partial sets its own.

    Args:
        model: The model, or a wrapped one.
        processor: Its processor or tokenizer; None for a wrapped model.
        inputs: The samples, as methods take them.
        methods: Names, classes or `functools.partial` of classes; a mapping gives them names of your own. "all" is
            every method.
        metrics: The same for metrics; "all" is every metric. None: Deletion, Insertion, MuFidelity, Completeness and
            Entropy, and with masks PointingGame, RelevanceMass and RelevanceRank.
        targets: What is explained, as methods take it; None is the predicted class or the model's own generation.
        masks: What is known to decide, one per sample, as `PointingGame` takes it.
        n_bootstrap: Resamples of the intervals.
        seed: Where the randomness of methods, metrics and intervals starts.
        on_error: "record" reports what fails and goes on; "raise" ends with the first error, whose attribute `outputs`
            has the results that were finished before it.
        removals: Removal operators, one or several. Metrics that hide units run once for each; `Comparison.conclusions`
            says how much they agree.
        corpus: Texts in which the frequency of tokens is counted.
        folder: Where to keep what is found as it comes. A run that was killed goes on where it stopped if it is called
            again with the same arguments, and ends with the same numbers; with more samples it goes on from those it
            has. What failed is tried again. Another process that wants the same folder meanwhile is refused; with
            other versions of the packages there is a warning, and both are recorded.
        show_progress: False for no progress bar.
        options: Options of every method, such as granularity, inference_mode, batch_size, removal, device.

    Raises:
        InputError: if there are no samples, or not one mask per sample.
        OptionError: if a name or option does not exist.
        SavedFileError: if the folder holds another run or is damaged.
    """
    check_on_error(on_error)
    if folder is not None:
        # Before any model is looked at.
        RunStore(Path(folder)).check()
    run = _Run.create(
        model, processor, inputs, methods, metrics, targets, masks, removals, corpus, seed, on_error, options
    )
    if folder is None:
        found = run.all(None, n_bootstrap, show_progress)
    else:
        place = RunStore(Path(folder))
        with place.locked():
            found = run.all(place, n_bootstrap, show_progress)
    for candidate in run.methods:
        # The decorator that checks options stands between this function and the caller.
        candidate.warn((found.records[candidate.name, number] for number in range(len(run.items))), stacklevel=3)
    return found


@dataclass(frozen=True, eq=False)
class _Run:
    """All that is asked, settled."""

    resolver: RandomScores
    methods: list[MethodEntry]
    metrics: list[MetricEntry]
    items: list[TargetedSample]
    masks: list[Any] | None
    seed: int
    on_error: OnError
    size: int

    @staticmethod
    def create(
        model: Any,
        processor: Any,
        inputs: Any,
        methods: Any,
        metrics: Any,
        targets: Any,
        masks: Any,
        removals: Any,
        corpus: Any,
        seed: int,
        on_error: OnError,
        options: Mapping[str, Any],
    ) -> "_Run":
        shared: dict[str, Any] = {**options, "seed": seed, "show_progress": False}
        wrapper = RandomScores(model, processor, **shared).setup.wrapper
        # The copy of its tokenizer serves all methods.
        processor = None if processor is None else wrapper.processor
        if not {"granularity", "patch_size", "segments"} & set(options):
            shared["granularity"] = granularity.DefaultGranularity(wrapper.modality)
        settler = RandomScores(model, processor, **shared)
        targets = list(targets) if isinstance(targets, Iterator) else targets
        inputs = list(inputs) if isinstance(inputs, Iterator) else inputs
        items = wrapper.read(inputs, targets, keep_errors=True)
        masks = _listed(masks, wrapper.inputs.is_single(inputs))
        if masks is not None and len(masks) != len(items):
            raise InputError(f"There are {len(masks)} masks for {len(items)} samples: pass one per sample.")
        # Metrics find the units in the outputs, since methods may have units of their own.
        cut = {"patch_size"} if _of_the_user(shared.get("granularity")) else {"patch_size", "granularity"}
        measuring = {name: value for name, value in shared.items() if name not in cut}
        entered = candidates.methods(methods, wrapper, model, processor, shared, corpus)
        for explainer in (one.explainer for one in entered if one.explainer is not None):
            # Samples are explained in portions, which may be of one.
            check_single_sample(explainer.plan.needs.single_sample_option, len(items))
        return _Run(
            settler,
            entered,
            candidates.metrics(metrics, masks is not None, model, processor, measuring, candidates.operators(removals)),
            items,
            masks,
            seed,
            on_error,
            # Results are kept this many samples at a time: enough to fill batches, few enough to lose little.
            max(1, settler.setup.batch_size // 4),
        )

    def all(self, folder: RunStore | None, n_bootstrap: int, show_progress: bool | None) -> Comparison:
        records: dict[tuple[str, int], Record] = {}
        try:
            return self._all(records, folder, n_bootstrap, show_progress)
        except BaseException as error:
            error.outputs = [record.output for record in records.values() if record.output]  # type: ignore[attr-defined]
            raise

    def _all(
        self,
        records: dict[tuple[str, int], Record],
        folder: RunStore | None,
        n_bootstrap: int,
        show_progress: bool | None,
    ) -> Comparison:
        asked, known, stored = self._resumed(folder, self._asked(n_bootstrap))
        samples: list[AttributionOutput | None] = [None] * len(self.items)
        total = len(self.methods) * len(self.items)
        with tqdm(
            total=total,
            unit="map",
            desc="comparing",
            smoothing=0,
            delay=1.0,
            leave=False,
            disable=None if show_progress is None else not show_progress,
        ) as bar:
            for numbers in _batches(len(self.items), self.size):
                chunk = SampleBatch.create(numbers, self.items, self.resolver, self.on_error)
                for number in numbers:
                    if (sample := chunk.resolved.get(number)) is not None:
                        self._kept(folder, number, sample, stored)
                    # What cannot be read any more may have been read before.
                    samples[number] = stored.get(number) if sample is None else replace(sample, request=None)
                for candidate in self.methods:
                    bar.set_postfix_str(candidate.name)
                    found: list[Record] = [known[key] for n in numbers if (key := (candidate.name, n)) in known]
                    if len(found) < len(numbers):
                        found = chunk.records(candidate, self.metrics, self.masks)
                        # What was found before does not go because it cannot be found again.
                        found = [known.get((r.method, r.sample), r) if r.error else r for r in found]
                        if folder is not None:
                            folder.append(found, samples)
                    records.update({(record.method, record.sample): record for record in found})
                    bar.update(len(numbers))
        if not any(record.output is not None for record in records.values()):
            raise InputError(f"No method worked on any sample: {next(iter(records.values())).error}")
        comparison = Comparison(asked, samples, records)
        if folder is not None:
            comparison.write_views(folder.path)
        return comparison

    def _asked(self, n_bootstrap: int) -> ComparisonConfig:
        return ComparisonConfig(
            model=self.resolver.setup.wrapper.engine.provenance(),
            methods={candidate.name: candidate.described() for candidate in self.methods},
            metrics={metric_entry.name: metric_entry.described() for metric_entry in self.metrics},
            masks=None if self.masks is None else [digest(mask) for mask in self.masks],
            count=len(self.items),
            seed=self.seed,
            n_bootstrap=n_bootstrap,
            versions=provenance.versions(),
        )

    def _resumed(
        self, folder: RunStore | None, asked: ComparisonConfig
    ) -> tuple[ComparisonConfig, dict[tuple[str, int], Record], dict[int, AttributionOutput]]:
        """What is asked as the folder has it, and what that knows already."""
        if folder is None:
            return asked, {}, {}
        stored = {}
        records: list[Record] = []
        if folder.begun:
            earlier = folder.asked()
            asked.check_same(earlier, str(folder.path))
            asked = asked.resumed_from(earlier, str(folder.path))
            stored, records = folder.read(asked)
        folder.begin(asked)
        # What failed is tried again: it may have been for want of memory.
        return asked, {(r.method, r.sample): r for r in records if not r.error and not r.metric_errors}, stored

    def _kept(
        self, folder: RunStore | None, number: int, sample: AttributionOutput, stored: dict[int, AttributionOutput]
    ) -> None:
        """See that a sample is in the folder, and is the same."""
        if folder is None:
            return
        if number not in stored:
            folder.put_sample(number, sample)
        elif not _same(sample, stored[number]):
            raise SavedFileError(
                f"Sample {number} of the comparison in {str(folder.path)!r} is not the one that was given, or the "
                "model scores it differently now: give a new folder."
            )


def _batches(count: int, size: int) -> Iterator[list[int]]:
    for begin in range(0, count, size):
        yield list(range(begin, min(begin + size, count)))


def _of_the_user(chosen: Any) -> bool:
    """Whether a granularity is an object that cannot be told from the outputs."""
    return not isinstance(chosen, str | granularity.DefaultGranularity | Grid | Patches | Pixels | None)


def _listed(masks: Any, alone: bool) -> list[Any] | None:
    """One mask per sample; that of a lone sample may be given alone or in a list.

    Raises:
        InputError: if one is a text instead of words.
    """
    if masks is None:
        return None
    in_list = isinstance(masks, list) and len(masks) == 1 and not isinstance(masks[0], str | bool)
    found = [masks] if alone and not in_list else list(masks)
    for mask in found:
        if isinstance(mask, str):
            raise InputError(f"The mask {mask!r} is a text; the mask of a text is a list of its decisive words.")
    return found


def _same(sample: AttributionOutput, stored: AttributionOutput) -> bool:
    """Whether two are the same sample, with the same targets and scores."""
    mine, theirs = sample.raw_input, stored.raw_input
    text = isinstance(mine, str | tuple)
    alike = mine == theirs if text else np.array_equal(np.asarray(mine), np.asarray(theirs))
    largest = max(1.0, float(stored.scores.abs().max()))
    return bool(
        alike
        and sample.target_names == stored.target_names
        and sample.attributions.shape == stored.attributions.shape
        and torch.allclose(sample.scores, stored.scores, rtol=1e-3, atol=1e-4 * largest)
    )
