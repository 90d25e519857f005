"""`interpreto explain`."""

from typing import Annotated

import typer
from rich.markup import escape

from interpreto.cli.app import Column, Granularity, Inputs, MethodOptions, Output, Task, Texts, app, console
from interpreto.errors import InterpretoError


@app.command()
def explain(
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, a hub id, or open_clip:NAME:WEIGHTS.")],
    inputs: Inputs = None,
    text: Texts = None,
    column: Column = None,
    method: Annotated[
        list[str], typer.Option(help="A method's name (see `interpreto methods`), package.module:Name, or all.")
    ] = ["all"],  # noqa: B006
    target: Annotated[
        str | None,
        typer.Option(help="Class index or label, or all; a continuation. By default the model's prediction."),
    ] = None,
    prompt: Annotated[
        list[str],
        typer.Option(help="A prompt that images are compared with, for models of both; can be repeated."),
    ] = [],  # noqa: B006
    granularity: Granularity = None,
    task: Task = None,
    option: MethodOptions = [],  # noqa: B006
    out: Output = None,
) -> None:
    """Explain a model's prediction for texts or images."""
    from interpreto.cli.arguments import granularity_options, load_model, methods_named, parse_options, parse_target
    from interpreto.cli.inputs import check, read
    from interpreto.cli.results import FIGURE, RESULTS, check_out, draw, print_details, print_summary, run, save
    from interpreto.model_wrapping.tasks.detection import find_task

    methods = methods_named(method)
    samples = read(inputs or [], text or [], column)
    if not samples:
        raise InterpretoError("There is nothing to explain: pass INPUT or --text.")
    if out is not None:
        check_out(out, [f"{one.__name__}-{number}" for one in methods for number in range(len(samples))])
    options = parse_options(
        option, {"task": "--task", "targets": "--target", "model": "--model", "processor": "--model"}
    )
    options |= granularity_options(granularity, options)
    loaded, processor = load_model(model, task)
    purpose = find_task(loaded, task)
    compares = purpose == "zero-shot-image-classification"
    if prompt and target is not None:
        raise InterpretoError("--prompt and --target contradict each other: pass one of them.")
    if prompt and not compares:
        raise InterpretoError(f"--prompt is for models that compare images with texts; this one is for {purpose}.")
    if compares and not prompt and target is None:
        reads_text = options.get("modality") == "text"
        raise InterpretoError(
            "This model compares a text with images: pass one with --target IMAGE."
            if reads_text
            else "This model compares an image with prompts: pass at least one with --prompt."
        )
    check(samples, purpose, options.get("modality"))
    targets = tuple(prompt) if prompt else parse_target(target, purpose == "text-generation")
    results, seconds = run(methods, loaded, processor, samples, targets, {"task": task, **options})
    if not results:
        raise InterpretoError("None of the methods works on this model.")
    print_summary(model, results, seconds)
    if len(methods) == 1:
        for output in next(iter(results.values())):
            print_details(output)
    if out is not None:
        draw(results, out, FIGURE)
        save(results, out / RESULTS)
        console.print(f"The figure, the page and the results are in [bold]{escape(str(out))}[/bold].")
