"""Static HTML pages: coloured texts with a tooltip per unit, and figures, in one file without scripts or network."""

import base64
from html import escape

from matplotlib.colors import to_hex

from interpreto.visualizations.output import Html, NotebookFigure, png
from interpreto.visualizations.panels import Panel

_STYLE = """
.interpreto { font: 16px/1.9 system-ui, sans-serif; color: #111; background: #fff; max-width: 60rem; margin: 1rem auto;
  padding: 0 1rem; }
.interpreto h2 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; border-bottom: 1px solid #ddd; }
.interpreto h3 { font-size: .9rem; margin: .9rem 0 .1rem; color: #333; }
.interpreto p { margin: .1rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.interpreto mark { border-radius: .2em; padding: .1em 0; }
.interpreto .key { display: inline-block; width: 7rem; height: .7em; margin: 0 .4em; border: 1px solid #ccc; }
.interpreto small { color: #555; font-weight: normal; }
.interpreto summary { font-size: .8rem; color: #555; cursor: pointer; }
.interpreto table { border-collapse: collapse; font-size: .85rem; line-height: 1.4; }
.interpreto th, .interpreto td { padding: .1rem .7rem; text-align: right; border-bottom: 1px solid #eee; }
.interpreto th:first-child, .interpreto td:first-child { text-align: left; white-space: pre-wrap; }
.interpreto img { max-width: 100%; }
"""


def page(body: str, title: str, style: str = "") -> Html:
    """An HTML document with this body, the common style, and further style rules."""
    return Html(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>"
        f'<body><main class="interpreto">{body}</main></body></html>\n'
    )


def of_texts(rows: list[list[Panel]]) -> Html:
    """A page with one section per sample and target."""
    return page("\n".join(section(row) for row in rows), "Attributions")


def of_figure(figure: NotebookFigure) -> Html:
    """A page with a figure, embedded as a PNG."""
    data = base64.b64encode(png(figure)).decode()
    return page(f'<img alt="Attribution maps" src="data:image/png;base64,{data}">', "Attributions")


def section(row: list[Panel]) -> str:
    """One sample and target: the coloured text for every method, and a table of all scores."""
    blocks = "".join(_block(panel) for panel in row)
    return f"<section><h2>{escape(row[0].title)}</h2>{blocks}{_table(row)}</section>"


def _block(panel: Panel) -> str:
    colours, norm = panel.colours
    # The colour bar is a CSS gradient: nine stops are enough for both colour maps.
    stops = ", ".join(to_hex(colours(step / 8)) for step in range(9))
    bar = (
        f'<small>{norm.vmin:.3g}<span class="key" style="background:linear-gradient(to right,{stops})"></span>'
        f"{norm.vmax:.3g}</small>"
    )
    units = "".join(_mark(panel, unit) for unit in range(len(panel.output.elements)))
    return f"<h3>{escape(panel.method)} {bar}</h3><p>{units}</p>"


def _mark(panel: Panel, unit: int) -> str:
    """A unit on a background in its colour; white space around it is not coloured, so that units are visibly apart."""
    colours, norm = panel.colours
    element = str(panel.output.elements[unit])
    word = element.strip()
    background = colours(norm(float(panel.scores[unit])))
    # The darkest colours of both colour maps need white text.
    text_colour = "#fff" if sum(background[:3]) < 1.35 else "#111"
    before, after = element[: len(element) - len(element.lstrip())], element[len(element.rstrip()) :]
    if not word or bool(panel.scores[unit].isnan()):
        return escape(element)
    tip = escape(f"{word}: {_number(panel, unit)}", quote=True)
    style = f"background:{to_hex(background)};color:{text_colour}"
    return f'{escape(before)}<mark style="{style}" title="{tip}">{escape(word)}</mark>{escape(after)}'


def _number(panel: Panel, unit: int) -> str:
    if bool(panel.scores[unit].isnan()):
        return ""
    # Standard errors are in the units of the method, not of relative scores.
    errors = None if panel.relative else panel.output.standard_errors
    suffix = "" if errors is None else f" ± {float(errors[panel.target][unit]):.2g}"
    return f"{float(panel.scores[unit]):+.4g}{suffix}"


def _table(row: list[Panel]) -> str:
    """All scores, with one table for each set of methods that have the same units."""
    groups: dict[tuple[str, ...], list[Panel]] = {}
    for panel in row:
        groups.setdefault(tuple(map(str, panel.output.elements)), []).append(panel)
    tables = "".join(map(table, groups.values()))
    return f"<details><summary>all scores as a table</summary>{tables}</details>"


def table(panels: list[Panel]) -> str:
    """The units of one sample, one column of scores per panel."""
    head = "".join(f"<th>{escape(panel.method)}</th>" for panel in panels)
    lines = "".join(
        f"<tr><td>{escape(str(element).strip())}</td>"
        + "".join(f"<td>{_number(panel, unit)}</td>" for panel in panels)
        + "</tr>"
        for unit, element in enumerate(panels[0].output.elements)
    )
    return f"<table><thead><tr><th>unit</th>{head}</tr></thead><tbody>{lines}</tbody></table>"
