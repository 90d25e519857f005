"""Figures of the regions of an image with the highest scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpreto.errors import InputError
from interpreto.option_kinds import checks_options
from interpreto.visualizations.image_figure import panel_title
from interpreto.visualizations.output import NotebookFigure, write
from interpreto.visualizations.panels import build_panels

_SIDE = 2.4
"""Width and height of one image in the figure, in inches."""
_OPACITY = 0.15
"""Opacity of the rest of the image, on white."""


@checks_options
def plot_top(outputs: Any, percents: float | Sequence[float] = (5, 15, 30), save_path: str | Path | None = None) -> Any:
    """Images with the regions of the highest scores in colour and the rest pale grey, as in the paper of XRAI.

    Results of methods that rank segments show whole segments.

    Args:
        outputs: One result of an image, or a list of them. The figure has one row per result and target.
        percents: Percentages of the area that the model sees, one column each; see `AttributionOutput.top_mask`.
        save_path: The file to write; its suffix is any format of matplotlib.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: if there are no results, or results of texts.
        OptionError: if there are no percentages, or one is out of range.
    """
    rows = [row[0] for row in build_panels(outputs)]
    percentages = list(percents) if isinstance(percents, Sequence) else [percents]
    if not rows[0].output.is_image:
        raise InputError("plot_top shows regions of images; these are results of texts: see plot_attributions.")
    # The first column is the image itself.
    columns = len(percentages) + 1
    figure = NotebookFigure(figsize=(_SIDE * columns, (_SIDE + 0.25) * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for panel, row_axes in zip(rows, grid, strict=True):
        image = panel.output.require_image()
        colours, grey = np.asarray(image, float) / 255, np.asarray(image.convert("L"), float)[..., None] / 255
        for axes in row_axes:
            axes.set_axis_off()
        row_axes[0].imshow(image)
        row_axes[0].set_title(panel_title(panel), fontsize=10, parse_math=False)
        for percent, axes in zip(percentages, row_axes[1:], strict=True):
            mask = panel.output.top_mask(percent)[panel.target].numpy()
            axes.imshow(np.where(mask[..., None], colours, 1 - _OPACITY + _OPACITY * grey))
            axes.set_title(f"{panel.method}, top {percent:g} %", fontsize=10)
    if save_path is not None:
        write(save_path, figure)
    return figure
