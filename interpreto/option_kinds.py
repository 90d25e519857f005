"""What values options may have: one table for those of all methods, metrics and figures."""

import functools
import inspect
import math
import os
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from interpreto.errors import OptionError, choices

MAX_SAMPLES = 1_000_000
"""How often a method may run the model for one target of one sample."""
_MAX_INTEGER = 2**63 - 1
_MAX_SIDE = 16_384
"""Pixels along a side of an image, at most."""
_AUTOCAST = (torch.bfloat16, torch.float16)
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        accepted: What values are accepted, as an error message says it behind "must be".
        read: From what the user gave to the value in the type that the package works with, such as an int for an
            integer of NumPy. It raises ValueError, with a reason or without, for what is not accepted.
    """

    accepted: str
    read: Callable[[Any], Any]


def read_option(name: str, given: Any) -> Any:
    """The value of an option in the type that the package works with; options that are not in the table stay as given.

    Raises:
        OptionError: if the option may not have this value.
    """
    kind = OPTION_KINDS.get(name)
    if kind is None:
        return given
    try:
        return kind.read(given)
    except ValueError as error:
        because = f" ({error})" if str(error) else ""
        raise OptionError(f"{name}={short_repr(given)} must be {kind.accepted}{because}.") from None


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a number of samples or steps that is too small for what is done with them.

    Raises:
        OptionError: if it is.
    """
    if value < least:
        raise OptionError(f"{name}={value} is too few: it must be at least {least}.")


def check_choice(name: str, value: object, known: Collection[object]) -> None:
    """Refuse a name that is none of those that there are.

    Raises:
        OptionError: if it is not.
    """
    if value not in known:
        raise OptionError(f"There is no {name}={value!r}: {choices(value, known)}")


