"""Saliency maps of your image by several methods, for a real ViT from the hub or a folder, in one figure.

python first_tests/actual_vit.py IMAGE [MODEL] [--out FOLDER]
"""

import argparse
from functools import partial
from pathlib import Path

from interpreto import GradientShap, IntegratedGradients, KernelShap, Occlusion, Rise, SmoothGrad, plot_attributions
from interpreto.loading import load

METHODS = {
    "Occlusion": Occlusion,
    "KernelShap": KernelShap,
    "Rise": partial(Rise, n_samples=500),
    "IntegratedGradients": IntegratedGradients,
    "GradientShap": partial(GradientShap, n_samples=64),
    "SmoothGrad": SmoothGrad,
}


def main(image: str, name: str, out: Path) -> None:
    model, processor = load(name)
    results = {title: method(model, processor, batch_size=16)(image) for title, method in METHODS.items()}
    output = next(iter(results.values()))[0]
    print(f"{name} predicts {output.target_names[0]} (logit {float(output.scores[0]):.2f})")
    plot_attributions(results, out / "actual-vit.png")
    print(f"The figure is {out / 'actual-vit.png'}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("model", nargs="?", default="google/vit-base-patch16-224")
    parser.add_argument("--out", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    main(arguments.image, arguments.model, arguments.out)
