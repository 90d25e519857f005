"""The application, and the parameters that its commands share.

This module and those of the commands import nothing that takes long, so that `--help` is quick: what a command needs is
imported when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Feature attribution: which words of a text or patches of an image influence a model's output.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Texts; files of texts (.txt with one per line; .csv, .jsonl, .parquet with --column), chats (.json) and "
        "images, their folders and globs; - is standard input.",
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text", help="A text, even if a file has that name; can be repeated."),
]
Column = Annotated[str | None, typer.Option(help="The column of a table that has the texts, chats or image paths.")]
Granularity = Annotated[
    str | None,
    typer.Option(help="What gets a score: word, token, sentence, ...; patch, pixel; or package.module:Name."),
]
Task = Annotated[
    str | None,
    typer.Option(help="The model's task as transformers names its pipelines, such as text-generation, if in doubt."),
]
MethodOptions = Annotated[
    list[str], typer.Option("--option", "-o", help="KEY=VALUE, any other option of the methods; can be repeated.")
]
Output = Annotated[Path | None, typer.Option(help="A folder for figures, pages and results.")]
