"""What is left of a picture when only what scores highest is shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interpreto.errors import InputError
from interpreto.option_kinds import checks_options
from interpreto.visualizations.image_figure import above
from interpreto.visualizations.output import Picture, write
from interpreto.visualizations.panels import gather

_SIDE = 2.4
_FAINT = 0.15


@checks_options
def plot_top(outputs: Any, percents: float | Sequence[float] = (5, 15, 30), save_path: str | Path | None = None) -> Any:
    """Pictures in which only what scores highest is seen, the rest faint and grey: whole segments where there are.

    Args:
        outputs: One result of an image, or a list of them; one row each, per target.
        percents: How much of the picture is shown, one column each, or one number; see `AttributionOutput.top_mask`.
        save_path: Where to write the figure, in a format that matplotlib knows by the file's ending.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: if there are no results, or results of texts.
        OptionError: if no percents are given, or there is no such share.
    """
    rows = [row[0] for row in gather(outputs)]
    shares = list(percents) if isinstance(percents, Sequence) else [percents]
    if rows[0].output.modality != "image":
        raise InputError("plot_top shows parts of pictures; these are results of texts: see plot_attributions.")
    columns = len(shares) + 1
    figure = Picture(figsize=(_SIDE * columns, (_SIDE + 0.25) * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for panel, places in zip(rows, axes, strict=True):
        picture = panel.output.raw_input
        assert isinstance(picture, Image.Image)
        colours, grey = np.asarray(picture, float) / 255, np.asarray(picture.convert("L"), float)[..., None] / 255
        for place in places:
            place.set_axis_off()
        places[0].imshow(picture)
        places[0].set_title(above(panel), fontsize=10, parse_math=False)
        for percent, place in zip(shares, places[1:], strict=True):
            mask = panel.output.top_mask(percent)[panel.target].numpy()
            place.imshow(np.where(mask[..., None], colours, 1 - _FAINT + _FAINT * grey))
            place.set_title(f"{panel.method}, top {percent:g} %", fontsize=10)
    if save_path is not None:
        write(save_path, figure)
    return figure
