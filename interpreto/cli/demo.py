"""`interpreto demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from interpreto import plot_attributions, zoo
from interpreto.atomic import check_writable
from interpreto.cli.app import NAMES, Method, Results, app, console
from interpreto.cli.methods import works
from interpreto.cli.results import draw, run, save, sources, summarise


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to leave figures, pages and results.")] = Path("interpreto-demo"),
) -> None:
    """Explain models and inputs that ship with the package by every method, offline."""
    check_writable(out)
    images: Results = {}
    for name in ("digits-vit", "shapes-vit"):
        for method, outputs in _demonstrate(name, _inputs(name, 2), out).items():
            images.setdefault(method, []).extend(outputs)
    plot_attributions(images, out / "images.png")
    # One picture, asked about both objects that are on it.
    both = zoo.samples("shapes-clip", 2)
    prompts = tuple(str(example.label) for example in both)
    plot_attributions(_demonstrate("shapes-clip", [both[0].input], out, prompts), out / "prompts.png")
    draw(_demonstrate("reviews-bert", _inputs("reviews-bert", 3), out), out, "texts")
    # Without the beginning of their last sentences, so that the model has more to say.
    begun = [prompt.rsplit(" ", 4)[0] for prompt in _inputs("stories-gpt2", 2)]
    stories = _demonstrate("stories-gpt2", begun, out)
    draw(stories, out, "stories")
    sources(next(iter(stories.values()))[0])
    console.print(
        f"Figures, pages and all results are in [bold]{escape(str(out))}[/bold]: images.png, prompts.png, texts.png, "
        "texts.html, stories.png and stories.html, a page to explore."
    )


def _inputs(name: str, count: int) -> list[Any]:
    return [example.input for example in zoo.samples(name, count)]


def _demonstrate(name: str, inputs: list[Any], out: Path, target: Any = None, **options: Any) -> Results:
    model, processor = zoo.load(name)
    results, seconds = run(_methods(model, processor), model, processor, inputs, target, options)
    summarise(f"zoo:{name}", results, seconds)
    save(results, out / "results" / name)
    return results


def _methods(model: Any, processor: Any) -> list[Method]:
    """The methods that this model allows."""
    return [method for method in NAMES.values() if works(method, model, processor, None) is None]
