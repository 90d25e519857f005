"""The scores of a comparison: as a printed table, and as a figure against cost."""

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

_PALETTE = tuple(f"C{number}" for number in range(10) if number != 7)
"""Colours of methods, but for matplotlib's grey, which is that of the controls."""
_GREY = "#888888"
_NAME = 40
"""Letters of a method's name in a line."""
_WIDTH = 120
"""Letters of a line of the printed table."""

KEY = (
    "Mean over samples [95 % interval]. * the best mean, and all methods not significantly different from it; ° not "
    "significantly better than random scores. (c) control, which does not ask the model and is never marked."
)
ALONE = "There is one sample: no interval can be made, and no method be told from another."
FEW = f"There are fewer than {MIN_SAMPLES} samples: intervals mean little, and nothing is marked."


def text(summary: Summary) -> str:
    """The table of scores and costs, and what failed, as plain text."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, no_color=True, highlight=False)
    for table in tables(summary, _WIDTH):
        console.print(table)
    for line in notes(summary):
        console.print(line, markup=False)
    return buffer.getvalue()


def tables(summary: Summary, width: int) -> list[Table]:
    """Tables of scores, as many metrics in each as fit into a line of this many letters, and one of costs."""
    methods = summary.methods
    columns = {
        metric: [
            f"{metric} {arrow(summary, metric)}".strip(),
            *(cell(summary.ranked(m, metric)) for m in methods),
        ]
        for metric in summary.metrics
    }
    found = []
    longest = max(len(shown(summary, method)) for method in methods)
    for metrics in _packed(columns, width - min(longest, _NAME) - 2):
        heading = None if found else title(summary)
        table = _begun(heading)
        for metric in metrics:
            table.add_column(Text(columns[metric][0]), no_wrap=True)
        _fill(table, summary, {m: [columns[one][n] for one in metrics] for n, m in enumerate(methods, start=1)})
        found.append(table)
    costs = _begun("Cost per sample")
    for column in ("evaluations", "seconds", "peak memory (GB)"):
        costs.add_column(column, justify="right")
    known = {c.method: [f"{c.n_evaluations:.0f}", f"{c.seconds:.3g}", f"{c.memory:.3f}"] for c in summary.costs}
    _fill(costs, summary, known)
    return [*found, costs]


def _begun(heading: str | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False)
    # Long names go on below instead of being cut off.
    table.add_column("method", max_width=_NAME, overflow="fold")
    return table


def _fill(table: Table, summary: Summary, cells: dict[str, list[str]]) -> None:
    """One line per method, a rule above the controls."""
    for number, (method, some) in enumerate(cells.items()):
        if method in summary.controls and summary.methods[number - 1] not in summary.controls:
            table.add_section()
        # What stands in brackets is no markup.
        table.add_row(*map(Text, (shown(summary, method), *some)))


def _packed(columns: dict[str, list[str]], room: int) -> list[list[str]]:
    """The columns, as many in each group as fit side by side."""
    groups: list[list[str]] = []
    left = 0
    for name, cells in columns.items():
        width = max(map(len, cells)) + 3
        if not groups or width > left:
            groups.append([])
            left = room
        groups[-1].append(name)
        left -= width
    return groups


def notes(summary: Summary) -> list[str]:
    """What must be said below the table."""
    done = len(summary.explained)
    found = [KEY]
    if summary.config.count < MIN_SAMPLES:
        found.append(ALONE if summary.config.count == 1 else FEW)
    missing = len(summary.methods) * summary.config.count - summary.n_records
    if missing:
        found.append(f"The run is not finished: {done} of {summary.config.count} samples have results so far.")
    for one in summary.conclusions:
        pairs = [f"{best or 'none'} ({removal})" for removal, best in zip(one.removals, one.best, strict=True)]
        lowest = one.agreement[~one.agreement.isnan()]
        least = f"; their rankings correlate by at least {float(lowest.min()):.2f}" if len(lowest) else ""
        found.append(f"{one.metric}, best mean by removal operator: {', '.join(pairs)}{least}.")
    return [*found, *map(str, summary.failures)]


def shown(summary: Summary, method: str) -> str:
    """A method's name; controls are marked."""
    return f"{method} (c)" if method in summary.controls else method


