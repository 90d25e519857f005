"""Which score of a classifier to explain: logits, probabilities or log-probabilities.

`python -m benchmarks.explained_score` explains mosaics of four photos, as a real ImageNet CNN classifies them, for the
class of each photo. It prints how much of the positive attribution is in that photo's quarter (the grid pointing game
of Boehle et al. 2021, arXiv:2104.00032; chance is 0.25), and how often more than half of it is. For a text classifier
with two classes it prints the same for the words that decide the sentiment of reviews.
"""

from functools import partial
from itertools import permutations

import torch

from benchmarks.real_models import image_classifier, normalized, photos, pixels
from benchmarks.tables import Table
from interpreto import (
    Grid,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    RelevanceMass,
    Saliency,
    from_callables,
    zoo,
)
from interpreto.model_wrapping.runtime import INFERENCE_MODES

METHODS = {
    "Occlusion": Occlusion,
    "KernelShap": partial(KernelShap, n_samples=512),
    "Lime": partial(Lime, n_samples=512),
    "IntegratedGradients": partial(IntegratedGradients, n_steps=64),
    "Saliency": Saliency,
}
NAMES = ("chelsea", "coffee", "rocket", "china")


def wrapped(model, score):
    """The network's scores and their gradients, as functions of pixels from 0 to 1."""

    def scores(images):
        with torch.no_grad():
            return score(model(normalized(torch.from_numpy(images)))).numpy()

    def gradients(images, target):
        pixels = torch.from_numpy(images).requires_grad_()
        score(model(normalized(pixels)))[:, target].sum().backward()
        return pixels.grad.numpy()

    return from_callables(scores, gradients=gradients, layout="n c h w")


def mosaics(model, limit):
    """Images of four photos, and the class of each quarter."""
    singles = {name: pixels(photo) for name, photo in photos().items() if name in NAMES}
    classes = {name: int(model(normalized(image[None])).argmax()) for name, image in singles.items()}
    # At half the resolution, four photos fill one input.
    small = {name: image[:, ::2, ::2] for name, image in singles.items()}
    # Some of the 24 orders of the four photos.
    for order in list(permutations(NAMES))[:: 24 // limit]:
        rows = [torch.cat([small[name] for name in order[start : start + 2]], dim=2) for start in (0, 2)]
        yield torch.cat(rows, dim=1), tuple(classes[name] for name in order)


def of_images(limit=6):
    model = image_classifier()
    samples = list(mosaics(model, limit))
    for name, method in METHODS.items():
        for label, score in INFERENCE_MODES.items():
            explain = method(wrapped(model, score), granularity=Grid(14, 14), show_progress=False)
            shares = []
            for image, targets in samples:
                (output,) = explain(image.numpy(), targets=targets)
                mass = output.attributions.clamp(min=0)
                half = mass.shape[1] // 2
                quarters = torch.stack(
                    [mass[:, r : r + half, c : c + half].sum((1, 2)) for r in (0, half) for c in (0, half)], dim=1
                )
                # A map without positive attribution counts as chance. The diagonal is the quarter of each target.
                shares.append((quarters / quarters.sum(1, keepdim=True)).nan_to_num(0.25).diagonal())
            values = torch.cat(shares)
            yield name, label, values.mean(), (values > 0.5).float().mean()


def of_texts():
    model, tokenizer = zoo.load("reviews-bert")
    samples = zoo.samples("reviews-bert", 64)
    for name, method in METHODS.items():
        for label in INFERENCE_MODES:
            explain = method(model, tokenizer, inference_mode=label, show_progress=False)
            outputs = explain([sample.input for sample in samples])
            masses = RelevanceMass().evaluate(outputs, [sample.truth for sample in samples]).values
            values = torch.cat([mass.flatten() for mass in masses])
            yield name, label, values.nanmean(), (values > 0.5).float().mean()


def main():
    columns = {"method": "", "score": "", "share of the positive attribution": ".2f", "more than half": ".2f"}
    # The texts need no published model.
    Table("explained-score-texts", columns, of_texts(), n_keys=2).run()
    Table("explained-score-images", columns, of_images(), n_keys=2).run()


if __name__ == "__main__":
    main()
