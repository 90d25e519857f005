"""Prints methods, results and comparisons, and writes them to files."""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from interpreto import plot_attributions, zoo
from interpreto.atomic import check_place, check_writable
from interpreto.attributions.result import AttributionOutput, top_unit
from interpreto.attributions.serialization import METADATA_FILE
from interpreto.cli.app import console
from interpreto.cli.arguments import NAMES, Method, Results
from interpreto.comparison.comparison import Comparison
from interpreto.comparison.table_view import notes, tables
from interpreto.errors import InterpretoError, SavedFileError
from interpreto.explain import run_methods
from interpreto.visualizations.panels import shortened

FIGURE, RESULTS = "attributions", "results"
"""Names of the figure, without suffix, and of the folder of results in the output folder."""


def run(
    methods: Sequence[Method], model: object, processor: object, inputs: Any, targets: Any, options: dict[str, object]
) -> tuple[Results, dict[str, float]]:
    """Run methods, and return the results and the run time of each.

    If one of several methods fails, its error is printed, and the others run; the error of a single method is raised.
    """
    results, seconds = {}, {}
    each_target = None if targets is None else [targets] * len(inputs)
    for method_run in run_methods(methods, model, processor, inputs, each_target, **options):
        if method_run.error is None:
            results[method_run.name], seconds[method_run.name] = method_run.outputs, method_run.seconds
        elif len(methods) == 1:
            raise method_run.error
        else:
            reason = escape(str(method_run.error))
            console.print(f"[yellow]{method_run.name} was skipped:[/yellow] {reason}", highlight=False)
    return results, seconds


def print_summary(model: str, results: Results, seconds: dict[str, float]) -> None:
    """Print the most important unit of the first sample, the number of evaluations and the run time of each method."""
    count = len(next(iter(results.values())))
    table = Table(
        "method",
        "targets",
        "top unit",
        "evaluations",
        "seconds",
        title=f"{model}, {count} sample{'s' * (count > 1)}",
    )
    for column in (3, 4):
        table.columns[column].justify = "right"
    for name, outputs in results.items():
        first = outputs[0]
        more = f" (+{count - 1} more)" if count > 1 else ""
        table.add_row(
            name,
            escape(_target_names(first)) + more,
            escape(top_unit(first)),
            str(sum(output.n_evaluations for output in outputs)),
            f"{seconds[name]:.2f}",
        )
    console.print(table)


def _target_names(output: AttributionOutput) -> str:
    """The names of the targets of a result, shortened."""
    if output.is_generation:
        return shortened("".join(output.target_names), 40)
    return ", ".join(output.target_names[:3])


def print_details(output: AttributionOutput) -> None:
    """Print the scores of the units of a text."""
    if output.is_image:
        return
    if output.is_generation:
        print_sources(output)
        return
    for target, name in enumerate(output.target_names):
        table = Table("unit", "score", *([] if output.standard_errors is None else ["standard error"]), title=name)
        for unit, element in enumerate(output.elements):
            errors = output.standard_errors
            values = [output.attributions[target, unit], *([] if errors is None else [errors[target, unit]])]
            table.add_row(escape(str(element).strip()), *(f"{float(value):+.4f}" for value in values))
        console.print(table)


def print_sources(output: AttributionOutput) -> None:
    """Print the most important units for each target of a text generation."""
    table = Table("generated", "score", "most important")
    for name, score, scores in zip(output.target_names, output.scores, output.ranking_scores, strict=True):
        top = scores.nan_to_num(-torch.inf).topk(min(3, int((~scores.isnan()).sum()))).indices.tolist()
        top_units = ", ".join(f"{str(output.elements[unit]).strip()} ({float(scores[unit]):+.3f})" for unit in top)
        table.add_row(escape(repr(name)), f"{float(score):.3f}", escape(top_units))
    console.print(table)


