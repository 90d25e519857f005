"""Heatmaps over images."""

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

from interpreto.visualizations.output import NotebookFigure
from interpreto.visualizations.panels import Panel, shortened

_AREA = 6.0
"""Area of an image in the figure, whatever its aspect ratio, in square inches."""
_COLUMNS = 4
"""Maximum number of images side by side."""
_BAR, _TITLE, _LINE, _LEGEND = 0.7, 0.3, 0.17, 0.4
"""Width of a colour bar, height of a title of one line, of each further line, and of the legend, in inches."""
_CHARACTER = 0.085
"""Width of a character of a title, in inches."""
_RAISES, _LOWERS, _UNSIGNED = "#c4001d", "#0048c4", "#c4007a"
"""Colours of units that raise and lower the target's score, and of units of methods without signs."""
_LEGEND_NAME = 40
"""Maximum length of a target's name in the legend."""
_STEPS = 256
"""Number of colours in a colour map."""


def draw(rows: list[list[Panel]]) -> NotebookFigure:
    """One group per sample and target: the image, then every method's heatmap with a colour bar of its own.

    A group wraps into lines of at most four images, of about equal length.
    """
    # None is the raw image, with which every group begins.
    lines = [(row, line) for row in rows for line in _lines([None, *row])]
    columns = max(len(line) for _, line in lines)
    sizes = [_size(row[0]) for row, _ in lines]
    heights = [
        height + _TITLE + _LINE * panel_title(row[0]).count("\n")
        for (row, _), (_, height) in zip(lines, sizes, strict=True)
    ]
    total_width = columns * (max(width for width, _ in sizes) + _BAR)
    figure = NotebookFigure(figsize=(total_width, sum(heights) + _LEGEND), layout="constrained")
    grid = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (row, line), line_axes in zip(lines, grid, strict=True):
        # Axes are hidden first: a line may have fewer images than the figure has columns.
        for axes in line_axes:
            axes.set_axis_off()
        for panel, axes in zip(line, line_axes, strict=False):
            if panel is None:
                axes.imshow(row[0].output.raw_input)
                axes.set_title(panel_title(row[0]), fontsize=10, y=1.0, parse_math=False)
            else:
                # Relative scores of all methods share one scale, so that one colour bar is enough.
                overlay(panel, axes, bar=not panel.relative or panel is row[-1])
    _legend(figure, rows)
    return figure


def _lines(group: Sequence[Panel | None]) -> list[list[Panel | None]]:
    """A group in lines whose lengths differ by at most one, the longer ones first."""
    # Balanced, so that five images become 3 + 2 and not 4 + 1.
    n_lines = math.ceil(len(group) / _COLUMNS)
    length, n_longer = divmod(len(group), n_lines)
    bounds = [line * length + min(line, n_longer) for line in range(n_lines + 1)]
    return [list(group[start:end]) for start, end in pairwise(bounds)]


def _size(panel: Panel) -> tuple[float, float]:
    """Width and height of an image in the figure, in inches."""
    image = panel.output.require_image()
    # The aspect ratio is limited, or a strip of text would take a whole page.
    ratio = min(max(image.width / image.height, 0.3), 3.3)
    return math.sqrt(_AREA * ratio), math.sqrt(_AREA / ratio)


def panel_title(panel: Panel) -> str:
    """The title of an image: the target's name and score, wrapped to the width of the image."""
    width, _ = _size(panel)
    return textwrap.fill(panel.title, max(16, int((width + _BAR) / _CHARACTER)))


def colour_map(signed: bool) -> ListedColormap:
    """A colour map whose opacity is the magnitude of the score: the image is unchanged where the score is 0."""
    ramp = np.linspace(-1 if signed else 0, 1, _STEPS)
    raises, lowers = to_rgb(_RAISES if signed else _UNSIGNED), to_rgb(_LOWERS)
    colours = np.where((ramp >= 0)[:, None], raises, lowers)
    return ListedColormap(np.concatenate([colours, np.abs(ramp)[:, None]], axis=1).tolist())


def overlay(panel: Panel, axes: Axes, bar: bool) -> None:
    """Draw a heatmap over the image, with or without a colour bar."""
    image, boxes = panel.output.require_image(), panel.output.require_boxes()
    _, norm = panel.colours
    axes.imshow(image)
    # The map covers the units only: models that crop their input do not see the borders of the image.
    left, top, right, bottom = (
        float(boxes[:, 0].min()),
        float(boxes[:, 1].min()),
        float(boxes[:, 2].max()),
        float(boxes[:, 3].max()),
    )
    # matplotlib puts integers at the centres of pixels, boxes put them at the corners.
    extent = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
    # Relative scores of all methods share one scale, so that unsigned ones are drawn with the signed colours, too.
    colours = colour_map(panel.signed or panel.relative)
    heatmap = axes.imshow(panel.map.numpy(), cmap=colours, norm=norm, extent=extent, interpolation="nearest")
    # imshow sets the limits to its extent, which may be smaller than the image.
    axes.set_xlim(-0.5, image.width - 0.5)
    axes.set_ylim(image.height - 0.5, -0.5)
    axes.set_title(panel.method, fontsize=10, y=1.0, parse_math=False)
    if bar:
        _colour_bar(axes, heatmap, panel.extend)


def _colour_bar(axes: Axes, artist: AxesImage, extend: str) -> None:
    # An inset of the axes is as high as the image, whatever its aspect ratio.
    bar = axes.figure.colorbar(artist, cax=axes.inset_axes((1.03, 0, 0.04, 1)), extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    # Values below 10^-2 and from 10^3 on share a power of ten above the bar, so that tick labels fit beside it.
    bar.formatter = formatter = ScalarFormatter()
    formatter.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.update_ticks()


def _legend(figure: NotebookFigure, rows: list[list[Panel]]) -> None:
    """Add a legend of the colours below the figure."""
    panels = [panel for row in rows for panel in row]
    names = {row[0].output.target_names[row[0].target] for row in rows}
    score = f"the score of {shortened(next(iter(names)), _LEGEND_NAME)!r}" if len(names) == 1 else "the target's score"
    entries = []
    if any(panel.signed for panel in panels) or panels[0].relative:
        entries += [Patch(color=_RAISES, label=f"raises {score}"), Patch(color=_LOWERS, label=f"lowers {score}")]
    if not panels[0].relative and any(not panel.signed for panel in panels):
        entries.append(Patch(color=_UNSIGNED, label="importance, unsigned"))
    legend = figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=9, frameon=False)
    for text in legend.get_texts():
        # A prompt may contain dollar signs, which would be typeset as a formula.
        text.set_parse_math(False)
