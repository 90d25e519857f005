"""The types and ranges of the values of all options, in one table, and functions that validate options with it."""

import functools
import inspect
import math
import os
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, ParamSpec, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import nn

from interpreto.errors import OptionError, choices
from interpreto.type_guards import are_all, is_array, is_integer, is_list, is_real

MAX_SAMPLES = 1_000_000
"""Maximum number of evaluations of the model for one target of one sample."""
_MAX_INTEGER = 2**63 - 1
_MAX_SIDE = 16_384
"""Maximum height or width of an image, in pixels."""
_AUTOCAST_DTYPES = (torch.bfloat16, torch.float16)
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """The type and range of an option's value.

    Attributes:
        accepted: The accepted values in words, which follow "must be" in error messages.
        read: Converts the user's value to the type that the package works with, such as a NumPy integer to an int.
            Raises ValueError, optionally with a reason, if the value is not accepted.
    """

    accepted: str
    read: Callable[[Any], Any]


def read_option(name: str, value: object) -> Any:
    """Validate the value of an option and convert it to the type that the package works with.

    Values of options that are not in `OPTION_KINDS` are returned unchanged.

    Raises:
        OptionError: if the value is not accepted.
    """
    kind = OPTION_KINDS.get(name)
    if kind is None:
        return value
    try:
        return kind.read(value)
    except ValueError as error:
        reason = f" ({error})" if str(error) else ""
        raise OptionError(f"{name}={short_repr(value)} must be {kind.accepted}{reason}.") from None


def at_least(name: str, value: int, minimum: int) -> None:
    """Check that a number of samples or steps is large enough for a method.

    Raises:
        OptionError: if it is below the minimum.
    """
    if value < minimum:
        raise OptionError(f"{name}={value} is too few: it must be at least {minimum}.")


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Check that the value of an option is one of the allowed names.

    Raises:
        OptionError: if it is not; the message suggests similar names.
    """
    if value not in allowed:
        raise OptionError(f"There is no {name}={value!r}: {choices(value, allowed)}")


def checks_options(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator that validates the arguments of a function and converts them to the types it works with.

    Arguments are validated with the entry for their name in `OPTION_KINDS`, strings also with the `Literal` in their
    annotation. None is accepted if it is the default.

    Example:
        >>> @checks_options
        ... def explain(*, n_samples: int = 512) -> int:
        ...     return n_samples
        >>> explain(n_samples=np.int64(8))
        8
    """

    parameters = inspect.signature(function).parameters
    optional = {name for name, parameter in parameters.items() if parameter.default is None}
    annotations = {name: annotation for one in parameters.values() for name, annotation in _annotations(one)}
    literals = {name: values for name, annotation in annotations.items() if (values := literal_values(annotation))}
    read = functools.partial(_read_argument, optional, literals)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        # Surplus positional arguments are passed on, so that Python raises its usual TypeError.
        positional = [*map(read, parameters, args), *args[len(parameters) :]]
        keywords = {name: read(name, value) for name, value in options.items()}
        return cast(Callable[..., T], function)(*positional, **keywords)

    return checked


def _annotations(parameter: inspect.Parameter) -> list[tuple[str, Any]]:
    """The name and annotation of a parameter; of all options for `**options: Unpack[...]`."""
    unpacked = unpacked_annotations(parameter.annotation) if parameter.kind is parameter.VAR_KEYWORD else {}
    return list(unpacked.items()) or [(parameter.name, parameter.annotation)]


def unpacked_annotations(annotation: object) -> dict[str, Any]:
    """The names and annotations of the options in `Unpack[...]`; empty for any other annotation."""
    arguments = get_args(annotation)
    return get_type_hints(arguments[0]) if arguments else {}


