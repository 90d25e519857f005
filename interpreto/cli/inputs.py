"""Reads the samples that INPUT arguments name: texts, files, folders, glob patterns, or - for standard input."""

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
from interpreto.type_guards import are_all

_TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
_MAX_CELL_LENGTH = 2**31 - 1
_ACCEPTED = {"text": (str, list), "image": (Path, Image.Image)}
"""From modalities to the types of their samples."""
_TEXT_SUFFIXES = (".txt", ".json", *_TABLE_SUFFIXES)


def read(inputs: Sequence[str], texts: Sequence[str], column: str | None) -> list[Any]:
    """Read samples: strings, chats, paths of images, and images from standard input.

    Args:
        inputs: The INPUT arguments.
        texts: The values of --text, which are samples themselves.
        column: The column of tables to read; None if there is only one.

    Raises:
        InterpretoError: if a file is missing, empty or has an unsupported format.
    """
    return [*(sample for argument in inputs for sample in _read(argument, column)), *texts]


def check(samples: Iterable[object], task: str, modality: str | None) -> None:
    """Check that the model supports the type of each sample.

    Args:
        samples: The return value of `read`.
        task: The task of the model.
        modality: "text" or "image"; None for the default of the task.

    Raises:
        InterpretoError: if it does not support one of them.
    """
    # An invalid modality is reported when the method validates its options.
    accepted = _ACCEPTED.get(modality or default_modality(task), (object,))
    for sample in samples:
        if isinstance(sample, list) and task != "text-generation":
            raise InterpretoError("A chat is for language models (text-generation), and this model is not one.")
        if isinstance(sample, accepted):
            continue
        if isinstance(sample, str):
            is_file = _exists(Path(sample))
            raise InterpretoError(
                f"{sample!r} is passed as a text, and the inputs of this model are images: pass the file as INPUT."
                if is_file
                else f"There is no image file {sample[:80]!r}, and the inputs of this model are images."
            )
        name = repr(str(sample)) if isinstance(sample, Path) else "standard input"
        raise InterpretoError(f"{name} is an image, and the inputs of this model are texts.")


