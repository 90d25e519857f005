"""Pictures and pages of results."""

from pathlib import Path

from interpreto.option_kinds import checks_options
from interpreto.visualizations import generation_page as generation
from interpreto.visualizations import text_page as html
from interpreto.visualizations.drawing import figure_of
from interpreto.visualizations.map_scaling import diverging, grayscale
from interpreto.visualizations.output import Html, Picture, write
from interpreto.visualizations.panels import Outputs, gather
from interpreto.visualizations.top_regions import plot_top


@checks_options
def plot_attributions(
    outputs: Outputs,
    save_path: str | Path | None = None,
    *,
    one_scale: bool = False,
    clip_percentile: float | int = 99.0,
) -> Picture | Html:
    """Draw results of one or several methods, samples and targets in one figure or page.

    Images become a figure: maps over the raw picture, each with a colour bar of its own unnormalised scores, around 0
    for methods whose scores have signs. The picture shows through where scores are small and is as it was where they
    are 0. Texts become a static page with signed colours and a tooltip per unit; it needs
    no JavaScript and no network. Generated texts become a page to explore: point at a generated piece, and what it
    rests on lights up; without JavaScript it is a table.

    Args:
        outputs: One result, a list of results, or a mapping from method names to either, which puts methods side by
            side.
        save_path: Where to write it. The suffix decides: `.html` writes a page, any format of matplotlib (`.png`,
            `.pdf`, `.svg`) a figure, for texts too.
        one_scale: Whether every result's scores are divided by the largest magnitude among them, so that methods whose
            scores are of different kinds share one scale from -1 to 1.
        clip_percentile: At which percentile of a map's magnitudes colours end; scores beyond it have the last colour,
            and an arrow on the colour bar says that there are some. 100 is the highest.

    Returns:
        What was written; without a path the figure of images and the page of texts.

    Raises:
        InputError: if there is nothing to plot or results do not fit together.
        OptionError: if there is no such percentile.
    """
    rows = gather(outputs, one_scale, clip_percentile)
    wants_page = save_path is not None and Path(save_path).suffix.lower() in (".html", ".htm")
    if rows[0][0].output.modality == "image":
        figure = figure_of(rows)
        content = html.of_figure(figure) if wants_page else figure
    else:
        pages = generation.of_generations if rows[0][0].output.task == "text-generation" else html.of_texts
        content = pages(rows) if save_path is None or wants_page else figure_of(rows)
    if save_path is not None:
        write(save_path, content)
    return content


__all__ = ["diverging", "grayscale", "plot_attributions", "plot_top"]