def literal_values(annotation: object) -> tuple[str, ...]:
    """The strings in an annotation's `Literal`s, which may be inside a union."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    return tuple(value for part in get_args(annotation) for value in literal_values(part))


def _read_argument(optional: Collection[str], literals: Mapping[str, tuple[str, ...]], name: str, value: object) -> Any:
    if value is None and name in optional:
        return None
    value = read_option(name, value)
    if name in literals and isinstance(value, str):
        check_choice(name, value, literals[name])
    return value


def call_function(name: str, function: Callable[..., T], *args: object) -> T:
    """Call a function that the user passed as an option.

    Args:
        name: Name of the option.
        function: The function.
        args: Its arguments.

    Raises:
        OptionError: if the function raises an exception, which is then the cause of this error.
    """
    try:
        return function(*args)
    except Exception as error:
        arguments = ", ".join(_describe_argument(arg) for arg in args)
        lines = str(error).strip().splitlines()
        message = f" ({lines[0]})" if lines else ""
        raise OptionError(
            f"{name}= raised {type(error).__name__}{message} when it was called with {arguments}."
        ) from error


def _describe_argument(arg: object) -> str:
    shape = getattr(arg, "shape", None)
    return type(arg).__name__ if shape is None else f"an array of shape {tuple(shape)}"


def short_repr(value: object) -> str:
    """The `repr` of a value on one line, shortened for error messages."""
    return " ".join(_REPR.repr(value).split())


def _unwrap_scalar(value: Any) -> Any:
    """Convert a NumPy scalar or a zero-dimensional array or tensor to a Python number; return others unchanged."""
    is_scalar = isinstance(value, np.generic) or (is_array(value) and value.ndim == 0)
    return value.item() if is_scalar else value


def _integer(value: object) -> int:
    value = _unwrap_scalar(value)
    if not is_integer(value):
        raise ValueError
    return int(value)


def _count(minimum: int, maximum: int, value: object) -> int:
    value = _integer(value)
    if not minimum <= value <= maximum:
        raise ValueError
    return value


def _samples(value: object) -> int:
    value = _integer(value)
    if value > MAX_SAMPLES:
        raise ValueError("it is the number of evaluations of the model for one target of one sample")
    return _count(1, MAX_SAMPLES, value)


def _number(minimum: float, maximum: float, bounds: str, value: object) -> float:
    """A finite number in an interval.

    Args:
        minimum: The lower bound.
        maximum: The upper bound.
        bounds: Which of the bounds are included: "[]", "(]", "[)" or "()".
        value: The user's value.
    """
    value = _unwrap_scalar(value)
    if not is_real(value):
        raise ValueError
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError from error
    if not math.isfinite(number):
        raise ValueError
    above = number >= minimum if bounds[0] == "[" else number > minimum
    below = number <= maximum if bounds[1] == "]" else number < maximum
    if not (above and below):
        raise ValueError
    return number


def _flag(value: object) -> bool:
    return _instance((bool,), _unwrap_scalar(value))


def _instance(types: tuple[type, ...], value: object) -> Any:
    if not isinstance(value, types):
        raise ValueError
    return value


def _function(value: object) -> Any:
    if not callable(value) or inspect.isclass(value):
        raise ValueError
    return value


def _unwrap_array(value: object) -> Any:
    """Convert a one-dimensional array or tensor to a list; return anything else unchanged."""
    return value.tolist() if is_array(value) and value.ndim == 1 else value


def _percentiles(value: object) -> float | list[float]:
    value = _unwrap_array(value)
    if not is_list(value):
        return PERCENTILE.read(value)
    if not value:
        raise ValueError
    return [PERCENTILE.read(item) for item in value]


def _callable(value: object) -> Any:
    if not callable(value):
        raise ValueError
    return value


def _extent(maximum: int, value: object) -> int | tuple[int, int]:
    """One size for both height and width, or a pair (height, width)."""
    value = _unwrap_array(value)
    if not is_list(value):
        return _count(1, maximum, value)
    if len(value) != 2:
        raise ValueError
    return _count(1, maximum, value[0]), _count(1, maximum, value[1])


def _layers(value: object) -> int | tuple[int, ...]:
    value = _unwrap_array(value)
    if isinstance(value, list | tuple | range) and len(value):
        return tuple(_integer(layer) for layer in value)
    return _integer(value)


def _dtype(value: object) -> torch.dtype:
    value = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    # The type is checked first, because `in` calls __eq__ of the user's object.
    if not isinstance(value, torch.dtype) or value not in _AUTOCAST_DTYPES:
        raise ValueError
    return value


def _device(value: object) -> torch.device:
    if isinstance(value, bool) or not isinstance(value, str | int | torch.device):
        raise ValueError
    try:
        device = torch.device(value)
        if device.type == "meta":
            raise ValueError("tensors on the meta device have no data")
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, OverflowError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0].rstrip(".")) from None
    return device


def _texts(value: Any) -> list[str]:
    try:
        texts = [value] if isinstance(value, str) else list(value)
    except TypeError as error:
        raise ValueError from error
    if not are_all(str, texts) or not any(text.strip() for text in texts):
        raise ValueError
    return texts


def _labels(value: object) -> list[str]:
    names = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(names, Mapping):
        # Such as `id2label` of a transformers config.
        if set(names) != set(range(len(names))):
            raise ValueError("the keys of a mapping must be the class indices 0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    if not is_list(names) or not names:
        raise ValueError
    if not are_all(str | Integral, names):
        raise ValueError("a class name must be a string")
    return [str(name) for name in names]


def _path(value: object) -> Any:
    if not isinstance(value, str | os.PathLike):
        raise ValueError
    name = os.fspath(value)
    if isinstance(name, bytes):
        raise ValueError("it is a bytes object: convert it with os.fsdecode()")
    if not name:
        raise ValueError("it is empty")
    try:
        # File names that are not valid UTF-8 are strings with surrogate escapes, which fsencode() converts back.
        invalid = b"\0" in os.fsencode(name)
    except UnicodeEncodeError:
        invalid = True
    if invalid:
        raise ValueError("it is not a valid file name")
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not are_all(str, value):
        raise ValueError
    return value


def _either(kinds: tuple[Kind, ...], value: object) -> Any:
    """The value, converted by the first kind that accepts it."""
    for kind in kinds[:-1]:
        try:
            return kind.read(value)
        except ValueError:
            continue
    return kinds[-1].read(value)


def _or_none(read: Callable[[object], object], value: object) -> Any:
    return None if value is None else read(value)


def count(minimum: int, maximum: int = _MAX_INTEGER) -> Kind:
    """An integer from `minimum` to `maximum`."""
    limits = f"of at least {minimum}" if maximum == _MAX_INTEGER else f"from {minimum} to {maximum:,}"
    return Kind(f"a whole number {limits}", functools.partial(_count, minimum, maximum))


def number(accepted: str, minimum: float, maximum: float = math.inf, bounds: str = "[]") -> Kind:
    """A finite number in an interval; a square bracket in `bounds` includes the bound, a parenthesis excludes it."""
    return Kind(accepted, functools.partial(_number, minimum, maximum, bounds))


def instance(accepted: str, *types: type) -> Kind:
    """An object of one of several classes, which is not converted."""
    return Kind(accepted, functools.partial(_instance, types))


def either(*kinds: Kind) -> Kind:
    """A value of one of several kinds; the first that accepts it converts it."""
    return Kind(" or ".join(kind.accepted for kind in kinds), functools.partial(_either, kinds))


def optional(kind: Kind) -> Kind:
    """A value of a kind, or None."""
    return Kind(f"{kind.accepted}, or None", functools.partial(_or_none, kind.read))


SAMPLES = Kind(f"a whole number of at least 1, at most {MAX_SAMPLES:,}", _samples)
SEED = count(0)
FRACTION = number("a number between 0 and 1", 0.0, 1.0)
POSITIVE_FRACTION = number("a number above 0, at most 1", 0.0, 1.0, "(]")
NOT_NEGATIVE = number("a number that is not negative", 0.0)
POSITIVE = number("a positive number", 0.0, bounds="(]")
PERCENTILE = number("a number above 0, at most 100", 0.0, 100.0, "(]")
PERCENTILES = Kind(f"{PERCENTILE.accepted}, or a list of such numbers", _percentiles)
FLAG = Kind("True or False", _flag)
NAME = instance("a name", str)
FUNCTION = Kind("a function", _function)
EXTENT = Kind("a whole number of at least 1, or two: height and width", functools.partial(_extent, _MAX_INTEGER))
IMAGE_SIZE = Kind(
    f"a number of pixels from 1 to {_MAX_SIDE:,}, or two: height and width",
    functools.partial(_extent, _MAX_SIDE),
)
TEXTS = Kind("a text or a list of texts, not all of them empty", _texts)
LABELS = Kind("a list of the names of all classes, or a mapping from class indices to names", _labels)
MODEL_OUTPUT = Kind(
    "a key, an index or a function",
    functools.partial(_either, (NAME, Kind("a whole number", _integer), FUNCTION)),
)
METHOD = Kind("the class of a method, or a functools.partial of one", _callable)
LAYERS = Kind("the index of the first block to include, or a list of block indices", _layers)
LAYER = instance("a module of the model, or its name", str, nn.Module)
DTYPE = Kind("torch.bfloat16 or torch.float16", _dtype)
DEVICE = Kind("a device that can be used on this machine, such as 'cpu'", _device)
PATH = Kind("a path, such as 'results/figure.png'", _path)
MAPPING = Kind("a dictionary of keyword arguments for generate(), such as {'max_new_tokens': 50}", _mapping)

OPTION_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("n_samples", "n_steps"), SAMPLES),
    **dict.fromkeys(("batch_size", "n_bootstrap", "rows", "columns"), count(1)),
    "grid_size": count(1, 10_000),
    "dilation": count(0, 10_000),
    "seed": SEED,
    **dict.fromkeys(("max_dist", "min_overlap", "initial_fraction"), FRACTION),
    **dict.fromkeys(("fraction", "area_threshold"), POSITIVE_FRACTION),
    "n": either(count(1), number("a share of the units between 0 and 1", 0.0, 1.0, "()")),
    "keep_probability": number("a number between 0 and 1, both excluded", 0.0, 1.0, "()"),
    "min_score": number("a finite number", -math.inf),
    "discard_ratio": number("a number from 0 to below 1", 0.0, 1.0, "[)"),
    **dict.fromkeys(("noise_level", "ridge"), NOT_NEGATIVE),
    **dict.fromkeys(("kernel_width", "radius", "sigma"), POSITIVE),
    "max_sigma": number("a number of pixels or tokens from 1 to 10,000", 1.0, 10_000.0),
    **dict.fromkeys(("clip_percentile", "percentile"), PERCENTILE),
    "percents": PERCENTILES,
    **dict.fromkeys(
        (
            "centered", "merge_heads", "normalize", "one_scale", "prepend_bos", "reuse_prefix", "ascending",
            "similarity", "texts", "truncation",
        ),
        FLAG,
    ),
    "show_progress": optional(FLAG),
    **dict.fromkeys(
        (
            "activation", "algorithm", "curve", "head_reduce", "kernel", "layer_reduce", "layout", "on_error", "order",
            "overlap", "pooling", "reduction", "resize", "template",
        ),
        NAME,
    ),
    **dict.fromkeys(("modality", "target_granularity", "task"), optional(NAME)),
    "rule": either(NAME, FUNCTION),
    "inference_mode": optional(either(NAME, FUNCTION)),
    "model_output": optional(MODEL_OUTPUT),
    "autocast": optional(DTYPE),
    "device": optional(DEVICE),
    "image_size": optional(IMAGE_SIZE),
    "corpus": TEXTS,
    "patch_size": optional(EXTENT),
    **dict.fromkeys(("window", "stride"), EXTENT),
    "base_method": METHOD,
    "layers": LAYERS,
    "layer": LAYER,
    "labels": LABELS,
    "generation_kwargs": optional(MAPPING),
    **dict.fromkeys(("folder", "path", "save_path"), PATH),
}  # fmt: skip
"""The kind of each option that can be validated without a model, unlike for example `removal` and `baseline`."""
