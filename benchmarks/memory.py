"""Peak memory of up to 4,000 RISE masks on an image of 224 px, above that of the model (on Linux)."""

from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from benchmarks.overhead import vit
from benchmarks.tables import Table
from interpreto import Rise
from interpreto.comparison.peak_memory import watched


def taken(work: Callable[[], Any]) -> float:
    """Peak memory of the process during `work`, in gigabytes above its memory before."""
    with watched() as peak:
        work()
    return peak.gigabytes


def rows() -> Iterator[tuple[Any, ...]]:
    model, processor = vit(6, 192)
    image = Image.effect_noise((224, 224), 80).convert("RGB")

    def rise(samples: int) -> None:
        Rise(model, processor, n_samples=samples, granularity="pixel", show_progress=False)(image)

    # Warm up: the first call makes the working copy.
    rise(64)
    for samples in (64, 256, 4000):
        yield samples, taken(lambda samples=samples: rise(samples))


if __name__ == "__main__":
    Table("memory", {"masks": "d", "peak above the model, GB": ".3f"}, rows()).run()
