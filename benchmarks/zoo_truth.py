"""Attribution methods against the ground truth of the zoo: the tables of docs/truth.md.

`python -m benchmarks.zoo_truth [COUNT] [NAME ...]` runs every method on held-out samples of the zoo's models and prints
a Markdown table for each.
"""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import Table
from interpreto import METHODS, SmoothGrad, zoo
from interpreto.errors import UnsupportedError


def covered(output: Any, mask: Any) -> float:
    """The share of the top patch that is on the decisive object."""
    left, top, right, bottom = output.elements[int(output.attributions[0].argmax())].int().tolist()
    return float(mask[top:bottom, left:right].mean())


def mass_on(output: Any, mask: Any) -> float:
    """The share of the positive scores that is on the decisive object."""
    positive = output.heatmap(interpolation="nearest")[0].clamp(min=0)
    return float(positive[torch.from_numpy(mask)].sum() / positive.sum().clamp(min=1e-12))


def rank(output: Any, words: tuple[str, ...]) -> int:
    """The number of units that score higher than the first of the decisive words."""
    scores = output.attributions[0]
    # Words after the target cannot influence it: their scores are NaN.
    finite = ~scores.isnan()
    units = [element.strip().lower() for element, kept in zip(output.elements, finite, strict=True) if kept]
    return int((scores[finite] > scores[finite][units.index(words[0])]).sum())


def on_shapes(output: Any, truth: Any) -> list[float]:
    """The columns for images."""
    share = covered(output, truth)
    return [share > 0, share >= 0.25, mass_on(output, truth)]


def on_words(output: Any, truth: tuple[str, ...]) -> list[float]:
    """The columns for texts."""
    place = rank(output, truth)
    return [place == 0, place <= 1]


NOISY = {"`SmoothGrad` (noise 0.25)": partial(SmoothGrad, noise_level=0.25)}
TABLES: dict[str, tuple[tuple[str, ...], Any, dict[str, Any], dict[str, Any]]] = {
    "shapes-vit": (("top patch on the shape", "a quarter of it covered", "mass on it"), on_shapes, {}, NOISY),
    "digits-cnn": (("top unit on the strokes", "a quarter of it covered", "mass on them"), on_shapes, {}, {}),
    "reviews-bert": (("adjective on top", "in the top two"), on_words, {}, NOISY),
    "stories-gpt2": (("deciding word on top", "in the top two"), on_words, {"inference_mode": "softmax"}, {}),
}
"""For each model: its columns, the function that fills them, options of all methods, and additional methods."""


def rows(name: str, count: int) -> Iterator[tuple[Any, ...]]:
    """The rows of one model."""
    _, columns_of, options, more = TABLES[name]
    model, processor = zoo.load(name)
    examples = zoo.samples(name, count)
    targets = [example.label for example in examples] if name == "stories-gpt2" else None
    for title, method in ({f"`{method.__name__}`": method for method in METHODS} | more).items():
        try:
            explain = method(model, processor, show_progress=False, **options)
        except UnsupportedError as error:
            print(f"| {title} | {error} |", file=sys.stderr)
            continue
        outputs = explain([example.input for example in examples], targets=targets)
        values: Tensor = torch.tensor(
            [columns_of(output, example.truth) for output, example in zip(outputs, examples, strict=True)]
        )
        yield title, *values.double().mean(0)


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    for name in [word for word in sys.argv[1:] if not word.isdigit()] or TABLES:
        columns = {"method": "", **dict.fromkeys(TABLES[name][0], ".3f")}
        Table(f"zoo-truth-{name}", columns, rows(name, counts[0] if counts else 200)).run()
