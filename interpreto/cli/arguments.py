"""Converts strings of the command line to methods, options, targets and removal operators."""

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
import typer

import interpreto
from interpreto.attributions.methods import METHODS
from interpreto.attributions.naming import cli_name, find_by_name, split_names
from interpreto.attributions.result import AttributionOutput
from interpreto.cli.inputs import lines_of, text_of
from interpreto.errors import InterpretoError, OptionError
from interpreto.loading import load

Results = dict[str, list[AttributionOutput]]
Method = type[Any]
"""A class of `interpreto.METHODS`, each with options of its own."""

NAMES: dict[str, Method] = {cli_name(method): method for method in METHODS}


def load_model(name: str, task: str | None) -> tuple[Any, Any]:
    """A model and its processor, without the progress bars and log messages of transformers."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return load(name, task)


def methods_named(names: Sequence[str]) -> list[Method]:
    """The methods of these names or import paths; `all` is all of them.

    Raises:
        BadParameter: if there is no method of a name.
        InterpretoError: if an import path cannot be imported.
    """
    if list(names) == ["all"]:
        return list(NAMES.values())
    try:
        return [
            import_object(name) if is_import_path(name) else find_by_name(name, METHODS, "method") for name in names
        ]
    except OptionError as error:
        raise typer.BadParameter(str(error)) from error


def import_paths_in(names: str) -> Any:
    """Names with commas between them, with import paths replaced by the objects; unchanged if there are none.

    `compare` finds the other names.
    """
    parts = split_names(names)
    if not any(map(is_import_path, parts)):
        return names
    return [import_object(name) if is_import_path(name) else name for name in parts]


def is_import_path(name: str) -> bool:
    """Whether a name is of the form package.module:Name."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def import_object(path: str) -> Any:
    """What package.module:Name refers to; modules in the working directory are found, as with `python -m`.

    Raises:
        InterpretoError: if the module cannot be imported or does not have the name.
    """
    module_name, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module_name)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise InterpretoError(f"{path!r} cannot be imported: {error}") from error
    return value


def granularity_options(name: str | None) -> dict[str, Any]:
    """The option `granularity`, if the user passes one: a name, or the import path of a segmenter or its class."""
    if name is None:
        return {}
    if not is_import_path(name):
        return {"granularity": name}
    value = import_object(name)
    return {"granularity": value() if inspect.isclass(value) else value}


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options from KEY=VALUE pairs; hyphens in keys become underscores, and values are Python literals or else text.

    Raises:
        BadParameter: if a pair has no "=".
    """
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE, for example n_samples=1000.")
        try:
            options[key.replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key.replace("-", "_")] = value
    return options


def parse_shared_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options from KEY=VALUE pairs for all methods of a comparison.

    Raises:
        InterpretoError: if a key is a parameter of `compare`, which is an option of the command itself.
    """
    options = parse_options(pairs)
    for name in options:
        if name in inspect.signature(interpreto.compare).parameters:
            raise InterpretoError(f"-o {name}= is not an option of the methods: see `interpreto compare --help`.")
    return options


def parse_target(text: str | None, generates: bool) -> Any:
    """A class index if the text is a number, else a label; for language models always a continuation, as text."""
    is_index = text is not None and not generates and re.fullmatch(r"-?\d+", text)
    return int(text) if text is not None and is_index else text


def parse_removals(texts: Sequence[str]) -> list[Any]:
    """Removal operators: a number or a colour as a Python literal, or names with commas between them."""
    return [operator for text in texts for operator in _removals(text)]


def _removals(text: str) -> list[Any]:
    try:
        return [ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return list(split_names(text))


def lines_of_file(path: Path | None) -> list[str]:
    """The lines of a text file that are not empty; none without a file."""
    return [] if path is None else lines_of(text_of(path), repr(str(path)))
