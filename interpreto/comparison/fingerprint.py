"""Fingerprints of options and masks, by which a resumed comparison checks that its arguments have not changed."""

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
_MAX_CHARACTERS = 500
"""Maximum length of a text that identifies an object of a library."""
_LIBRARIES = ("interpreto", "torch", "torchvision", "transformers", "numpy", "scipy", "PIL", "builtins", "skimage")
"""Packages whose classes are identified by name alone, because their versions hardly change what is compared."""
_IGNORED_ATTRIBUTES = ("__module__", "__qualname__", "__doc__", "__firstlineno__")
"""Attributes of a class that are left out, because they change when the class is moved within its module.

"__firstlineno__" exists since Python 3.13.
"""
_GLOBAL_TYPES = bool | int | float | str | tuple | type | types.FunctionType | partial
"""Types of global variables that are included; others, such as caches, may change while a function runs."""
_MEMBER_TYPES = (
    int | float | str | bytes | tuple | frozenset | type(None) | type | partial
    | types.FunctionType | staticmethod | classmethod | property | functools.cached_property
)  # fmt: skip
"""Types of class attributes that are included."""


def fingerprint(value: object, known: Mapping[int, str] | None = None) -> Any:
    """A value that can be written as JSON, and is the same in every process.

    Scalars, short lists and mappings stay as they are. Functions, classes and objects of the user's code are replaced
    by a checksum of their code and content: names would miss changes, and addresses differ between processes. Those of
    installed packages are identified by name and version.

    Args:
        value: The value.
        known: From ids of objects to fingerprints that replace theirs.
    """
    return _Traversal(dict(known or {})).to_json(value)


@dataclass
class _Traversal:
    """One traversal of an object and all that it refers to.

    Attributes:
        fingerprints: From the id of an object to its fingerprint. Each is visited once: the number of paths to an
            object grows exponentially with the number of functions that call each other.
        visited: The objects, which must not be freed as long as their ids are used.
    """

    fingerprints: dict[int, Any] = field(default_factory=dict)
    visited: list[object] = field(default_factory=list)

    def to_json(self, value: object) -> Any:
        """The fingerprint of a value; "itself" while its own fingerprint is computed, as in recursive functions."""
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

    Objects of the packages in `_LIBRARIES` other than dataclasses are identified by their `str`, unless it contains an
    address.
    """
    text = str(value)
    if _is_of_known_package(type(value)) and not dataclasses.is_dataclass(value) and " at 0x" not in text:
        return _shortened(text)
    attributes = _attributes(value)
    if not attributes and _is_of_known_package(type(value)):
        return type(value).__name__ if " at 0x" in text else _shortened(text)
    parts = [to_json(type(value)), {name: to_json(item) for name, item in attributes.items()}]
    if not attributes and " at 0x" not in text:
        parts.append(text)
    return f"{type(value).__name__} {_crc([repr(parts).encode()]):08x}"


def _attributes(value: object) -> dict[str, Any]:
    """The attributes of an object, including those in slots."""
    if dataclasses.is_dataclass(value):
        names = [item.name for item in dataclasses.fields(value)]
    else:
        slots = [getattr(cls, "__slots__", ()) for cls in type(value).__mro__]
        names = [name for item in slots for name in ([item] if isinstance(item, str) else item)]
        names += list(getattr(value, "__dict__", ()))
    # A slot may be unset.
    return {name: getattr(value, name, None) for name in names if name not in ("__dict__", "__weakref__")}


def _shortened(text: str) -> str:
    """A text, or the beginning of a long one with a checksum of all of it."""
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}... {_crc([text.encode()]):08x}"


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
    if _is_of_known_package(value):
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
    # The wrapper that a package's decorator creates has the user's function in its closure; its globals are known.
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
    # Classes of the user's modules with their code, and attributes that `repr` does not show.
    classes = [to_json(cls) for cls in dict.fromkeys(type(module) for module in value.modules())]
    numbers = [
        {
            name: item
            for name, item in vars(module).items()
            if isinstance(item, int | float | str) and name != "training"
        }
        for module in value.modules()
    ]
    parts = [repr(value), repr(weights), repr(classes), repr(numbers)]
    return f"{type(value).__name__} {_crc([part.encode() for part in parts]):08x}"


@_to_json.register
def _property(value: property, to_json: ToJson) -> Any:
    return [to_json(function) for function in (value.fget, value.fset, value.fdel)]


@_to_json.register
def _cached_property(value: functools.cached_property, to_json: ToJson) -> Any:
    return to_json(value.func)


@_to_json.register
def _bytes(value: bytes, to_json: ToJson) -> str:
    return f"{len(value)} bytes {_crc([value]):08x}"


@_to_json.register(torch.dtype | torch.device | PurePath | types.ModuleType | slice)
def _by_text(value: object, to_json: ToJson) -> str:
    return str(value)


@_to_json.register
def _builtin(value: types.BuiltinFunctionType, to_json: ToJson) -> str:
    return value.__qualname__


def _is_of_known_package(cls: type) -> bool:
    return cls.__module__.split(".")[0] in _LIBRARIES


@functools.cache
def _installed_version(module: str) -> str | None:
    """The version of the installed package that a module belongs to; None for code of the user.

    It is empty for the standard library and the packages in `_LIBRARIES`.
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
    """Global variables of `_GLOBAL_TYPES` that a function of the user reads."""
    variables = function.__globals__
    # `co_names` also contains names of attributes, so that a global of the same name is included too.
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
    # Without the file name and line numbers, so that code may move within its module.
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), code.co_argcount, constants]


def digest(value: object) -> int:
    """A checksum of an array, image, text or list of words: CRC-32, which detects accidental changes only."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16 and no 8-bit floats, so floats below 32 bits are converted; wider ones are kept.
        value = (value.float() if value.dtype.itemsize < 4 and value.is_floating_point() else value).numpy()
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    # The entries of an array of objects are addresses.
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _crc([str((value.shape, value.dtype)).encode(), np.ascontiguousarray(value).tobytes()])
    return _crc([repr(fingerprint(value.tolist() if isinstance(value, np.ndarray) else value)).encode()])


def describe_call(factory: Callable[..., object], options: Mapping[str, object], model: object) -> dict[str, Any]:
    """The fingerprints of a class, or of the class in a partial, and of the options that it is called with.

    Layers of the model are identified by their names: two layers without weights have the same content.
    """
    layers = model.named_modules() if isinstance(model, nn.Module) else ()
    known = {id(layer): f"layer {name}" for name, layer in layers}
    return {
        "class": fingerprint(unwrap_partial(factory)),
        "options": fingerprint({**options, **partial_keywords(factory)}, known),
    }


def _crc(parts: Iterable[bytes]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value
