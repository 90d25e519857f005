"""Checks of the types of values whose type is not known: inputs and options of users, and the content of files."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

Types = type | UnionType | tuple[type, ...]
"""What `isinstance` takes."""


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of Python or NumPy. `bool` is a subclass of `int`, but True is not the number 1."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy, but not a `bool`."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_array(value: object) -> TypeGuard[Tensor | np.ndarray]:
    """Whether a value is an array or a tensor."""
    return isinstance(value, Tensor | np.ndarray)


def is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


def is_collection(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether a value contains several: a text, bytes and a mapping can be iterated over too, but are one value."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview | Mapping)


def are_all(kind: Types, values: Iterable[object]) -> bool:
    """Whether all values have a type."""
    return all(isinstance(value, kind) for value in values)


def as_tuple(value: object) -> tuple[Any, ...]:
    """A tuple itself, and anything else in a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def as_pair(size: Any) -> tuple[Any, Any]:
    """Height and width; one number, or a list of one, is both."""
    sides = size if is_list(size) else [size]
    return sides[0], sides[-1]


def function_name(function: object) -> str:
    """The name of a function; of any other callable object, the name of its class."""
    return getattr(function, "__name__", type(function).__name__)


def shape_or_type(value: object) -> str:
    """The shape of an array or tensor, and the type of anything else, for messages about what a function returned."""
    return f"shape {tuple(value.shape)}" if is_array(value) else type(value).__name__


def is_text_pair(value: object) -> TypeGuard[tuple[str, str]]:
    """Whether a value is a tuple of two strings."""
    return isinstance(value, tuple) and len(value) == 2 and are_all(str, value)
