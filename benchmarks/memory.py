"""Peak memory of 4,000 RISE masks on an image of 224 px above that of the model alone (on Linux)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.overhead import vit
from interpreto import Rise


def taken(work: Callable[[], Any]) -> float:
    """Gigabytes that the process takes for this at most, above what it has before."""
    # Sets the peak, which may lie in the past, to what is in use.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1e6


def main() -> None:
    model, processor = vit(6, 192)
    image = Image.effect_noise((224, 224), 80).convert("RGB")

    def rise(samples: int) -> None:
        Rise(model, processor, n_samples=samples, granularity="pixel", show_progress=False)(image)

    rise(64)
    for samples in (64, 256, 4000):
        print(f"{samples} masks take {taken(lambda samples=samples: rise(samples)):.3f} GB")


if __name__ == "__main__":
    main()
