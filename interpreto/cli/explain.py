"""`interpreto explain`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from interpreto import InterpretoError
from interpreto.cli.app import app, console, methods_named, options_of, target_of
from interpreto.cli.inputs import Column, Inputs, Texts, check, read
from interpreto.cli.results import FIGURE, RESULTS, check_out, details, draw, run, save, summarise
from interpreto.loading import load
from interpreto.model_wrapping.tasks.detection import TASKS, find_task


@app.command()
def explain(
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, a hub id, or open_clip:NAME:WEIGHTS.")],
    inputs: Inputs = None,
    text: Texts = None,
    column: Column = None,
    method: Annotated[list[str], typer.Option(help="A method's name (see `interpreto methods`), or all.")] = ["all"],  # noqa: B006
    target: Annotated[
        str | None,
        typer.Option(help="Class index or label, or all; a continuation. What the model predicts if left out."),
    ] = None,
    prompt: Annotated[
        list[str],
        typer.Option(help="What images are compared with, for models with an image and a text tower; several times."),
    ] = [],  # noqa: B006
    granularity: Annotated[str | None, typer.Option(help="word, token, sentence, ...; patch, pixel.")] = None,
    task: Annotated[str | None, typer.Option(help=f"One of {', '.join(TASKS[:4])}.")] = None,
    option: Annotated[
        list[str], typer.Option("--option", "-o", help="KEY=VALUE, any other option of the method.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="A folder for the figure, the page and the results.")] = None,
) -> None:
    """Explain a model's prediction for texts or images."""
    methods = methods_named(method)
    samples = read(inputs or [], text or [], column)
    if not samples:
        raise InterpretoError("There is nothing to explain: give INPUT or --text.")
    if out is not None:
        check_out(out, [f"{one.__name__}-{number}" for one in methods for number in range(len(samples))])
    options = options_of(option) | ({} if granularity is None else {"granularity": granularity})
    loaded, processor = load(model, task)
    purpose = find_task(loaded, task)
    speaks = purpose == "text-generation"
    if prompt and (target is not None or purpose != "zero-shot-image-classification"):
        raise InterpretoError(
            "--prompt and --target say two different things: give one."
            if target is not None
            else f"--prompt is for models that compare images with texts; this one is for {purpose}."
        )
    if purpose == "zero-shot-image-classification" and not prompt and target is None:
        reads_text = options.get("modality") == "text"
        raise InterpretoError(
            "This model compares a text with images: name one with --target IMAGE."
            if reads_text
            else "This model compares an image with prompts: name at least one with --prompt."
        )
    check(samples, purpose, options.get("modality"))
    wanted = tuple(prompt) if prompt else target if speaks else target_of(target)
    results, seconds = run(methods, loaded, processor, samples, wanted, {"task": task, **options})
    if not results:
        raise InterpretoError("None of the methods worked on this model.")
    summarise(model, results, seconds)
    if len(methods) == 1:
        for output in next(iter(results.values())):
            details(output)
    if out is not None:
        draw(results, out, FIGURE)
        save(results, out / RESULTS)
        console.print(f"Figure, page and results are in [bold]{escape(str(out))}[/bold].")
