"""Classes of methods and metrics by name, and the names that they are shown with."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from interpreto.errors import OptionError, choices
from interpreto.type_guards import function_name


def cli_name(cls: type) -> str:
    """A class's name on the command line: KernelShap is kernel-shap, XRAI is xrai."""
    # A hyphen between a lower-case and an upper-case letter, and in InputXGradient between X and the next word.
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=X)(?=[A-Z][a-z])", "-", cls.__name__).lower()


def find_by_name(name: str, classes: Sequence[type], kind: str) -> Any:
    """Find a class by its name in any spelling: `KernelShap`, `kernel-shap`, `kernel_shap`.

    Args:
        name: The name.
        classes: The classes.
        kind: "method" or "metric", for the error message.

    Raises:
        OptionError: if there is none; the message lists the closest names.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for cls in classes:
        if cls.__name__.lower() == plain:
            return cls
    raise OptionError(f"There is no {kind} {name!r}: {choices(name, [cli_name(cls) for cls in classes])}")


def display_name(factory: object) -> str:
    """The name of a class, or of a `functools.partial` with its options."""
    if not isinstance(factory, partial):
        return function_name(factory)
    options = ", ".join(f"{name}={display_name(v) if callable(v) else repr(v)}" for name, v in factory.keywords.items())
    return f"{display_name(factory.func)}({options})"


def unwrap_partial(factory: object) -> Any:
    """The class inside a (nested) `functools.partial`, or the class itself."""
    return unwrap_partial(factory.func) if isinstance(factory, partial) else factory


def partial_keywords(factory: object) -> dict[str, Any]:
    """The options that a (nested) `functools.partial` sets; those of an outer one override those of an inner one."""
    if not isinstance(factory, partial):
        return {}
    positional = inspect.signature(factory.func).bind_partial(*factory.args).arguments if factory.args else {}
    return {**partial_keywords(factory.func), **positional, **factory.keywords}


def resolve_classes(
    requested: object, classes: Sequence[type], kind: str, fits: Callable[[object], bool]
) -> dict[str, Callable[..., Any]]:
    """Classes or partials by name, in any form that a user may pass.

    Args:
        requested: Names, classes or partials, one or several, or a mapping from names to these; "all" for all classes.
        classes: The classes that can be named.
        kind: "method" or "metric", for error messages.
        fits: Whether something that is not a name is of this kind.

    Raises:
        OptionError: if a name does not exist or occurs twice, or nothing is requested.
    """
    if isinstance(requested, str):
        requested = [cls.__name__ for cls in classes] if requested == "all" else split_names(requested)
    own_names = list(map(str, requested)) if isinstance(requested, Mapping) else None
    values = requested.values() if isinstance(requested, Mapping) else requested
    values = values if isinstance(values, Iterable) else [values]
    factories = [_resolve_class(value, classes, kind, fits) for value in values]
    if not factories:
        raise OptionError(f"No {kind} is given: pass names, classes, or a mapping from names to these.")
    names = list(map(display_name, factories)) if own_names is None else own_names
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The {kind} {name} is given twice: pass a mapping, with a name of your own for each.")
    return dict(zip(names, factories, strict=True))


def _resolve_class(
    value: Any, classes: Sequence[type], kind: str, fits: Callable[[object], bool]
) -> Callable[..., Any]:
    if isinstance(value, str):
        return find_by_name(value, classes, kind)
    if not fits(value):
        raise OptionError(f"{value!r} is not a {kind}: pass a name, a class, or a functools.partial of a class.")
    return value


def split_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
