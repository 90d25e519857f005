"""`interpreto methods`."""

from typing import Annotated

import typer

from interpreto.cli.app import Task, app, console


@app.command()
def methods(
    model: Annotated[
        str | None, typer.Option(help="A model: list which methods work for it, and why others do not.")
    ] = None,
    task: Task = None,
) -> None:
    """List the methods."""
    from interpreto.cli.arguments import load_model
    from interpreto.cli.results import method_table

    console.print(method_table(None if model is None else load_model(model, task), task))
