"""Results as folders: JSON for words, safetensors for numbers, PNG for the picture."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.attributions.whole import whole_folder
from interpreto.errors import SavedFileError
from interpreto.model_wrapping.targets import Contrast, Saved

VERSION = 1
WORDS, NUMBERS, PICTURE = "output.json", "maps.safetensors", "image.png"
_PLAIN = ("target_names", "task", "modality", "granularity", "n_rows", "info")
_TENSORS = ("attributions", "scores", "standard_errors", "completeness_gap", "segments")


def save(output: AttributionOutput, path: Path) -> Path:
    """Write a result beside its place and move it there when it is whole."""
    with whole_folder(path, WORDS) as folder:
        _write(output, folder)
    return path


def _write(output: AttributionOutput, folder: Path) -> None:
    tensors = {name: getattr(output, name) for name in _TENSORS}
    words: dict[str, Any] = {"version": VERSION, **{name: getattr(output, name) for name in _PLAIN}}
    words["targets"] = [_to_json(target) for target in output.targets]
    if isinstance(output.elements, Tensor):
        tensors.update(_packed(output.elements, output.attributions.shape))
    else:
        words["elements"] = output.elements
    if isinstance(output.raw_input, Image.Image):
        output.raw_input.save(folder / PICTURE)
    else:
        words["raw_input"] = output.raw_input
    (folder / WORDS).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    save_file({name: t.contiguous() for name, t in tensors.items() if t is not None}, folder / NUMBERS)


def load(path: Path) -> AttributionOutput:
    """Read a result.

    Raises:
        SavedFileError: if it cannot be read.
    """
    try:
        words = json.loads((path / WORDS).read_text(encoding="utf-8"))
        version = words["version"]
        if version > VERSION:
            raise SavedFileError(
                f"{str(path)!r} was written by a newer interpreto (format {version}, this one reads up to {VERSION}): "
                "upgrade to read it."
            )
        tensors = load_file(path / NUMBERS)
        return _read(words, tensors, path)
    except FileNotFoundError as error:
        missing = next((name for name in (WORDS, NUMBERS) if not (path / name).exists()), PICTURE)
        raise SavedFileError(f"{str(path)!r} is no saved result: {missing} is missing.") from error
    except (ValueError, KeyError, TypeError, SafetensorError, UnidentifiedImageError, OSError) as error:
        if isinstance(error, SavedFileError):
            raise
        raise SavedFileError(f"{str(path)!r} is damaged or cut off and cannot be read: {error}.") from error


def _read(words: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> AttributionOutput:
    raw = words.get("raw_input")
    if raw is None:
        with Image.open(path / PICTURE) as picture:
            raw = picture.convert("RGB")
    plain: dict[str, Any] = {name: words[name] for name in _PLAIN} | {"target_names": tuple(words["target_names"])}
    found: dict[str, Any] = {name: tensors.get(name) for name in _TENSORS}
    return AttributionOutput(
        elements=words["elements"] if "elements" in words else _unpacked(tensors),
        raw_input=tuple(raw) if isinstance(raw, list) else raw,
        targets=tuple(_from_json(target) for target in words["targets"]),
        **plain,
        **found,
    )


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


def _to_json(target: Any) -> Any:
    if isinstance(target, Contrast):
        return {"for": _to_json(target.for_), "against": _to_json(target.against)}
    if isinstance(target, tuple):
        return [_to_json(item) for item in target]
    if isinstance(target, int | str):
        return target
    name = getattr(target, "__name__", None)
    return {"name": getattr(target, "name", type(target).__name__)} if name is None else name


def _from_json(target: Any) -> Any:
    if isinstance(target, dict) and "name" in target:
        return Saved(target["name"])
    if isinstance(target, dict):
        return Contrast(_from_json(target["for"]), _from_json(target["against"]))
    if isinstance(target, list):
        return tuple(_from_json(item) for item in target)
    return target
