"""`digits-cnn`: a small network of convolutions that reads one handwritten digit somewhere in a field of grey blocks.

The scans are scikit-learn's, real and 8 x 8, shown at 32 x 32 at a random place of a 64 x 64 picture. The blocks around
are as large as a scan's pixels and say nothing, so what decides is known: the strokes. Hidden and noisy pictures are
part of the training, with a target that goes to uniform as the strokes disappear.
"""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from interpreto.zoo.shapes_vit import hidden_parts, stand_ins
from interpreto.zoo.training import card, fit, save, soft_cross_entropy

NAME = "digits-cnn"
STEPS, BATCH, HELD_OUT = 3000, 64, 360
SIZE, SHOWN, CELL = 64, 32, 4
GREY, STROKE = 0.45, 0.4


def build() -> tuple[ResNetForImageClassification, ViTImageProcessor]:
    """The untrained model and its processor."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 64, 96],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label={digit: str(digit) for digit in range(10)},
        label2id={str(digit): digit for digit in range(10)},
    )
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ResNetForImageClassification(config), processor


def pictures(scans: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Scans `n 8 8` with values in [0, 1], each somewhere in a field of grey blocks, and where its strokes are.

    Returns:
        Pictures with values in [0, 1] and masks, both `n 64 64`.
    """
    count = len(scans)
    field = GREY * torch.rand(count, 1, SIZE // CELL, SIZE // CELL, generator=rng)
    field = nn.functional.interpolate(field, size=(SIZE, SIZE), mode="nearest")[:, 0]
    large = nn.functional.interpolate(scans[:, None], size=(SHOWN, SHOWN), mode="nearest")[:, 0]
    masks = torch.zeros_like(field)
    places = torch.randint((SIZE - SHOWN) // CELL + 1, (count, 2), generator=rng) * CELL
    for picture, mask, scan, (top, left) in zip(field, masks, large, places.tolist(), strict=True):
        there = (slice(top, top + SHOWN), slice(left, left + SHOWN))
        picture[there] = torch.maximum(picture[there], scan)
        mask[there] = (scan > STROKE).float()
    return field, masks


def train(seed: int = 0) -> None:
    """Train, measure on held-out scans and save."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    data: Any = load_digits()
    scans, digits = torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target)
    order = torch.randperm(len(scans), generator=rng)
    held_out, known = order[:HELD_OUT], order[HELD_OUT:]
    model, processor = build()

    def loss(step: int) -> torch.Tensor:
        strength = min(1.0, step / (0.3 * STEPS))
        chosen = known[torch.randint(len(known), (BATCH,), generator=rng)]
        fields, masks = pictures(scans[chosen], rng)
        images = (fields * 2 - 1)[:, None].expand(-1, 3, -1, -1)
        hidden = hidden_parts(BATCH, rng) * (torch.rand(BATCH, 1, 1, generator=rng) < 0.6 * strength)
        left = 1 - (hidden * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
        images = torch.lerp(images, stand_ins(images, rng), hidden[:, None])
        roughness = 0.2 * strength * torch.rand(BATCH, 1, 1, 1, generator=rng)
        images = images + roughness * torch.randn(images.shape, generator=rng)
        return soft_cross_entropy(model(pixel_values=images).logits, digits[chosen], left)

    seconds = fit(model, loss, steps=STEPS, rate=3e-3, decay=0.05, name=NAME)
    fields, masks = pictures(scans[held_out], torch.Generator().manual_seed(10_000_000 + seed))
    sheet = (fields * 255).round().to(torch.uint8).numpy()
    shown = [Image.fromarray(picture).convert("RGB") for picture in sheet]
    truth = digits[held_out]
    with torch.no_grad():
        predicted = model(**processor(shown, return_tensors="pt")).logits.argmax(-1)
    made = card("image-classification", "the strokes of the digit", predicted == truth, seed, STEPS, seconds)
    folder = save(NAME, model, processor, made)
    Image.fromarray(np.concatenate(list(sheet))).save(folder / "samples.png", optimize=True)
    strokes = np.concatenate(list(masks.bool().numpy()))
    Image.fromarray(strokes).save(folder / "masks.png", optimize=True)
    (folder / "labels.json").write_text(json.dumps(truth.tolist()) + "\n")
