"""Time of `compare`: the share spent inside the model, and deletion curves against the bare model.

`python -m benchmarks.comparison [all | deletion]` compares all methods by six metrics on 32 scenes and prints where the
time is spent, and the median ratio of the time of deletion curves of 20 steps to that of the bare model on as many
precomputed rows.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.overhead import ratio, vit
from benchmarks.tables import Table
from interpreto import METHODS as ALL
from interpreto import Deletion, Occlusion, compare, zoo

COUNT = 32
TWELVE = 12
"""The number of methods when the bound was set; later methods do not run the model or read its internals."""
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
    # On the class, because `compare` runs working copies of the model, which share its class.
    type(model).forward = forward.watch(plain)
    try:
        yield forward, backward
    finally:
        torch.autograd.grad, type(model).forward = grad, plain


def all_methods() -> Iterator[tuple[Any, ...]]:
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
        run_time = time.perf_counter() - begin
        assert not comparison.failures
    # The intervals are computed for the table.
    str(comparison)
    total = time.perf_counter() - begin
    inside = forward.seconds + backward.seconds
    size = f"{len(comparison.methods)} methods and controls, {len(comparison.metrics)} metrics, {COUNT} scenes"
    for part, seconds, calls in (
        ("run", run_time, None),
        ("run, intervals and table", total, None),
        ("forward", forward.seconds, forward.calls),
        ("backward", backward.seconds, backward.calls),
        ("inside the model", inside, None),
    ):
        yield size, part, seconds, seconds / total, calls


def deletion(name: str, model: Any, processor: Any, images: list[Any], repeats: int) -> tuple[Any, ...]:
    outputs = Occlusion(model, processor, show_progress=False)(images)
    metric = Deletion(model, processor, n_steps=20, show_progress=False)
    result = metric.evaluate(outputs, images)
    # Every point of every curve, including those that the metric takes from another image's evaluation.
    rows = sum(len(curve.x) for curves in result.curves or [] for curve in curves)
    # As many different rows as a batch has; which images they show does not matter for the time.
    pixels = processor(images=(images * 32)[:32], return_tensors="pt")["pixel_values"]

    def bare() -> None:
        for start in range(0, rows, 32):
            with torch.no_grad():
                model(pixel_values=pixels[: min(32, rows - start)].clone())

    factor, ours, bare_time = ratio(lambda: metric.evaluate(outputs, images), bare, repeats)
    return name, len(images), rows, result.n_evaluations, bare_time, ours, factor


def deletions() -> Iterator[tuple[Any, ...]]:
    images = [example.input for example in zoo.samples("shapes-vit", COUNT)]
    yield deletion("shapes-vit", *zoo.load("shapes-vit"), images, repeats=40)
    yield deletion("ViT of 12 layers, width 192, 224 px", *vit(12, 192), images[:4], repeats=5)


ALL_METHODS = {"size": "", "part": "", "time, s": ".1f", "share": ".3f", "calls": "d"}
DELETION = {
    "model": "", "curves of 20 steps": "d", "points": "d", "of these run": "d", "bare model, s": ".3f",
    "interpreto, s": ".3f", "ratio": ".3f",
}  # fmt: skip

if __name__ == "__main__":
    chosen = sys.argv[1:] or ["deletion", "all"]
    if "deletion" in chosen:
        Table("comparison-deletion", DELETION, deletions()).run()
    if "all" in chosen:
        Table("comparison", ALL_METHODS, all_methods(), n_keys=2).run()
