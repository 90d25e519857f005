"""A batch of samples of a comparison: resolved once, explained by every method and measured by every metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.metric_result import MetricResult, Needs
from interpreto.attributions.metrics.replay import inputs_and_targets
from interpreto.attributions.result import AttributionOutput
from interpreto.comparison.candidates import MethodEntry, MetricEntry
from interpreto.comparison.peak_memory import watched
from interpreto.comparison.records import Record, each, error_line
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import TargetedSample
from interpreto.typing import OnError


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Samples that are processed together.

    Attributes:
        numbers: The indices of the samples.
        prepared: The prepared samples, by index, without those that could not be prepared.
        resolved: The samples with their units and targets, by index, without those that the model could not score.
        errors: The errors of the other samples, by index.
        on_error: "raise" ends with the first error, "record" continues.
    """

    numbers: list[int]
    prepared: dict[int, Sample]
    resolved: dict[int, AttributionOutput]
    errors: dict[int, str]
    on_error: OnError

    @staticmethod
    def create(
        numbers: list[int], items: Sequence[TargetedSample], resolver: Explainer, on_error: OnError
    ) -> "SampleBatch":
        """Prepare and resolve samples.

        Args:
            numbers: Indices of the samples.
            items: All samples of the comparison.
            resolver: A method that evaluates the unperturbed samples only; all methods get its units and targets.
            on_error: What happens to errors.
        """
        items_prepared = resolver.setup.wrapper.prepare([items[n] for n in numbers])
        first_error = next((item.error for item in items_prepared if item.error is not None), None)
        if first_error is not None and on_error == "raise":
            raise first_error
        ready = {n: item for n, item in zip(numbers, items_prepared, strict=True) if item.error is None}
        samples = {n: item.sample for n, item in ready.items() if item.sample is not None}
        resolved, errors = each(
            lambda some: resolver.explain([samples[n] for n in some], [ready[n].spec for n in some]),
            list(samples),
            on_error,
        )
        failed = {n: item.error for n, item in zip(numbers, items_prepared, strict=True) if item.error is not None}
        error_lines = {n: error_line(error) for n, error in (failed | errors).items()}
        return SampleBatch(numbers, samples, resolved, error_lines, on_error)

    def records(
        self, candidate: MethodEntry, metric_entries: Sequence[MetricEntry], masks: Sequence[object] | None
    ) -> list[Record]:
        """Run one method and all metrics on the samples: one record per sample.

        Args:
            candidate: The method.
            metric_entries: The metrics.
            masks: The ground-truth masks of all samples of the comparison; None if there are none.
        """
        explainer = candidate.explainer
        if explainer is None:
            return [Record(candidate.name, n, None, f"UnsupportedError: {candidate.error}") for n in self.numbers]

        def explain(some: list[int]) -> list[AttributionOutput]:
            # The resolved targets, so that a language model generates once, and not once for every method.
            return explainer.explain_unchecked(
                *inputs_and_targets(
                    [self.resolved[n] for n in some], [self.prepared[n] for n in some], explainer.setup.wrapper
                )
            )

        with watched() as peak:
            outputs, failed = each(explain, list(self.resolved), self.on_error)
        errors = self.errors | {n: error_line(error) for n, error in failed.items()}
        values: dict[int, dict[str, float]] = {n: {} for n in self.numbers}
        metric_errors: dict[int, dict[str, str]] = {n: {} for n in self.numbers}
        for metric_entry in metric_entries:
            metric_values, metric_failures = each(
                partial(self._evaluate, metric_entry, explainer, outputs, masks), list(outputs), self.on_error
            )
            for n, value in metric_values.items():
                values[n][metric_entry.name] = value
            for n, error in metric_failures.items():
                metric_errors[n][metric_entry.name] = error_line(error)
        return [
            Record(
                candidate.name,
                n,
                # `request` would keep the prepared samples of the whole comparison in memory.
                replace(outputs[n], request=None) if n in outputs else None,
                errors.get(n, ""),
                values[n],
                metric_errors[n],
                peak.gigabytes,
            )
            for n in self.numbers
        ]

    def _evaluate(
        self,
        metric_entry: MetricEntry,
        explainer: Explainer,
        outputs: dict[int, AttributionOutput],
        masks: Sequence[object] | None,
        some: list[int],
    ) -> list[float]:
        """The value of a metric for some samples."""
        results, samples = [outputs[n] for n in some], [self.prepared[n] for n in some]
        if metric_entry.needs is Needs.MODEL:
            metric_result: MetricResult = metric_entry.create().evaluate(results, samples)
        elif metric_entry.needs is Needs.METHOD:
            metric_result = metric_entry.create(explainer).evaluate(results, samples)
        elif metric_entry.needs is Needs.MASKS and masks is not None:
            metric_result = metric_entry.create().evaluate(results, [masks[n] for n in some])
        else:
            metric_result = metric_entry.create().evaluate(results)
        return metric_result.per_sample.tolist()
