"""PAIR's saliency methods against their package, and against the bare model: ratios of medians in one run.

`python -m benchmarks.pair [xrai | blur | guided]`
"""

import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from saliency.core import blur_ig, xrai
from scipy import ndimage
from skimage import data

from benchmarks.overhead import ratio
from interpreto import GuidedIG
from interpreto.attributions.aggregations.region_ranking import ranked_greedily, ranked_once
from interpreto.attributions.granularity.regions import segmented
from interpreto.attributions.perturbations.paths.blur_path import blurred


def photograph(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph as a model reads it, and attributions of its pixels."""
    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(size=(side, side, 3))
    return np.asarray(image, np.float64) / 127.5 - 1, ndimage.gaussian_filter(noise, (side / 75, side / 75, 0))


def regions() -> None:
    values, base = photograph(224)
    expected = xrai.XRAI().GetMask(values, None, base_attribution=base)
    # As in the package, which takes the maximum over channels.
    attribution = base.max(-1)
    gains = ranked_greedily(attribution, segmented(values), 1.0).gains
    print(f"XRAI, 224 px: largest difference from the package {np.abs(gains - expected).max():.1e}")
    for name, rank in (("full", ranked_greedily), ("fast", ranked_once)):
        parameters = xrai.XRAIParameters(algorithm=name)
        factor, *_ = ratio(
            lambda parameters=parameters: xrai.XRAI().GetMask(
                values, None, base_attribution=base, extra_parameters=parameters
            ),
            lambda rank=rank: rank(attribution, segmented(values), 1.0),
        )
        print(f"XRAI {name}, 224 px, without its base: {factor:.2f} times faster than the package")
    sizes = {side: photograph(side) for side in (512, 1024)}

    def run(side: int) -> None:
        pixels, attributions = sizes[side]
        ranked_greedily(attributions.max(-1), segmented(pixels), 1.0)

    factor, *_ = ratio(lambda: run(1024), lambda: run(512))
    print(f"XRAI full, 1024 px takes {factor:.2f} times the time of 512 px")


def blurs() -> None:
    values, _ = photograph(224)
    tensor = torch.from_numpy(values).float().movedim(-1, 0).contiguous()
    sigmas = torch.arange(50, dtype=torch.float64)

    def package() -> None:
        # The package differentiates the path numerically, with a step of 0.01.
        for sigma in sigmas.tolist():
            blur_ig.gaussian_blur(values, sigma)
            blur_ig.gaussian_blur(values, sigma + 0.01)

    factor, *_ = ratio(package, lambda: [blurred(tensor, some, (1, 2)) for some in sigmas.split(32)])
    print(f"BlurIG, 50 blurs and their slopes at 224 px: {factor:.2f} times faster than the package")


def guided() -> None:
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
    factor, *_ = ratio(lambda: method(image, targets=5), bare)
    print(f"GuidedIG, ViT-S/16 at 224 px, {steps} steps: {factor:.3f} times a forward and backward of each step")


PARTS: dict[str, Any] = {"xrai": regions, "blur": blurs, "guided": guided}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
