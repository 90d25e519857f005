"""Saliency maps of five real photos by the methods for convolutional networks, for inspection by eye.

python benchmarks/photo_figures.py FOLDER [--photos chelsea coffee]
"""

import argparse
import warnings
from functools import partial
from pathlib import Path

import torch
from torchvision.transforms import v2

import interpreto as it
from benchmarks.real_models import image_classifier, photos

NAMES = {"chelsea": 285, "coffee": 967, "rocket": 540, "china": 442, "flower": 985}
"""Photos, and the ImageNet class that the network predicts for each."""

METHODS = {
    "Occlusion": partial(it.Occlusion, granularity=it.Grid(14, 14)),
    "KernelShap": partial(it.KernelShap, n_samples=400, granularity=it.Grid(7, 7)),
    "Lime": partial(it.Lime, n_samples=400, granularity=it.Grid(7, 7)),
    "Rise": partial(it.Rise, n_samples=400),
    "Sobol": partial(it.Sobol, n_samples=416, granularity=it.Grid(7, 7)),
    "Saliency": it.Saliency,
    "InputXGradient": it.InputXGradient,
    "IntegratedGradients": partial(it.IntegratedGradients, n_steps=64),
    "SmoothGrad": partial(it.SmoothGrad, n_samples=10),
    "SquareGrad": partial(it.SquareGrad, n_samples=10),
    "VarGrad": partial(it.VarGrad, n_samples=10),
    "GradientShap": partial(it.GradientShap, n_samples=32),
    "GuidedIG": partial(it.GuidedIG, n_steps=64),
    "BlurIG": partial(it.BlurIG, n_steps=64),
    "GuidedBackprop": it.GuidedBackprop,
    "GradCam": it.GradCam,
    "XRAI": it.XRAI,
}


def transform():
    # The same as `normalized` of real_models.
    normalize = v2.Lambda(lambda pixels: (pixels * 255 - 127) / 128)
    return v2.Compose([v2.Resize((224, 224)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", nargs="*", default=list(NAMES), choices=list(NAMES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, images = image_classifier(), photos()
    for name in arguments.photos:
        outputs = {}
        for title, method in METHODS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                explainer = method(model, transform(), task="image-classification")
                (outputs[title],) = explainer(images[name], NAMES[name])
        it.plot_attributions(outputs, arguments.folder / f"{name}.png")
        print(name, "drawn", flush=True)


if __name__ == "__main__":
    main()
