"""Fingerprints of options and inputs in saved runs, by which a resumed run checks that it has the same ones."""

import dataclasses
import enum
import functools
import importlib.metadata
import sys
import sysconfig
import types
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from interpreto.attributions.naming import partial_keywords, unwrap_partial

_MAX_ENTRIES = 20
"""Maximum length of a list that is written in full."""
_LIBRARIES = ("interpreto", "torch", "torchvision", "transformers", "numpy", "scipy", "PIL", "builtins", "skimage")
"""Packages whose classes are identified by name alone: versions of packages are recorded separately."""
_IGNORED_ATTRIBUTES = ("__module__", "__qualname__", "__doc__", "__firstlineno__")
"""Attributes of a class that are left out, because they change when its code is moved or documented.

"__firstlineno__" exists since Python 3.13.
"""
_GLOBAL_TYPES = bool | int | float | str | tuple | type | types.FunctionType | partial
_MEMBER_TYPES = int | float | str | tuple | types.FunctionType | staticmethod | classmethod


def fingerprint(value: object) -> Any:
    """A value that can be written as JSON: unchanged if possible, else a text that is the same in every process.

    Functions, classes and objects of the user are identified by their code and content: names would miss changes, and
    addresses differ between processes. Those of installed packages are identified by name and version.
    """
    return _Traversal().to_json(value)


@dataclass
class _Traversal:
    """One traversal of an object and all that it refers to.

    Attributes:
        fingerprints: From the id of an object to its fingerprint. Each is visited once: the number of paths to an
            object may grow exponentially with the number of functions that call each other.
        visited: The objects, which must not be freed as long as their ids are used.
    """

    fingerprints: dict[int, Any] = field(default_factory=dict)
    visited: list[object] = field(default_factory=list)

    def to_json(self, value: object) -> Any:
        """The fingerprint of a value; "itself" for one that contains itself, as recursive functions do."""
        if type(value) in (bool, int, float, str, type(None)):
            return value
        if id(value) not in self.fingerprints:
            self.visited.append(value)
            self.fingerprints[id(value)] = "itself"
            self.fingerprints[id(value)] = _to_json(value, self.to_json)
        return self.fingerprints[id(value)]


ToJson = Callable[[object], Any]
"""Called for the objects that an object contains."""


@functools.singledispatch
def _to_json(value: object, to_json: ToJson) -> Any:
    """Identifies an object by its class and attributes, or by its `str` if it has none.

    Objects of the packages in `_LIBRARIES` are identified by their `str`. One that contains an address is not used.
    """
    if _is_of_recorded_library(type(value)) and " at 0x" not in (text := str(value)):
        return text[:500]
    if dataclasses.is_dataclass(value):
        attributes = {item.name: getattr(value, item.name, None) for item in dataclasses.fields(value)}
    else:
        attributes = dict(getattr(value, "__dict__", {}))
    if not attributes:
        text = str(value)
        return type(value).__name__ if " at 0x" in text else text[:500]
    parts = [to_json(type(value)), {name: to_json(item) for name, item in attributes.items()}]
    return f"{type(value).__name__} {_crc([repr(parts).encode()]):08x}"


@_to_json.register(bool | int | float | str)
def _number_or_text(value: object, to_json: ToJson) -> Any:
    return to_json(value.value) if isinstance(value, enum.Enum) else value


@_to_json.register
def _mapping(value: Mapping, to_json: ToJson) -> Any:
    return {str(name): to_json(item) for name, item in value.items()}


@_to_json.register(set | frozenset)
def _set(value: Iterable[object], to_json: ToJson) -> Any:
    # The order of a set depends on the hash seed of the process.
    return sorted(str(to_json(item)) for item in value)


@_to_json.register(list | tuple)
def _list(value: Iterable[object], to_json: ToJson) -> Any:
    parts = [to_json(item) for item in value]
    # Long lists, such as a corpus, are written as a checksum.
    return parts if len(parts) <= _MAX_ENTRIES else f"{len(parts)} entries {_crc([repr(parts).encode()]):08x}"


@_to_json.register(Tensor | np.ndarray | Image.Image)
def _array(value: object, to_json: ToJson) -> str:
    return f"{type(value).__name__} {digest(value):08x}"


@_to_json.register
def _partial(value: partial, to_json: ToJson) -> str:
    arguments = [repr(to_json(argument)) for argument in value.args]
    arguments += [f"{name}={to_json(argument)!r}" for name, argument in value.keywords.items()]
    return f"{to_json(value.func)}({', '.join(arguments)})"


