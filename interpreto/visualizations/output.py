"""Figures and pages that notebooks display, and writing them to files."""

import io
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure

from interpreto.atomic import atomic_file
from interpreto.errors import InputError


@final
class NotebookFigure(Figure):
    """A matplotlib figure that notebooks display without pyplot, whose global state and windows it does not use."""

    # IPython calls this for the last expression of a cell.
    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


@final
class Html(str):
    """An HTML page as a string, which notebooks render."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return self


def write(path: str | Path, content: Any) -> None:
    """Write a figure, a page or the bytes of an image; an existing file is replaced atomically.

    Raises:
        InputError: if matplotlib does not support the format.
    """
    path = Path(path)
    with atomic_file(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
            return
        if isinstance(content, bytes):
            temporary.write_bytes(content)
            return
        try:
            # The format is passed, because the temporary file has another suffix.
            content.savefig(temporary, format=path.suffix.removeprefix(".") or "png", dpi=150)
        except ValueError as error:
            raise InputError(f"Cannot write {path.name!r}: {error}") from error
