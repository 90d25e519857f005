"""Names of classes on the command line and in options."""

import re
from collections.abc import Sequence
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


def display_name(made: Any) -> str:
    """The name of a class, or of a `functools.partial` with its options."""
    if not isinstance(made, partial):
        return getattr(made, "__name__", type(made).__name__)
    options = ", ".join(f"{name}={display_name(v) if callable(v) else repr(v)}" for name, v in made.keywords.items())
    return f"{display_name(made.func)}({options})"


def unwrap_partial(made: Any) -> Any:
    """The class inside a (nested) `functools.partial`, or the class itself."""
    return unwrap_partial(made.func) if isinstance(made, partial) else made
