"""Runs a comparison: batches of samples, on each of which all methods and metrics run, saved as they are computed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from interpreto.errors import InputError, SavedFileError, attach_outputs
from interpreto.model_wrapping.wrapper import TargetedSample
from interpreto.option_kinds import checks_options
from interpreto.typing import OnError


@checks_options
def compare(
    model: object,
    processor: object,
    inputs: object,
    methods: object = "all",
    metrics: object = None,
    targets: object = None,
    masks: object = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    *,
    on_error: OnError = "record",
    removals: object = (),
    corpus: object = None,
    folder: str | Path | None = None,
    show_progress: bool | None = None,
    **options: object,
) -> Comparison:
    """Compare methods on a model and data: the values of metrics with confidence intervals, and the cost of methods.

    Controls, whose scores do not use the model's outputs, are always included: random scores, scores by position, the
    norm of the input if the model has gradients, a Gaussian at the centre of images, and the rarity of tokens if
    `corpus` is passed. A method that fails on a sample is reported, and the comparison continues. All methods explain
    the same targets with the same units, unless a partial sets its own.

    Args:
        model: The model, or a wrapped one.
        processor: Its processor or tokenizer; None for a wrapped model.
        inputs: The samples, as methods take them.
        methods: Names, classes or `functools.partial` of classes; a mapping sets their names in the comparison. "all"
            is every method.
        metrics: The same for metrics; "all" is every metric. None: Deletion, Insertion, MuFidelity, Completeness and
            Entropy, and with masks PointingGame, RelevanceMass and RelevanceRank.
        targets: The targets, as methods take them; None is the predicted class or the model's own generation.
        masks: One mask per sample of what is known to decide the target, as `PointingGame` takes it.
        n_bootstrap: Number of resamples for confidence intervals.
        seed: The random seed of methods, metrics and intervals.
        on_error: "record" reports failures and continues; "raise" ends with the first error, whose attribute `outputs`
            has the results that were finished before it.
        removals: One or several removal operators. Metrics that mask units run once for each;
            `Comparison.conclusions` says how much the operators agree.
        corpus: Texts in which the frequency of tokens is counted.
        folder: The folder in which results are saved as they are computed. An interrupted run resumes when `compare` is
            called again with the same arguments, and ends with the same numbers; with more samples, the new ones and
            the last incomplete batch are computed. What failed is tried again. If another process writes to the folder
            there is an error; if versions of packages differ there is a warning, and both are recorded.
        show_progress: False for no progress bar.
        options: Options of all methods, such as granularity, inference_mode, batch_size, removal, device.

    Raises:
        InputError: if there are no samples, or the number of masks is not that of the samples.
        OptionError: if a name or option is invalid.
        SavedFileError: if the folder contains a different run or is damaged.
    """
    check_on_error(on_error)
    if folder is not None:
        # Before the model is copied and run.
        RunStore(Path(folder)).check()
    run = _Run.create(
        model, processor, inputs, methods, metrics, targets, masks, removals, corpus, seed, on_error, options
    )
    if folder is None:
        comparison = run.all(None, n_bootstrap, show_progress)
    else:
        store = RunStore(Path(folder))
        with store.locked():
            comparison = run.all(store, n_bootstrap, show_progress)
    for candidate in run.methods:
        # The decorator that checks options is one more frame between this function and its caller.
        candidate.warn((comparison.records[candidate.name, number] for number in range(len(run.items))), stacklevel=3)
    return comparison


@dataclass(frozen=True, eq=False)
class _Run:
    """The checked arguments of a comparison.

    Attributes:
        resolver: A method that needs no evaluations, with the units and targets that all methods get.
        methods: The methods and controls.
        metrics: The metrics.
        items: The samples with their targets, as read.
        masks: One mask per sample; None without masks.
        seed: The random seed.
        on_error: What happens to errors.
        size: The number of samples in a batch.
    """

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
        model: object,
        processor: object,
        inputs: object,
        methods: object,
        metrics: object,
        targets: object,
        masks: object,
        removals: object,
        corpus: object,
        seed: int,
        on_error: OnError,
        options: Mapping[str, object],
    ) -> "_Run":
        shared: dict[str, Any] = {**options, "seed": seed, "show_progress": False}
        # Created once for its modality, without which the default granularity is unknown.
        wrapper = RandomScores(model, processor, **shared).setup.wrapper
        # All methods share one copy of the tokenizer.
        processor = None if processor is None else wrapper.processor
        # The default units of methods differ; in a comparison all methods get the same ones.
        if all(options.get(name) is None for name in ("granularity", "patch_size", "segments")):
            shared["granularity"] = granularity.DefaultGranularity(wrapper.modality)
        resolver = RandomScores(model, processor, **shared)
        targets = list(targets) if isinstance(targets, Iterator) else targets
        # An open file is an iterator over its lines, but also an image.
        is_iterator = isinstance(inputs, Iterator) and not wrapper.inputs.is_single(inputs)
        inputs = list(cast(Iterator[object], inputs)) if is_iterator else inputs
        items = wrapper.read(inputs, targets, keep_errors=True)
        masks = _list_masks(masks, wrapper.inputs.is_single(inputs))
        if masks is not None and len(masks) != len(items):
            raise InputError(f"There are {len(masks)} masks for {len(items)} samples: pass one per sample.")
        # Metrics read the units from the outputs, because a method may have units of its own. Only those of a custom
        # granularity cannot be read from there.
        unit_options = (
            {"patch_size"} if _is_custom_granularity(shared.get("granularity")) else {"patch_size", "granularity"}
        )
        metric_options = {name: value for name, value in shared.items() if name not in unit_options}
        entries = candidates.methods(methods, wrapper, model, processor, shared, corpus, on_error)
        for explainer in (entry.explainer for entry in entries if entry.explainer is not None):
            # Methods get samples in batches, which may have one sample, and could not check this themselves.
            check_single_sample(explainer.plan.needs.single_sample_option, len(items))
        return _Run(
            resolver,
            entries,
            candidates.metrics(
                metrics, masks is not None, model, processor, metric_options, candidates.operators(removals)
            ),
            items,
            masks,
            seed,
            on_error,
            # Results are saved after this many samples, so that an interruption loses few of them.
            max(1, resolver.setup.batch_size // 4),
        )

    def all(self, folder: RunStore | None, n_bootstrap: int, show_progress: bool | None) -> Comparison:
        records: dict[tuple[str, int], Record] = {}
        try:
            return self._run_all(records, folder, n_bootstrap, show_progress)
        except BaseException as error:
            # Results up to an error or an interrupt are not lost, as with `explain`.
            attach_outputs(error, [record.output for record in records.values() if record.output])
            raise

    def _run_all(
        self,
        records: dict[tuple[str, int], Record],
        folder: RunStore | None,
        n_bootstrap: int,
        show_progress: bool | None,
    ) -> Comparison:
        config, finished, stored = self._resume(folder, self._config(n_bootstrap))
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
                batch = SampleBatch.create(numbers, self.items, self.resolver, self.on_error)
                for number in numbers:
                    if (sample := batch.resolved.get(number)) is not None:
                        self._store_sample(folder, number, sample, stored)
                    # A sample that cannot be read now, such as a file that is gone, may be stored. Requests would keep
                    # the prepared samples of the whole comparison in memory.
                    samples[number] = stored.get(number) if sample is None else replace(sample, request=None)
                for candidate in self.methods:
                    bar.set_postfix_str(candidate.name)
                    results: list[Record] = [finished[key] for n in numbers if (key := (candidate.name, n)) in finished]
                    if len(results) < len(numbers):
                        # The whole batch runs again, so that each sample has the same neighbours as without a stop.
                        results = batch.records(candidate, self.metrics, self.masks)
                        # An earlier result is not replaced by an error of the method or of a metric.
                        results = [
                            finished.get((r.method, r.sample), r) if r.error or r.metric_errors else r for r in results
                        ]
                        if folder is not None:
                            folder.append(results, samples)
                    records.update({(record.method, record.sample): record for record in results})
                    bar.update(len(numbers))
        if not any(record.output is not None for record in records.values()):
            raise InputError(f"No method worked on any sample: {next(iter(records.values())).error}")
        comparison = Comparison(config, samples, records)
        if folder is not None:
            comparison.write_views(folder.path)
        return comparison

    def _config(self, n_bootstrap: int) -> ComparisonConfig:
        return ComparisonConfig(
            model=self.resolver.setup.wrapper.engine.provenance(),
            methods={candidate.name: candidate.to_json() for candidate in self.methods},
            metrics={metric_entry.name: metric_entry.to_json() for metric_entry in self.metrics},
            masks=None if self.masks is None else [digest(mask) for mask in self.masks],
            count=len(self.items),
            seed=self.seed,
            n_bootstrap=n_bootstrap,
            versions=provenance.versions(),
        )

    def _resume(
        self, folder: RunStore | None, config: ComparisonConfig
    ) -> tuple[ComparisonConfig, dict[tuple[str, int], Record], dict[int, AttributionOutput]]:
        """Start or resume a run in the folder.

        Returns:
            The configuration with the versions of earlier parts, finished records, and stored samples.
        """
        if folder is None:
            return config, {}, {}
        stored = {}
        records: list[Record] = []
        if folder.begun:
            earlier = folder.config()
            config.check_same(earlier, str(folder.path))
            config = config.resumed_from(earlier, str(folder.path))
            stored, records = folder.read(config)
        folder.begin(config)
        # Failures are tried again: memory may have been short.
        return config, {(r.method, r.sample): r for r in records if not r.error and not r.metric_errors}, stored

    def _store_sample(
        self, folder: RunStore | None, number: int, sample: AttributionOutput, stored: dict[int, AttributionOutput]
    ) -> None:
        """Write a sample to the folder, or check that the one in the folder is the same."""
        if folder is None:
            return
        if number not in stored:
            folder.put_sample(number, sample)
        elif not _same(sample, stored[number]):
            raise SavedFileError(
                f"Sample {number} of the comparison in {str(folder.path)!r} is not the one that was passed, or the "
                "model scores it differently now: pass a new folder."
            )


def _batches(count: int, size: int) -> Iterator[list[int]]:
    for begin in range(0, count, size):
        yield list(range(begin, min(begin + size, count)))


def _is_custom_granularity(chosen: object) -> bool:
    """Whether a granularity is an object of the user, which cannot be restored from the outputs."""
    return not isinstance(chosen, str | granularity.DefaultGranularity | Grid | Patches | Pixels | None)


def _list_masks(masks: Any, alone: bool) -> list[Any] | None:
    """One mask per sample. If the input is a single sample, its mask may be in a list or not.

    Raises:
        InputError: if a mask is a text instead of a list of words.
    """
    if masks is None:
        return None
    # ["word"] and [True] are masks themselves: words of a text, or one flag per unit.
    in_list = isinstance(masks, list) and len(masks) == 1 and not isinstance(masks[0], str | bool)
    listed = [masks] if alone and not in_list else list(masks)
    for mask in listed:
        if isinstance(mask, str):
            raise InputError(f"The mask {mask!r} is a text; the mask of a text is a list of its decisive words.")
    return listed


def _same(sample: AttributionOutput, stored: AttributionOutput) -> bool:
    """Whether two results are of the same sample, with the same targets and scores."""
    mine, theirs = sample.raw_input, stored.raw_input
    is_text = isinstance(mine, str | tuple)
    is_same_input = mine == theirs if is_text else np.array_equal(np.asarray(mine), np.asarray(theirs))
    # Scores differ by rounding if the batch size differs.
    largest = max(1.0, float(stored.scores.abs().max()))
    return bool(
        is_same_input
        and sample.target_names == stored.target_names
        and sample.attributions.shape == stored.attributions.shape
        and torch.allclose(sample.scores, stored.scores, rtol=1e-3, atol=1e-4 * largest)
    )
