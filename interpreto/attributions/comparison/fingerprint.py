"""What stands for a value in a file, so that a later run can tell whether it was given the same."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from interpreto.attributions.naming import core, title

_MOST = 20
"""Entries of a list that are written down."""


def told(value: Any) -> Any:
    """A value as JSON: as it is where that can be, else in words that are the same in another process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): told(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        parts = [told(one) for one in value]
        # A corpus would fill the file.
        return parts if len(parts) <= _MOST else f"{len(parts)} entries {_crc([repr(parts).encode()]):08x}"
    if isinstance(value, Tensor | np.ndarray | Image.Image):
        return f"{type(value).__name__} {digest(value):08x}"
    if isinstance(value, type) or core(value) is not value:
        return title(value)
    code = getattr(value, "__code__", None)
    if code is not None:
        # A function by its name and what it does: its address is another one every time.
        name = f"{value.__module__}.{value.__qualname__}"
        return f"{name} {_crc([code.co_code, repr((code.co_names, code.co_consts)).encode()]):08x}"
    return _without_address(value)


def digest(value: Any) -> int:
    """A number that is another one, nearly always, for another array, picture, text or list of words."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return _crc([str((value.shape, value.dtype)).encode(), np.ascontiguousarray(value).tobytes()])
    return _crc([repr(told(value)).encode()])


def described(make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A class or partial and the options that it is called with."""
    return {"class": core(make).__name__, "options": told({**options, **_keywords(make)})}


def _keywords(make: Any) -> dict[str, Any]:
    inner = getattr(make, "func", None)
    return {} if inner is None else {**_keywords(inner), **make.keywords}


def _crc(parts: Iterable[bytes]) -> int:
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found


def _without_address(value: Any) -> str:
    text = str(value)
    return type(value).__name__ if " at 0x" in text else text[:500]
