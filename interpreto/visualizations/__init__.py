"""Figures and HTML pages of results."""

from pathlib import Path

from interpreto.option_kinds import checks_options
from interpreto.visualizations import generation_page as generation
from interpreto.visualizations import text_page as html
from interpreto.visualizations.drawing import figure_of
from interpreto.visualizations.map_scaling import diverging, grayscale
from interpreto.visualizations.output import Html, NotebookFigure, write
from interpreto.visualizations.panels import Outputs, build_panels
from interpreto.visualizations.top_regions import plot_top


@checks_options
def plot_attributions(
    outputs: Outputs,
    save_path: str | Path | None = None,
    *,
    one_scale: bool = False,
    clip_percentile: float | int = 99.0,
) -> NotebookFigure | Html:
    """Draw results of one or several methods, samples and targets in one figure or page.

    Images become a figure: heatmaps over the raw image, each with a colour bar of its own unnormalised scores, centred
    on 0 for methods with signed scores. Opacity grows with the magnitude of the score, so the image is unchanged where
    scores are 0. Texts become a static page with signed colours and a tooltip per unit; it needs no JavaScript and no
    network. Generated texts become interactive HTML: hovering over a generated target highlights the units that
    influence it; without JavaScript the page shows a table.

    Args:
        outputs: One result, a list of results, or a mapping from method names to either, which puts methods side by
            side.
        save_path: The file to write. The suffix sets the format: `.html` writes a page, any format of matplotlib
            (`.png`, `.pdf`, `.svg`) a figure, for texts too.
        one_scale: Whether each result's scores are divided by their largest magnitude, so that methods with scores of
            different units share one scale from -1 to 1.
        clip_percentile: Percentile of a map's magnitudes at which the colour scale is clipped; an arrow on the colour
            bar shows that there are scores beyond it. 100 clips nothing.

    Returns:
        The content of the file; without a path, a figure for images and a page for texts.

    Raises:
        InputError: if there are no results, or they cannot be shown together.
        OptionError: if the percentile is out of range.
    """
    rows = build_panels(outputs, one_scale, clip_percentile)
    is_html = save_path is not None and Path(save_path).suffix.lower() in (".html", ".htm")
    # `build_panels` refuses mixed modalities, so the first panel decides. Texts and images have different defaults:
    # a page for text, which wraps and has tooltips, and a figure for images.
    if rows[0][0].output.is_image:
        figure = figure_of(rows)
        content = html.of_figure(figure) if is_html else figure
    else:
        render = generation.of_generations if rows[0][0].output.is_generation else html.of_texts
        content = render(rows) if save_path is None or is_html else figure_of(rows)
    if save_path is not None:
        write(save_path, content)
    return content


__all__ = ["diverging", "grayscale", "plot_attributions", "plot_top"]