def checks_options(function: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of a function, and pass them on in the types that it works with.

    Values are checked by `OPTION_KINDS`, and strings by the `Literal` in their annotation. None is accepted if it is
    the default.

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
    names = {name: values for name, annotation in annotations.items() if (values := literal_values(annotation))}
    read = functools.partial(_read_argument, optional, names)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        # Whatever is given beyond the parameters is left to the function to refuse.
        places = [*map(read, parameters, args), *args[len(parameters) :]]
        named = {name: read(name, value) for name, value in options.items()}
        return cast(Callable[..., T], function)(*places, **named)

    return checked


def _annotations(parameter: inspect.Parameter) -> list[tuple[str, Any]]:
    """The annotation of a parameter; of `**options: Unpack[...]` those of all options."""
    if parameter.kind is parameter.VAR_KEYWORD and get_args(parameter.annotation):
        return list(get_type_hints(get_args(parameter.annotation)[0]).items())
    return [(parameter.name, parameter.annotation)]


def literal_values(annotation: Any) -> tuple[str, ...]:
    """The strings that an annotation lists in `Literal`s, alone or among other types."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    return tuple(value for part in get_args(annotation) for value in literal_values(part))


def _read_argument(optional: Collection[str], names: Mapping[str, tuple[str, ...]], name: str, given: Any) -> Any:
    if given is None and name in optional:
        return None
    value = read_option(name, given)
    if name in names and isinstance(value, str):
        check_choice(name, value, names[name])
    return value


def call_function(name: str, function: Callable[..., T], *args: Any) -> T:
    """What a function that the user gave as an option returns.

    Raises:
        OptionError: if it raises an exception, which is the cause of the error.
    """
    try:
        return function(*args)
    except Exception as error:
        took = ", ".join(_called_with(arg) for arg in args)
        said = str(error).strip().splitlines()
        raise OptionError(
            f"{name}= raised {type(error).__name__}{f' ({said[0]})' if said else ''} when it was called with {took}."
        ) from error


def _called_with(arg: Any) -> str:
    shape = getattr(arg, "shape", None)
    return type(arg).__name__ if shape is None else f"an array of shape {tuple(shape)}"


def short_repr(given: Any) -> str:
    """A value as an error message shows it: `repr`, shortened."""
    return " ".join(_REPR.repr(given).split())


def _scalar(given: Any) -> Any:
    """A number of NumPy or PyTorch as one of Python; anything else as it is."""
    is_scalar = isinstance(given, np.generic) or (isinstance(given, Tensor | np.ndarray) and given.ndim == 0)
    return given.item() if is_scalar else given


def _integer(given: Any) -> int:
    value = _scalar(given)
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError
    return int(value)


def _count(least: int, most: int, given: Any) -> int:
    value = _integer(given)
    if not least <= value <= most:
        raise ValueError
    return value


def _samples(given: Any) -> int:
    value = _integer(given)
    if value > MAX_SAMPLES:
        raise ValueError("it is how often the model runs for one target of one sample")
    return _count(1, MAX_SAMPLES, value)


def _number(least: float, most: float, ends: str, given: Any) -> float:
    """A number between two others.

    Args:
        least: The lower end.
        most: The upper end.
        ends: Which ends are accepted too, "[]", "(]", "[)" or "()".
        given: What the user gave.
    """
    given = _scalar(given)
    if not isinstance(given, Real) or isinstance(given, bool):
        raise ValueError
    try:
        value = float(given)
    except OverflowError as error:
        raise ValueError from error
    if not math.isfinite(value):
        raise ValueError
    above = value >= least if ends[0] == "[" else value > least
    below = value <= most if ends[1] == "]" else value < most
    if not (above and below):
        raise ValueError
    return value


def _flag(given: Any) -> bool:
    value = _scalar(given)
    if not isinstance(value, bool):
        raise ValueError
    return value


def _instance(types: tuple[type, ...], given: Any) -> Any:
    if not isinstance(given, types):
        raise ValueError
    return given


def _function(given: Any) -> Any:
    if not callable(given) or isinstance(given, type):
        raise ValueError
    return given


def _listed(given: Any) -> Any:
    """An array of one axis as a list; anything else as it is."""
    return given.tolist() if isinstance(given, np.ndarray | Tensor) and given.ndim == 1 else given


def _percentiles(given: Any) -> float | list[float]:
    several = _listed(given)
    if not isinstance(several, list | tuple):
        return PERCENTILE.read(several)
    if not several:
        raise ValueError
    return [PERCENTILE.read(one) for one in several]


def _callable(given: Any) -> Any:
    if not callable(given):
        raise ValueError
    return given


def _extent(most: int, given: Any) -> int | tuple[int, int]:
    """A number of pixels or units, or two: down and across."""
    several = _listed(given)
    if not isinstance(several, list | tuple):
        return _count(1, most, several)
    if len(several) != 2:
        raise ValueError
    return _count(1, most, several[0]), _count(1, most, several[1])


def _layers(given: Any) -> int | tuple[int, ...]:
    several = _listed(given)
    if isinstance(several, list | tuple | range) and len(several):
        return tuple(_integer(layer) for layer in several)
    return _integer(several)


def _dtype(given: Any) -> torch.dtype:
    value = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    # Comparing first would call the == of what the user gave.
    if not isinstance(value, torch.dtype) or value not in _AUTOCAST:
        raise ValueError
    return value


def _device(given: Any) -> torch.device:
    if isinstance(given, bool) or not isinstance(given, str | int | torch.device):
        raise ValueError
    try:
        device = torch.device(given)
        if device.type == "meta":
            raise ValueError("meta holds shapes alone, no numbers")
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, OverflowError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0].rstrip(".")) from None
    return device


def _texts(given: Any) -> list[str]:
    try:
        several = [given] if isinstance(given, str) else list(given)
    except TypeError as error:
        raise ValueError from error
    if not all(isinstance(text, str) for text in several) or not any(text.strip() for text in several):
        raise ValueError
    return several


def _labels(given: Any) -> list[str]:
    several = given.tolist() if isinstance(given, np.ndarray) else given
    if isinstance(several, Mapping):
        # As `id2label` of transformers.
        if set(several) != set(range(len(several))):
            raise ValueError("the keys of a mapping are the numbers of all classes from 0 on")
        several = [several[number] for number in range(len(several))]
    if not isinstance(several, list | tuple) or not several:
        raise ValueError
    if not all(isinstance(name, str | Integral) for name in several):
        raise ValueError("a name is a text")
    return [str(name) for name in several]


def _path(given: Any) -> Any:
    if not isinstance(given, str | os.PathLike):
        raise ValueError
    name = os.fspath(given)
    if isinstance(name, bytes):
        raise ValueError("it is one of bytes: os.fsdecode() makes text of them")
    if not name:
        raise ValueError("it is empty")
    try:
        # Names that are not in UTF-8 have surrogates that stand for their bytes.
        impossible = b"\0" in os.fsencode(name)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise ValueError("no file can have this name")
    return given


def _mapping(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ValueError
    return given


def _either(kinds: tuple[Kind, ...], given: Any) -> Any:
    """The value as the first of several kinds reads it."""
    for kind in kinds[:-1]:
        try:
            return kind.read(given)
        except ValueError:
            continue
    return kinds[-1].read(given)


def _or_none(read: Callable[[Any], Any], given: Any) -> Any:
    return None if given is None else read(given)


def count(least: int, most: int = _MAX_INTEGER) -> Kind:
    """A whole number from `least` on."""
    upto = f"of at least {least}" if most == _MAX_INTEGER else f"from {least} to {most:,}"
    return Kind(f"a whole number {upto}", functools.partial(_count, least, most))


def number(accepted: str, least: float, most: float = math.inf, ends: str = "[]") -> Kind:
    """A finite number in an interval; `ends` says which of its ends belong to it."""
    return Kind(accepted, functools.partial(_number, least, most, ends))


def instance(accepted: str, *types: type) -> Kind:
    """An object of one of several classes, taken as it is."""
    return Kind(accepted, functools.partial(_instance, types))


def either(*kinds: Kind) -> Kind:
    """A value of one of several kinds, the first that fits."""
    return Kind(" or ".join(kind.accepted for kind in kinds), functools.partial(_either, kinds))


def optional(kind: Kind) -> Kind:
    """A value of a kind, or None."""
    return Kind(f"{kind.accepted}, or None", functools.partial(_or_none, kind.read))


SAMPLES = Kind(f"a whole number of at least 1, at most {MAX_SAMPLES:,}", _samples)
SEED = count(0)
SHARE = number("a number between 0 and 1", 0.0, 1.0)
SHARE_ABOVE_0 = number("a number above 0, at most 1", 0.0, 1.0, "(]")
NOT_NEGATIVE = number("a number that is not negative", 0.0)
POSITIVE = number("a positive number", 0.0, ends="(]")
PERCENTILE = number("a number above 0, at most 100", 0.0, 100.0, "(]")
PERCENTILES = Kind(f"{PERCENTILE.accepted}, or several of them", _percentiles)
FLAG = Kind("True or False", _flag)
NAME = instance("a name", str)
FUNCTION = Kind("a function", _function)
EXTENT = Kind("a whole number of at least 1, or two of them: down and across", functools.partial(_extent, _MAX_INTEGER))
IMAGE_SIZE = Kind(
    f"a number of pixels from 1 to {_MAX_SIDE:,}, or two of them: height and width",
    functools.partial(_extent, _MAX_SIDE),
)
TEXTS = Kind("a text or a list of texts, not all of them empty", _texts)
LABELS = Kind("a list of the names of all classes, or a mapping from their numbers", _labels)
MODEL_OUTPUT = Kind(
    "a key, a place or a function",
    functools.partial(_either, (NAME, Kind("a whole number", _integer), FUNCTION)),
)
METHOD = Kind("the class of a method, or a functools.partial of one", _callable)
LAYERS = Kind("the number of a block, from which on all are meant, or a list of such numbers", _layers)
LAYER = instance("a module of the model, or its name", str, nn.Module)
DTYPE = Kind("torch.bfloat16 or torch.float16", _dtype)
DEVICE = Kind("a device that can be used on this machine, such as 'cpu'", _device)
PATH = Kind("a path, such as 'results/figure.png'", _path)
MAPPING = Kind("a mapping from the names of options of generate() to values, such as {'max_new_tokens': 50}", _mapping)

OPTION_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("n_samples", "n_steps"), SAMPLES),
    **dict.fromkeys(("batch_size", "n_bootstrap", "rows", "columns"), count(1)),
    "grid_size": count(1, 10_000),
    "dilation": count(0, 10_000),
    "seed": SEED,
    **dict.fromkeys(("max_dist", "min_overlap", "initial_fraction"), SHARE),
    **dict.fromkeys(("fraction", "area_threshold"), SHARE_ABOVE_0),
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
"""The kind of every option whose values can be told without a model; `removal`, `baseline` and the like are read where
the model is known."""
