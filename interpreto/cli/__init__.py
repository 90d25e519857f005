"""The command line: `interpreto explain | compare | methods | demo`."""

import sys
import warnings
from typing import Any

import transformers
from rich.console import Console
from rich.markup import escape

from interpreto.cli import compare, demo, explain, methods
from interpreto.cli.app import NAMES, app
from interpreto.errors import InterpretoError


def main() -> None:
    """Run the command line; errors of the user's making end with one line and exit code 1, warnings take one each."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app()
        except (InterpretoError, OSError) as error:
            _print_message("red", "error", str(error))
            sys.exit(1)


def _show_warning(message: Warning | str, category: Any, *place: Any, **more: Any) -> None:
    _print_message("yellow", "warning", str(message))


def _print_message(colour: str, kind: str, said: str) -> None:
    Console(stderr=True).print(f"[{colour}]{kind}:[/{colour}] {escape(said)}", highlight=False)


__all__ = ["NAMES", "app", "compare", "demo", "explain", "main", "methods"]