def lines_of(text: str, name: str) -> list[str]:
    """Split a text into lines, without empty ones.

    Args:
        text: The text.
        name: The name of the file, for error messages.

    Raises:
        InterpretoError: if all lines are empty.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise InterpretoError(f"{name} does not contain any text.")
    return lines


def text_of(path: Path) -> str:
    """Read a text file.

    Raises:
        InterpretoError: if it cannot be opened or is not encoded in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InterpretoError(f"{str(path)!r} is not in UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise InterpretoError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def _read(argument: str, column: str | None) -> list[Any]:
    if argument == "-":
        return _standard_input()
    if is_url(argument):
        raise InterpretoError(
            f"{argument!r} is a URL, and files are not downloaded: download the file, and pass its path. If it is a "
            "text, pass it with --text."
        )
    path = Path(argument).expanduser()
    if _exists(path):
        if not path.is_dir() and not path.is_file():
            raise InterpretoError(
                f"{argument!r} is a pipe or a device, not a file: pass - and redirect it to standard input."
            )
        return _folder(path, column) if path.is_dir() else _file(path, column)
    is_pattern = any(character in argument for character in "*?[")
    matches = sorted(glob.glob(str(path), recursive=True)) if is_pattern else []
    if matches:
        return [sample for match in matches if Path(match).is_file() for sample in _file(Path(match), column)]
    if _looks_like_a_file(argument):
        raise InterpretoError(f"There is no file {argument!r}. If it is a text, pass it with --text.")
    return [argument]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A text may be too long for a path, or contain characters that are invalid in paths.
        return False


def _looks_like_a_file(argument: str) -> bool:
    """Whether an argument was probably meant as a path: it has the suffix of a file, and no spaces or a separator."""
    suffixes = (*_TEXT_SUFFIXES, *Image.registered_extensions())
    is_one_word = not any(map(str.isspace, argument))
    return argument.lower().endswith(suffixes) and (is_one_word or "/" in argument or "\\" in argument)


def _folder(path: Path, column: str | None) -> list[Any]:
    files = sorted(one for one in path.iterdir() if one.is_file())
    images = [one for one in files if _is_image(one)]
    texts = [one for one in files if one.suffix.lower() in _TEXT_SUFFIXES]
    if images and texts:
        raise InterpretoError(
            f"The folder {str(path)!r} contains both images and texts: choose one, as in {path}/*{texts[0].suffix}."
        )
    if not images and not texts:
        raise InterpretoError(
            f"The folder {str(path)!r} contains neither images nor {', '.join(_TEXT_SUFFIXES)} files."
        )
    return [sample for one in (images or texts) for sample in _file(one, column)]


def _file(path: Path, column: str | None) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return list(lines_of(text_of(path), repr(str(path))))
    if suffix == ".json":
        return _json(path)
    if suffix in _TABLE_SUFFIXES:
        return _column(path, _table(path), column)
    if _is_image(path):
        return [path]
    raise InterpretoError(
        f"The format of the file {str(path)!r} is not supported: pass images or {', '.join(_TEXT_SUFFIXES)} files. If "
        "it is a text, pass it with --text."
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()


def _json(path: Path) -> list[Any]:
    """Read a JSON file that contains one chat or a list of texts."""
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise InterpretoError(f"{str(path)!r} is not valid JSON: {error}") from error
    if is_chat(content):
        return [content]
    if isinstance(content, list) and content and are_all(str, content):
        return content
    raise InterpretoError(
        f"{str(path)!r} contains neither a chat, which is a list of objects with 'role' and 'content', nor a list of "
        "texts."
    )


def _table(path: Path) -> Sequence[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        # By default, the csv module limits a cell to 131,072 characters.
        csv.field_size_limit(_MAX_CELL_LENGTH)
        try:
            return list(csv.DictReader(io.StringIO(text_of(path), newline="")))
        except csv.Error as error:
            raise InterpretoError(f"{str(path)!r} is not a table of comma-separated values: {error}") from error
    if suffix == ".jsonl":
        return [_object(path, number, line) for number, line in enumerate(text_of(path).split("\n"), 1) if line.strip()]
    try:
        import pandas

        return pandas.read_parquet(path).to_dict("records")
    except ImportError as error:
        raise InterpretoError(f"Reading {str(path)!r} needs pandas and pyarrow: pip install pandas pyarrow.") from error
    except (ValueError, OSError) as error:
        raise InterpretoError(f"{str(path)!r} is not a valid parquet file: {error}") from error


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InterpretoError(f"Line {number} of {str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise InterpretoError(f"Line {number} of {str(path)!r} is not a JSON object, so it has no columns.")
    return row


def _column(path: Path, rows: Sequence[Mapping[str, Any]], column: str | None) -> list[Any]:
    if not rows:
        raise InterpretoError(f"{str(path)!r} does not contain any rows.")
    names = list(rows[0])
    if column is None and len(names) > 1:
        raise InterpretoError(f"{str(path)!r} has the columns {', '.join(map(str, names))}: choose one with --column.")
    name = names[0] if column is None else column
    if name not in names:
        raise InterpretoError(f"{str(path)!r} has no column {name!r} but {', '.join(map(str, names))}.")
    samples = []
    for number, row in enumerate(rows, start=1):
        value = row.get(name)
        value = value.strip() if isinstance(value, str) else value
        if not value or not (isinstance(value, str) or is_chat(value)):
            raise InterpretoError(
                f"Row {number} of {str(path)!r} has no text in the column {name!r} but {str(value)[:40]!r}."
            )
        is_image = isinstance(value, str) and _is_image(Path(value))
        samples.append(path.parent / value if is_image and _exists(path.parent / value) else value)
    return samples


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
