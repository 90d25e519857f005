"""Fingerprints of options and inputs in saved runs, by which a resumed run checks that it has the same ones."""

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

_MAX_ENTRIES = 20
"""Maximum length of a list that is written in full."""
_LIBRARIES = ("interpreto", "torch", "torchvision", "transformers", "numpy", "scipy", "PIL", "builtins", "skimage")
"""Packages whose classes are identified by name alone: versions of packages are recorded separately."""


def fingerprint(value: object) -> Any:
    """A value as JSON: unchanged if possible, else as a text that is the same in every process.

    Functions, classes and objects of the user are identified by their code and content: names would miss changes, and
    addresses differ between processes.
    """
    return _to_json(value, ())


def _to_json(value: object, inside: tuple[int, ...]) -> Any:
    """The fingerprint of a value inside of others, whose ids are `inside`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    # Objects may contain themselves, and recursive functions do, by their globals.
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return {str(name): _to_json(item, inside) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        # The order of a set depends on the hash seed of the process.
        return sorted(str(_to_json(item, inside)) for item in value)
    if isinstance(value, list | tuple):
        parts = [_to_json(item, inside) for item in value]
        # Long lists, such as a corpus, are written as a checksum.
        return parts if len(parts) <= _MAX_ENTRIES else f"{len(parts)} entries {_crc([repr(parts).encode()]):08x}"
    if isinstance(value, Tensor | np.ndarray | Image.Image):
        return f"{type(value).__name__} {digest(value):08x}"
    if isinstance(value, partial):
        return _partial_to_json(value, inside)
    if isinstance(value, type):
        return _class_to_json(value, inside)
    if isinstance(value, types.MethodType):
        return [_to_json(value.__self__, inside), _to_json(value.__func__, inside)]
    if isinstance(value, types.FunctionType):
        return f"{value.__module__}.{value.__qualname__} {_crc([repr(_function_to_json(value, inside)).encode()]):08x}"
    if isinstance(value, nn.Module):
        weights = [digest(tensor) for tensor in value.state_dict().values() if isinstance(tensor, Tensor)]
        return f"{type(value).__name__} {_crc([repr(value).encode(), repr(weights).encode()]):08x}"
    if isinstance(value, torch.dtype | torch.device | PurePath | types.BuiltinFunctionType | types.ModuleType | slice):
        return str(value) if not isinstance(value, types.BuiltinFunctionType) else value.__qualname__
    return _object_to_json(value, inside)


def _partial_to_json(value: partial, inside: tuple[int, ...]) -> str:
    arguments = [repr(_to_json(argument, inside)) for argument in value.args]
    arguments += [f"{name}={_to_json(argument, inside)!r}" for name, argument in value.keywords.items()]
    return f"{_to_json(value.func, inside)}({', '.join(arguments)})"


def _class_to_json(value: type, inside: tuple[int, ...]) -> str:
    """A class by its name; a class of the user by its bases and members, too."""
    if value.__module__.split(".")[0] in _LIBRARIES:
        return value.__name__
    members = {
        name: _to_json(getattr(item, "__func__", item), inside)
        for name, item in vars(value).items()
        if isinstance(item, types.FunctionType | staticmethod | classmethod | int | float | str | tuple)
        # These change when code is moved or documented: "__firstlineno__" since Python 3.13.
        and name not in ("__module__", "__qualname__", "__doc__", "__firstlineno__")
    }
    bases = [_to_json(base, inside) for base in value.__bases__]
    return f"{value.__name__} {_crc([repr((bases, members)).encode()]):08x}"


def _function_to_json(value: types.FunctionType, inside: tuple[int, ...]) -> list[Any]:
    """The behaviour of a function: its code and that of inner functions, defaults, closure, and constants it reads."""
    return [
        _code_to_json(value.__code__, inside),
        _to_json(value.__defaults__, inside),
        _to_json(value.__kwdefaults__, inside),
        [_cell_to_json(cell, inside) for cell in value.__closure__ or ()],
        {name: _to_json(item, inside) for name, item in _constants(value).items()},
    ]


def _constants(function: types.FunctionType) -> dict[str, Any]:
    """Global constants and functions that a function of the user reads; mutable objects, such as caches, are left out.

    A cache would change the fingerprint as the function runs.
    """
    variables = function.__globals__
    if str(function.__module__).split(".")[0] in _LIBRARIES:
        return {}
    # Names of attributes are among these, too: a global of the same name is included, which does no harm.
    used = {name: variables[name] for name in _names(function.__code__) if name in variables}
    kinds = bool | int | float | str | tuple | type | types.FunctionType | partial
    return {name: item for name, item in used.items() if isinstance(item, kinds)}


def _cell_to_json(cell: types.CellType, inside: tuple[int, ...]) -> Any:
    try:
        return _to_json(cell.cell_contents, inside)
    except ValueError:
        # The cell is still empty: its variable is assigned after the function is created.
        return "a name that is bound later"


def _names(code: types.CodeType) -> list[str]:
    """The global names and attributes in code, including inner functions."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return sorted(set(names))


def _code_to_json(code: types.CodeType, inside: tuple[int, ...]) -> list[Any]:
    constants = [
        _code_to_json(item, inside) if isinstance(item, types.CodeType) else repr(_to_json(item, inside))
        for item in code.co_consts
    ]
    # Without the file name and line numbers: code that is moved stays the same.
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), code.co_argcount, constants]


def _object_to_json(value: object, inside: tuple[int, ...]) -> str:
    """An object by its class and attributes; without attributes by its `str`, unless that has an address."""
    if type(value).__module__.split(".")[0] in _LIBRARIES and " at 0x" not in (text := str(value)):
        return text[:500]
    if dataclasses.is_dataclass(value):
        attributes = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    elif isinstance(getattr(value, "__dict__", None), dict) and vars(value):
        attributes = vars(value)
    else:
        text = str(value)
        return type(value).__name__ if " at 0x" in text else text[:500]
    parts = [_to_json(type(value), inside), {name: _to_json(item, inside) for name, item in attributes.items()}]
    return f"{type(value).__name__} {_crc([repr(parts).encode()]):08x}"


def digest(value: object) -> int:
    """A checksum of an array, image, text or list of words: CRC-32, against mistakes and not against forgery."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # numpy has no bfloat16.
        value = (value.float() if value.is_floating_point() or value.is_complex() else value).numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return _crc([str((value.shape, value.dtype)).encode(), np.ascontiguousarray(value).tobytes()])
    return _crc([repr(fingerprint(value)).encode()])


def described(make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A class or partial, with the options that it is called with, as JSON."""
    return {"class": unwrap_partial(make).__name__, "options": fingerprint({**options, **_keywords(make)})}


def _keywords(make: Any) -> dict[str, Any]:
    # Keywords of an outer partial override those of the one that it wraps.
    inner = getattr(make, "func", None)
    return {} if inner is None else {**_keywords(inner), **make.keywords}


def _crc(parts: Iterable[bytes]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value
