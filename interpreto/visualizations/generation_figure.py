"""Generated texts as a matplotlib figure: a matrix with one row per target and one column per unit."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from interpreto.visualizations.output import Picture
from interpreto.visualizations.panels import Panel, sample_rows, shortened

_COLUMNS = 40
"""Maximum number of units side by side; longer texts wrap into further strips below."""
_CELL, _CHARACTER, _BAR = 0.26, 0.07, 0.75
"""Side of a cell, width of a character, and space for a colour bar, in inches."""
_TITLE = 0.55
"""Space above a block for its title, in inches."""
_MAX_WIDTH = 20.0
"""Maximum width of a figure with methods side by side, in inches."""
_MAX_CHARACTERS = 18
"""Maximum number of characters shown of a unit."""
_FONT_SIZE = 8
"""Font size of tick labels, in points; `_CHARACTER` is the width of a character of this size."""


def draw(rows: list[list[Panel]]) -> Picture:
    """One matrix per sample and method: the attribution of each unit to each target, with one colour scale per matrix.

    Cells of the target itself, and of units after it, which cannot influence it, are blank.
    """
    samples = sample_rows(rows)
    # A block draws all targets of its result, so only the first row of each sample is used.
    groups = [[_Block(panel, len(samples) > 1 and not column) for column, panel in enumerate(s[0])] for s in samples]
    width = max(block.width for blocks in groups for block in blocks)
    n_columns = max(1, min(len(groups[0]), int(_MAX_WIDTH / width)))
    lines = [blocks[start : start + n_columns] for blocks in groups for start in range(0, len(blocks), n_columns)]
    heights = [max(block.height for block in line) for line in lines]
    canvas = _Canvas(Picture(figsize=(width * n_columns, sum(heights))))
    top = 0.0
    for line, height in zip(lines, heights, strict=True):
        for column, block in enumerate(line):
            block.draw(canvas, column * width, top)
        top += height
    return canvas.figure


@dataclass(frozen=True)
class _Canvas:
    """A figure on which axes are placed in inches from its upper left corner."""

    figure: Picture

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        total_width, total_height = self.figure.get_size_inches()
        # matplotlib takes fractions of the figure, measured from its lower left corner.
        return self.figure.add_axes(
            (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
        )


class _Block:
    """The matrix of one result, in strips of units below each other.

    Args:
        panel: Any target of the result.
        begins: Whether the title names the prompt: only the first block of a sample does, and only if there are several
            samples.
    """

    def __init__(self, panel: Panel, begins: bool) -> None:
        self.panel, self.output = panel, panel.output
        # The raw input is a tuple of prompt and continuation.
        prompt = panel.output.raw_input[0] if isinstance(panel.output.raw_input, tuple) else ""
        self.title = f"{shortened(str(prompt))}\n{panel.method}" if begins else panel.method
        self.names = [_short(name) for name in self.output.target_names]
        units = [_short(str(element)) for element in self.output.elements]
        self.strips = [units[start : start + _COLUMNS] for start in range(0, len(units), _COLUMNS)]
        self.left = 0.25 + _CHARACTER * max(map(len, self.names))
        self.width = self.left + len(self.strips[0]) * _CELL + _BAR
        self.height = _TITLE + sum(map(self._strip_height, self.strips))

    def _strip_height(self, units: list[str]) -> float:
        """Height of a strip in inches: its rows, and the units as vertical tick labels below them."""
        return len(self.names) * _CELL + 0.25 + _CHARACTER * max(map(len, units))

    def draw(self, canvas: _Canvas, left: float, top: float) -> None:
        colours, norm = self.panel.all_colours
        height, rows = len(self.names) * _CELL, range(len(self.names))
        left, strip_top = left + self.left, top + _TITLE
        for number, units in enumerate(self.strips):
            axes = canvas.axes(left, strip_top, len(units) * _CELL, height)
            begin = number * _COLUMNS
            scores = self.panel.all_scores[:, begin : begin + len(units)].numpy()
            axes.imshow(scores, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
            # Without parse_math=False matplotlib reads "$" in a token as the start of a formula, and may raise.
            axes.set_xticks(range(len(units)), units, rotation=90, fontsize=_FONT_SIZE, parse_math=False)
            axes.set_yticks(rows, self.names, fontsize=_FONT_SIZE, parse_math=False)
            # Cells are centred on integers: minor ticks half way between them draw grid lines around cells.
            axes.set_xticks([edge - 0.5 for edge in range(1, len(units))], minor=True)
            axes.set_yticks([edge - 0.5 for edge in rows[1:]], minor=True)
            axes.tick_params(which="both", length=0)
            axes.grid(which="minor", color="#dddddd", linewidth=0.5)
            if not number:
                axes.set_title(self.title, fontsize=10, weight="bold", loc="left", parse_math=False)
            strip_top += self._strip_height(units)
        bar = canvas.axes(left + len(self.strips[0]) * _CELL + 0.1, top + _TITLE, 0.1, height)
        canvas.figure.colorbar(ScalarMappable(norm, colours), cax=bar)
        bar.tick_params(labelsize=7)
        bar.locator_params(nbins=max(2, min(5, len(rows))))


def _short(text: str) -> str:
    """A unit as one line, shortened; of white space alone, its repr, so that a line break is visible."""
    word = " ".join(text.split()) or repr(text)[1:-1]
    return word if len(word) <= _MAX_CHARACTERS else f"{word[: _MAX_CHARACTERS - 1]}…"
