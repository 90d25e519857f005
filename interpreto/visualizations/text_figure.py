"""Texts with coloured units as a matplotlib figure."""

import math
import re

from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from interpreto.visualizations.output import Picture
from interpreto.visualizations.panels import Panel

_COLUMNS = 84
"""Letters in a line."""
_LETTER, _LINE = 0.0885, 0.27
"""Inches of a letter's width and of a line's height, at the size below."""
_SIZE = 10.5


def draw(rows: list[list[Panel]]) -> Picture:
    """One block per sample, target and method: its title, the text in the colours of its scores, a colour bar."""
    panels = [panel for row in rows for panel in row]
    layouts = [_wrapped(panel.output.elements) for panel in panels]
    heights = [1.6 + max(2, 1 + max(line for _, line, _, _ in layout)) for layout in layouts]
    width = _COLUMNS * _LETTER + 0.15
    figure = Picture(figsize=(width + 1.0, sum(heights) * _LINE))
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    figure.subplots_adjust(left=0.15 / (width + 1.0), right=width / (width + 1.0), top=1, bottom=0, hspace=0)
    for panel, place, layout, height in zip(panels, axes, layouts, heights, strict=True):
        colours, norm = panel.colours
        place.set(xlim=(0, _COLUMNS), ylim=(height, 0))
        place.set_axis_off()
        place.text(0, 0.75, f"{panel.method}: {panel.title}", fontsize=9, weight="bold", va="center", parse_math=False)
        for piece, line, column, unit in layout:
            score = float(panel.scores[unit])
            # Units without a say, behind a generated target, stay blank.
            colour = (1.0, 1.0, 1.0, 1.0) if math.isnan(score) else colours(norm(score))
            x, y = column, line + 1.3
            place.add_patch(Rectangle((x, y + 0.05), len(piece), 0.9, color=colour, linewidth=0))
            # The darkest colours of both maps need light letters.
            dark = sum(colour[:3]) < 1.35
            place.text(
                x,
                y + 0.5,
                piece,
                fontsize=_SIZE,
                family="monospace",
                va="center",
                color="white" if dark else "black",
                parse_math=False,
            )
        bar = place.inset_axes((1.01, 0.2, 0.012, 0.6))
        figure.colorbar(ScalarMappable(norm, colours), cax=bar)
        bar.tick_params(labelsize=7)
        bar.locator_params(nbins=4)
    return figure


def _wrapped(elements) -> list[tuple[str, int, int, int]]:
    """Pieces with their line, column and unit; units are broken at white space."""
    placed, line, column = [], 0, 0
    for unit, element in enumerate(elements):
        for piece in re.findall(r"\s+|\S+", element):
            for part in (piece[start : start + _COLUMNS] for start in range(0, len(piece), _COLUMNS)):
                if part.isspace():
                    column += min(len(part), _COLUMNS) if column else 0
                    continue
                if column + len(part) > _COLUMNS:
                    line, column = line + 1, 0
                placed.append((part, line, column, unit))
                column += len(part)
    return placed
