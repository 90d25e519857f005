"""What stands for a value in a file, so that a later run can tell whether it was given the same."""

import dataclasses
import enum
import types
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from interpreto.attributions.naming import unwrap_partial

_MOST = 20
"""Entries of a list that are written down."""
_LIBRARIES = ("interpreto", "torch", "torchvision", "transformers", "numpy", "scipy", "PIL", "builtins", "skimage")
"""Packages whose functions and classes are known by their names: versions are recorded beside them."""


def fingerprint(value: Any) -> Any:
    """A value as JSON: as it is where that can be, else in words that are the same in another process.

    Functions, classes and objects of the user's are told by what they do and hold, not by their names or addresses.
    """
    return _told(value, ())


def _told(value: Any, inside: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return {str(name): _told(one, inside) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(str(_told(one, inside)) for one in value)
    if isinstance(value, list | tuple):
        parts = [_told(one, inside) for one in value]
        # A corpus would fill the file.
        return parts if len(parts) <= _MOST else f"{len(parts)} entries {_crc([repr(parts).encode()]):08x}"
    if isinstance(value, Tensor | np.ndarray | Image.Image):
        return f"{type(value).__name__} {digest(value):08x}"
    if isinstance(value, partial):
        return _of_partial(value, inside)
    if isinstance(value, type):
        return _of_class(value, inside)
    if isinstance(value, types.MethodType):
        return [_told(value.__self__, inside), _told(value.__func__, inside)]
    if isinstance(value, types.FunctionType):
        return f"{value.__module__}.{value.__qualname__} {_crc([repr(_of_function(value, inside)).encode()]):08x}"
    if isinstance(value, nn.Module):
        weights = [digest(tensor) for tensor in value.state_dict().values() if isinstance(tensor, Tensor)]
        return f"{type(value).__name__} {_crc([repr(value).encode(), repr(weights).encode()]):08x}"
    if isinstance(value, torch.dtype | torch.device | PurePath | types.BuiltinFunctionType | types.ModuleType | slice):
        return str(value) if not isinstance(value, types.BuiltinFunctionType) else value.__qualname__
    return _of_object(value, inside)


def _of_partial(value: partial, inside: tuple[int, ...]) -> str:
    given = [repr(_told(one, inside)) for one in value.args]
    given += [f"{name}={_told(one, inside)!r}" for name, one in value.keywords.items()]
    return f"{_told(value.func, inside)}({', '.join(given)})"


def _of_class(value: type, inside: tuple[int, ...]) -> str:
    """A class by its name; one of the user's by what its functions do, too."""
    if value.__module__.split(".")[0] in _LIBRARIES:
        return value.__name__
    members = {
        name: _told(getattr(one, "__func__", one), inside)
        for name, one in vars(value).items()
        if isinstance(one, types.FunctionType | staticmethod | classmethod | int | float | str | tuple)
        and name not in ("__module__", "__qualname__", "__doc__", "__firstlineno__")
    }
    bases = [_told(base, inside) for base in value.__bases__]
    return f"{value.__name__} {_crc([repr((bases, members)).encode()]):08x}"


def _of_function(value: types.FunctionType, inside: tuple[int, ...]) -> list[Any]:
    """What a function does: its code and that of functions in it, defaults, closure, and constants that it reads."""
    return [
        _of_code(value.__code__, inside),
        _told(value.__defaults__, inside),
        _told(value.__kwdefaults__, inside),
        [_of_cell(cell, inside) for cell in value.__closure__ or ()],
        {name: _told(one, inside) for name, one in _constants(value).items()},
    ]


def _constants(function: types.FunctionType) -> dict[str, Any]:
    """Constants and functions of a user's module that a function reads; what may change there, a cache, is none."""
    known = function.__globals__
    if str(function.__module__).split(".")[0] in _LIBRARIES:
        return {}
    found = {name: known[name] for name in _names(function.__code__) if name in known}
    kinds = bool | int | float | str | tuple | type | types.FunctionType | partial
    return {name: one for name, one in found.items() if isinstance(one, kinds)}


def _of_cell(cell: types.CellType, inside: tuple[int, ...]) -> Any:
    try:
        return _told(cell.cell_contents, inside)
    except ValueError:
        return "a name that is bound later"


def _names(code: types.CodeType) -> list[str]:
    """The names that code and code inside of it look up."""
    found = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += _names(constant)
    return sorted(set(found))


def _of_code(code: types.CodeType, inside: tuple[int, ...]) -> list[Any]:
    constants = [
        _of_code(one, inside) if isinstance(one, types.CodeType) else repr(_told(one, inside)) for one in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), code.co_argcount, constants]


def _of_object(value: Any, inside: tuple[int, ...]) -> str:
    """An object by its class and what it holds; one that shows nothing of that by its own words."""
    if type(value).__module__.split(".")[0] in _LIBRARIES and " at 0x" not in (text := str(value)):
        return text[:500]
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    elif isinstance(getattr(value, "__dict__", None), dict) and vars(value):
        held = vars(value)
    else:
        text = str(value)
        return type(value).__name__ if " at 0x" in text else text[:500]
    parts = [_told(type(value), inside), {name: _told(one, inside) for name, one in held.items()}]
    return f"{type(value).__name__} {_crc([repr(parts).encode()]):08x}"


def digest(value: Any) -> int:
    """A number that is another one, nearly always, for another array, picture, text or list of words."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() or value.is_complex() else value).numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return _crc([str((value.shape, value.dtype)).encode(), np.ascontiguousarray(value).tobytes()])
    return _crc([repr(fingerprint(value)).encode()])


def described(make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A class or partial and the options that it is called with."""
    return {"class": unwrap_partial(make).__name__, "options": fingerprint({**options, **_keywords(make)})}


def _keywords(make: Any) -> dict[str, Any]:
    inner = getattr(make, "func", None)
    return {} if inner is None else {**_keywords(inner), **make.keywords}


def _crc(parts: Iterable[bytes]) -> int:
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found
