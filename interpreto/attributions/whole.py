"""Folders that are there as a whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpreto.errors import SavedFileError


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """A folder to write into, which takes its place, that of an earlier one too, when all is written.

    Args:
        path: Its place.
        mark: A file that folders of this kind hold, so that none of another kind is overwritten.

    Raises:
        SavedFileError: if something else has the place.
    """
    if path.exists() and not (path / mark).exists() and (path.is_file() or any(path.iterdir())):
        raise SavedFileError(f"{str(path)!r} exists and holds no saved result, no {mark}: it is not overwritten.")
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    around = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    beside, before = around / path.name, around / "before"
    try:
        beside.mkdir()
        yield beside
        if path.exists():
            path.rename(before)
        beside.rename(path)
    finally:
        # Whatever came between the two, one of them has the place.
        if before.exists() and not path.exists():
            before.rename(path)
        shutil.rmtree(around, ignore_errors=True)
