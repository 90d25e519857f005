"""What INPUT stands for: texts, files of texts, tables, chats, images, folders and globs of these, standard input."""

import csv
import glob
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interpreto.attributions.registry import default_modality
from interpreto.errors import InterpretoError
from interpreto.model_wrapping.inputs.image_sources import is_url
from interpreto.model_wrapping.inputs.prompt import is_chat

_TABLES = (".csv", ".jsonl", ".parquet")
_LONGEST_CELL = 2**31 - 1
_ACCEPTED = {"text": (str, list), "image": (Path, Image.Image)}
"""Types of samples that models of a modality read."""
_TEXTS = (".txt", ".json", *_TABLES)


def read(inputs: Sequence[str], texts: Sequence[str], column: str | None) -> list[Any]:
    """The samples: strings, paths of images, images from standard input, and chats.

    Raises:
        InterpretoError: if a file is missing, of another kind or holds nothing.
    """
    return [*(sample for given in inputs for sample in _read(given, column)), *texts]


def check(samples: Iterable[Any], task: str, modality: str | None) -> None:
    """Refuse samples of a kind that the model does not read.

    Args:
        samples: What `read` gave.
        task: The model's task.
        modality: "text" or "image" where the user chose one; None is the task's own.

    Raises:
        InterpretoError: if there is one.
    """
    # An unknown modality is reported with the other options of the method.
    accepted = _ACCEPTED.get(modality or default_modality(task), (object,))
    for sample in samples:
        if isinstance(sample, list) and task != "text-generation":
            raise InterpretoError("A chat is for language models (text-generation); this model reads none.")
        if isinstance(sample, accepted):
            continue
        if isinstance(sample, str):
            raise InterpretoError(f"There is no image file {sample[:80]!r}, and this model reads images.")
        name = repr(str(sample)) if isinstance(sample, Path) else "standard input"
        raise InterpretoError(f"{name} is an image, and this model reads texts.")


def lines_of(text: str, name: str) -> list[str]:
    """The lines of a text that are not empty.

    Raises:
        InterpretoError: if there is none.
    """
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise InterpretoError(f"{name} holds no line of text.")
    return found


def text_of(path: Path) -> str:
    """What a file of text says.

    Raises:
        InterpretoError: if it is missing or not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InterpretoError(f"{str(path)!r} is not in UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise InterpretoError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def _read(given: str, column: str | None) -> list[Any]:
    if given == "-":
        return _standard_input()
    if is_url(given):
        raise InterpretoError(
            f"{given!r} is a URL, and nothing is downloaded here: download the file, and give its path. If it is a "
            "text, give it with --text."
        )
    path = Path(given).expanduser()
    if _exists(path):
        if not path.is_dir() and not path.is_file():
            raise InterpretoError(f"{given!r} is a pipe or a device, no file: pass what it gives with - instead.")
        return _folder(path, column) if path.is_dir() else _file(path, column)
    found = sorted(glob.glob(str(path), recursive=True)) if any(letter in given for letter in "*?[") else []
    if found:
        return [sample for one in found if Path(one).is_file() for sample in _file(Path(one), column)]
    if _looks_like_a_file(given):
        raise InterpretoError(f"There is no file {given!r}. If it is a text, give it with --text.")
    return [given]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A text may be longer than the name of a file, or hold what no name does.
        return False


def _looks_like_a_file(given: str) -> bool:
    """Whether a text is what a person would call a file: one word with the ending of one."""
    known = (*_TEXTS, *Image.registered_extensions())
    one_word = not any(map(str.isspace, given))
    return given.lower().endswith(known) and (one_word or "/" in given or "\\" in given)


def _folder(path: Path, column: str | None) -> list[Any]:
    files = sorted(one for one in path.iterdir() if one.is_file())
    images = [one for one in files if _is_image(one)]
    texts = [one for one in files if one.suffix.lower() in _TEXTS]
    if images and texts:
        raise InterpretoError(
            f"The folder {str(path)!r} holds both images and texts: say which, as in {path}/*{texts[0].suffix}."
        )
    if not images and not texts:
        raise InterpretoError(f"The folder {str(path)!r} holds neither images nor {', '.join(_TEXTS)} files.")
    return [sample for one in (images or texts) for sample in _file(one, column)]


def _file(path: Path, column: str | None) -> list[Any]:
    kind = path.suffix.lower()
    if kind == ".txt":
        return list(lines_of(text_of(path), repr(str(path))))
    if kind == ".json":
        return _json(path)
    if kind in _TABLES:
        return _column(path, _table(path), column)
    if _is_image(path):
        return [path]
    raise InterpretoError(
        f"The file {str(path)!r} is of a kind that is not read: images and {', '.join(_TEXTS)} are. If it is a text, "
        "give it with --text."
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()


def _json(path: Path) -> list[Any]:
    """One chat, or a list of texts."""
    try:
        found = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise InterpretoError(f"{str(path)!r} is no JSON file: {error}.") from error
    if is_chat(found):
        return [found]
    if isinstance(found, list) and found and all(isinstance(text, str) for text in found):
        return found
    raise InterpretoError(
        f"{str(path)!r} holds neither a chat, which is one list of objects with 'role' and 'content', nor a list of "
        "texts."
    )


def _table(path: Path) -> Sequence[Mapping[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".csv":
        # Texts may be longer than the 131,072 characters that a cell has by default.
        csv.field_size_limit(_LONGEST_CELL)
        try:
            return list(csv.DictReader(io.StringIO(text_of(path), newline="")))
        except csv.Error as error:
            raise InterpretoError(f"{str(path)!r} is not a table of comma-separated values: {error}.") from error
    if kind == ".jsonl":
        return [_object(path, number, line) for number, line in enumerate(text_of(path).split("\n"), 1) if line.strip()]
    try:
        import pandas

        return pandas.read_parquet(path).to_dict("records")
    except ImportError as error:
        raise InterpretoError(f"Reading {str(path)!r} needs pandas and pyarrow: pip install pandas pyarrow.") from error
    except (ValueError, OSError) as error:
        raise InterpretoError(f"{str(path)!r} is no parquet file: {error}.") from error


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InterpretoError(f"Line {number} of {str(path)!r} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InterpretoError(f"Line {number} of {str(path)!r} is no object with names, so it has no columns.")
    return found


def _column(path: Path, rows: Sequence[Mapping[str, Any]], column: str | None) -> list[Any]:
    if not rows:
        raise InterpretoError(f"{str(path)!r} holds no rows.")
    names = list(rows[0])
    if column is None and len(names) > 1:
        raise InterpretoError(f"{str(path)!r} has the columns {', '.join(map(str, names))}: choose one with --column.")
    name = names[0] if column is None else column
    if name not in names:
        raise InterpretoError(f"{str(path)!r} has no column {name!r} but {', '.join(map(str, names))}.")
    found = []
    for number, row in enumerate(rows, start=1):
        value = row.get(name)
        value = value.strip() if isinstance(value, str) else value
        if not value or not (isinstance(value, str) or is_chat(value)):
            raise InterpretoError(
                f"Row {number} of {str(path)!r} has no text in the column {name!r} but {str(value)[:40]!r}."
            )
        is_image = isinstance(value, str) and _is_image(Path(value))
        found.append(path.parent / value if is_image and _exists(path.parent / value) else value)
    return found


def _standard_input() -> list[Any]:
    data = sys.stdin.buffer.read()
    try:
        return list(lines_of(data.decode("utf-8-sig"), "Standard input"))
    except UnicodeDecodeError:
        pass
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except OSError as error:
        raise InterpretoError("Standard input is neither text in UTF-8 nor an image.") from error
    return [image]
