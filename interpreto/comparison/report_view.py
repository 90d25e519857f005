"""A comparison as an HTML page: scores, costs, agreement between methods, attribution maps and failures."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import final

from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.comparison.ranking import MIN_SAMPLES, Conclusion, RankedMethod
from interpreto.comparison.summary import Summary
from interpreto.comparison.table_view import (
    KEY,
    direction_arrow,
    interval,
    marks,
    mean_value,
    method_label,
    notes,
    plot,
)
from interpreto.comparison.table_view import title as scores_title
from interpreto.visualizations import text_page as html
from interpreto.visualizations.drawing import figure_of, has_matrix
from interpreto.visualizations.output import Html, png
from interpreto.visualizations.output import write as write_page
from interpreto.visualizations.panels import Panel, build_panels

MAX_MAPS = 4
"""Maximum number of samples whose attribution maps the page shows."""

_MAX_FILES = 3
"""Maximum number of samples whose attribution maps are also written to files."""

_STYLE = """
.interpreto { max-width: 76rem; }
.interpreto .wide { overflow-x: auto; }
.interpreto table { margin: .5rem 0; }
.interpreto th { vertical-align: bottom; }
.interpreto td { white-space: nowrap; }
.interpreto td small { font-size: .75rem; }
.interpreto td.best { background: #e2f2e2; font-weight: 600; }
.interpreto td.not-better-than-random { color: #a33; }
.interpreto tr.control td:first-child { color: #666; font-style: italic; }
.interpreto tr.control:not(tr.control + tr.control) td { border-top: 2px solid #999; }
.interpreto .names th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .4rem .1rem; }
.interpreto .matrix td { text-align: center; min-width: 2.3rem; padding: .1rem .2rem; border: 1px solid #fff; }
.interpreto .matrix td:first-child { text-align: right; padding-right: .6rem; min-width: 0; }
.interpreto pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; line-height: 1.4; }
"""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """The content of a report.

    Attributes:
        summary: The statistics of the comparison.
        rank_agreement: The mean rank correlation between the scores of units of each pair of methods.
        top_agreement: The fraction of the 10 % of units with the highest scores that each pair of methods shares.
        samples: From the index of a sample to the results of all methods for it, for samples that the page shows.
    """

    summary: Summary
    rank_agreement: Float[Tensor, "m m"]
    top_agreement: Float[Tensor, "m m"]
    samples: Mapping[int, Mapping[str, AttributionOutput]]


@final
class Figures:
    """The figures of a report as PNG; each is drawn only once, for both the page and the files.

    Args:
        content: The content of the report.
    """

    def __init__(self, content: ReportContent) -> None:
        self.content = content
        self._maps: dict[int, bytes] = {}

    @cached_property
    def scores(self) -> bytes:
        """The figure of scores against run time."""
        return png(plot(self.content.summary))

    def maps(self, number: int) -> bytes:
        """The attribution maps of all methods for one sample, on one colour scale."""
        if number not in self._maps:
            self._maps[number] = png(figure_of(self.panels(number)))
        return self._maps[number]

    def panels(self, number: int) -> list[list[Panel]]:
        """The panels of one sample: one row per target, one column per method."""
        return build_panels(self.content.samples[number], relative=True)


def write(content: ReportContent, path: Path) -> Path:
    """Write the page."""
    write_page(path, page(Figures(content)))
    return path


def write_folder(content: ReportContent, path: Path) -> None:
    """Write the page, and the figures as separate files next to it."""
    figures = Figures(content)
    write_page(path / "report.html", page(figures))
    write_page(path / "figures" / "scores.png", figures.scores)
    for sample in list(content.samples)[:_MAX_FILES]:
        write_page(path / "figures" / f"maps-{sample:05}.png", figures.maps(sample))


def page(figures: Figures) -> Html:
    """Create the page: a single file without scripts, which needs no network access."""
    summary = figures.content.summary
    title = f"Comparison on {scores_title(summary)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _conclusions(summary),
        "<h2>Scores</h2>",
        tables(summary),
        _notes(summary),
        "<h2>Scores against cost</h2>",
        _figure(figures.scores, "Scores with intervals against seconds per sample"),
        "<h2>Cost per sample</h2>",
        _costs(summary),
        *_agreements(figures.content),
        *_removals(summary),
        "<h2>Maps</h2><p><small>Every method's scores are divided by the largest magnitude among them.</small></p>",
        *(_maps(figures, number) for number in figures.content.samples),
        "<h2>Configuration</h2>",
        _configuration(summary),
    ]
    return html.page("\n".join(body), title, _STYLE)


def _conclusions(summary: Summary) -> str:
    """For each metric, a sentence about the best methods."""
    lines = []
    for metric in summary.config.metric_names:
        ranking = summary.of_metric(metric)
        methods = [ranked for ranked in ranking if not ranked.control]
        controls = [ranked.method for ranked in ranking if ranked.control and ranked.not_worse_than_best]
        best = next((ranked for ranked in methods if ranked.best), None)
        if best is None:
            continue
        others = [ranked.method for ranked in methods if ranked.not_worse_than_best and not ranked.best]
        random = [ranked.method for ranked in methods if ranked.beats_random is False]
        count = 0 if best.to_best is None else best.to_best.count
        as_good = f" Controls that are not significantly worse: {escape(', '.join(controls))}." if controls else ""
        no_better = f" Not significantly better than random: {escape(', '.join(random))}." if random else ""
        conclusion = _conclusion(best.method, others, count)
        lines.append(f"<li><b>{escape(metric)}</b>: {conclusion}.{as_good}{no_better}</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _conclusion(best: str, others: list[str], count: int) -> str:
    """The method with the best mean, and whether it is significantly better than the others.

    Args:
        best: The method with the best mean.
        others: The methods that are not significantly different from it.
        count: Number of samples.
    """
    if count < MIN_SAMPLES:
        samples = f"{count} sample is" if count == 1 else f"{count} samples are"
        return f"{samples} too few for significance tests; {escape(best)} has the best mean"
    if others:
        return f"{escape(best)} has the best mean, not significantly different from {escape(', '.join(others))}"
    return f"{escape(best)} is significantly better than all other methods"


def tables(summary: Summary) -> str:
    """The table of scores."""
    head = "".join(
        f"<th>{escape(metric)} {direction_arrow(summary, metric)}</th>" for metric in summary.config.metric_names
    )
    rows = []
    for method in summary.config.method_names:
        cells = "".join(_cell(summary.ranked(method, metric)) for metric in summary.config.metric_names)
        rows.append(_table_row(summary, method, cells))
    return (
        f'<div class="wide"><table><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(ranked: RankedMethod) -> str:
    classes = ["best"] * ranked.not_worse_than_best + ["not-better-than-random"] * (ranked.beats_random is False)
    difference, tooltip = ranked.to_best, ""
    bounds = f"<br><small>{interval(ranked)}</small>" if interval(ranked) else ""
    if difference is not None and not ranked.best and not math.isnan(difference.low):
        text = (
            f"difference from the best: {difference.mean:+.3g} [{difference.low:+.3g}, {difference.high:+.3g}]; "
            f"{difference.count} samples"
        )
        tooltip = f' title="{text}"'
    return f'<td class="{" ".join(classes)}"{tooltip}>{mean_value(ranked)}{marks(ranked)}{bounds}</td>'


def _table_row(summary: Summary, method: str, cells: str) -> str:
    css_class = ' class="control"' if method in summary.config.control_names else ""
    return f"<tr{css_class}><td>{escape(method_label(summary, method))}</td>{cells}</tr>"


def _notes(summary: Summary) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in notes(summary) if line != KEY)
    return f"<p><small>{escape(KEY)}</small></p>" + (f"<ul>{lines}</ul>" if lines else "")


def _costs(summary: Summary) -> str:
    rows = [
        _table_row(summary, c.method, f"<td>{c.n_evaluations:.0f}</td><td>{c.seconds:.3g}</td><td>{c.memory:.3f}</td>")
        for c in summary.costs
    ]
    return (
        "<table><thead><tr><th>method</th><th>evaluations</th><th>seconds</th><th>peak memory (GB)</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _agreements(content: ReportContent) -> Iterable[str]:
    summary = content.summary
    names = [method_label(summary, method) for method in summary.config.method_names]
    yield "<h2>Agreement between methods</h2><p>Rank correlation of the units' scores</p>"
    yield _matrix(content.rank_agreement, names)
    yield "<p>Fraction of the 10 % of units with the highest scores that two methods share</p>"
    yield _matrix(content.top_agreement, names)


def _removals(summary: Summary) -> Iterable[str]:
    for conclusion in summary.conclusions:
        yield f"<h2>{escape(conclusion.metric)} by removal operator</h2>{_best_methods(conclusion)}"
        yield "<p>Rank correlation of the methods' means between removal operators</p>"
        yield _matrix(conclusion.agreement, list(conclusion.removals))


def _best_methods(conclusion: Conclusion) -> str:
    rows = "".join(
        f"<tr><td>{escape(removal)}</td><td>{escape(best or '–')}</td>"
        f"<td>{escape(', '.join(method for method in others if method != best))}</td></tr>"
        for removal, best, others in zip(
            conclusion.removals, conclusion.best, conclusion.not_worse_than_best, strict=True
        )
    )
    head = "<tr><th>removal</th><th>best mean</th><th>not significantly different from it</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _matrix(values: Float[Tensor, "m m"], names: list[str]) -> str:
    colours = colormaps["RdBu"]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for name, row in zip(names, values.tolist(), strict=True):
        cells = []
        for value in row:
            if math.isnan(value):
                cells.append("<td>–</td>")
                continue
            colour = colours(0.5 + value / 2)
            text_colour = "#fff" if sum(colour[:3]) < 1.35 else "#111"
            cells.append(f'<td style="background:{to_hex(colour)};color:{text_colour}">{value:.2f}</td>')
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="matrix"><thead class="names"><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _maps(figures: Figures, number: int) -> str:
    panels = figures.panels(number)
    title = f"<h3>Sample {number}</h3>"
    if panels[0][0].output.is_image:
        return title + _figure(figures.maps(number), f"Maps of sample {number}")
    if has_matrix(panels):
        return title + _figure(figures.maps(number), f"Attributions of sample {number}")
    return title + "".join(html.section(row) for row in panels)


def _figure(data: bytes, title: str) -> str:
    encoded = base64.b64encode(data).decode()
    return f'<img alt="{escape(title, quote=True)}" src="data:image/png;base64,{encoded}">'


def _configuration(summary: Summary) -> str:
    text = json.dumps(summary.config.to_json() | {"masks": summary.config.masks is not None}, indent=1)
    return f"<details><summary>methods, metrics, options, versions</summary><pre>{escape(text)}</pre></details>"
