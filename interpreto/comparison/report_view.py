"""A comparison as one page: scores, costs, agreement, maps and failures."""

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
from interpreto.comparison.table_view import KEY, arrow, marks, notes, number, plot, shown, spread
from interpreto.comparison.table_view import title as scores_title
from interpreto.visualizations import text_page as html
from interpreto.visualizations.drawing import figure_of, has_matrix
from interpreto.visualizations.output import Html, png
from interpreto.visualizations.output import write as write_page
from interpreto.visualizations.panels import Panel, gather

MAX_MAPS = 4
"""Samples whose maps are in the page."""

_FILES = 3
"""Samples whose maps are files."""

_STYLE = """
.interpreto { max-width: 76rem; }
.interpreto .wide { overflow-x: auto; }
.interpreto table { margin: .5rem 0; }
.interpreto th { vertical-align: bottom; }
.interpreto td { white-space: nowrap; }
.interpreto td small { font-size: .75rem; }
.interpreto td.leads { background: #e2f2e2; font-weight: 600; }
.interpreto td.chance { color: #a33; }
.interpreto tr.control td:first-child { color: #666; font-style: italic; }
.interpreto tr.control:not(tr.control + tr.control) td { border-top: 2px solid #999; }
.interpreto .names th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .4rem .1rem; }
.interpreto .matrix td { text-align: center; min-width: 2.3rem; padding: .1rem .2rem; border: 1px solid #fff; }
.interpreto .matrix td:first-child { text-align: right; padding-right: .6rem; min-width: 0; }
.interpreto pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; line-height: 1.4; }
"""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What a report shows.

    Attributes:
        summary: The statistics.
        rank_agreement: Rank correlations between methods.
        top_agreement: The share of the highest units that two methods have in common.
        samples: The outputs of every method for the samples whose maps are shown, by the number of the sample.
    """

    summary: Summary
    rank_agreement: Float[Tensor, "m m"]
    top_agreement: Float[Tensor, "m m"]
    samples: Mapping[int, Mapping[str, AttributionOutput]]


@final
class Figures:
    """The figures of a report as PNG; each is drawn once, whether the page, a file or both show it.

    Args:
        content: What the report shows.
    """

    def __init__(self, content: ReportContent) -> None:
        self.content = content
        self._maps: dict[int, bytes] = {}

    @cached_property
    def scores(self) -> bytes:
        """Scores against cost."""
        return png(plot(self.content.summary))

    def maps(self, number: int) -> bytes:
        """All methods on one sample, on one scale."""
        if number not in self._maps:
            self._maps[number] = png(figure_of(self.rows(number)))
        return self._maps[number]

    def rows(self, number: int) -> list[list[Panel]]:
        """The panels of one sample."""
        return gather(self.content.samples[number], relative=True)


def write(content: ReportContent, path: Path) -> Path:
    """Write the page."""
    write_page(path, page(Figures(content)))
    return path


def write_folder(content: ReportContent, path: Path) -> None:
    """Write the page, and beside it the figures of scores and of the samples as files."""
    figures = Figures(content)
    write_page(path / "report.html", page(figures))
    write_page(path / "figures" / "scores.png", figures.scores)
    for sample in list(content.samples)[:_FILES]:
        write_page(path / "figures" / f"maps-{sample:05}.png", figures.maps(sample))


def page(figures: Figures) -> Html:
    """The whole page; it needs no network and no script."""
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
    """The conclusions of the table, in words."""
    lines = []
    for metric in summary.metrics:
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
    """The method with the best mean, and whether it is significantly better than the others."""
    if count < MIN_SAMPLES:
        samples = f"{count} sample is" if count == 1 else f"{count} samples are"
        return f"{samples} too few to tell methods apart; {escape(best)} has the best mean"
    if others:
        return f"{escape(best)} has the best mean, not significantly different from {escape(', '.join(others))}"
    return f"{escape(best)} is significantly better than all other methods"


def tables(summary: Summary) -> str:
    """The table of scores."""
    head = "".join(f"<th>{escape(metric)} {arrow(summary, metric)}</th>" for metric in summary.metrics)
    lines = []
    for method in summary.methods:
        cells = "".join(_cell(summary.ranked(method, metric)) for metric in summary.metrics)
        lines.append(_line(summary, method, cells))
    return (
        f'<div class="wide"><table><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(ranked: RankedMethod) -> str:
    classes = ["leads"] * ranked.not_worse_than_best + ["chance"] * (ranked.beats_random is False)
    gap, tip = ranked.to_best, ""
    below = f"<br><small>{spread(ranked)}</small>" if spread(ranked) else ""
    if gap is not None and not ranked.best and not math.isnan(gap.low):
        words = f"{gap.mean:+.3g} to the best, between {gap.low:+.3g} and {gap.high:+.3g}; {gap.count} samples"
        tip = f' title="{words}"'
    return f'<td class="{" ".join(classes)}"{tip}>{number(ranked)}{marks(ranked)}{below}</td>'


def _line(summary: Summary, method: str, cells: str) -> str:
    kind = ' class="control"' if method in summary.controls else ""
    return f"<tr{kind}><td>{escape(shown(summary, method))}</td>{cells}</tr>"


def _notes(summary: Summary) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in notes(summary) if line != KEY)
    return f"<p><small>{escape(KEY)}</small></p>" + (f"<ul>{lines}</ul>" if lines else "")


def _costs(summary: Summary) -> str:
    lines = [
        _line(summary, c.method, f"<td>{c.n_evaluations:.0f}</td><td>{c.seconds:.3g}</td><td>{c.memory:.3f}</td>")
        for c in summary.costs
    ]
    return (
        "<table><thead><tr><th>method</th><th>evaluations</th><th>seconds</th><th>peak memory (GB)</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _agreements(content: ReportContent) -> Iterable[str]:
    summary = content.summary
    names = [shown(summary, method) for method in summary.methods]
    yield "<h2>Agreement between methods</h2><p>Rank correlation of the scores of units</p>"
    yield _matrix(content.rank_agreement, names)
    yield "<p>Share of the highest tenth of units that two methods have in common</p>"
    yield _matrix(content.top_agreement, names)


def _removals(summary: Summary) -> Iterable[str]:
    for one in summary.conclusions:
        yield f"<h2>{escape(one.metric)} by removal operator</h2>{_leaders(one)}"
        yield "<p>Rank correlation of the methods' means between operators</p>"
        yield _matrix(one.agreement, list(one.removals))


def _leaders(one: Conclusion) -> str:
    lines = "".join(
        f"<tr><td>{escape(removal)}</td><td>{escape(best or '–')}</td>"
        f"<td>{escape(', '.join(method for method in some if method != best))}</td></tr>"
        for removal, best, some in zip(one.removals, one.best, one.not_worse_than_best, strict=True)
    )
    head = "<tr><th>removal</th><th>best mean</th><th>not significantly different from it</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"


def _matrix(values: Float[Tensor, "m m"], names: list[str]) -> str:
    colours = colormaps["RdBu"]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for name, row in zip(names, values.tolist(), strict=True):
        cells = []
        for value in row:
            if math.isnan(value):
                cells.append("<td>–</td>")
                continue
            colour = colours(0.5 + value / 2)
            letters = "#fff" if sum(colour[:3]) < 1.35 else "#111"
            cells.append(f'<td style="background:{to_hex(colour)};color:{letters}">{value:.2f}</td>')
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="matrix"><thead class="names"><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _maps(figures: Figures, number: int) -> str:
    rows = figures.rows(number)
    title = f"<h3>Sample {number}</h3>"
    if rows[0][0].output.is_image:
        return title + _figure(figures.maps(number), f"Maps of sample {number}")
    if has_matrix(rows):
        return title + _figure(figures.maps(number), f"Sources of sample {number}")
    return title + "".join(html.section(row) for row in rows)


def _figure(picture: bytes, title: str) -> str:
    data = base64.b64encode(picture).decode()
    return f'<img alt="{escape(title, quote=True)}" src="data:image/png;base64,{data}">'


def _configuration(summary: Summary) -> str:
    words = json.dumps(summary.config.to_json() | {"masks": summary.config.masks is not None}, indent=1)
    return f"<details><summary>methods, metrics, options, versions</summary><pre>{escape(words)}</pre></details>"
