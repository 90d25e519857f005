"""Peak memory of 4,000 RISE masks on an image of 224 px above that of the model alone."""

import resource

from PIL import Image

from benchmarks.overhead import vit
from interpreto import Rise


def peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    model, processor = vit(6, 192)
    image = Image.effect_noise((224, 224), 80).convert("RGB")
    Rise(model, processor, n_samples=64, granularity="pixel", show_progress=False)(image)
    before = peak()
    for samples in (256, 4000):
        Rise(model, processor, n_samples=samples, granularity="pixel", show_progress=False)(image)
        print(f"{samples} masks: {peak() - before:.3f} GB more than 64 masks took, {peak():.2f} GB in all")


if __name__ == "__main__":
    main()
