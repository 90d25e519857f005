"""What a comparison found."""

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
from interpreto.comparison import tables
from interpreto.comparison.agreement import rank_agreement, top_agreement
from interpreto.comparison.bootstrap import Interval, difference
from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.ranking import Conclusion, RankedMethod, conclusion, rank_methods
from interpreto.comparison.records import Failure, Record, failures
from interpreto.comparison.run_store import ASKED, RunStore
from interpreto.errors import InputError, OptionError, choices
from interpreto.option_kinds import checks_options


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        method: The method's name.
        rows: Rows sent through the model, per sample.
        seconds: Per sample.
        memory: Gigabytes at the peak, with the few samples that were explained together, above what was in use; NaN
            where a system does not tell.
    """

    method: str
    rows: float
    seconds: float
    memory: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods on a model and data, by several metrics. Made by `interpreto.compare`, or read with `Comparison.load`.

    Printed, it is a table: the mean over samples with its 95 % interval for every method and metric; `*` marks the best
    method and all that cannot be told from it, `°` what cannot be told from random scores or is worse.

    Attributes:
        asked: What was compared, by what, and how.
        samples: The samples with their units and targets, as outputs of random scores; None for those that no method
            could read.
        records: What is known of each method (name) on each sample (number).
    """

    config: ComparisonConfig
    samples: list[AttributionOutput | None]
    records: Mapping[tuple[str, int], Record]

    @property
    def methods(self) -> list[str]:
        """The names of the methods, controls last."""
        return list(self.config.methods)

    @property
    def controls(self) -> list[str]:
        """The names of the honest baselines."""
        return [name for name, method in self.config.methods.items() if method["control"]]

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.config.metrics)

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
        """What a method said of every sample; None where it failed.

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
        """What every method costs; NaN for those that failed everywhere."""
        return [self._cost(method) for method in self.methods]

    @property
    def failures(self) -> list[Failure]:
        """What failed, on which samples, and why."""
        return failures(list(self.records.values()))

    def agreement(self, *, top: float | None = None) -> Float[Tensor, "m m"]:
        """How much methods agree, in the order of `methods`.

        Args:
            top: None for Spearman's correlation of the scores of units; a share, such as 0.1, for the part of the
                highest units that two methods have in common.

        Returns:
            The means over samples and targets; NaN for two methods that never had the same units.

        Raises:
            OptionError: if the share is none.
        """
        if top is not None and not 0 < top <= 1:
            raise OptionError(f"top={top} must be a share of the units, above 0 and at most 1.")
        outputs = {method: self.outputs(method) for method in self.methods}
        return rank_agreement(outputs) if top is None else top_agreement(outputs, top)

    def conclusions(self) -> list[Conclusion]:
        """What metrics say with each removal operator, where `removals=` asked for several."""
        bases = dict.fromkeys(about["base"] for about in self.config.metrics.values() if about["removal"] is not None)
        return [conclusion(base, self._by_removal(base)) for base in bases]

    def to_pandas(self, *, per_sample: bool = False) -> Any:
        """A data frame: one row per method and metric, or with `per_sample` one per method, metric and sample."""
        import pandas

        header, rows = tables.values(self) if per_sample else tables.scores(self)
        return pandas.DataFrame(rows, columns=header)

    @checks_options
    def plot(self, save_path: str | Path | None = None) -> Any:
        """A figure of the scores with their intervals against cost, one panel per metric.

        Args:
            save_path: Where to write it, in any format of matplotlib.
        """
        from interpreto.comparison import table_view as scores

        return scores.plot(self, save_path)

    @checks_options
    def plot_maps(self, sample: int = 0, save_path: str | Path | None = None) -> Any:
        """All methods on one sample side by side, on one scale: each map is divided by its largest magnitude.

        Args:
            sample: The number of the sample.
            save_path: Where to write it: `.html` is a page, any format of matplotlib a figure.

        Raises:
            InputError: if no method has an output for the sample.
        """
        from interpreto.visualizations import plot_attributions

        return plot_attributions(self.of_sample(sample), save_path, one_scale=True)

    def of_sample(self, sample: int) -> dict[str, AttributionOutput]:
        """What each method said of a sample, but for methods whose own units make other targets of a generation.

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
            raise InputError(f"No method has an output for sample {sample}: {self.failures[0]}")
        return found

    def shown(self, count: int) -> list[int]:
        """The numbers of the first samples for which there are outputs."""
        explained = {number for (_, number), record in self.records.items() if record.output is not None}
        return sorted(explained)[:count]

    @checks_options
    def report(self, path: str | Path) -> Path:
        """Write everything into one page that needs no network."""
        from interpreto.comparison import report_view as report

        return report.write(self, Path(path))

    @checks_options
    def save(self, path: str | Path) -> Path:
        """Write a folder: all results for `Comparison.load`, `table.csv` and `values.csv`, `report.html` and figures.

        Raises:
            SavedFileError: if there is a folder that holds something else.
        """
        with atomic_folder(Path(path), ASKED) as folder:
            self._write(folder)
        return Path(path)

    @staticmethod
    @checks_options
    def load(path: str | Path) -> "Comparison":
        """Read what `save` wrote, or what there is so far of a run that is under way or was killed.

        Raises:
            SavedFileError: if files are missing, were changed, or are of another version.
        """
        folder = RunStore(Path(path))
        asked = folder.asked()
        samples, found = folder.read(asked)
        records = {(record.method, record.sample): record for record in found}
        return Comparison(asked, [samples.get(number) for number in range(asked.count)], records)

    def __str__(self) -> str:
        from interpreto.comparison import table_view as scores

        return scores.text(self)

    def __repr__(self) -> str:
        return (
            f"<Comparison of {len(self.methods)} methods by {len(self.metrics)} metrics on {self.config.count} samples>"
        )

    def _repr_html_(self) -> str:
        from interpreto.comparison import report_view as report

        return report.tables(self)

    def _value(self, method: str, number: int, metric: str) -> float:
        record = self.records.get((method, number))
        return math.nan if record is None else record.values.get(metric, math.nan)

    def _cost(self, method: str) -> Cost:
        outputs = [output for output in self.outputs(method) if output is not None]
        memory = [record.memory for (name, _), record in self.records.items() if name == method]
        if not outputs:
            return Cost(method, math.nan, math.nan, math.nan)
        rows = sum(output.n_evaluations for output in outputs) / len(outputs)
        seconds = sum(float(output.info["seconds"]) for output in outputs) / len(outputs)
        return Cost(method, rows, seconds, max(memory, default=math.nan))

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
        """Write tables, figures and the report into a folder, beside what else is there."""
        from interpreto.comparison import report_view as report

        write_text(path / "table.csv", tables.as_csv(*tables.scores(self)))
        write_text(path / "values.csv", tables.as_csv(*tables.values(self)))
        report.write_folder(self, path)


def _check(name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        raise OptionError(f"The comparison has no {what} {name!r}: {choices(name, known)}")