def arrow(summary: Summary, metric: str) -> str:
    """Which way is good."""
    return {True: "↑", False: "↓", None: ""}[summary.config.metrics[metric]["higher_is_better"]]


def cell(ranked: RankedMethod) -> str:
    """A mean, its interval and marks."""
    low_to_high = spread(ranked)
    return f"{number(ranked)}{f' [{low_to_high}]' if low_to_high else ''}{marks(ranked)}"


def number(ranked: RankedMethod) -> str:
    """The mean."""
    return f"{ranked.mean.mean:.3g}" if ranked.mean.count else "–"


def spread(ranked: RankedMethod) -> str:
    """The interval; empty where there is none."""
    mean = ranked.mean
    return "" if math.isnan(mean.low) else f"{mean.low:.3g}, {mean.high:.3g}"


def marks(ranked: RankedMethod) -> str:
    """What the table says of a method beside its number."""
    leads = " *" if ranked.not_worse_than_best and not math.isnan(ranked.mean.mean) else ""
    return leads + (" °" if ranked.beats_random is False else "")


def title(summary: Summary) -> str:
    """What was compared on what."""
    model, count = str(summary.config.model["model"]), summary.config.count
    # A folder's name says enough of a model that lies in one.
    name = Path(model).name if Path(model).is_absolute() else model
    return f"{name}, {count} sample{'s' * (count != 1)}"


def plot(summary: Summary, save_path: str | Path | None = None) -> NotebookFigure:
    """Scores with their intervals against seconds per sample, one panel per metric."""
    metrics = [metric for metric in summary.metrics if any(s.mean.count for s in summary.of_metric(metric))]
    columns = min(3, max(1, len(metrics)))
    lines = -(-max(1, len(metrics)) // columns)
    figure = NotebookFigure(figsize=(4.2 * columns, 3.4 * lines + 0.9), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for place in axes[len(metrics) :]:
        place.set_axis_off()
    colours = _colours(summary)
    for metric, place in zip(metrics, axes, strict=False):
        _panel(summary, metric, place, colours)
    legends = [place.get_legend_handles_labels() for place in axes]
    handles = {label: handle for pair in legends for handle, label in zip(*pair, strict=True)}
    if handles:
        across = min(6, 2 * columns)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=across, fontsize=8, frameon=False
        )
        for legend in figure.legends:
            for label in legend.get_texts():
                label.set_parse_math(False)
    if save_path is not None:
        write(save_path, figure)
    return figure


def _colours(summary: Summary) -> dict[str, tuple[str, str]]:
    """A colour and a marker for every method; controls are hollow and grey."""
    shapes = "osD^vP"
    methods = [method for method in summary.methods if method not in summary.controls]
    found = {m: (_PALETTE[n % len(_PALETTE)], shapes[n // len(_PALETTE) % len(shapes)]) for n, m in enumerate(methods)}
    return found | {m: (_GREY, shapes[n % len(shapes)]) for n, m in enumerate(summary.controls)}


def _panel(summary: Summary, metric: str, place: Axes, colours: dict[str, tuple[str, str]]) -> None:
    costs = {cost.method: cost for cost in summary.costs}
    for ranked in summary.of_metric(metric):
        mean, seconds = ranked.mean, costs[ranked.method].seconds
        if not math.isfinite(mean.mean) or not math.isfinite(seconds):
            continue
        low, high = (0.0 if math.isnan(end) else abs(mean.mean - end) for end in (mean.low, mean.high))
        colour, marker = colours[ranked.method]
        place.errorbar(
            max(seconds, 1e-4),
            mean.mean,
            yerr=[[low], [high]],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor="white" if colour == _GREY else colour,
            capsize=2,
            linestyle="none",
            label=shown(summary, ranked.method),
        )
    good = {True: " (high is good)", False: " (low is good)", None: ""}
    name = metric + good[summary.config.metrics[metric]["higher_is_better"]]
    place.set_title(name, fontsize=10, parse_math=False)
    place.set_xscale("log")
    place.set_xlabel("seconds per sample", fontsize=8)
    place.tick_params(labelsize=8)
    place.grid(alpha=0.25)
