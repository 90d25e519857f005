"""The command line: `interpreto explain | methods | demo`."""

import ast
import inspect
import json
import re
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import interpreto
from interpreto import AttributionOutput, InterpretoError, plot_attributions, zoo
from interpreto.attributions.result import top_unit
from interpreto.errors import choices
from interpreto.model_wrapping.loading import load
from interpreto.model_wrapping.task import TASKS, find_task

app = typer.Typer(
    help="Which words of a text or patches of an image a model's output rests on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Results = dict[str, list[AttributionOutput]]
Method = type[Any]
"""A class of `interpreto.METHODS`, each with options of its own."""


def slug(method: type) -> str:
    """A method's name on the command line: KernelShap is kernel-shap, RISE and LIME are lower-case words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=X)(?=[A-Z])", "-", method.__name__).lower()


NAMES: dict[str, Method] = {slug(method): method for method in interpreto.METHODS}


def _methods(names: list[str]) -> list[Method]:
    if names == ["all"]:
        return list(NAMES.values())
    for name in names:
        if name not in NAMES:
            raise typer.BadParameter(f"There is no method {name!r}: {choices(name, [*NAMES, 'all'])}")
    return [NAMES[name] for name in names]


def _options(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, values as Python literals where they are some, else as text."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE, for example n_samples=1000.")
        try:
            found[key.replace("-", "_")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key.replace("-", "_")] = value
    return found


def _target(text: str | None) -> Any:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else text


def _chat(path: Path) -> Any:
    """The messages of a chat, a list of objects with role and content, from a file."""
    try:
        messages = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InterpretoError(f"{str(path)!r} is no JSON file: {error}.") from error
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise InterpretoError(f"{str(path)!r} holds no chat: one list of objects with 'role' and 'content'.")
    return messages


@app.command()
def explain(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Texts, paths of images, or JSON files with a chat each.")
    ],
    model: Annotated[str, typer.Option(help="zoo:NAME, a folder, or a hub id.")],
    method: Annotated[list[str], typer.Option(help="A method's name (see `interpreto methods`), or all.")] = ["all"],  # noqa: B006
    target: Annotated[
        str | None,
        typer.Option(help="Class index or label, or all; a continuation. What the model predicts if left out."),
    ] = None,
    granularity: Annotated[str | None, typer.Option(help="word, token, sentence, ...; patch, pixel.")] = None,
    task: Annotated[str | None, typer.Option(help=f"One of {', '.join(TASKS[:3])}.")] = None,
    option: Annotated[
        list[str], typer.Option("--option", "-o", help="KEY=VALUE, any other option of the method.")
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="A folder for the figure, the page and the results.")] = None,
) -> None:
    """Explain a model's prediction for texts or images."""
    methods = _methods(method)
    options = _options(option) | ({} if granularity is None else {"granularity": granularity})
    loaded, processor = load(model, task)
    speaks = find_task(loaded, task) == "text-generation"
    samples = [_chat(Path(text)) if speaks and text.endswith(".json") else text for text in inputs]
    wanted = target if speaks else _target(target)
    results, seconds = _run(methods, loaded, processor, samples, wanted, {"task": task, **options})
    if not results:
        raise InterpretoError("None of the methods worked on this model.")
    _summarise(model, results, seconds)
    if len(methods) == 1:
        for output in next(iter(results.values())):
            _details(output)
    if out is not None:
        _draw(results, out, "attributions")
        _save(results, out / "results")
        console.print(f"Figure, page and results are in [bold]{out}[/bold].")


@app.command()
def methods(
    model: Annotated[
        str | None, typer.Option(help="Say which methods work for this model, and why others do not.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What the model is for, if that cannot be told.")] = None,
) -> None:
    """List the methods."""
    loaded = None if model is None else load(model, task)
    table = Table("name", "class", "what it says", *([] if loaded is None else ["works"]))
    for name, method in NAMES.items():
        summary = (inspect.getdoc(method) or "").splitlines()[0]
        table.add_row(name, method.__name__, summary, *([] if loaded is None else [_works(method, *loaded, task)]))
    console.print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to leave figures, pages and results.")] = Path("interpreto-demo"),
) -> None:
    """Explain models and inputs that ship with the package by every method, offline."""
    images: Results = {}
    for name in ("digits-vit", "shapes-vit"):
        for method, outputs in _demonstrate(name, _inputs(name, 2), out).items():
            images.setdefault(method, []).extend(outputs)
    plot_attributions(images, out / "images.png")
    _draw(_demonstrate("reviews-bert", _inputs("reviews-bert", 3), out), out, "texts")
    # Without the beginning of their last sentences, so that the model has more to say.
    prompts = [prompt.rsplit(" ", 4)[0] for prompt in _inputs("stories-gpt2", 2)]
    stories = _demonstrate("stories-gpt2", prompts, out, inference_mode="softmax")
    _draw(stories, out, "stories")
    _sources(next(iter(stories.values()))[0])
    console.print(
        f"Figures, pages and all results are in [bold]{out}[/bold]: images.png, texts.png, texts.html, stories.png and "
        "stories.html, a page to explore."
    )


