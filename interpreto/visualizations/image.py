"""Maps over pictures."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from PIL import Image
from torch import Tensor

from interpreto.visualizations.figures import Picture
from interpreto.visualizations.panels import Panel

_SIDE = 2.4
"""Inches of a picture's side."""
_TITLE = 30
"""Letters that fit above a picture."""


def draw(rows: list[list[Panel]]) -> Picture:
    """One row per sample and target: the picture, then every method's map with a colour bar of its own scores.

    Where the methods are many they go over several lines below each other.
    """
    per_line = min(len(rows[0]), 6)
    lines = [(row, row[start : start + per_line]) for row in rows for start in range(0, len(row), per_line)]
    figure = Picture(figsize=(_SIDE * 1.12 * (per_line + 1), (_SIDE - 0.05) * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), per_line + 1, squeeze=False)
    for (row, line), places in zip(lines, axes, strict=True):
        for place in places:
            place.set_axis_off()
        if line[0] is row[0]:
            places[0].imshow(row[0].output.raw_input)
            places[0].set_title(above(row[0]), fontsize=10, y=1.0, parse_math=False)
        for panel, place in zip(line, places[1:], strict=False):
            # Where one scale serves all, one bar does.
            overlay(panel, place, bar=not panel.relative or panel is line[-1])
    return figure


def above(panel: Panel) -> str:
    """What stands above a picture: the target's name and score, in several lines where it is long."""
    return textwrap.fill(panel.title, _TITLE)


def overlay(panel: Panel, place: Axes, bar: bool) -> None:
    """A map over the picture in grey, with or without a colour bar."""
    picture, boxes = panel.output.raw_input, panel.output.elements
    assert isinstance(picture, Image.Image)
    assert isinstance(boxes, Tensor)
    colours, norm = panel.colours
    place.imshow(picture.convert("L"), cmap="gray", vmin=-60, vmax=315)
    left, top, right, bottom = (
        float(boxes[:, 0].min()),
        float(boxes[:, 1].min()),
        float(boxes[:, 2].max()),
        float(boxes[:, 3].max()),
    )
    # matplotlib counts from the centre of the first pixel, boxes from its corner.
    extent = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
    drawn = place.imshow(
        panel.scores.numpy(), cmap=colours, norm=norm, alpha=0.65, extent=extent, interpolation="nearest"
    )
    place.set_xlim(-0.5, picture.width - 0.5)
    place.set_ylim(picture.height - 0.5, -0.5)
    place.set_title(panel.method, fontsize=10, y=1.0, parse_math=False)
    if bar:
        _colour_bar(place, drawn)


def _colour_bar(place: Axes, drawn: AxesImage) -> None:
    # Inside the axes, so that it is as high as the picture, whatever the picture's shape.
    bar = place.figure.colorbar(drawn, cax=place.inset_axes((1.04, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    bar.formatter = short = ScalarFormatter()
    short.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.update_ticks()