def check_out(out: Path, names: Iterable[str]) -> None:
    """Check that a figure and results can be written to a folder, before anything is computed.

    Args:
        out: The folder.
        names: The names of the results.

    Raises:
        SavedFileError: if the folder is not writable, or a name is taken by something that must not be replaced.
    """
    check_writable(out)
    for name in (f"{FIGURE}.png", f"{FIGURE}.html"):
        if (out / name).is_dir():
            raise SavedFileError(f"{str(out / name)!r} is a folder, but a file with this name must be written.")
    for name in names:
        check_place(out / RESULTS / name, METADATA_FILE)


def draw(results: Results, out: Path, name: str) -> None:
    """Write the figure as PNG and as HTML to a folder."""
    plot_attributions(results, out / f"{name}.png")
    plot_attributions(results, out / f"{name}.html")


def save(results: Results, folder: Path) -> None:
    """Save each result in a subfolder of its own."""
    for method, outputs in results.items():
        for number, output in enumerate(outputs):
            output.save(folder / f"{method}-{number}")


def method_table(loaded: tuple[object, object] | None, task: str | None) -> Table:
    """A table of all methods; if a model is loaded, also which of them support it.

    Args:
        loaded: A model and its processor; None if no model is loaded.
        task: The task of the model; None to detect it.
    """
    table = Table("name", "class", "attribution", *([] if loaded is None else ["supported"]))
    for name, method in NAMES.items():
        summary = (inspect.getdoc(method) or "").splitlines()[0]
        reason = None if loaded is None else why_not(method, *loaded, task)
        supported = "yes" if reason is None else escape(f"no: {reason}")
        table.add_row(name, method.__name__, summary, *([] if loaded is None else [supported]))
    return table


def why_not(method: Method, model: object, processor: object, task: str | None) -> InterpretoError | None:
    """The error that says why a method does not support a model; None if it does."""
    try:
        method(model, processor, task=task)
    except InterpretoError as error:
        return error
    return None


def print_comparison(comparison: Comparison) -> None:
    """Print the tables of a comparison, as wide as the terminal, and the notes below them."""
    for table in tables(comparison.summary, console.width):
        console.print(table)
    for line in notes(comparison.summary):
        console.print(line, markup=False, highlight=False)


def zoo_inputs(name: str, count: int) -> list[Any]:
    """The inputs of held-out samples of a model in `interpreto.zoo`."""
    return [example.input for example in zoo.samples(name, count)]


def held_out_samples(name: str, count: int, target: object, needs_target: bool) -> dict[str, Any]:
    """The arguments of `compare` for held-out samples of a model in `interpreto.zoo`, with ground-truth masks.

    Args:
        name: Name of the model.
        count: Number of samples.
        target: The target of all samples; None for the default.
        needs_target: Whether the default targets are the labels of the samples, such as the correct next word of a
            story, instead of the predicted classes.
    """
    examples = zoo.samples(name, count)
    if len(examples) < count:
        console.print(f"zoo:{name} has {len(examples)} held-out samples; all of them are used.", highlight=False)
    # The masks show the object or the words of the samples' own labels, which another prompt or word need not name.
    is_other_target = needs_target and target is not None
    masks = [None if is_other_target else example.truth for example in examples]
    labels = [example.label for example in examples] if needs_target else None
    return {
        "inputs": [example.input for example in examples],
        "targets": labels if target is None else [target] * len(examples),
        "masks": None if any(mask is None for mask in masks) else masks,
    }


def demonstrate(name: str, inputs: list[object], out: Path, targets: object = None) -> Results:
    """Run all methods that support a model of `interpreto.zoo`; print and save the results."""
    model, processor = zoo.load(name)
    methods = [method for method in NAMES.values() if why_not(method, model, processor, None) is None]
    results, seconds = run(methods, model, processor, inputs, targets, {})
    print_summary(f"zoo:{name}", results, seconds)
    save(results, out / "results" / name)
    return results
