"""Selects the matplotlib figure for a kind of result."""

from interpreto.visualizations import generation_figure as matrix
from interpreto.visualizations import image_figure as image
from interpreto.visualizations import text_figure
from interpreto.visualizations.output import NotebookFigure
from interpreto.visualizations.panels import Panel


def figure_of(rows: list[list[Panel]]) -> NotebookFigure:
    """Heatmaps over images, a matrix for several generated targets, coloured text for everything else."""
    if rows[0][0].output.is_image:
        return image.draw(rows)
    return matrix.draw(rows) if has_matrix(rows) else text_figure.draw(rows)


def has_matrix(rows: list[list[Panel]]) -> bool:
    """Whether the results are of generated text with several targets."""
    # The first panel of a row is enough: all methods of a sample have the same targets.
    return rows[0][0].output.is_generation and any(len(row[0].output.target_names) > 1 for row in rows)
