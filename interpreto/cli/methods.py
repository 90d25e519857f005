"""`interpreto methods`."""

import inspect
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from interpreto import InterpretoError
from interpreto.cli.app import NAMES, Method, app, console
from interpreto.loading import load


@app.command()
def methods(
    model: Annotated[
        str | None, typer.Option(help="Say which methods work for this model, and why others do not.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What the model is for, if that cannot be told.")] = None,
) -> None:
    """List the methods."""
    loaded = None if model is None else load(model, task)
    table = Table("name", "class", "what it says", *([] if loaded is None else ["works"]))
    for name, method in NAMES.items():
        summary = (inspect.getdoc(method) or "").splitlines()[0]
        table.add_row(
            name, method.__name__, summary, *([] if loaded is None else [_said(works(method, *loaded, task))])
        )
    console.print(table)


def works(method: Method, model: Any, processor: Any, task: str | None) -> InterpretoError | None:
    """Why a method does not work on a model; None where it does."""
    try:
        method(model, processor, task=task)
    except InterpretoError as error:
        return error
    return None


def _said(reason: InterpretoError | None) -> str:
    return "yes" if reason is None else escape(f"no: {reason}")
