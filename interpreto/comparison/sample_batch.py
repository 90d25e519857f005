"""Some samples of a comparison: prepared and settled once, then explained and judged for every method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.metric_result import MetricResult, Needs
from interpreto.attributions.metrics.replay import inputs_and_targets
from interpreto.attributions.result import AttributionOutput
from interpreto.comparison.candidates import MethodEntry, MetricEntry
from interpreto.comparison.peak_memory import watched
from interpreto.comparison.records import Record, each, error_line
from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import TargetedSample
from interpreto.typing import OnError


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Samples that are worked on together.

    Attributes:
        numbers: Of the samples.
        prepared: Those that could be read, prepared.
        resolved: Those that the model could score, with their units and targets.
        errors: Why others could not be read or scored.
        on_error: "raise" ends with the first error, "record" goes on.
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
            numbers: Numbers of the samples.
            items: All samples of the comparison.
            resolver: A method without cost, with the units and targets that all methods get.
            on_error: What happens to errors.
        """
        read = resolver.setup.wrapper.prepare([items[n] for n in numbers])
        unread = next((item.error for item in read if item.error is not None), None)
        if unread is not None and on_error == "raise":
            raise unread
        ready = {n: item for n, item in zip(numbers, read, strict=True) if item.error is None}
        samples = {n: item.sample for n, item in ready.items() if item.sample is not None}
        explained = each(
            lambda some: resolver.explain([samples[n] for n in some], [ready[n].spec for n in some]),
            list(samples),
            on_error,
        )
        failed = {n: item.error for n, item in zip(numbers, read, strict=True) if item.error is not None}
        failed |= {n: one for n, one in zip(samples, explained, strict=True) if isinstance(one, Exception)}
        return SampleBatch(
            numbers,
            samples,
            {n: one for n, one in zip(samples, explained, strict=True) if not isinstance(one, Exception)},
            {n: error_line(error) for n, error in failed.items()},
            on_error,
        )

    def records(
        self, candidate: MethodEntry, metric_entries: Sequence[MetricEntry], masks: Sequence[Any] | None
    ) -> list[Record]:
        """What one method and every metric of it find."""
        explainer = candidate.explainer
        if explainer is None:
            if self.on_error == "raise":
                raise UnsupportedError(candidate.error)
            return [Record(candidate.name, n, None, f"UnsupportedError: {candidate.error}") for n in self.numbers]

        def explain(some: list[int]) -> list[AttributionOutput]:
            return explainer.explain_unchecked(
                *inputs_and_targets([self.resolved[n] for n in some], [self.prepared[n] for n in some])
            )

        with watched() as peak:
            made = dict(zip(self.resolved, each(explain, list(self.resolved), self.on_error), strict=True))
        errors = self.errors | {n: error_line(one) for n, one in made.items() if isinstance(one, Exception)}
        outputs = {n: one for n, one in made.items() if not isinstance(one, Exception)}
        found: dict[int, dict[str, float | Exception]] = {n: {} for n in self.numbers}
        for metric_entry in metric_entries:
            judged = each(partial(self._judged, metric_entry, explainer, outputs, masks), list(outputs), self.on_error)
            for n, value in zip(outputs, judged, strict=True):
                found[n][metric_entry.name] = value
        return [
            Record(
                candidate.name,
                n,
                # Requests would keep the prepared samples of the whole comparison in memory.
                replace(outputs[n], request=None) if n in outputs else None,
                errors.get(n, ""),
                {metric: value for metric, value in found[n].items() if not isinstance(value, Exception)},
                {metric: error_line(value) for metric, value in found[n].items() if isinstance(value, Exception)},
                peak.gigabytes,
            )
            for n in self.numbers
        ]

    def _judged(
        self,
        metric_entry: MetricEntry,
        explainer: Explainer,
        outputs: dict[int, AttributionOutput],
        masks: Sequence[Any] | None,
        some: list[int],
    ) -> list[float]:
        made, samples = [outputs[n] for n in some], [self.prepared[n] for n in some]
        if metric_entry.needs is Needs.MODEL:
            measured: MetricResult = metric_entry.make().evaluate(made, samples)
        elif metric_entry.needs is Needs.METHOD:
            measured = metric_entry.make(explainer).evaluate(made, samples)
        elif metric_entry.needs is Needs.MASKS and masks is not None:
            measured = metric_entry.make().evaluate(made, [masks[n] for n in some])
        else:
            measured = metric_entry.make().evaluate(made)
        return measured.per_sample.tolist()
