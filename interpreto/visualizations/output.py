"""Figures that show themselves in notebooks without a backend for windows."""

import io
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure

from interpreto.atomic import atomic_file
from interpreto.errors import InputError


@final
class Picture(Figure):
    """A matplotlib figure that needs no pyplot: it draws itself where a notebook asks for it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


@final
class Html(str):
    """A page that notebooks show as what it is."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return self


def write(path: str | Path, content: Any) -> None:
    """Write a figure, a page or the bytes of a picture; a file of that name is replaced only by a whole one.

    Raises:
        InputError: if matplotlib has no such format.
    """
    path = Path(path)
    with atomic_file(path) as beside:
        if isinstance(content, str):
            beside.write_text(content, encoding="utf-8")
            return
        if isinstance(content, bytes):
            beside.write_bytes(content)
            return
        try:
            content.savefig(beside, format=path.suffix.removeprefix(".") or "png", dpi=150)
        except ValueError as error:
            raise InputError(f"Cannot write {path.name!r}: {error}.") from error
