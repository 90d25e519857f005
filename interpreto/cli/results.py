"""Results on the screen and in files."""

import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from interpreto import InterpretoError, plot_attributions
from interpreto.atomic import check_place, check_writable
from interpreto.attributions.result import AttributionOutput, top_unit
from interpreto.attributions.serialization import WORDS
from interpreto.cli.app import Method, Results, console
from interpreto.errors import SavedFileError

FIGURE, RESULTS = "attributions", "results"


def run(
    methods: Iterable[Method], model: Any, processor: Any, inputs: Any, target: Any, options: dict[str, Any]
) -> tuple[Results, dict[str, float]]:
    """Every method's outputs and seconds; with one method its error is the answer, with several it is reported."""
    methods, results, seconds = list(methods), {}, {}
    for method in methods:
        begin = time.perf_counter()
        try:
            results[method.__name__] = method(model, processor, **options)(inputs, _each(target, len(inputs)))
        except InterpretoError as error:
            if len(methods) == 1:
                raise
            console.print(f"[yellow]{method.__name__} left out:[/yellow] {escape(str(error))}", highlight=False)
        seconds[method.__name__] = time.perf_counter() - begin
    return results, seconds


def _each(target: Any, count: int) -> Any:
    return None if target is None else [target] * count


def summarise(model: str, results: Results, seconds: dict[str, float]) -> None:
    """A table of every method's top unit and cost."""
    count = len(next(iter(results.values())))
    table = Table(
        "method",
        "predicted or explained",
        "top unit",
        "rows",
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
            escape(_explained(first)) + more,
            escape(top_unit(first)),
            str(sum(output.n_evaluations for output in outputs)),
            f"{seconds[name]:.2f}",
        )
    console.print(table)


def _explained(output: AttributionOutput) -> str:
    """The targets in few words."""
    if output.task == "text-generation":
        return textwrap.shorten("".join(output.target_names), 40, placeholder="…")
    return ", ".join(output.target_names[:3])


def details(output: AttributionOutput) -> None:
    """The scores of a text's units, or the strongest units of an image."""
    if not isinstance(output.elements, list):
        return
    if output.task == "text-generation":
        sources(output)
        return
    for target, name in enumerate(output.target_names):
        table = Table("unit", "score", *([] if output.standard_errors is None else ["standard error"]), title=name)
        for unit, element in enumerate(output.elements):
            spread = output.standard_errors
            numbers = [output.attributions[target, unit], *([] if spread is None else [spread[target, unit]])]
            table.add_row(escape(element.strip()), *(f"{float(number):+.4f}" for number in numbers))
        console.print(table)


def sources(output: AttributionOutput) -> None:
    """What each generated piece of text rests on most."""
    table = Table("generated", "score", "rests most on")
    for name, score, scores in zip(output.target_names, output.scores, output.ranking_scores, strict=True):
        best = scores.nan_to_num(-torch.inf).topk(min(3, int((~scores.isnan()).sum()))).indices.tolist()
        sources = ", ".join(f"{str(output.elements[unit]).strip()} ({float(scores[unit]):+.3f})" for unit in best)
        table.add_row(escape(repr(name)), f"{float(score):.3f}", escape(sources))
    console.print(table)


def check_out(out: Path, names: Iterable[str]) -> None:
    """Refuse a folder that cannot take the results of these names, before anything is computed for it.

    Raises:
        SavedFileError: if it cannot be written, or holds something else where they go.
    """
    check_writable(out)
    for name in (f"{FIGURE}.png", f"{FIGURE}.html"):
        if (out / name).is_dir():
            raise SavedFileError(f"{str(out / name)!r} is a folder where a file is to be written.")
    for name in names:
        check_place(out / RESULTS / name, WORDS)


def draw(results: Results, out: Path, name: str) -> None:
    """Figure and page in a folder."""
    plot_attributions(results, out / f"{name}.png")
    plot_attributions(results, out / f"{name}.html")


def save(results: Results, folder: Path) -> None:
    """Every result in a folder of its own."""
    for method, outputs in results.items():
        for number, output in enumerate(outputs):
            output.save(folder / f"{method}-{number}")
