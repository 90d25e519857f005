"""Attributions of text generation as a matplotlib figure: a heat map with one row per target, one column per unit."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from interpreto.visualizations.output import NotebookFigure
from interpreto.visualizations.panels import Panel, group_by_sample, shortened

_COLUMNS = 40
"""Maximum number of columns; the heat map of a longer text is split into several, one below the other."""
_CELL, _CHARACTER, _BAR = 0.26, 0.07, 0.75
"""Side of a cell, width of a character, and space for a colour bar, in inches."""
_TITLE = 0.55
"""Space for the title of a result, in inches."""
_MAX_WIDTH = 20.0
"""Maximum width of a figure that shows several methods side by side, in inches."""
_MAX_CHARACTERS = 18
"""Maximum length of a tick label."""
_FONT_SIZE = 8
"""Font size of tick labels, in points; `_CHARACTER` is the width of a character of this size."""


def draw(rows: list[list[Panel]]) -> NotebookFigure:
    """Draw one heat map per sample and method: the attribution of each unit to each target.

    Each heat map has its own colour scale. Cells are blank for the target itself and for the units after it, which
    cannot influence it.

    Args:
        rows: Panels, one row per sample and target, one column per method.
    """
    samples = group_by_sample(rows)
    # A heat map shows all targets of its result, so that one panel per sample and method suffices.
    heat_maps = [
        [_HeatMap(panel, len(samples) > 1 and not column) for column, panel in enumerate(sample[0])]
        for sample in samples
    ]
    width = max(heat_map.width for of_sample in heat_maps for heat_map in of_sample)
    n_columns = max(1, min(len(heat_maps[0]), int(_MAX_WIDTH / width)))
    grid = [
        of_sample[start : start + n_columns] for of_sample in heat_maps for start in range(0, len(of_sample), n_columns)
    ]
    heights = [max(heat_map.height for heat_map in grid_row) for grid_row in grid]
    canvas = _Canvas(NotebookFigure(figsize=(width * n_columns, sum(heights))))
    top = 0.0
    for grid_row, height in zip(grid, heights, strict=True):
        for column, heat_map in enumerate(grid_row):
            heat_map.draw(canvas, column * width, top)
        top += height
    return canvas.figure


@dataclass(frozen=True)
class _Canvas:
    """A figure whose axes are positioned in inches from the upper left corner."""

    figure: NotebookFigure

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        total_width, total_height = self.figure.get_size_inches()
        # matplotlib expects fractions of the figure size, from the lower left corner.
        return self.figure.add_axes(
            (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
        )


class _HeatMap:
    """The heat map of one result; one with many columns is split into strips, one below the other.

    Args:
        panel: The panel of any target of the result.
        title_has_prompt: Whether the title includes the prompt.
    """

    def __init__(self, panel: Panel, title_has_prompt: bool) -> None:
        self.panel, self.output = panel, panel.output
        self.title = f"{shortened(self.output.prompt)}\n{panel.method}" if title_has_prompt else panel.method
        self.target_labels = [_tick_label(name) for name in self.output.target_names]
        units = [_tick_label(str(element)) for element in self.output.elements]
        self.strips = [units[start : start + _COLUMNS] for start in range(0, len(units), _COLUMNS)]
        self.left = 0.25 + _CHARACTER * max(map(len, self.target_labels))
        self.width = self.left + len(self.strips[0]) * _CELL + _BAR
        self.height = _TITLE + sum(map(self._strip_height, self.strips))

    def _strip_height(self, units: list[str]) -> float:
        """Height of a strip in inches, including the vertical tick labels below it."""
        return len(self.target_labels) * _CELL + 0.25 + _CHARACTER * max(map(len, units))

    def draw(self, canvas: _Canvas, left: float, top: float) -> None:
        colours, norm = self.panel.all_colours
        height, row_indices = len(self.target_labels) * _CELL, range(len(self.target_labels))
        left, strip_top = left + self.left, top + _TITLE
        for strip, units in enumerate(self.strips):
            axes = canvas.axes(left, strip_top, len(units) * _CELL, height)
            begin = strip * _COLUMNS
            scores = self.panel.all_scores[:, begin : begin + len(units)].numpy()
            axes.imshow(scores, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
            # By default, matplotlib parses text after "$" as a formula, which fails for some tokens.
            axes.set_xticks(range(len(units)), units, rotation=90, fontsize=_FONT_SIZE, parse_math=False)
            axes.set_yticks(row_indices, self.target_labels, fontsize=_FONT_SIZE, parse_math=False)
            # Cells are centred on integers, so that grid lines between them are at minor ticks halfway.
            axes.set_xticks([edge - 0.5 for edge in range(1, len(units))], minor=True)
            axes.set_yticks([edge - 0.5 for edge in row_indices[1:]], minor=True)
            axes.tick_params(which="both", length=0)
            axes.grid(which="minor", color="#dddddd", linewidth=0.5)
            if not strip:
                axes.set_title(self.title, fontsize=10, weight="bold", loc="left", parse_math=False)
            strip_top += self._strip_height(units)
        colour_bar = canvas.axes(left + len(self.strips[0]) * _CELL + 0.1, top + _TITLE, 0.1, height)
        canvas.figure.colorbar(ScalarMappable(norm, colours), cax=colour_bar)
        colour_bar.tick_params(labelsize=7)
        colour_bar.locator_params(nbins=max(2, min(5, len(row_indices))))


def _tick_label(text: str) -> str:
    """A unit on one line, shortened if it is long; white space alone is escaped, so that a line break is visible."""
    label = " ".join(text.split()) or repr(text)[1:-1]
    return label if len(label) <= _MAX_CHARACTERS else f"{label[: _MAX_CHARACTERS - 1]}…"
