"""PAIR's saliency methods against their package, and against the bare model: ratios of medians in one run.

`python -m benchmarks.pair [xrai | blur | guided]`
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from saliency.core import blur_ig, xrai
from scipy import ndimage
from skimage import data

from benchmarks.overhead import ratio
from benchmarks.tables import Table
from interpreto import GuidedIG
from interpreto.attributions.aggregations.region_ranking import ranked_greedily, ranked_once
from interpreto.attributions.granularity.regions import segmented
from interpreto.attributions.perturbations.paths.blur_path import blurred


def photograph(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph as a model reads it, and attributions of its pixels."""
    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(size=(side, side, 3))
    return np.asarray(image, np.float64) / 127.5 - 1, ndimage.gaussian_filter(noise, (side / 75, side / 75, 0))


def regions() -> Iterator[tuple[Any, ...]]:
    values, base = photograph(224)
    expected = xrai.XRAI().GetMask(values, None, base_attribution=base)
    # As in the package, which takes the maximum over channels.
    attribution = base.max(-1)
    gains = ranked_greedily(attribution, segmented(values), 1.0).gains
    difference = float(np.abs(gains - expected).max())
    for name, rank in (("full", ranked_greedily), ("fast", ranked_once)):
        parameters = xrai.XRAIParameters(algorithm=name)
        factor, theirs, ours = ratio(
            lambda parameters=parameters: xrai.XRAI().GetMask(
                values, None, base_attribution=base, extra_parameters=parameters
            ),
            lambda rank=rank: rank(attribution, segmented(values), 1.0),
        )
        # Only the full algorithm was compared above.
        same = difference if name == "full" else None
        yield f"XRAI {name}, 224 px, without its base", "package / interpreto", theirs, ours, factor, same
    sizes = {side: photograph(side) for side in (512, 1024)}

    def run(side: int) -> None:
        pixels, attributions = sizes[side]
        ranked_greedily(attributions.max(-1), segmented(pixels), 1.0)

    factor, large, small = ratio(lambda: run(1024), lambda: run(512))
    yield "XRAI full", "1024 px / 512 px", large, small, factor, None


def blurs() -> Iterator[tuple[Any, ...]]:
    values, _ = photograph(224)
    tensor = torch.from_numpy(values).float().movedim(-1, 0).contiguous()
    sigmas = torch.arange(50, dtype=torch.float64)

    def package() -> None:
        # The package differentiates the path numerically, with a step of 0.01.
        for sigma in sigmas.tolist():
            blur_ig.gaussian_blur(values, sigma)
            blur_ig.gaussian_blur(values, sigma + 0.01)

    factor, theirs, ours = ratio(package, lambda: [blurred(tensor, some, (1, 2)) for some in sigmas.split(32)])
    yield "BlurIG, 50 blurs and their derivatives, 224 px", "package / interpreto", theirs, ours, factor, None


def guided() -> Iterator[tuple[Any, ...]]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224").eval()
    image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(1))
    steps = 16

    def bare() -> None:
        for _ in range(steps):
            pixels = image[None].clone().requires_grad_()
            torch.autograd.grad(model(pixels)[0, 5], pixels)

    method = GuidedIG(model, n_steps=steps, show_progress=False)
    factor, ours, bare_time = ratio(lambda: method(image, targets=5), bare)
    yield f"Guided IG, ViT-S/16, 224 px, {steps} steps", "interpreto / bare model", ours, bare_time, factor, None


PARTS: dict[str, Any] = {"xrai": regions, "blur": blurs, "guided": guided}

COLUMNS = {
    "what": "", "compared": "", "first, s": ".3f", "second, s": ".3f", "ratio": ".3f", "largest difference": ".1e",
}  # fmt: skip

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        Table(f"pair-{part}", COLUMNS, PARTS[part](), n_keys=2).run()
