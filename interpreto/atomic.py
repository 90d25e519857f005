"""Atomic writes: a file or folder is complete or absent, even if the process that writes it is killed.

Content is written to a temporary path beside the final one, on the same file system, and then renamed.
"""

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

# Only the host that wrote a temporary file can tell whether its process still runs; folders may be on network drives.
_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:32] or "host"


class _Writer:
    """A token that is referenced only by the frame that writes, and so is collected when writing ends."""


_WRITTEN: WeakValueDictionary[Path, _Writer] = WeakValueDictionary()
"""Temporary files and folders that this process is writing."""
_BEFORE = "before"
"""Name, inside the temporary folder, to which the old folder is moved while it is replaced."""


def checksum(content: bytes) -> str:
    """The SHA-256 checksum of content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` when the block ends without an error.

    Raises:
        SavedFileError: if `path` cannot be written.
    """
    with _named_errors(path):
        if path.is_dir():
            raise SavedFileError(f"{str(path)!r} is a folder: pass the name of a file.")
        check_writable(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The local variable keeps the entry of the weak dictionary alive until this frame ends.
        temporary, writer = _temporary_name(path), _Writer()
        _WRITTEN[temporary] = writer
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into `SavedFileError` with the path that the user passed."""
    try:
        yield
    except SavedFileError:
        # It is an OSError, too, and has its message already.
        raise
    except OSError as error:
        raise SavedFileError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, mark: str) -> Iterator[Path]:
    """Yield a temporary folder to write into, which replaces `path` when the block ends without an error.

    Args:
        path: The final path.
        mark: Name of a file that folders of this kind contain. An existing folder without it is not overwritten.

    Raises:
        SavedFileError: if `path` is something else, or cannot be written.
    """
    with _named_errors(path):
        check_place(path, mark)
        # A symbolic link is not replaced itself: the folder that it points to is.
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        temporary, writer = _temporary_name(path), _Writer()
        _WRITTEN[temporary] = writer
        new, old = temporary / path.name, temporary / _BEFORE
        try:
            new.mkdir(parents=True)
            yield new
            # A folder that is not empty cannot be replaced by one rename, as a file can. If the process is killed
            # between these two, readers find the old folder (`readable_folder`) and the next writer restores it.
            if path.exists():
                path.rename(old)
            new.rename(path)
        finally:
            # An interrupt may come between the two renames.
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(temporary, ignore_errors=True)


def check_place(path: Path, mark: str) -> None:
    """Check that a folder can be written to `path`, without overwriting anything but a folder of the same kind.

    Raises:
        SavedFileError: if `path` is a file or a folder with other content, or cannot be written.
    """
    with _named_errors(path):
        if path.exists() and not (path / mark).exists() and (path.is_file() or any(path.iterdir())):
            raise SavedFileError(f"{str(path)!r} exists and is not a saved result (no {mark}): it is not overwritten.")
        check_writable(path)


def check_writable(path: Path) -> None:
    """Check that `path` is or can become a folder with write permission, before anything is computed for it.

    Raises:
        SavedFileError: if `path` is a file, or cannot be created or written.
    """
    existing = path.absolute()
    with _named_errors(path):
        if existing.exists() and not existing.is_dir():
            raise SavedFileError(f"{str(path)!r} is a file: pass the name of a folder.")
        # The permission of the closest existing parent decides whether the folders below can be created.
        while not existing.exists():
            existing = existing.parent
    if not existing.is_dir():
        raise SavedFileError(f"{str(path)!r} cannot be created: {str(existing)!r} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SavedFileError(f"{str(path)!r} cannot be written: no permission to write to {str(existing)!r}.")


def readable_folder(path: Path) -> Path:
    """The folder to read for `path`: itself or, if a replacement is in progress or was killed, the old folder."""
    if path.exists():
        return path
    return next((old for folder in _temporary(path.absolute()) if (old := folder / _BEFORE).exists()), path)


def remove_temporary_files(folder: Path) -> None:
    """Remove, recursively, temporary files and folders of processes that no longer run."""
    for path in folder.rglob(".*.part"):
        if not _is_written(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _recover(path: Path) -> None:
    """Restore the old folder of a replacement whose process was killed, and remove its temporary folder."""
    for temporary in _temporary(path):
        if _is_written(temporary):
            continue
        if (temporary / _BEFORE).exists() and not path.exists():
            (temporary / _BEFORE).rename(path)
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> list[Path]:
    """The temporary files and folders of any process for `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\w+-\d+-\w+\.part")
    if not path.parent.is_dir():
        return []
    return sorted(entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name))


def _temporary_name(path: Path) -> Path:
    # Host and process say whether the writer still runs; the random part keeps threads of one process apart.
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")


def _is_written(path: Path) -> bool:
    """Whether a temporary file or folder may still be written: its process runs, or is on another machine."""
    match = re.search(r"\.(\w+)-(\d+)-\w+\.part$", path.name)
    if match is None or match[1] != _HOST:
        return True
    # Names of this process may also stem from a killed process with the same number: the dictionary has its own.
    return path in _WRITTEN if int(match[2]) == os.getpid() else is_running(int(match[2]))


def is_running(process: int) -> bool:
    """Whether a process with this id runs on this machine."""
    if process <= 0:
        return False
    try:
        # Signal 0 checks for the process and sends nothing.
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # No permission: the process belongs to another user.
        return True
    return True


class FolderLock:
    """An exclusive lock for writing into a folder, which the operating system releases when the process ends.

    Args:
        path: The lock file, whose content is the id of the process that has the lock.
        taken: Maps the id of the process that has the lock to the message of the error.
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
                    # The holder may have the lock and not have written its id yet.
                    holder = os.read(file, 64).decode(errors="replace").strip()
                    raise SavedFileError(self.taken(holder or "unknown"))
                # The previous holder may have removed the file after it was opened here: this lock is then of a file
                # that no other process can open, and the next process would get a lock, too.
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
            # Removed before it is closed: after the lock is released the file may be that of another holder.
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _locked(file: int) -> bool:
    """Acquire an exclusive lock of a file without waiting; False if another process has it."""
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
