"""Converts strings of the command line to methods, options, targets and removal operators."""

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
import typer

from interpreto.attributions.methods import METHODS
from interpreto.attributions.naming import cli_name, find_by_name, split_names
from interpreto.attributions.result import AttributionOutput
from interpreto.cli.inputs import lines_of, text_of
from interpreto.errors import InterpretoError, OptionError
from interpreto.loading import load
from interpreto.option_kinds import read_option

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


def granularity_options(name: str | None, options: Mapping[str, object]) -> dict[str, Any]:
    """The option `granularity` from the value of --granularity: a name, or the import path of a segmenter or its class.

    Args:
        name: The value; None if there is none.
        options: The options from KEY=VALUE pairs.

    Raises:
        OptionError: if these contain a granularity too.
        InterpretoError: if an import path cannot be imported.
    """
    if name is None:
        return {}
    if "granularity" in options:
        raise OptionError("-o granularity= and --granularity set the same option: pass one of them.")
    if not is_import_path(name):
        return {"granularity": name}
    value = import_object(name)
    return {"granularity": value() if inspect.isclass(value) else value}


def parse_options(pairs: Sequence[str], own_options: Mapping[str, str]) -> dict[str, Any]:
    """Options from KEY=VALUE pairs; hyphens in keys become underscores, and values are Python literals or else text.

    Args:
        pairs: The pairs.
        own_options: From names that the command has options of its own for to these options.

    Raises:
        BadParameter: if a pair has no "=".
        OptionError: if a key is one of `own_options`, or the modality is not a name.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE, for example n_samples=1000.")
        name = key.replace("-", "_")
        if name in own_options:
            raise OptionError(f"-o {key}= is not possible: pass {own_options[name]}.")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError):
            options[name] = value
    # Samples are checked with the modality before methods validate their options.
    return {name: read_option(name, value) if name == "modality" else value for name, value in options.items()}


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
