"""Results as folders: JSON for words, safetensors for numbers, PNG for the picture.

The JSON file has a checksum of itself and of each of the others: what was changed on the disk is not read.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from interpreto.atomic import atomic_folder, checksum, readable_folder
from interpreto.attributions.validation import check_result, target_from_json, target_to_json
from interpreto.errors import SavedFileError
from interpreto.typing import AttributionResult

Result = TypeVar("Result", bound=AttributionResult)

VERSION = 2
WORDS, NUMBERS, PICTURE = "output.json", "maps.safetensors", "image.png"
_PLAIN = ("target_names", "task", "modality", "granularity", "n_evaluations", "info", "error")
TENSORS = ("attributions", "scores", "standard_errors", "completeness_gap", "segments", "unit_map", "target_units")
DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, SafetensorError,
    SyntaxError, OSError, Image.DecompressionBombError,
)  # fmt: skip
"""What a damaged file may raise where it is read."""
MOST_BYTES = 2**31
"""A larger file is taken for damage."""


def save_result(output: AttributionResult, path: Path) -> Path:
    """Write a result beside its place and move it there when it is whole.

    Raises:
        ValueError: if the fields of the result do not agree.
        SavedFileError: if something else has the place.
    """
    check_result(output)
    with atomic_folder(path, WORDS) as folder:
        _write(output, folder)
    return path


def _write(output: AttributionResult, folder: Path) -> None:
    tensors = {name: getattr(output, name) for name in TENSORS}
    words: dict[str, Any] = {"version": VERSION, **{name: getattr(output, name) for name in _PLAIN}}
    words["targets"] = [target_to_json(target) for target in output.targets]
    if isinstance(output.elements, Tensor):
        tensors.update(_packed(output.elements, output.attributions.shape))
    else:
        words["elements"] = output.elements
    contents = {NUMBERS: save({name: t.contiguous() for name, t in tensors.items() if t is not None})}
    if isinstance(output.raw_input, Image.Image):
        picture = io.BytesIO()
        output.raw_input.save(picture, format="png")
        contents[PICTURE] = picture.getvalue()
    else:
        words["raw_input"] = output.raw_input
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    words["files"] = {name: checksum(content) for name, content in contents.items()}
    (folder / WORDS).write_text(with_checksum(words), encoding="utf-8")


def with_checksum(words: dict[str, Any], **layout: Any) -> str:
    """JSON that has a checksum of itself."""
    return json.dumps({**words, "checksum": _of_words(words)}, ensure_ascii=False, **layout)


def verify_checksum(text: str) -> dict[str, Any]:
    """What `with_checksum` wrote.

    Raises:
        ValueError: if it is something else.
    """
    words = json.loads(text)
    if not isinstance(words, dict):
        raise ValueError("it holds no object")
    found = words.pop("checksum", None)
    if found != _of_words(words):
        raise ValueError("its checksum is that of other content")
    return words


def _of_words(words: dict[str, Any]) -> str:
    # As it is read again: JSON knows no tuples, and numbers as keys become text.
    plain = json.loads(json.dumps(words, ensure_ascii=False))
    return checksum(json.dumps(plain, ensure_ascii=False, sort_keys=True).encode())


def check_version(text: str, version: int, where: str) -> None:
    """Refuse a file of another format.

    Raises:
        ValueError: if the file does not say its version.
        SavedFileError: if it is another one.
    """
    words = json.loads(text)
    found = words.get("version") if isinstance(words, dict) else None
    if not isinstance(found, int):
        raise ValueError("it does not say its version")
    if found > version:
        raise SavedFileError(
            f"{where} was written by a newer interpreto (format {found}, this one reads format {version}): upgrade to "
            "read it."
        )
    if found < version:
        raise SavedFileError(
            f"{where} was written by an older interpreto (format {found}, this one reads format {version}): make it "
            "again."
        )


def load_result(path: Path, create: Callable[..., Result]) -> Result:
    """Read a result.

    Args:
        path: The folder.
        create: Makes a result of its fields.

    Raises:
        SavedFileError: if it cannot be read, was changed, or is of another version.
    """
    try:
        folder = readable_folder(path)
        text = read_bytes(folder / WORDS).decode()
        check_version(text, VERSION, repr(str(path)))
        return _read(verify_checksum(text), folder, create)
    except FileNotFoundError as error:
        missing = next((name for name in (WORDS, NUMBERS) if not (readable_folder(path) / name).exists()), PICTURE)
        raise SavedFileError(f"{str(path)!r} is not a saved result: {missing} is missing.") from error
    except DAMAGE as error:
        if isinstance(error, SavedFileError):
            raise
        raise SavedFileError(f"{str(path)!r} is damaged or cut off and cannot be read: {error}.") from error


def read_bytes(path: Path, wanted: str | None = None) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        wanted: Its checksum; None where it has none.

    Raises:
        ValueError: if it is another one, or the file is too large.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than any that is written")
    content = path.read_bytes()
    if wanted is not None and checksum(content) != wanted:
        raise ValueError(f"the checksum of {path.name} is that of other content")
    return content


def _read(words: dict[str, Any], folder: Path, create: Callable[..., Result]) -> Result:
    known = {"version", "targets", "elements", "raw_input", "files", *_PLAIN}
    if unknown := sorted(set(words) - known):
        raise ValueError(f"it has unknown fields: {', '.join(unknown)}")
    files, raw = words["files"], words.get("raw_input")
    if set(files) != {NUMBERS} | ({PICTURE} if raw is None else set()):
        raise ValueError("it names other files than its own")
    tensors = load(read_bytes(folder / NUMBERS, files[NUMBERS]))
    if raw is None:
        with Image.open(io.BytesIO(read_bytes(folder / PICTURE, files[PICTURE]))) as picture:
            raw = picture.convert("RGB")
    plain: dict[str, Any] = {name: words[name] for name in _PLAIN} | {"target_names": tuple(words["target_names"])}
    found: dict[str, Any] = {name: tensors.get(name) for name in TENSORS}
    output = create(
        elements=words["elements"] if "elements" in words else _unpacked(tensors),
        raw_input=tuple(raw) if isinstance(raw, list) else raw,
        targets=tuple(target_from_json(target) for target in words["targets"]),
        **plain,
        **found,
    )
    check_result(output)
    return output


def _packed(boxes: Float[Tensor, "u 4"], shape: torch.Size) -> dict[str, Tensor]:
    """Boxes of a grid as the edges of its rows and columns; others as they are."""
    if len(shape) == 3:
        lattice = boxes.reshape(*shape[1:], 4)
        edges = {
            "down": torch.cat([lattice[:, 0, 1], lattice[-1:, 0, 3]]),
            "across": torch.cat([lattice[0, :, 0], lattice[0, -1:, 2]]),
        }
        if torch.equal(_unpacked(edges), boxes):
            return edges
    return {"boxes": boxes}


def _unpacked(tensors: dict[str, Tensor]) -> Float[Tensor, "u 4"]:
    if "boxes" in tensors:
        return tensors["boxes"]
    down, across = tensors["down"], tensors["across"]
    tops, lefts = torch.meshgrid(down[:-1], across[:-1], indexing="ij")
    bottoms, rights = torch.meshgrid(down[1:], across[1:], indexing="ij")
    return torch.stack([lefts, tops, rights, bottoms], dim=-1).flatten(0, 1)
