"""The scores of a comparison as a printed table, and as a figure of scores against run time."""

import io
import math
from pathlib import Path

from matplotlib.axes import Axes
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interpreto.comparison.ranking import MIN_SAMPLES, RankedMethod
from interpreto.comparison.summary import Summary
from interpreto.visualizations.output import NotebookFigure, write

_COLOURS = tuple(f"C{number}" for number in range(10) if number != 7)
"""Colours of methods: matplotlib's default colours without grey, which is for controls."""
_GREY = "#888888"
_MAX_NAME_WIDTH = 40
"""Maximum width of the column of method names, in characters; longer names wrap."""
_WIDTH = 120
"""Width of the table as plain text, in characters."""

KEY = (
    "Mean over samples [95 % interval]. * the best mean, and all methods not significantly different from it; ° not "
    "significantly better than random scores. (c) control: does not use the model, and is never marked."
)
ONE_SAMPLE = "There is only one sample, so there are no intervals and no significance tests."
FEW_SAMPLES = f"There are fewer than {MIN_SAMPLES} samples: intervals are unreliable, and no method is marked."


def text(summary: Summary) -> str:
    """The tables of scores and costs and the notes as plain text."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, no_color=True, highlight=False)
    for table in tables(summary, _WIDTH):
        console.print(table)
    for line in notes(summary):
        console.print(line, markup=False)
    return buffer.getvalue()


def tables(summary: Summary, width: int) -> list[Table]:
    """One or several tables of scores, each with as many metrics as fit, and a table of costs.

    Args:
        summary: The statistics of the comparison.
        width: Maximum width of a table in characters.
    """
    methods = summary.config.method_names
    columns = {
        metric: [
            f"{metric} {direction_arrow(summary, metric)}".strip(),
            *(cell(summary.ranked(m, metric)) for m in methods),
        ]
        for metric in summary.config.metric_names
    }
    score_tables = []
    name_width = min(_MAX_NAME_WIDTH, max(len(method_label(summary, method)) for method in methods))
    for metrics in _groups_that_fit(columns, width - name_width - 2):
        table = _new_table(None if score_tables else title(summary))
        for metric in metrics:
            table.add_column(Text(columns[metric][0]), no_wrap=True)
        _add_rows(table, summary, {m: [columns[one][n] for one in metrics] for n, m in enumerate(methods, start=1)})
        score_tables.append(table)
    costs = _new_table("Cost per sample")
    for column in ("evaluations", "seconds", "peak memory (GB)"):
        costs.add_column(column, justify="right")
    cells = {c.method: [f"{c.n_evaluations:.0f}", f"{c.seconds:.3g}", f"{c.memory:.3f}"] for c in summary.costs}
    _add_rows(costs, summary, cells)
    return [*score_tables, costs]


def _new_table(heading: str | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False)
    # Long names wrap instead of being truncated.
    table.add_column("method", max_width=_MAX_NAME_WIDTH, overflow="fold")
    return table


def _add_rows(table: Table, summary: Summary, cells: dict[str, list[str]]) -> None:
    """Add one row per method, with a line above the controls."""
    for number, (method, values) in enumerate(cells.items()):
        if (
            method in summary.config.control_names
            and summary.config.method_names[number - 1] not in summary.config.control_names
        ):
            table.add_section()
        # As Text, so that rich does not interpret brackets as markup.
        table.add_row(*map(Text, (method_label(summary, method), *values)))


def _groups_that_fit(columns: dict[str, list[str]], max_width: int) -> list[list[str]]:
    """Divide columns into groups of consecutive ones, each at most `max_width` characters wide if possible."""
    groups: list[list[str]] = []
    remaining = 0
    for name, cells in columns.items():
        width = max(map(len, cells)) + 3
        if not groups or width > remaining:
            groups.append([])
            remaining = max_width
        groups[-1].append(name)
        remaining -= width
    return groups


def notes(summary: Summary) -> list[str]:
    """The lines below the table: the legend, warnings, the best methods by removal operator, and failures."""
    n_explained = len(summary.explained)
    lines = [KEY]
    if summary.config.count < MIN_SAMPLES:
        lines.append(ONE_SAMPLE if summary.config.count == 1 else FEW_SAMPLES)
    missing = len(summary.config.method_names) * summary.config.count - summary.n_records
    if missing:
        lines.append(f"The run is not finished: {n_explained} of {summary.config.count} samples have results so far.")
    for conclusion in summary.conclusions:
        pairs = [
            f"{best or 'none'} ({removal})" for removal, best in zip(conclusion.removals, conclusion.best, strict=True)
        ]
        correlations = conclusion.agreement[~conclusion.agreement.isnan()]
        rankings = f"; the rank correlation is at least {float(correlations.min()):.2f}" if len(correlations) else ""
        lines.append(f"{conclusion.metric}, best mean by removal operator: {', '.join(pairs)}{rankings}.")
    return [*lines, *map(str, summary.failures)]


def method_label(summary: Summary, method: str) -> str:
    """The name of a method, with "(c)" for controls."""
    return f"{method} (c)" if method in summary.config.control_names else method


def direction_arrow(summary: Summary, metric: str) -> str:
    """An arrow up if high values of the metric are good, down if low values are; empty if neither."""
    return {True: "↑", False: "↓", None: ""}[summary.config.metrics[metric]["higher_is_better"]]


def cell(ranked: RankedMethod) -> str:
    """A cell of the table of scores: the mean, its interval and the marks."""
    bounds = interval(ranked)
    return f"{mean_value(ranked)}{f' [{bounds}]' if bounds else ''}{marks(ranked)}"


def mean_value(ranked: RankedMethod) -> str:
    """The mean; a dash if there are no values."""
    return f"{ranked.mean.mean:.3g}" if ranked.mean.count else "–"


def interval(ranked: RankedMethod) -> str:
    """The bounds of the 95 % interval; empty if there is none."""
    mean = ranked.mean
    return "" if math.isnan(mean.low) else f"{mean.low:.3g}, {mean.high:.3g}"


def marks(ranked: RankedMethod) -> str:
    """The marks behind a mean, which `KEY` explains."""
    best = " *" if ranked.not_worse_than_best and not math.isnan(ranked.mean.mean) else ""
    return best + (" °" if ranked.beats_random is False else "")


def title(summary: Summary) -> str:
    """The model and the number of samples, for headings."""
    model, count = str(summary.config.model["model"]), summary.config.count
    # For a local model, the name of its folder instead of the full path.
    name = Path(model).name if Path(model).is_absolute() else model
    return f"{name}, {count} sample{'s' * (count != 1)}"


def plot(summary: Summary, save_path: str | Path | None = None) -> NotebookFigure:
    """Plot scores with their intervals against seconds per sample, one subplot per metric."""
    metrics = [metric for metric in summary.config.metric_names if any(s.mean.count for s in summary.of_metric(metric))]
    columns = min(3, max(1, len(metrics)))
    rows = -(-max(1, len(metrics)) // columns)
    figure = NotebookFigure(figsize=(4.2 * columns, 3.4 * rows + 0.9), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in all_axes[len(metrics) :]:
        axes.set_axis_off()
    colours = _colours(summary)
    for metric, axes in zip(metrics, all_axes, strict=False):
        _plot_metric(summary, metric, axes, colours)
    legends = [axes.get_legend_handles_labels() for axes in all_axes]
    handles = {label: handle for pair in legends for handle, label in zip(*pair, strict=True)}
    if handles:
        legend_columns = min(6, 2 * columns)
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=legend_columns,
            fontsize=8,
            frameon=False,
        )
        for legend in figure.legends:
            for label in legend.get_texts():
                label.set_parse_math(False)
    if save_path is not None:
        write(save_path, figure)
    return figure


def _colours(summary: Summary) -> dict[str, tuple[str, str]]:
    """A colour and a marker for every method; controls are grey."""
    markers = "osD^vP"
    methods = [method for method in summary.config.method_names if method not in summary.config.control_names]
    of_methods = {
        m: (_COLOURS[n % len(_COLOURS)], markers[n // len(_COLOURS) % len(markers)]) for n, m in enumerate(methods)
    }
    return of_methods | {m: (_GREY, markers[n % len(markers)]) for n, m in enumerate(summary.config.control_names)}


def _plot_metric(summary: Summary, metric: str, axes: Axes, colours: dict[str, tuple[str, str]]) -> None:
    costs = {cost.method: cost for cost in summary.costs}
    for ranked in summary.of_metric(metric):
        mean, seconds = ranked.mean, costs[ranked.method].seconds
        if not math.isfinite(mean.mean) or not math.isfinite(seconds):
            continue
        low, high = (0.0 if math.isnan(bound) else abs(mean.mean - bound) for bound in (mean.low, mean.high))
        colour, marker = colours[ranked.method]
        axes.errorbar(
            max(seconds, 1e-4),
            mean.mean,
            yerr=[[low], [high]],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor="white" if colour == _GREY else colour,
            capsize=2,
            linestyle="none",
            label=method_label(summary, ranked.method),
        )
    direction = {True: " (high is good)", False: " (low is good)", None: ""}
    name = metric + direction[summary.config.metrics[metric]["higher_is_better"]]
    axes.set_title(name, fontsize=10, parse_math=False)
    axes.set_xscale("log")
    axes.set_xlabel("seconds per sample", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
