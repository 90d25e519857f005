"""Results as folders: JSON for metadata, safetensors for tensors, PNG for the image.

The JSON file contains a checksum of its own content and of each other file, so that files changed on disk are refused.
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
METADATA_FILE, TENSORS_FILE, IMAGE_FILE = "output.json", "maps.safetensors", "image.png"
_PLAIN = ("target_names", "task", "modality", "granularity", "n_evaluations", "info", "error")
TENSORS = ("attributions", "scores", "standard_errors", "completeness_gap", "segments", "unit_map", "target_units")
DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, SafetensorError,
    SyntaxError, OSError, Image.DecompressionBombError,
)  # fmt: skip
"""Exceptions that reading a damaged file can raise."""
MOST_BYTES = 2**31
"""Largest size of a file; a larger one counts as damaged and is not read into memory."""


def save_result(output: AttributionResult, path: Path) -> Path:
    """Write a result to a folder, atomically: to a temporary folder, which is renamed when it is complete.

    Raises:
        ValueError: if the fields of the result are inconsistent.
        SavedFileError: if something else is at the path.
    """
    check_result(output)
    with atomic_folder(path, METADATA_FILE) as folder:
        _write(output, folder)
    return path


def _write(output: AttributionResult, folder: Path) -> None:
    """Write the files of a result; the JSON file comes last, since it has the checksums of the others."""
    tensors = {name: getattr(output, name) for name in TENSORS}
    metadata: dict[str, Any] = {"version": VERSION, **{name: getattr(output, name) for name in _PLAIN}}
    metadata["targets"] = [target_to_json(target) for target in output.targets]
    # A result of a sample that failed has an empty list, whether or not its sample is an image.
    if isinstance(output.elements, list):
        metadata["elements"] = output.elements
    else:
        tensors.update(_packed(output.elements, output.attributions.shape))
    # safetensors refuses tensors that are not contiguous.
    contents = {TENSORS_FILE: save({name: t.contiguous() for name, t in tensors.items() if t is not None})}
    if output.is_image:
        buffer = io.BytesIO()
        output.require_image().save(buffer, format="png")
        contents[IMAGE_FILE] = buffer.getvalue()
    else:
        metadata["raw_input"] = output.raw_input
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    metadata["files"] = {name: checksum(content) for name, content in contents.items()}
    (folder / METADATA_FILE).write_text(with_checksum(metadata), encoding="utf-8")


def with_checksum(content: dict[str, Any], **layout: Any) -> str:
    """JSON text with a checksum of its content.

    Args:
        content: The content.
        layout: Options of `json.dumps`.
    """
    return json.dumps({**content, "checksum": _content_checksum(content)}, ensure_ascii=False, **layout)


def verify_checksum(text: str) -> dict[str, Any]:
    """Read the content of a text that `with_checksum` wrote, without its checksum.

    Raises:
        ValueError: if the text is not a JSON object, or the checksum does not match.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    stored = content.pop("checksum", None)
    if stored != _content_checksum(content):
        raise ValueError("its checksum does not match its content")
    return content


def _content_checksum(content: dict[str, object]) -> str:
    """The checksum of the content of a JSON file."""
    # Of the content as JSON reads it again: tuples become lists, and numbers as keys become strings.
    plain = json.loads(json.dumps(content, ensure_ascii=False))
    return checksum(json.dumps(plain, ensure_ascii=False, sort_keys=True).encode())


def check_version(text: str, version: int, where: str) -> None:
    """Check the version of the format of a file.

    Args:
        text: The JSON text.
        version: The version that this package reads.
        where: What the file is, for the message.

    Raises:
        ValueError: if the file has no version.
        SavedFileError: if it has another version.
    """
    content = json.loads(text)
    file_version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(file_version, int):
        raise ValueError("it has no version")
    if file_version > version:
        raise SavedFileError(
            f"{where} was written by a newer interpreto (format {file_version}, this one reads format {version}): "
            "upgrade to read it."
        )
    if file_version < version:
        raise SavedFileError(
            f"{where} was written by an older interpreto (format {file_version}, this one reads format {version}): "
            "create it again."
        )