@_to_json.register
def _class(value: type, to_json: ToJson) -> str:
    """A class by its name; a class of the user by its bases and members, too."""
    if _is_of_recorded_library(value):
        return value.__name__
    if (version := _installed_version(value.__module__)) is not None:
        return f"{value.__module__}.{value.__qualname__} {version}".rstrip()
    members = {
        name: to_json(getattr(item, "__func__", item))
        for name, item in vars(value).items()
        if isinstance(item, _MEMBER_TYPES) and name not in _IGNORED_ATTRIBUTES
    }
    bases = [to_json(base) for base in value.__bases__]
    return f"{value.__name__} {_crc([repr((bases, members)).encode()]):08x}"


@_to_json.register
def _method(value: types.MethodType, to_json: ToJson) -> Any:
    return [to_json(value.__self__), to_json(value.__func__)]


@_to_json.register
def _function(value: types.FunctionType, to_json: ToJson) -> str:
    """The behaviour of a function: its code and that of inner functions, defaults, closure, and constants it reads."""
    name = f"{value.__module__}.{value.__qualname__}"
    # functools.wraps overwrites `__module__`, so the module that defines the function is that of its global variables.
    version = _installed_version(str(value.__globals__.get("__name__")))
    if version is not None and not value.__closure__:
        return f"{name} {version}".rstrip()
    # What a decorator of a package does is in its closure; its own global variables are those of the package.
    constants = _referenced_globals(value) if version is None else {}
    parts = [
        _code_to_json(value.__code__, to_json),
        to_json(value.__defaults__),
        to_json(value.__kwdefaults__),
        [_cell_to_json(cell, to_json) for cell in value.__closure__ or ()],
        {name: to_json(item) for name, item in constants.items()},
    ]
    return f"{name} {_crc([repr(parts).encode()]):08x}"


@_to_json.register
def _module(value: nn.Module, to_json: ToJson) -> str:
    weights = [digest(tensor) for tensor in value.state_dict().values() if isinstance(tensor, Tensor)]
    return f"{type(value).__name__} {_crc([repr(value).encode(), repr(weights).encode()]):08x}"


@_to_json.register(torch.dtype | torch.device | PurePath | types.ModuleType | slice)
def _by_text(value: object, to_json: ToJson) -> str:
    return str(value)


@_to_json.register
def _builtin(value: types.BuiltinFunctionType, to_json: ToJson) -> str:
    return value.__qualname__


def _is_of_recorded_library(cls: type) -> bool:
    return cls.__module__.split(".")[0] in _LIBRARIES


@functools.cache
def _installed_version(module: str) -> str | None:
    """The version of the installed package that a module belongs to; None for code of the user.

    It is empty for the standard library and for packages whose versions are recorded.
    """
    package = module.split(".")[0]
    if package in _LIBRARIES or package in sys.stdlib_module_names:
        return ""
    file = getattr(sys.modules.get(package), "__file__", None)
    folders = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    if file is None or not any(Path(file).is_relative_to(folder) for folder in folders):
        return None
    names = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(importlib.metadata.version(name) for name in sorted(set(names)))


def _referenced_globals(function: types.FunctionType) -> dict[str, Any]:
    """Global constants and functions that a function of the user reads; mutable objects, such as caches, are left out.

    A cache would change the fingerprint as the function runs.
    """
    variables = function.__globals__
    # Names of attributes are among these, too: a global of the same name is included, which does no harm.
    used = {name: variables[name] for name in _names(function.__code__) if name in variables}
    return {name: item for name, item in used.items() if isinstance(item, _GLOBAL_TYPES)}


def _cell_to_json(cell: types.CellType, to_json: ToJson) -> Any:
    try:
        return to_json(cell.cell_contents)
    except ValueError:
        # The cell is still empty: its variable is assigned after the function is created.
        return "a name that is bound later"


def _names(code: types.CodeType) -> list[str]:
    """The global names and attributes in code, including inner functions."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})


def _code_to_json(code: types.CodeType, to_json: ToJson) -> list[Any]:
    constants = [
        _code_to_json(item, to_json) if isinstance(item, types.CodeType) else repr(to_json(item))
        for item in code.co_consts
    ]
    # Without the file name and line numbers: code that is moved stays the same.
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), code.co_argcount, constants]


def digest(value: object) -> int:
    """A checksum of an array, image, text or list of words: CRC-32, which detects accidental changes only."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # numpy has no bfloat16, and no types of 8 bits; float64 is not rounded.
        value = (value.float() if value.dtype.itemsize < 4 and value.is_floating_point() else value).numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return _crc([str((value.shape, value.dtype)).encode(), np.ascontiguousarray(value).tobytes()])
    return _crc([repr(fingerprint(value)).encode()])


def describe_call(factory: Callable[..., object], options: Mapping[str, object]) -> dict[str, Any]:
    """A class or partial, with the options that it is called with, as JSON."""
    return {"class": unwrap_partial(factory).__name__, "options": fingerprint({**options, **partial_keywords(factory)})}


def _crc(parts: Iterable[bytes]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value
