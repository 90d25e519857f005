"""What comparing costs: the share of the time that the model itself works, and deletion curves against the bare model.

`python -m benchmarks.comparison [all | deletion]` compares all methods by six metrics on 32 scenes and prints where the
time goes, and the median ratio of deletion curves of 20 steps to the bare model on as many rows that are ready.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.overhead import ratio, vit
from interpreto import METHODS as ALL
from interpreto import Deletion, Occlusion, compare, zoo

COUNT = 32
TWELVE = 12
"""The methods that were there when the bound was set; those that came later need no model, or look inside it."""
METRICS = "deletion,insertion,mu-fidelity,pointing-game,relevance-mass,model-randomization"


class Clock:
    """Seconds spent in functions, and how often they were called."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.perf_counter() - begin
                self.calls += 1

        return timed


@contextmanager
def profiled(model: Any) -> Iterator[tuple[Clock, Clock]]:
    """Clocks for the forward of a model and for gradients."""
    forward, backward = Clock(), Clock()
    grad, plain = torch.autograd.grad, type(model).forward
    torch.autograd.grad = backward.watch(grad)
    type(model).forward = forward.watch(plain)
    try:
        yield forward, backward
    finally:
        torch.autograd.grad, type(model).forward = grad, plain


def everything() -> None:
    model, processor = zoo.load("shapes-vit")
    examples = zoo.samples("shapes-vit", COUNT)
    with profiled(model) as (forward, backward):
        begin = time.perf_counter()
        comparison = compare(
            model,
            processor,
            [example.input for example in examples],
            methods=list(ALL[:TWELVE]),
            metrics=METRICS,
            masks=[example.truth for example in examples],
            show_progress=False,
        )
        ran = time.perf_counter() - begin
        assert not comparison.failures
    str(comparison)
    whole = time.perf_counter() - begin
    inside = forward.seconds + backward.seconds
    print(f"{len(comparison.methods)} methods and controls, {len(comparison.metrics)} metrics, {COUNT} scenes")
    print(f"run {ran:.1f} s, with intervals and table {whole:.1f} s")
    print(f"forward {forward.seconds:.1f} s in {forward.calls} calls, backward {backward.seconds:.1f} s")
    print(f"inside the model: {inside / whole:.3f} of all")


def deletion(name: str, model: Any, processor: Any, pictures: list[Any], repeats: int) -> None:
    outputs = Occlusion(model, processor, show_progress=False)(pictures)
    metric = Deletion(model, processor, n_steps=20, show_progress=False)
    measured = metric.evaluate(outputs, pictures)
    # Every point of every curve, whether the metric has to ask for it or knows it from another picture.
    rows = sum(len(curve.x) for curves in measured.curves or [] for curve in curves)
    pixels = processor(images=(pictures * 32)[:32], return_tensors="pt")["pixel_values"]

    def bare() -> None:
        for start in range(0, rows, 32):
            with torch.no_grad():
                model(pixel_values=pixels[: min(32, rows - start)].clone())

    found, mine, theirs = ratio(lambda: metric.evaluate(outputs, pictures), bare, repeats)
    print(
        f"{name}: {len(pictures)} deletion curves of 20 steps, {rows} rows of which {measured.n_evaluations} were run: "
        f"{mine:.3f} s, bare model {theirs:.3f} s, ratio {found:.3f}"
    )


def deletions() -> None:
    pictures = [example.input for example in zoo.samples("shapes-vit", COUNT)]
    deletion("shapes-vit", *zoo.load("shapes-vit"), pictures, repeats=40)
    deletion("ViT of 12 layers, width 192, 224 px", *vit(12, 192), pictures[:4], repeats=5)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["deletion", "all"]
    if "deletion" in chosen:
        deletions()
    if "all" in chosen:
        everything()
