"""`interpreto compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interpreto.cli.app import Column, Granularity, Inputs, MethodOptions, Task, Texts, app, console
from interpreto.errors import InterpretoError


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, or a hub id.")],
    inputs: Inputs = None,
    text: Texts = None,
    column: Column = None,
    methods: Annotated[
        str, typer.Option(help="Names with commas between them (see `interpreto methods`), or package.module:Name.")
    ] = "all",
    metrics: Annotated[
        str | None,
        typer.Option(help="Names with commas between them, such as deletion,pointing-game; all; package.module:Name."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of held-out samples, for models of the zoo.")] = 32,
    file: Annotated[
        Path | None, typer.Option(help="A text file with one sample per line, in addition to INPUT or instead of it.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class index or label; a continuation. By default the model's prediction.")
    ] = None,
    removal: Annotated[
        list[str], typer.Option(help="A removal operator for the metrics; repeat it to compare their conclusions.")
    ] = [],  # noqa: B006
    corpus: Annotated[
        Path | None, typer.Option(help="A text file in which tokens are counted, for the control TokenFrequency.")
    ] = None,
    granularity: Granularity = None,
    task: Task = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    option: MethodOptions = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for results as they come, tables, figures and a report; a stopped run continues there."
        ),
    ] = None,
) -> None:
    """Compare methods on a model and samples, with confidence intervals, costs and controls.

    Models of the zoo are compared on their own held-out samples if no INPUT is given.
    """
    import interpreto
    from interpreto.cli.arguments import (
        granularity_options,
        import_paths_in,
        lines_of_file,
        load_model,
        parse_removals,
        parse_shared_options,
        parse_target,
    )
    from interpreto.cli.inputs import check, read
    from interpreto.cli.results import held_out_samples, print_comparison
    from interpreto.comparison.run_store import RunStore
    from interpreto.model_wrapping.tasks.detection import find_task

    if out is not None:
        RunStore(out).check()
    inputs_given = [*read(inputs or [], text or [], column), *lines_of_file(file)]
    options = parse_shared_options(option) | granularity_options(granularity)
    loaded, processor = load_model(model, task)
    purpose = find_task(loaded, task)
    if corpus is not None and purpose.endswith("image-classification"):
        raise InterpretoError("--corpus counts tokens of texts; this model reads images.")
    check(inputs_given, purpose, options.get("modality"))
    one_target = parse_target(target, purpose == "text-generation")
    targets = None if one_target is None else [one_target] * len(inputs_given)
    arguments: dict[str, Any] = {"inputs": inputs_given, "targets": targets}
    if not inputs_given:
        if not model.startswith("zoo:"):
            raise InterpretoError("There is nothing to compare on: pass texts, images or --file.")
        needs_target = purpose in ("text-generation", "zero-shot-image-classification")
        arguments = held_out_samples(model.removeprefix("zoo:"), samples, one_target, needs_target)
    comparison = interpreto.compare(
        loaded,
        processor,
        methods=import_paths_in(methods),
        metrics=None if metrics is None else import_paths_in(metrics),
        seed=seed,
        removals=parse_removals(removal),
        corpus=None if corpus is None else lines_of_file(corpus),
        folder=out,
        **arguments,
        **({} if task is None else {"task": task}),
        **options,
    )
    print_comparison(comparison)
    if out is not None:
        console.print(f"Tables, figures, all results and report.html are in {out}.", markup=False, highlight=False)
