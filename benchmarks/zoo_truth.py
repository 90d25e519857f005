"""How often each method finds what is known to decide: the table of the docs.

`python -m benchmarks.zoo_truth [COUNT]` runs every method on held-out samples of the zoo and prints a Markdown table.
"""

import sys
from functools import partial

import torch

from interpreto import METHODS, SmoothGrad, zoo

EXTRA = {"SmoothGrad (noise 0.25)": partial(SmoothGrad, noise=0.25)}


def main(count: int) -> None:
    methods = {method.__name__: method for method in METHODS} | EXTRA
    shapes, reviews = zoo.load("shapes-vit"), zoo.load("reviews-bert")
    scenes, texts = zoo.samples("shapes-vit", count), zoo.samples("reviews-bert", count)
    columns = ("top patch on the shape", "a quarter of it covered", "mass on it", "adjective on top", "in the top two")
    print(f"| method | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|")
    for name, method in methods.items():
        outputs = method(*shapes, show_progress=False)([example.input for example in scenes])
        pairs = list(zip(outputs, scenes, strict=True))
        shares = torch.tensor([covered(output, example.truth) for output, example in pairs])
        mass = torch.tensor([mass_on(output, example.truth) for output, example in pairs])
        outputs = method(*reviews, show_progress=False)([example.input for example in texts])
        ranks = torch.tensor([rank(output, example.truth[0]) for output, example in zip(outputs, texts, strict=True)])
        numbers = [(shares > 0), (shares >= 0.25), mass, ranks == 0, ranks <= 1]
        print(f"| {name} | {' | '.join(f'{number.double().mean():.3f}' for number in numbers)} |", flush=True)


def covered(output, mask) -> float:
    """The share of the top patch that lies on the decisive object."""
    left, top, right, bottom = output.elements[int(output.attributions[0].argmax())].int().tolist()
    return float(mask[top:bottom, left:right].mean())


def mass_on(output, mask) -> float:
    """The share of the positive scores that lies on the decisive object."""
    positive = output.heatmap(interpolation="nearest")[0].clamp(min=0)
    return float(positive[torch.from_numpy(mask)].sum() / positive.sum().clamp(min=1e-12))


def rank(output, word: str) -> int:
    """How many units score higher than the decisive word."""
    place = [element.strip().lower() for element in output.elements].index(word)
    scores = output.attributions[0]
    return int((scores > scores[place]).sum())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
