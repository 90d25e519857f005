"""Classes of methods and metrics by name, and the names that they are shown with."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from interpreto.errors import OptionError, choices


def cli_name(cls: type) -> str:
    """A class's name on the command line: KernelShap is kernel-shap, XRAI is xrai."""
    # A hyphen between a lower-case and an upper-case letter, and in InputXGradient between X and the next word.
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=X)(?=[A-Z][a-z])", "-", cls.__name__).lower()


def find_by_name(given: str, known: Sequence[type], what: str) -> Any:
    """Find a class by its name in any spelling: `KernelShap`, `kernel-shap`, `kernel_shap`.

    Args:
        given: The name.
        known: The classes.
        what: What the classes are, for the message.

    Raises:
        OptionError: if there is none; the message lists the closest names.
    """
    plain = re.sub(r"[^a-z0-9]", "", given.lower())
    for cls in known:
        if cls.__name__.lower() == plain:
            return cls
    raise OptionError(f"There is no {what} {given!r}: {choices(given, [cli_name(cls) for cls in known])}")


def display_name(made: object) -> str:
    """The name of a class, or of a `functools.partial` with its options."""
    if not isinstance(made, partial):
        return getattr(made, "__name__", type(made).__name__)
    options = ", ".join(f"{name}={display_name(v) if callable(v) else repr(v)}" for name, v in made.keywords.items())
    return f"{display_name(made.func)}({options})"


def unwrap_partial(made: object) -> Any:
    """The class inside a (nested) `functools.partial`, or the class itself."""
    return unwrap_partial(made.func) if isinstance(made, partial) else made


def partial_keywords(made: object) -> dict[str, Any]:
    """The options that a (nested) `functools.partial` sets; those of an outer one override those of an inner one."""
    return {**partial_keywords(made.func), **made.keywords} if isinstance(made, partial) else {}


def resolve_classes(
    given: object, known: Sequence[type], kind: str, fits: Callable[[object], bool]
) -> dict[str, Callable[..., Any]]:
    """Classes or partials by name, in any form that a user may pass.

    Args:
        given: Names, classes or partials, one or several, or a mapping from names to these; "all" is all known ones.
        known: The classes that can be named.
        kind: "method" or "metric", for messages.
        fits: Whether something that is not a name is of this kind.

    Raises:
        OptionError: if a name does not exist or occurs twice, or nothing is given.
    """
    if isinstance(given, str):
        given = [cls.__name__ for cls in known] if given == "all" else split_names(given)
    several = given if isinstance(given, Iterable) else [given]
    values = list(given.values() if isinstance(given, Mapping) else several)
    classes = [_resolve_class(value, known, kind, fits) for value in values]
    if not classes:
        raise OptionError(f"No {kind} is given: pass names, classes, or a mapping from names to these.")
    names = [str(name) for name in given] if isinstance(given, Mapping) else [display_name(cls) for cls in classes]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The {kind} {name} is given twice: pass a mapping, with a name of your own for each.")
    return dict(zip(names, classes, strict=True))


def _resolve_class(value: Any, known: Sequence[type], kind: str, fits: Callable[[object], bool]) -> Callable[..., Any]:
    if isinstance(value, str):
        return find_by_name(value, known, kind)
    if not fits(value):
        raise OptionError(f"{value!r} is not a {kind}: pass a name, a class, or a functools.partial of a class.")
    return value


def split_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
