"""The result of a comparison."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.atomic import atomic_folder, write_text
from interpreto.attributions.result import AttributionOutput
from interpreto.comparison import report_view, table_view, tables
from interpreto.comparison.agreement import rank_agreement, top_agreement
from interpreto.comparison.bootstrap import Interval, difference
from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.ranking import Conclusion, RankedMethod, conclusion, rank_methods
from interpreto.comparison.records import Failure, Record, failures
from interpreto.comparison.run_store import CONFIG_FILE, RunStore
from interpreto.comparison.summary import Cost, Summary
from interpreto.errors import InputError, InterpretoError, OptionError, choices
from interpreto.option_kinds import checks_options
from interpreto.visualizations import plot_attributions


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of several methods by several metrics on one model, from `interpreto.compare` or `Comparison.load`.

    Printed, it is a table: the mean over samples with its 95 % interval for every method and metric; `*` marks the best
    method and all that are not significantly different from it, `°` those that are not significantly better than random
    scores.

    Attributes:
        config: What was compared, by what, and how.
        samples: The samples with their units and targets, as outputs of random scores; None for those that could not be
            read.
        records: The results of each method (by name) on each sample (by number).
    """

    config: ComparisonConfig
    samples: list[AttributionOutput | None]
    records: Mapping[tuple[str, int], Record]

    @property
    def methods(self) -> list[str]:
        """The names of the methods, controls last."""
        return self.config.method_names

    @property
    def controls(self) -> list[str]:
        """The names of the controls."""
        return self.config.control_names

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return self.config.metric_names

    def values(self, metric: str) -> dict[str, Float[Tensor, " n"]]:
        """The values of a metric: for every method one per sample, NaN where there is none.

        Raises:
            OptionError: if there is no such metric.
        """
        _check(metric, self.metrics, "metric")
        return {
            method: torch.tensor(
                [self._value(method, number, metric) for number in range(len(self.samples))], dtype=torch.float64
            )
            for method in self.methods
        }

    def outputs(self, method: str) -> list[AttributionOutput | None]:
        """The outputs of a method for every sample; None for those on which it failed.

        Raises:
            OptionError: if there is no such method.
        """
        _check(method, self.methods, "method")
        records = [self.records.get((method, number)) for number in range(len(self.samples))]
        return [None if record is None else record.output for record in records]

    @cached_property
    def ranking(self) -> list[RankedMethod]:
        """Every method by every metric: mean, interval, paired differences to the best method and to random scores."""
        return [
            standing
            for metric, about in self.config.metrics.items()
            for standing in rank_methods(
                metric,
                self.values(metric),
                self.controls,
                about["higher_is_better"],
                self.config.n_bootstrap,
                self.config.seed,
            )
        ]

    def ranked(self, method: str, metric: str) -> RankedMethod:
        """One method by one metric.

        Raises:
            OptionError: if there is no such method or metric.
        """
        _check(method, self.methods, "method")
        _check(metric, self.metrics, "metric")
        return next(one for one in self.ranking if (one.method, one.metric) == (method, metric))

    def difference(self, method: str, other: str, metric: str) -> Interval:
        """The paired difference of two methods, the first minus the second, and its interval.

        Raises:
            OptionError: if there is no such method or metric.
        """
        _check(method, self.methods, "method")
        _check(other, self.methods, "method")
        values = self.values(metric)
        return difference(values[method], values[other], self.config.n_bootstrap, self.config.seed)

    @property
    def costs(self) -> list[Cost]:
        """The cost of every method; NaN for those that failed on all samples."""
        return [self._cost(method) for method in self.methods]

    @property
    def failures(self) -> list[Failure]:
        """Methods and metrics that failed, on which samples, and why."""
        return failures(list(self.records.values()))

    def agreement(self, *, top: float | None = None) -> Float[Tensor, "m m"]:
        """How much methods agree, in the order of `methods`.

        Args:
            top: None for Spearman's correlation of the scores of units; a share, such as 0.1, for the share of the
                highest units that two methods have in common.

        Returns:
            The means over samples and targets; NaN for two methods that never have the same units.

        Raises:
            OptionError: if `top` is not a share.
        """
        if top is not None and not 0 < top <= 1:
            raise OptionError(f"top={top} must be a share of the units, above 0 and at most 1.")
        outputs = {method: self.outputs(method) for method in self.methods}
        return rank_agreement(outputs) if top is None else top_agreement(outputs, top)

    def conclusions(self) -> list[Conclusion]:
        """What metrics conclude with each removal operator, if `removals=` lists several."""
        bases = dict.fromkeys(about["base"] for about in self.config.metrics.values() if about["removal"] is not None)
        return [conclusion(base, self._by_removal(base)) for base in bases]

    def to_pandas(self, *, per_sample: bool = False) -> Any:
        """A data frame: one row per method and metric, or with `per_sample` one per method, metric and sample.

        Raises:
            InterpretoError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InterpretoError("to_pandas() needs pandas: pip install pandas.") from error
        header, rows = self._values_table() if per_sample else tables.scores(self.summary)
        return pandas.DataFrame(rows, columns=header)

    @checks_options
    def plot(self, save_path: str | Path | None = None) -> Any:
        """A figure of the scores with their intervals against cost, one panel per metric.

        Args:
            save_path: Where to write it, in any format of matplotlib.
        """
        return table_view.plot(self.summary, save_path)

    @checks_options
    def plot_maps(self, sample: int = 0, save_path: str | Path | None = None) -> Any:
        """All methods on one sample side by side, on one scale: each map is divided by its largest magnitude.

        Args:
            sample: The number of the sample.
            save_path: Where to write it: `.html` is a page, any format of matplotlib a figure.

        Raises:
            InputError: if no method has an output for the sample.
        """
        return plot_attributions(self.of_sample(sample), save_path, one_scale=True)

    def of_sample(self, sample: int) -> dict[str, AttributionOutput]:
        """The outputs of each method for a sample.

        Methods whose own granularity groups generated tokens into other targets are left out.

        Raises:
            InputError: if there is no such sample, or no method has an output for it.
        """
        if not 0 <= sample < len(self.samples):
            raise InputError(f"There is no sample {sample}: they are numbered from 0 to {len(self.samples) - 1}.")
        resolved = self.samples[sample]
        names = None if resolved is None else resolved.target_names
        outputs = {method: self.outputs(method)[sample] for method in self.methods}
        found = {m: one for m, one in outputs.items() if one is not None and one.target_names == names}
        if not found:
            errors = [record.error for record in self.records.values() if record.sample == sample and record.error]
            raise InputError(f"No method has an output for sample {sample}: {[*errors, 'it has not been run yet'][0]}")
        return found

    @cached_property
    def summary(self) -> Summary:
        """The statistics over all samples, for tables and figures."""
        explained = {number for (_, number), record in self.records.items() if record.output is not None}
        return Summary(
            self.config,
            self.ranking,
            self.costs,
            self.conclusions(),
            self.failures,
            len(self.records),
            sorted(explained),
        )

    @checks_options
    def report(self, path: str | Path) -> Path:
        """Write everything into one page that needs no network."""
        return report_view.write(self._report_content(), Path(path))

    @checks_options
    def save(self, path: str | Path) -> Path:
        """Write a folder: all results for `Comparison.load`, `table.csv` and `values.csv`, `report.html` and figures.

        Raises:
            SavedFileError: if there is a folder that holds something else.
        """
        with atomic_folder(Path(path), CONFIG_FILE) as folder:
            self._write(folder)
        return Path(path)

    @staticmethod
    @checks_options
    def load(path: str | Path) -> "Comparison":
        """Read what `save` wrote, or the results so far of a run that is in progress or was stopped.

        Raises:
            SavedFileError: if files are missing, were changed, or are of another version.
        """
        folder = RunStore(Path(path))
        config = folder.config()
        samples, found = folder.read(config)
        records = {(record.method, record.sample): record for record in found}
        return Comparison(config, [samples.get(number) for number in range(config.count)], records)

    def __str__(self) -> str:
        return table_view.text(self.summary)

    def __repr__(self) -> str:
        return (
            f"<Comparison of {len(self.methods)} methods by {len(self.metrics)} metrics on {self.config.count} samples>"
        )

    def _repr_html_(self) -> str:
        return report_view.tables(self.summary)

    def _value(self, method: str, number: int, metric: str) -> float:
        record = self.records.get((method, number))
        return math.nan if record is None else record.values.get(metric, math.nan)

    def _cost(self, method: str) -> Cost:
        outputs = [output for output in self.outputs(method) if output is not None]
        memory = [record.memory for (name, _), record in self.records.items() if name == method]
        if not outputs:
            return Cost(method, math.nan, math.nan, math.nan)
        n_evaluations = sum(output.n_evaluations for output in outputs) / len(outputs)
        seconds = sum(float(output.info["seconds"]) for output in outputs) / len(outputs)
        return Cost(method, n_evaluations, seconds, max(memory, default=math.nan))

    def _by_removal(self, base: str) -> dict[str, list[RankedMethod]]:
        return {
            about["removal"]: [one for one in self.ranking if one.metric == metric]
            for metric, about in self.config.metrics.items()
            if about["base"] == base
        }

    def _write(self, path: Path) -> None:
        folder = RunStore(path)
        folder.begin(self.config)
        for number, sample in enumerate(self.samples):
            if sample is not None:
                folder.put_sample(number, sample)
        for method in self.methods:
            records = [r for n in range(len(self.samples)) if (r := self.records.get((method, n))) is not None]
            if records:
                folder.append(records, self.samples)
        self.write_views(path)

    def write_views(self, path: Path) -> None:
        """Write tables, figures and the report to a folder, in addition to what is there."""
        write_text(path / "table.csv", tables.as_csv(*tables.scores(self.summary)))
        write_text(path / "values.csv", tables.as_csv(*self._values_table()))
        report_view.write_folder(self._report_content(), path)

    def _values_table(self) -> tables.Rows:
        return tables.values({metric: self.values(metric) for metric in self.metrics})

    def _report_content(self) -> report_view.ReportContent:
        samples = {number: self.of_sample(number) for number in self.summary.explained[: report_view.MAX_MAPS]}
        return report_view.ReportContent(self.summary, self.agreement(), self.agreement(top=0.1), samples)


def _check(name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        raise OptionError(f"The comparison has no {what} {name!r}: {choices(name, known)}")
