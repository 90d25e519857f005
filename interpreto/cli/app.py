"""The application, and how words of the command line become methods, options and samples."""

import ast
import re
from typing import Any

import typer
from rich.console import Console

from interpreto import METHODS, AttributionOutput
from interpreto.attributions.naming import cli_name, find_by_name
from interpreto.errors import OptionError

app = typer.Typer(
    help="Which words of a text or patches of an image a model's output rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Results = dict[str, list[AttributionOutput]]
Method = type[Any]
"""A class of `interpreto.METHODS`, each with options of its own."""

NAMES: dict[str, Method] = {cli_name(method): method for method in METHODS}


def methods_named(names: list[str]) -> list[Method]:
    """The methods of these names; `all` is every one.

    Raises:
        BadParameter: if there is none of a name.
    """
    if names == ["all"]:
        return list(NAMES.values())
    try:
        return [find_by_name(name, METHODS, "method") for name in names]
    except OptionError as error:
        raise typer.BadParameter(str(error)) from error


def options_of(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, values as Python literals where they are some, else as text."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE, for example n_samples=1000.")
        try:
            found[key.replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key.replace("-", "_")] = value
    return found


def target_of(text: str | None) -> Any:
    """A class index where it is one, else the text."""
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else text
