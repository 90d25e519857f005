"""`interpreto demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from interpreto import plot_attributions, zoo
from interpreto.cli.app import NAMES, Results, app, console
from interpreto.cli.results import draw, run, save, sources, summarise


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
    draw(_demonstrate("reviews-bert", _inputs("reviews-bert", 3), out), out, "texts")
    # Without the beginning of their last sentences, so that the model has more to say.
    prompts = [prompt.rsplit(" ", 4)[0] for prompt in _inputs("stories-gpt2", 2)]
    stories = _demonstrate("stories-gpt2", prompts, out, inference_mode="softmax")
    draw(stories, out, "stories")
    sources(next(iter(stories.values()))[0])
    console.print(
        f"Figures, pages and all results are in [bold]{escape(str(out))}[/bold]: images.png, texts.png, texts.html, "
        "stories.png and stories.html, a page to explore."
    )


def _inputs(name: str, count: int) -> list[Any]:
    return [example.input for example in zoo.samples(name, count)]


def _demonstrate(name: str, inputs: list[Any], out: Path, **options: Any) -> Results:
    model, processor = zoo.load(name)
    results, seconds = run(list(NAMES.values()), model, processor, inputs, None, options)
    summarise(f"zoo:{name}", results, seconds)
    save(results, out / "results" / name)
    return results
