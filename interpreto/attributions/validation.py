"""Checks that the fields of a result are consistent, before it is written and after it is read."""

import json
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from interpreto.attributions.registry import REGISTRY
from interpreto.model_wrapping.targets import Contrast, SavedTarget
from interpreto.type_guards import Types, are_all, is_text_pair
from interpreto.typing import AttributionResult

MOST = 10_000_000
"""Largest count in a saved file; a larger one counts as damage."""


_TYPES: dict[str, Types] = {
    "info": dict,
    "granularity": str,
    "error": str | None,
    "targets": tuple,
    "target_names": tuple,
}
_ELEMENTS: dict[str, Types] = {"text": list, "image": Tensor}
"""Pieces of a text, or boxes of an image."""


def check_result(output: AttributionResult) -> None:
    """Check that the fields of a result are consistent.

    Raises:
        ValueError: if they are not; the message names the field.
    """
    _require(
        (output.task, output.modality) in REGISTRY, f"there are no results of {output.task!r}, {output.modality!r}"
    )
    # 2**53 is the largest integer range that JSON readers with double precision keep exactly.
    _require(is_count(output.n_evaluations, 2**53), f"n_evaluations is {output.n_evaluations!r}")
    for name, kind in _TYPES.items():
        value = getattr(output, name)
        _require(isinstance(value, kind), f"{name} has the type {type(value).__name__}")
    _require(are_all(str, output.info), "info has names that are not strings")
    if output.error is not None:
        _require(not output.attributions.numel() and not len(output.elements), "a sample that failed has scores")
        return
    _check_scores(output)
    _check_targets(output)
    _check_units(output)


def _check_scores(output: AttributionResult) -> None:
    """Check the tensors with an entry per target or unit."""
    maps = output.attributions
    _require(maps.is_floating_point() and maps.ndim in (2, 3) and maps.numel() > 0, "attributions are not scores")
    count = (len(maps),)
    _require(output.scores.is_floating_point() and output.scores.shape == count, "scores do not fit the attributions")
    errors, gap = output.standard_errors, output.completeness_gap
    if errors is not None:
        fits = errors.is_floating_point() and errors.shape == maps.shape and not bool((errors < 0).any())
        _require(fits, "standard_errors do not fit the attributions")
    if (units := output.target_units) is not None:
        _require(units.dtype == torch.bool and units.shape == maps.shape, "target_units do not fit the attributions")
    if gap is not None:
        _require(gap.is_floating_point() and gap.shape == count, "completeness_gap does not fit the attributions")


def _check_targets(output: AttributionResult) -> None:
    """Check the targets and their names."""
    count = len(output.attributions)
    names = output.target_names
    _require(len(output.targets) == count, "targets do not fit the attributions")
    _require(len(names) == count and are_all(str, names), "target_names do not fit the attributions")


def _check_units(output: AttributionResult) -> None:
    """Check the elements, the raw input and the segments, which depend on the modality."""
    count, elements, ranks = output.attributions[0].numel(), output.elements, output.segments
    _require(isinstance(elements, _ELEMENTS[output.modality]), "elements are not those of the modality")
    if isinstance(elements, list):
        texts = len(elements) == count and output.attributions.ndim == 2
        _require(texts and are_all(str, elements), "elements do not fit the attributions")
        _require(is_text(output.raw_input), "raw_input is not a text")
        _require(ranks is None and output.unit_map is None, "a text has segments")
        return
    boxes = elements.shape == (count, 4) and bool(elements.isfinite().all())
    _require(boxes, "elements do not fit the attributions")
    _require(bool((elements[:, :2] <= elements[:, 2:]).all()), "elements are not boxes")
    _require(isinstance(output.raw_input, Image.Image), "raw_input is not an image")
    if (unit_map := output.unit_map) is not None:
        integers = not unit_map.is_floating_point() and unit_map.dtype != torch.bool
        fits = integers and unit_map.ndim == 2 and output.attributions.ndim == 2 and bool((unit_map >= 0).any())
        _require(fits, "unit_map does not fit the attributions")
        _require(int(unit_map.min()) >= -1 and int(unit_map.max()) < count, "unit_map has other units")
    else:
        _require(output.attributions.ndim == 3, "units are neither on a grid nor in a unit_map")
    if ranks is not None:
        integers = not ranks.is_floating_point() and ranks.dtype != torch.bool
        _require(integers and ranks.ndim == 3 and len(ranks) == len(output.attributions), "segments do not fit")
        # Ranks start at 1, and there are at most as many segments as pixels.
        _require(ranks.numel() > 0 and int(ranks.min()) >= 1 and int(ranks.max()) <= ranks[0].numel(), "segments rank")


def is_text(raw: object) -> bool:
    """Whether a raw input is a text or a pair of texts."""
    return isinstance(raw, str) or is_text_pair(raw)


def is_count(value: object, most: int = MOST) -> bool:
    """Whether a value is an integer from 0 to `most`."""
    # Not a subclass of int, such as bool, nor an integer of NumPy, which JSON cannot store.
    return type(value) is int and 0 <= value <= most


def target_to_json(target: object) -> Any:
    """A target as a JSON value; functions and other objects are saved by their names."""
    if isinstance(target, Contrast):
        return {"fact": target_to_json(target.fact), "foil": target_to_json(target.foil)}
    if isinstance(target, tuple):
        return [target_to_json(item) for item in target]
    if isinstance(target, int | str):
        return target
    # A function is saved as its plain name. Other objects, such as embeddings, may have a text as name that must not be
    # read as a label or prompt, so the name is in a dictionary.
    name = getattr(target, "__name__", None)
    return {"name": getattr(target, "name", type(target).__name__)} if name is None else name


def target_from_json(target: object) -> Any:
    """A target from a value that `target_to_json` wrote.

    Raises:
        ValueError: if it is another value.
    """
    if isinstance(target, dict) and set(target) == {"name"} and isinstance(target["name"], str):
        return SavedTarget(target["name"])
    if isinstance(target, dict) and set(target) == {"fact", "foil"}:
        return Contrast(target_from_json(target["fact"]), target_from_json(target["foil"]))
    if isinstance(target, list) and target:
        return tuple(target_from_json(item) for item in target)
    _require(isinstance(target, int | str) and not isinstance(target, bool), f"{json.dumps(target)} is not a target")
    return target


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
