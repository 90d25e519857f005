"""Generated texts as a matplotlib figure: one line per target, one column per unit."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from interpreto.visualizations.output import Picture
from interpreto.visualizations.panels import Panel, sample_rows, shortened

_COLUMNS = 40
"""Units side by side; longer texts go on below."""
_CELL, _LETTER, _KEY = 0.26, 0.07, 0.75
"""Inches of a cell's side, of a letter, and of the room for a colour bar."""
_HEAD = 0.55
"""Inches above a block, for its title."""
_WIDTH = 20.0
"""Inches of a figure, at most, where methods stand side by side."""
_LETTERS = 18
"""Letters of a unit that are shown."""
_SIZE = 8


def draw(rows: list[list[Panel]]) -> Picture:
    """One block per sample and method: what each target (line) rests on, in the colours of one scale per block.

    Cells of units without a say, behind a target, stay blank.
    """
    several = sample_rows(rows)
    samples = [[_Block(panel, len(several) > 1 and not number) for number, panel in enumerate(s[0])] for s in several]
    wide = max(block.width for blocks in samples for block in blocks)
    across = max(1, min(len(samples[0]), int(_WIDTH / wide)))
    lines = [blocks[start : start + across] for blocks in samples for start in range(0, len(blocks), across)]
    heights = [max(block.height for block in line) for line in lines]
    canvas = _Canvas(Picture(figsize=(wide * across, sum(heights))))
    top = 0.0
    for line, height in zip(lines, heights, strict=True):
        for number, block in enumerate(line):
            block.draw(canvas, number * wide, top)
        top += height
    return canvas.figure


@dataclass(frozen=True)
class _Canvas:
    """A figure on which places are given in inches from its upper left corner."""

    figure: Picture

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        wide, high = self.figure.get_size_inches()
        return self.figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


class _Block:
    """One result: its strips of units, below each other."""

    def __init__(self, panel: Panel, begins: bool) -> None:
        self.panel, self.output = panel, panel.output
        prompt = panel.output.raw_input[0] if isinstance(panel.output.raw_input, tuple) else ""
        self.title = f"{shortened(str(prompt))}\n{panel.method}" if begins else panel.method
        self.names = [_short(name) for name in self.output.target_names]
        units = [_short(str(element)) for element in self.output.elements]
        self.strips = [units[start : start + _COLUMNS] for start in range(0, len(units), _COLUMNS)]
        self.left = 0.25 + _LETTER * max(map(len, self.names))
        self.width = self.left + len(self.strips[0]) * _CELL + _KEY
        self.height = _HEAD + sum(map(self._room, self.strips))

    def _room(self, units: list[str]) -> float:
        """Inches of a strip: its lines, and the units written upright below."""
        return len(self.names) * _CELL + 0.25 + _LETTER * max(map(len, units))

    def draw(self, canvas: _Canvas, left: float, top: float) -> None:
        colours, norm = self.panel.all_colours
        high, lines = len(self.names) * _CELL, range(len(self.names))
        left, below = left + self.left, top + _HEAD
        for number, units in enumerate(self.strips):
            place = canvas.axes(left, below, len(units) * _CELL, high)
            begin = number * _COLUMNS
            part = self.panel.all_scores[:, begin : begin + len(units)].numpy()
            place.imshow(part, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
            place.set_xticks(range(len(units)), units, rotation=90, fontsize=_SIZE, parse_math=False)
            place.set_yticks(lines, self.names, fontsize=_SIZE, parse_math=False)
            place.set_xticks([edge - 0.5 for edge in range(1, len(units))], minor=True)
            place.set_yticks([edge - 0.5 for edge in lines[1:]], minor=True)
            place.tick_params(which="both", length=0)
            place.grid(which="minor", color="#dddddd", linewidth=0.5)
            if not number:
                place.set_title(self.title, fontsize=10, weight="bold", loc="left", parse_math=False)
            below += self._room(units)
        key = canvas.axes(left + len(self.strips[0]) * _CELL + 0.1, top + _HEAD, 0.1, high)
        canvas.figure.colorbar(ScalarMappable(norm, colours), cax=key)
        key.tick_params(labelsize=7)
        key.locator_params(nbins=max(2, min(5, len(lines))))


def _short(text: str) -> str:
    """A unit as one line; white space that is all of it is made visible."""
    word = " ".join(text.split()) or repr(text)[1:-1]
    return word if len(word) <= _LETTERS else f"{word[: _LETTERS - 1]}…"