def load_result(path: Path, create: Callable[..., Result]) -> Result:
    """Read a result.

    Args:
        path: The folder.
        create: Creates a result from its fields.

    Raises:
        SavedFileError: if the result is missing, damaged, was changed, or is of another version.
    """
    try:
        folder = readable_folder(path)
        text = read_bytes(folder / METADATA_FILE).decode()
        # Before the checksum, because other versions may compute it differently.
        check_version(text, VERSION, repr(str(path)))
        return _read(verify_checksum(text), folder, create)
    except FileNotFoundError as error:
        missing = next(
            (name for name in (METADATA_FILE, TENSORS_FILE) if not (readable_folder(path) / name).exists()), IMAGE_FILE
        )
        raise SavedFileError(f"{str(path)!r} is not a saved result: {missing} is missing.") from error
    except DAMAGE as error:
        # A SavedFileError is an OSError, and has its message already.
        if isinstance(error, SavedFileError):
            raise
        raise SavedFileError(f"{str(path)!r} is damaged or truncated and cannot be read: {error}") from error


def read_bytes(path: Path, expected: str | None = None) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        expected: The expected checksum; None if the file has none.

    Raises:
        ValueError: if the checksum does not match, or the file is too large.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than any file that is written")
    content = path.read_bytes()
    if expected is not None and checksum(content) != expected:
        raise ValueError(f"the checksum of {path.name} does not match its content")
    return content


def _read(content: dict[str, Any], folder: Path, create: Callable[..., Result]) -> Result:
    """Create the result from the content of its files.

    Raises:
        ValueError: if fields or files are unknown or missing, or a checksum does not match.
    """
    fields = {"version", "targets", "elements", "raw_input", "files", *_PLAIN}
    if unknown := sorted(set(content) - fields):
        raise ValueError(f"it has unknown fields: {', '.join(unknown)}")
    files, raw = content["files"], content.get("raw_input")
    if set(files) != {TENSORS_FILE} | ({IMAGE_FILE} if raw is None else set()):
        raise ValueError("it lists other files than a result has")
    tensors = load(read_bytes(folder / TENSORS_FILE, files[TENSORS_FILE]))
    if raw is None:
        with Image.open(io.BytesIO(read_bytes(folder / IMAGE_FILE, files[IMAGE_FILE]))) as image:
            raw = image.convert("RGB")
    plain: dict[str, Any] = {name: content[name] for name in _PLAIN} | {"target_names": tuple(content["target_names"])}
    tensor_fields: dict[str, Any] = {name: tensors.get(name) for name in TENSORS}
    output = create(
        elements=content["elements"] if "elements" in content else _unpacked(tensors),
        raw_input=tuple(raw) if isinstance(raw, list) else raw,
        targets=tuple(target_from_json(target) for target in content["targets"]),
        **plain,
        **tensor_fields,
    )
    # Checksums protect against damage, not against a file that was written by something else.
    check_result(output)
    return output


def _packed(boxes: Float[Tensor, "u 4"], shape: torch.Size) -> dict[str, Tensor]:
    """Boxes as tensors to save: for a grid only the edges of its rows and columns, otherwise all boxes."""
    # A map of pixels has as many boxes as pixels, which would take four times the space of the map itself.
    if len(shape) == 3:
        lattice = boxes.reshape(*shape[1:], 4)
        edges = {
            "down": torch.cat([lattice[:, 0, 1], lattice[-1:, 0, 3]]),
            "across": torch.cat([lattice[0, :, 0], lattice[0, -1:, 2]]),
        }
        # Only if the edges restore the boxes bit by bit: other segmenters can return boxes that are not a grid.
        if torch.equal(_unpacked(edges), boxes):
            return edges
    return {"boxes": boxes}


def _unpacked(tensors: dict[str, Tensor]) -> Float[Tensor, "u 4"]:
    """The boxes that `_packed` saved."""
    if "boxes" in tensors:
        return tensors["boxes"]
    down, across = tensors["down"], tensors["across"]
    tops, lefts = torch.meshgrid(down[:-1], across[:-1], indexing="ij")
    bottoms, rights = torch.meshgrid(down[1:], across[1:], indexing="ij")
    return torch.stack([lefts, tops, rights, bottoms], dim=-1).flatten(0, 1)