def _inputs(name: str, count: int) -> list[Any]:
    return [example.input for example in zoo.samples(name, count)]


def _demonstrate(name: str, inputs: list[Any], out: Path, **options: Any) -> Results:
    model, processor = zoo.load(name)
    results, seconds = _run(list(NAMES.values()), model, processor, inputs, None, options)
    _summarise(f"zoo:{name}", results, seconds)
    _save(results, out / "results" / name)
    return results


def _run(
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
            console.print(f"[yellow]{method.__name__} left out:[/yellow] {error}", highlight=False)
        seconds[method.__name__] = time.perf_counter() - begin
    return results, seconds


def _each(target: Any, count: int) -> Any:
    return None if target is None else [target] * count


def _summarise(model: str, results: Results, seconds: dict[str, float]) -> None:
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
            str(sum(output.n_rows for output in outputs)),
            f"{seconds[name]:.2f}",
        )
    console.print(table)


def _explained(output: AttributionOutput) -> str:
    """The targets in few words."""
    if output.task == "text-generation":
        return textwrap.shorten("".join(output.target_names), 40, placeholder="…")
    return ", ".join(output.target_names[:3])


def _details(output: AttributionOutput) -> None:
    """The scores of a text's units, or the strongest units of an image."""
    if not isinstance(output.elements, list):
        return
    if output.task == "text-generation":
        _sources(output)
        return
    for target, name in enumerate(output.target_names):
        table = Table("unit", "score", *([] if output.standard_errors is None else ["standard error"]), title=name)
        for unit, element in enumerate(output.elements):
            spread = output.standard_errors
            numbers = [output.attributions[target, unit], *([] if spread is None else [spread[target, unit]])]
            table.add_row(escape(element.strip()), *(f"{float(number):+.4f}" for number in numbers))
        console.print(table)


def _sources(output: AttributionOutput) -> None:
    """What each generated piece of text rests on most."""
    table = Table("generated", "score", "rests most on")
    for name, score, scores in zip(output.target_names, output.scores, output.attributions, strict=True):
        best = scores.nan_to_num(-torch.inf).topk(min(3, int((~scores.isnan()).sum()))).indices.tolist()
        sources = ", ".join(f"{str(output.elements[unit]).strip()} ({float(scores[unit]):+.3f})" for unit in best)
        table.add_row(escape(repr(name)), f"{float(score):.3f}", escape(sources))
    console.print(table)


def _draw(results: Results, out: Path, name: str) -> None:
    """Figure and page in a folder."""
    plot_attributions(results, out / f"{name}.png")
    plot_attributions(results, out / f"{name}.html")


def _save(results: Results, folder: Path) -> None:
    for method, outputs in results.items():
        for number, output in enumerate(outputs):
            output.save(folder / f"{method}-{number}")


def _works(method: Method, model: Any, processor: Any, task: str | None) -> str:
    try:
        method(model, processor, task=task)
    except InterpretoError as error:
        return f"no: {error}"
    return "yes"


def main() -> None:
    """Run the command line; errors of the user's making end with one line and exit code 1."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        app()
    except (InterpretoError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
