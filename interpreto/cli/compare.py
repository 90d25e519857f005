"""`interpreto compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interpreto.cli.app import Column, Granularity, Inputs, MethodOptions, Task, Texts, app, console
from interpreto.errors import InterpretoError

_OWN_OPTIONS = {
    "model": "--model",
    "processor": "--model",
    "inputs": "INPUT",
    "methods": "--methods",
    "metrics": "--metrics",
    "targets": "--target",
    "masks": "no masks: those of the zoo are used",
    "removals": "--removal",
    "corpus": "--corpus",
    "folder": "--out",
    "task": "--task",
    "seed": "--seed",
}
"""From parameters of `interpreto.compare` to the options of the command."""


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, a hub id, or open_clip:NAME:WEIGHTS.")],
    inputs: Inputs = None,
    text: Texts = None,
    column: Column = None,
    methods: Annotated[
        str, typer.Option(help="Comma-separated names (see `interpreto methods`), or package.module:Name.")
    ] = "all",
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated names, such as deletion,pointing-game; all; package.module:Name."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Number of held-out samples, for models of the zoo without INPUT; 32 by default."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A text file with one sample per line, in addition to INPUT or instead of it.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Class index or label; a continuation. By default the model's prediction; for held-out samples of "
            "language models and CLIP, the true label."
        ),
    ] = None,
    removal: Annotated[
        list[str],
        typer.Option(
            help="What replaces units that the metrics mask, such as mean, blur, a number or a token; repeat it to see "
            "whether the ranking of methods depends on it."
        ),
    ] = [],  # noqa: B006
    corpus: Annotated[
        Path | None,
        typer.Option(help="A text file in which tokens are counted, to compare with their rarity (TokenFrequency)."),
    ] = None,
    granularity: Granularity = None,
    task: Task = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    option: MethodOptions = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder in which results are saved as they are computed, with tables, figures and a report; an "
            "interrupted run resumes from it."
        ),
    ] = None,
) -> None:
    """Compare methods on one model and a set of samples, with confidence intervals and costs.

    Scores that ignore the model are compared too, as controls. Models of the zoo are compared on their own held-out
    samples if there is no INPUT, --text or --file.
    """
    import interpreto
    from interpreto.attributions.registry import default_modality
    from interpreto.cli.arguments import (
        granularity_options,
        import_paths_in,
        lines_of_file,
        load_model,
        parse_options,
        parse_removals,
        parse_target,
    )
    from interpreto.cli.inputs import check, read
    from interpreto.cli.results import held_out_samples, print_comparison
    from interpreto.comparison.run_store import RunStore
    from interpreto.model_wrapping.tasks.detection import find_task

    if out is not None:
        RunStore(out).check()
    inputs_given = [*read(inputs or [], text or [], column), *lines_of_file(file)]
    options = parse_options(option, _OWN_OPTIONS)
    options |= granularity_options(granularity, options)
    loaded, processor = load_model(model, task)
    purpose = find_task(loaded, task)
    modality = options.get("modality") or default_modality(purpose)
    if corpus is not None and modality == "image":
        raise InterpretoError("--corpus counts tokens of texts; this model reads images.")
    check(inputs_given, purpose, modality)
    if inputs_given and samples is not None:
        raise InterpretoError("--samples is the number of held-out samples of the zoo: leave it out with INPUT.")
    one_target = parse_target(target, purpose == "text-generation")
    targets = None if one_target is None else [one_target] * len(inputs_given)
    arguments: dict[str, Any] = {"inputs": inputs_given, "targets": targets}
    if not inputs_given:
        if not model.startswith("zoo:"):
            raise InterpretoError("There is nothing to compare on: pass texts, images or --file.")
        needs_target = purpose in ("text-generation", "zero-shot-image-classification")
        arguments = held_out_samples(model.removeprefix("zoo:"), samples or 32, one_target, needs_target)
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
