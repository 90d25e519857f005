"""`interpreto demo`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from interpreto.cli.app import app, console


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A folder for figures, pages and results.")] = Path("interpreto-demo"),
) -> None:
    """Explain models and inputs that ship with the package by all methods, offline."""
    from interpreto import plot_attributions, zoo
    from interpreto.atomic import check_writable
    from interpreto.cli.arguments import Results
    from interpreto.cli.results import demonstrate, draw, print_sources, zoo_inputs

    check_writable(out)
    images: Results = {}
    for name in ("digits-vit", "shapes-vit"):
        for method, outputs in demonstrate(name, zoo_inputs(name, 2), out).items():
            images.setdefault(method, []).extend(outputs)
    plot_attributions(images, out / "images.png")
    # One image with both objects as prompts.
    examples = zoo.samples("shapes-clip", 2)
    prompts = tuple(str(example.label) for example in examples)
    plot_attributions(demonstrate("shapes-clip", [examples[0].input], out, prompts), out / "prompts.png")
    draw(demonstrate("reviews-bert", zoo_inputs("reviews-bert", 3), out), out, "texts")
    # Cut off within the last sentence, so that the model has something to complete.
    prompts_begun = [prompt.rsplit(" ", 4)[0] for prompt in zoo_inputs("stories-gpt2", 2)]
    stories = demonstrate("stories-gpt2", prompts_begun, out)
    draw(stories, out, "stories")
    print_sources(next(iter(stories.values()))[0])
    console.print(
        f"Figures, pages and all results are in [bold]{escape(str(out))}[/bold]: images.png, prompts.png, texts.png, "
        "texts.html, stories.png and the interactive stories.html."
    )
