"""Texts as a matplotlib figure: units on a background in the colour of their score."""

import math
import re

from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from interpreto.visualizations.output import NotebookFigure
from interpreto.visualizations.panels import Panel

_COLUMNS = 84
"""Characters in a line."""
_CHARACTER, _LINE = 0.0885, 0.27
"""Width of a character and height of a line at this font size, in inches."""
_FONT_SIZE = 10.5
"""Font size of the text, in points."""


def draw(rows: list[list[Panel]]) -> NotebookFigure:
    """One block per sample, target and method: a title, the coloured text, and a colour bar."""
    panels = [panel for row in rows for panel in row]
    layouts = [_wrapped(panel.output.elements) for panel in panels]
    # In lines: the title and a margin, and at least two lines of text, so that the colour bar has room for its labels.
    heights = [1.6 + max(2, 1 + max(line for _, line, _, _ in layout)) for layout in layouts]
    width = _COLUMNS * _CHARACTER + 0.15
    figure = NotebookFigure(figsize=(width + 1.0, sum(heights) * _LINE))
    column_axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    figure.subplots_adjust(left=0.15 / (width + 1.0), right=width / (width + 1.0), top=1, bottom=0, hspace=0)
    for panel, axes, layout, height in zip(panels, column_axes, layouts, heights, strict=True):
        colours, norm = panel.colours
        # Data coordinates are characters and lines, with the first line at the top.
        axes.set(xlim=(0, _COLUMNS), ylim=(height, 0))
        axes.set_axis_off()
        axes.text(0, 0.75, f"{panel.method}: {panel.title}", fontsize=9, weight="bold", va="center", parse_math=False)
        for text, line, column, unit in layout:
            score = float(panel.scores[unit])
            # NaN: the units of a generated target, and those after it, which cannot influence it.
            colour = (1.0, 1.0, 1.0, 1.0) if math.isnan(score) else colours(norm(score))
            x, y = column, line + 1.3
            axes.add_patch(Rectangle((x, y + 0.05), len(text), 0.9, color=colour, linewidth=0))
            # The darkest colours of both colour maps need white text.
            dark = sum(colour[:3]) < 1.35
            axes.text(
                x,
                y + 0.5,
                text,
                fontsize=_FONT_SIZE,
                # One character is one column wide: the background fits, and text can be wrapped by counting.
                family="monospace",
                va="center",
                color="white" if dark else "black",
                parse_math=False,
            )
        bar = axes.inset_axes((1.01, 0.2, 0.012, 0.6))
        figure.colorbar(ScalarMappable(norm, colours), cax=bar)
        bar.tick_params(labelsize=7)
        bar.locator_params(nbins=4)
    return figure


def _wrapped(elements) -> list[tuple[str, int, int, int]]:
    """Parts of words with their line, column and unit; lines break at white space, or inside words longer than one."""
    layout, line, column = [], 0, 0
    for unit, element in enumerate(elements):
        for run in re.findall(r"\s+|\S+", element):
            for part in (run[start : start + _COLUMNS] for start in range(0, len(run), _COLUMNS)):
                if part.isspace():
                    # White space is not drawn, and is dropped at the beginning of a line.
                    column += min(len(part), _COLUMNS) if column else 0
                    continue
                if column + len(part) > _COLUMNS:
                    line, column = line + 1, 0
                layout.append((part, line, column, unit))
                column += len(part)
    return layout
