"""Files and folders that are there as a whole or not at all, whenever a process is killed."""

import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from interpreto.errors import SavedFileError

_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:32] or "host"


class _Writer:
    """Lives as long as the frame that writes."""


_WRITTEN: WeakValueDictionary[Path, _Writer] = WeakValueDictionary()
"""Temporary files and folders that this process is writing."""
_BEFORE = "before"
"""Where the folder that is replaced lies for a moment, inside of the temporary one."""


def checksum(content: bytes) -> str:
    """What tells whether content is what was written: SHA-256."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file to write beside a place, which it takes when all is written.

    Raises:
        SavedFileError: if it cannot be written.
    """
    with _errors_named(path):
        if path.is_dir():
            raise SavedFileError(f"{str(path)!r} is a folder: name a file.")
        check_writable(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside, writer = _temporary_name(path), _Writer()
        _WRITTEN[beside] = writer
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into ours, which name the place that was asked for."""
    try:
        yield
    except SavedFileError:
        raise
    except OSError as error:
        raise SavedFileError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, mark: str) -> Iterator[Path]:
    """A folder to write into, which takes its place, that of an earlier one too, when all is written.

    Args:
        path: Its place.
        mark: A file that folders of this kind hold, so that none of another kind is overwritten.

    Raises:
        SavedFileError: if something else has the place, or it cannot be written.
    """
    with _errors_named(path):
        check_place(path, mark)
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        around, writer = _temporary_name(path), _Writer()
        _WRITTEN[around] = writer
        beside, before = around / path.name, around / _BEFORE
        try:
            beside.mkdir(parents=True)
            yield beside
            if path.exists():
                path.rename(before)
            beside.rename(path)
        finally:
            # Whatever came between the two, one of them has the place.
            if before.exists() and not path.exists():
                before.rename(path)
            shutil.rmtree(around, ignore_errors=True)


def check_place(path: Path, mark: str) -> None:
    """Refuse a place for a folder that something else has, or that cannot be written.

    Raises:
        SavedFileError: if something else has it, or a folder above it cannot be written.
    """
    with _errors_named(path):
        if path.exists() and not (path / mark).exists() and (path.is_file() or any(path.iterdir())):
            raise SavedFileError(f"{str(path)!r} exists and holds no saved result, no {mark}: it is not overwritten.")
        check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a place for a folder where none can be, before anything is computed for it.

    Raises:
        SavedFileError: if it is a file, or cannot be made or written.
    """
    place = path.absolute()
    with _errors_named(path):
        if place.exists() and not place.is_dir():
            raise SavedFileError(f"{str(path)!r} is a file: name a folder.")
        while not place.exists():
            place = place.parent
    if not place.is_dir():
        raise SavedFileError(f"{str(path)!r} cannot be made: {str(place)!r} is a file.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SavedFileError(f"{str(path)!r} cannot be written: there is no permission to write into {str(place)!r}.")


def readable_folder(path: Path) -> Path:
    """Where the folder of a place is to be read: there or, while or after it was being replaced, where it waits."""
    if path.exists():
        return path
    return next((old for around in _temporary(path.absolute()) if (old := around / _BEFORE).exists()), path)


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes left in a folder and those inside it."""
    for path in folder.rglob(".*.part"):
        if not _is_written(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _recover(path: Path) -> None:
    """Put a folder back whose replacement was killed, and remove what was left of it."""
    for around in _temporary(path):
        if _is_written(around):
            continue
        if (around / _BEFORE).exists() and not path.exists():
            (around / _BEFORE).rename(path)
        shutil.rmtree(around, ignore_errors=True)


def _temporary(path: Path) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\w+-\d+-\w+\.part")
    if not path.parent.is_dir():
        return []
    return sorted(one for one in path.parent.iterdir() if pattern.fullmatch(one.name))


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")


def _is_written(path: Path) -> bool:
    """Whether whoever writes a temporary file or folder is still there, or on another machine."""
    found = re.search(r"\.(\w+)-(\d+)-\w+\.part$", path.name)
    if found is None or found[1] != _HOST:
        return True
    return path in _WRITTEN if int(found[2]) == os.getpid() else is_running(int(found[2]))


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to somebody else.
        return True
    return True


class FolderLock:
    """The right to write into a folder, held by one process at a time and given back when that ends, however it ends.

    Args:
        path: The file by which it is known.
        taken: From the number of the process that holds it to what the error says.
    """

    def __init__(self, path: Path, taken: Callable[[str], str]) -> None:
        self.path, self.taken = path, taken
        self._file: int | None = None

    def __enter__(self) -> "FolderLock":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _locked(file):
                    holder = os.read(file, 64).decode(errors="replace").strip()
                    raise SavedFileError(self.taken(holder or "unknown"))
                # Who held it before may have removed the file meanwhile.
                if not self.path.exists() or os.stat(self.path).st_ino != os.fstat(file).st_ino:
                    os.close(file)
                    continue
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()}\n".encode())
                self._file = file
                return self
            except BaseException:
                os.close(file)
                raise

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _locked(file: int) -> bool:
    """Whether an exclusive lock of a file could be had."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
