"""The command line: `interpreto explain | compare | methods | demo`."""

import sys
import warnings

from rich.console import Console
from rich.markup import escape

from interpreto.cli import compare, demo, explain, methods
from interpreto.cli.app import app
from interpreto.errors import InterpretoError


def main() -> None:
    """Run the command line: an error that the user can correct ends it with a message and exit code 1."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app()
        except (InterpretoError, OSError) as error:
            _print_message("red", "error", str(error))
            sys.exit(1)


def _show_warning(message: Warning | str, category: object, *place: object, **more: object) -> None:
    _print_message("yellow", "warning", str(message))


def _print_message(colour: str, kind: str, text: str) -> None:
    Console(stderr=True).print(f"[{colour}]{kind}:[/{colour}] {escape(text)}", highlight=False)


__all__ = ["app", "compare", "demo", "explain", "main", "methods"]
