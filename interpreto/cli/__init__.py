"""The command line: `interpreto explain | compare | methods | demo`."""

import sys

import transformers
from rich.console import Console
from rich.markup import escape

from interpreto.cli import compare, demo, explain, methods
from interpreto.cli.app import NAMES, app
from interpreto.errors import InterpretoError


def main() -> None:
    """Run the command line; errors of the user's making end with one line and exit code 1."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        app()
    except (InterpretoError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        sys.exit(1)


__all__ = ["NAMES", "app", "compare", "demo", "explain", "main", "methods"]
