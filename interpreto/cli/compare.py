"""`interpreto compare`."""

import ast
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

import interpreto
from interpreto import InterpretoError, zoo
from interpreto.cli.app import app, console, options_of, target_of
from interpreto.cli.inputs import Column, Inputs, Texts, check, lines_of, read, text_of
from interpreto.comparison.candidates import words
from interpreto.comparison.run_store import RunStore
from interpreto.comparison.table_view import notes, tables
from interpreto.loading import load
from interpreto.model_wrapping.tasks.detection import TASKS, find_task


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, or a hub id.")],
    inputs: Inputs = None,
    text: Texts = None,
    column: Column = None,
    methods: Annotated[str, typer.Option(help="Names with commas between them (see `interpreto methods`).")] = "all",
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas between them, such as deletion,pointing-game; or all.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="For models of the zoo: how many held-out samples.")] = 32,
    file: Annotated[
        Path | None, typer.Option(help="A text file with one sample per line, beside or for INPUT.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class index or label; a continuation. What the model predicts if left out.")
    ] = None,
    removal: Annotated[
        list[str], typer.Option(help="A removal operator for the metrics; several compare their verdicts.")
    ] = [],  # noqa: B006
    corpus: Annotated[
        Path | None, typer.Option(help="A text file in which tokens are counted, for the baseline of rare tokens.")
    ] = None,
    granularity: Annotated[str | None, typer.Option(help="word, token, sentence, ...; patch, pixel.")] = None,
    task: Annotated[str | None, typer.Option(help=f"One of {', '.join(TASKS[:4])}.")] = None,
    seed: Annotated[int, typer.Option(help="Where randomness starts.")] = 0,
    option: Annotated[
        list[str], typer.Option("--option", "-o", help="KEY=VALUE, any other option of all methods.")
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for results as they come, tables, figures and a report; a killed run goes on there."
        ),
    ] = None,
) -> None:
    """Compare methods on a model and samples, with intervals, costs and controls.

    Models of the zoo are compared on their own held-out samples where no INPUT is given.
    """
    if out is not None:
        RunStore(out).check()
    given = [*read(inputs or [], text or [], column), *([] if file is None else _lines(file))]
    options = _shared(options_of(option)) | ({} if granularity is None else {"granularity": granularity})
    loaded, processor = load(model, task)
    purpose = find_task(loaded, task)
    if corpus is not None and purpose.endswith("image-classification"):
        raise InterpretoError("--corpus counts tokens of texts; this model reads images.")
    speaks = purpose == "text-generation"
    check(given, purpose, options.get("modality"))
    wanted: Any = target if speaks else target_of(target)
    arguments: dict[str, Any] = {"inputs": given, "targets": None if wanted is None else [wanted] * len(given)}
    if not given:
        if not model.startswith("zoo:"):
            raise InterpretoError("There is nothing to compare on: give texts, images or --file.")
        named = speaks or purpose == "zero-shot-image-classification"
        arguments = _of_the_zoo(model.removeprefix("zoo:"), samples, wanted, named)
    shared: dict[str, Any] = {**({} if task is None else {"task": task}), **options}
    comparison = interpreto.compare(
        loaded,
        processor,
        methods=methods,
        metrics=metrics,
        seed=seed,
        removals=[one for text in removal for one in _operators(text)],
        corpus=None if corpus is None else _lines(corpus),
        folder=out,
        **arguments,
        **shared,
    )
    _show(comparison)
    if out is not None:
        console.print(f"Tables, figures, all results and report.html are in {out}.", markup=False, highlight=False)


def _show(comparison: interpreto.Comparison) -> None:
    """The tables, as wide as the screen, and what must be said of them."""
    for table in tables(comparison, console.width):
        console.print(table)
    for line in notes(comparison):
        console.print(line, markup=False, highlight=False)


def _of_the_zoo(name: str, count: int, target: Any, named: bool) -> dict[str, Any]:
    """Held-out samples of a model, with the truth; stories with the right word, scenes with prompts."""
    examples = zoo.samples(name, count)
    truths = [example.truth for example in examples]
    targets = [example.label for example in examples] if named else None
    return {
        "inputs": [example.input for example in examples],
        "targets": targets if target is None else [target] * len(examples),
        "masks": None if any(truth is None for truth in truths) else truths,
    }


def _shared(options: dict[str, Any]) -> dict[str, Any]:
    """Options of all methods, but for what the command has options of its own for."""
    for name in options:
        if name in inspect.signature(interpreto.compare).parameters:
            raise InterpretoError(f"-o {name}= is no option of the methods: see `interpreto compare --help`.")
    return options


def _operators(text: str) -> list[Any]:
    """Removal operators: a number or a colour as Python writes it, or names with commas between them."""
    try:
        return [ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return list(words(text))


def _lines(path: Path) -> list[str]:
    return lines_of(text_of(path), repr(str(path)))
