"""The saliency methods of Google's PAIR on two models of the zoo, and on a model in NumPy.

python first_tests/first_test_pair.py [--out FOLDER]
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from interpreto import (
    XRAI,
    BlurIG,
    GradCam,
    GuidedBackprop,
    GuidedIG,
    IntegratedGradients,
    Occlusion,
    PointingGame,
    Saliency,
    SmoothGrad,
    from_callables,
    plot_attributions,
    plot_top,
    zoo,
)

METHODS: dict[str, Any] = {
    "Saliency": Saliency,
    "SmoothGrad": SmoothGrad,
    "GuidedBackprop": GuidedBackprop,
    "IntegratedGradients": IntegratedGradients,
    "SmoothGrad of IG": partial(SmoothGrad, base_method=partial(IntegratedGradients, n_steps=8), n_samples=10),
    "GuidedIG": GuidedIG,
    "BlurIG": BlurIG,
    "GradCam": GradCam,
    "Occlusion": partial(Occlusion, window=16, stride=4),
    "XRAI": XRAI,
    "XRAI of BlurIG": partial(XRAI, base_attribution=BlurIG),
}


def main(out: Path) -> None:
    for name in ("shapes-vit", "digits-cnn"):
        model, processor = zoo.load(name)
        examples = zoo.samples(name, 2)
        images, masks = [example.input for example in examples], [example.truth for example in examples]
        results = {title: method(model, processor)(images) for title, method in METHODS.items()}
        for title, outputs in results.items():
            hits = PointingGame().evaluate(outputs, masks).mean
            print(f"{name:12} {title:20} {outputs[0].granularity:16} pointing game {hits:.2f}")
        plot_attributions(results, out / f"first-test-pair-{name}.png")
        plot_top(XRAI(model, processor)(images), save_path=out / f"first-test-pair-{name}-top.png")
    # A model in NumPy: its scores are the redness of each quarter of an image.
    corners = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((32, 32)))
    weights = np.stack([corners, -corners / 2, -corners / 2], axis=-1)
    model = from_callables(
        scores=lambda images: np.einsum("nhwc,khwc->nk", images, weights) / 1024,
        gradients=lambda images, target: np.broadcast_to(weights[target] / 1024, images.shape),
        layout="n h w c",
        labels=["upper left", "upper right", "lower left", "lower right"],
    )
    image = zoo.samples("shapes-vit", 1)[0].input
    results = {"Saliency": Saliency(model)(image), "GuidedIG": GuidedIG(model)(image), "XRAI": XRAI(model)(image)}
    plot_attributions(results, out / "first-test-pair-numpy.png")
    print(f"numpy        the reddest quarter is the {results['XRAI'][0].target_names[0]} one")
    print(f"The figures are {out}/first-test-pair-*.png.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
