"""Methods, results and comparisons on the screen and in files."""

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from interpreto import plot_attributions, zoo
from interpreto.atomic import check_place, check_writable
from interpreto.attributions.result import AttributionOutput, top_unit
from interpreto.attributions.serialization import WORDS
from interpreto.cli.app import console
from interpreto.cli.arguments import NAMES, Method, Results
from interpreto.comparison.comparison import Comparison
from interpreto.comparison.table_view import notes, tables
from interpreto.errors import InterpretoError, SavedFileError
from interpreto.explain import run_methods

FIGURE, RESULTS = "attributions", "results"


def run(
    methods: Sequence[Method], model: Any, processor: Any, inputs: Any, targets: Any, options: dict[str, Any]
) -> tuple[Results, dict[str, float]]:
    """The outputs and seconds of every method; the error of a single method is raised, those of several are printed."""
    results, seconds = {}, {}
    each_target = None if targets is None else [targets] * len(inputs)
    for method_run in run_methods(methods, model, processor, inputs, each_target, **options):
        if method_run.error is None:
            results[method_run.name], seconds[method_run.name] = method_run.outputs, method_run.seconds
        elif len(methods) == 1:
            raise method_run.error
        else:
            reason = escape(str(method_run.error))
            console.print(f"[yellow]{method_run.name} is left out:[/yellow] {reason}", highlight=False)
    return results, seconds


def print_summary(model: str, results: Results, seconds: dict[str, float]) -> None:
    """Print the most important unit and the cost of every method."""
    count = len(next(iter(results.values())))
    table = Table(
        "method",
        "predicted or explained",
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
    """The names of the targets, shortened."""
    if output.is_generation:
        return textwrap.shorten("".join(output.target_names), 40, placeholder="…")
    return ", ".join(output.target_names[:3])


def print_details(output: AttributionOutput) -> None:
    """Print the scores of a text's units."""
    if not isinstance(output.elements, list):
        return
    if output.is_generation:
        print_sources(output)
        return
    for target, name in enumerate(output.target_names):
        table = Table("unit", "score", *([] if output.standard_errors is None else ["standard error"]), title=name)
        for unit, element in enumerate(output.elements):
            errors = output.standard_errors
            numbers = [output.attributions[target, unit], *([] if errors is None else [errors[target, unit]])]
            table.add_row(escape(element.strip()), *(f"{float(number):+.4f}" for number in numbers))
        console.print(table)


def print_sources(output: AttributionOutput) -> None:
    """Print what influences each generated piece of text most."""
    table = Table("generated", "score", "most important")
    for name, score, scores in zip(output.target_names, output.scores, output.ranking_scores, strict=True):
        best = scores.nan_to_num(-torch.inf).topk(min(3, int((~scores.isnan()).sum()))).indices.tolist()
        sources = ", ".join(f"{str(output.elements[unit]).strip()} ({float(scores[unit]):+.3f})" for unit in best)
        table.add_row(escape(repr(name)), f"{float(score):.3f}", escape(sources))
    console.print(table)


def check_out(out: Path, names: Iterable[str]) -> None:
    """Check that results of these names can be written to a folder, before anything is computed.

    Raises:
        SavedFileError: if the folder cannot be written, or has something else in their places.
    """
    check_writable(out)
    for name in (f"{FIGURE}.png", f"{FIGURE}.html"):
        if (out / name).is_dir():
            raise SavedFileError(f"{str(out / name)!r} is a folder, and a file of that name is to be written.")
    for name in names:
        check_place(out / RESULTS / name, WORDS)


def draw(results: Results, out: Path, name: str) -> None:
    """Write the figure and the page to a folder."""
    plot_attributions(results, out / f"{name}.png")
    plot_attributions(results, out / f"{name}.html")


def save(results: Results, folder: Path) -> None:
    """Write every result to a folder of its own."""
    for method, outputs in results.items():
        for number, output in enumerate(outputs):
            output.save(folder / f"{method}-{number}")


def method_table(loaded: tuple[Any, Any] | None, task: str | None) -> Table:
    """All methods; of a loaded model and its processor, also which of them work."""
    table = Table("name", "class", "attribution", *([] if loaded is None else ["works"]))
    for name, method in NAMES.items():
        summary = (inspect.getdoc(method) or "").splitlines()[0]
        reason = None if loaded is None else why_not(method, *loaded, task)
        works = "yes" if reason is None else escape(f"no: {reason}")
        table.add_row(name, method.__name__, summary, *([] if loaded is None else [works]))
    return table


def why_not(method: Method, model: Any, processor: Any, task: str | None) -> InterpretoError | None:
    """Why a method does not work on a model; None if it does."""
    try:
        method(model, processor, task=task)
    except InterpretoError as error:
        return error
    return None


def print_comparison(comparison: Comparison) -> None:
    """Print the tables, as wide as the screen, and the notes on them."""
    for table in tables(comparison.summary, console.width):
        console.print(table)
    for line in notes(comparison.summary):
        console.print(line, markup=False, highlight=False)


def zoo_inputs(name: str, count: int) -> list[Any]:
    """The inputs of held-out samples of a model that ships with the package."""
    return [example.input for example in zoo.samples(name, count)]


def held_out_samples(name: str, count: int, target: Any, needs_target: bool) -> dict[str, Any]:
    """Arguments of `compare` for held-out samples of a model that ships with the package, with masks of the evidence.

    Args:
        name: Name of the model.
        count: Number of samples.
        target: What is explained of all of them; None for the default.
        needs_target: Whether the default is the samples' labels, such as a story's right word or a scene's prompt,
            rather than the predicted class.
    """
    examples = zoo.samples(name, count)
    masks = [example.truth for example in examples]
    labels = [example.label for example in examples] if needs_target else None
    return {
        "inputs": [example.input for example in examples],
        "targets": labels if target is None else [target] * len(examples),
        "masks": None if any(mask is None for mask in masks) else masks,
    }


def demonstrate(name: str, inputs: list[Any], out: Path, targets: Any = None) -> Results:
    """Explain inputs of a model that ships with the package by all methods that work on it; print and save results."""
    model, processor = zoo.load(name)
    methods = [method for method in NAMES.values() if why_not(method, model, processor, None) is None]
    results, seconds = run(methods, model, processor, inputs, targets, {})
    print_summary(f"zoo:{name}", results, seconds)
    save(results, out / "results" / name)
    return results
