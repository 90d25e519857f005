"""Maps over pictures."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from PIL import Image
from torch import Tensor

from interpreto.visualizations.output import Picture
from interpreto.visualizations.panels import Panel

_AREA = 6.0
"""Square inches of a picture, whatever its shape."""
_COLUMNS = 4
"""Pictures side by side, at most."""
_BAR, _TITLE, _LINE, _LEGEND = 0.7, 0.3, 0.17, 0.4
"""Inches beside a picture for its colour bar, above it for a title of one line and of each more, and for the legend."""
_LETTER = 0.085
"""Inches of a letter of a title."""
_RAISES, _LOWERS, _UNSIGNED = "#c4001d", "#0048c4", "#c4007a"
"""Colours of scores that raise and lower a target's score, and of scores without signs."""
_STEPS = 256


def draw(rows: list[list[Panel]]) -> Picture:
    """One group per sample and target: the picture, then every method's map with a colour bar of its own scores.

    Pictures go over several lines of at most four, as even as can be.
    """
    lines = [(row, line) for row in rows for line in _lines([None, *row])]
    columns = max(len(line) for _, line in lines)
    sizes = [_size(row[0]) for row, _ in lines]
    heights = [
        tall + _TITLE + _LINE * above(row[0]).count("\n") for (row, _), (_, tall) in zip(lines, sizes, strict=True)
    ]
    width = columns * (max(wide for wide, _ in sizes) + _BAR)
    figure = Picture(figsize=(width, sum(heights) + _LEGEND), layout="constrained")
    axes = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (row, line), places in zip(lines, axes, strict=True):
        for place in places:
            place.set_axis_off()
        for panel, place in zip(line, places, strict=False):
            if panel is None:
                place.imshow(row[0].output.raw_input)
                place.set_title(above(row[0]), fontsize=10, y=1.0, parse_math=False)
            else:
                # Where one scale serves all, one bar does.
                overlay(panel, place, bar=not panel.relative or panel is row[-1])
    _legend(figure, rows)
    return figure


def _lines(group: Sequence[Panel | None]) -> list[list[Panel | None]]:
    """A group in lines of like length, the longer ones first, so that none has one picture alone."""
    count = math.ceil(len(group) / _COLUMNS)
    length, longer = divmod(len(group), count)
    bounds = [line * length + min(line, longer) for line in range(count + 1)]
    return [list(group[start:end]) for start, end in pairwise(bounds)]


def _size(panel: Panel) -> tuple[float, float]:
    """Inches of a picture's width and height."""
    picture = panel.output.raw_input
    assert isinstance(picture, Image.Image)
    ratio = min(max(picture.width / picture.height, 0.3), 3.3)
    return math.sqrt(_AREA * ratio), math.sqrt(_AREA / ratio)


def above(panel: Panel) -> str:
    """What is written above a picture: the target's name and score, in several lines where it is long."""
    width, _ = _size(panel)
    return textwrap.fill(panel.title, max(16, int((width + _BAR) / _LETTER)))


def colour_map(signed: bool) -> ListedColormap:
    """Colours that are the more opaque the larger the score: the picture is as it was where the score is 0."""
    ramp = np.linspace(-1 if signed else 0, 1, _STEPS)
    raises, lowers = to_rgb(_RAISES if signed else _UNSIGNED), to_rgb(_LOWERS)
    colours = np.where((ramp >= 0)[:, None], raises, lowers)
    return ListedColormap(np.concatenate([colours, np.abs(ramp)[:, None]], axis=1).tolist())


def overlay(panel: Panel, place: Axes, bar: bool) -> None:
    """A map over the picture, with or without a colour bar."""
    picture, boxes = panel.output.raw_input, panel.output.elements
    assert isinstance(picture, Image.Image)
    assert isinstance(boxes, Tensor)
    _, norm = panel.colours
    place.imshow(picture)
    left, top, right, bottom = (
        float(boxes[:, 0].min()),
        float(boxes[:, 1].min()),
        float(boxes[:, 2].max()),
        float(boxes[:, 3].max()),
    )
    # matplotlib counts from the centre of the first pixel, boxes from its corner.
    extent = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
    # Relative scores of all methods share one scale.
    colours = colour_map(panel.signed or panel.relative)
    drawn = place.imshow(panel.map.numpy(), cmap=colours, norm=norm, extent=extent, interpolation="nearest")
    place.set_xlim(-0.5, picture.width - 0.5)
    place.set_ylim(picture.height - 0.5, -0.5)
    place.set_title(panel.method, fontsize=10, y=1.0, parse_math=False)
    if bar:
        _colour_bar(place, drawn, panel.extend)


def _colour_bar(place: Axes, drawn: AxesImage, extend: str) -> None:
    # Inside the axes, so that it is as high as the picture, whatever the picture's shape.
    bar = place.figure.colorbar(drawn, cax=place.inset_axes((1.03, 0, 0.04, 1)), extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    bar.formatter = short = ScalarFormatter()
    short.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.update_ticks()


def _legend(figure: Picture, rows: list[list[Panel]]) -> None:
    """What the colours say."""
    panels = [panel for row in rows for panel in row]
    names = {row[0].output.target_names[row[0].target] for row in rows}
    whose = f"the score of {textwrap.shorten(next(iter(names)), 40)!r}" if len(names) == 1 else "the target's score"
    entries = []
    if any(panel.signed for panel in panels) or panels[0].relative:
        entries += [Patch(color=_RAISES, label=f"raises {whose}"), Patch(color=_LOWERS, label=f"lowers {whose}")]
    if not panels[0].relative and any(not panel.signed for panel in panels):
        entries.append(Patch(color=_UNSIGNED, label="matters, with no sign"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=9, frameon=False)
