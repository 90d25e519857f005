"""`digits-cnn`: a small CNN, made for testing, that classifies one handwritten digit on a background of grey blocks.

The scans are those of scikit-learn, 8 x 8 pixels, enlarged to 32 x 32 at a random place of a 64 x 64 image. The blocks
are as large as the pixels of a scan and carry no information, so the decisive pixels are known: the strokes. Training
includes masked and noisy images, with targets that approach the uniform distribution as the strokes disappear, so that
perturbed images are not out of distribution.
"""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from interpreto.zoo.shapes_vit import hidden_parts, stand_ins
from interpreto.zoo.training import create_model_card, fit, save, soft_cross_entropy

NAME = "digits-cnn"
STEPS, BATCH, HELD_OUT = 3000, 64, 360
SIZE, SHOWN, CELL = 64, 32, 4
GREY, STROKE = 0.45, 0.4
"""Maximum brightness of the background, and the brightness from which on a pixel of a scan counts as a stroke."""


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
    """Scans `n 8 8` with values in [0, 1], each at a random place of a background of grey blocks.

    Returns:
        Images with values in [0, 1] and masks of their strokes, both `n 64 64`.
    """
    count = len(scans)
    field = GREY * torch.rand(count, 1, SIZE // CELL, SIZE // CELL, generator=rng)
    field = nn.functional.interpolate(field, size=(SIZE, SIZE), mode="nearest")[:, 0]
    large = nn.functional.interpolate(scans[:, None], size=(SHOWN, SHOWN), mode="nearest")[:, 0]
    masks = torch.zeros_like(field)
    # Digits are aligned with the blocks, so that no edge of the scan shows where it is.
    corners = torch.randint((SIZE - SHOWN) // CELL + 1, (count, 2), generator=rng) * CELL
    for image, mask, scan, (top, left) in zip(field, masks, large, corners.tolist(), strict=True):
        region = (slice(top, top + SHOWN), slice(left, left + SHOWN))
        # The maximum keeps the background visible between the strokes: a black square would give the digit away.
        image[region] = torch.maximum(image[region], scan)
        mask[region] = (scan > STROKE).float()
    return field, masks


def train(seed: int = 0) -> None:
    """Train, measure on held-out scans and save."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    data: Any = load_digits()
    scans, digits = torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target)
    order = torch.randperm(len(scans), generator=rng)
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    model, processor = build()

    def loss(step: int) -> torch.Tensor:
        # Perturbations grow over the first 30 % of the steps, so that the model learns intact digits first.
        strength = min(1.0, step / (0.3 * STEPS))
        batch = training[torch.randint(len(training), (BATCH,), generator=rng)]
        brightness, masks = pictures(scans[batch], rng)
        # The processor's mean and standard deviation of 0.5 map [0, 1] to [-1, 1].
        images = (brightness * 2 - 1)[:, None].expand(-1, 3, -1, -1)
        masked = hidden_parts(BATCH, rng) * (torch.rand(BATCH, 1, 1, generator=rng) < 0.6 * strength)
        visible_share = 1 - (masked * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
        images = torch.lerp(images, stand_ins(images, rng), masked[:, None])
        sigma = 0.2 * strength * torch.rand(BATCH, 1, 1, 1, generator=rng)
        images = images + sigma * torch.randn(images.shape, generator=rng)
        return soft_cross_entropy(model(pixel_values=images).logits, digits[batch], visible_share)

    seconds = fit(model, loss, steps=STEPS, learning_rate=3e-3, weight_decay=0.05, name=NAME)
    brightness, masks = pictures(scans[held_out], torch.Generator().manual_seed(10_000_000 + seed))
    sheet = (brightness * 255).round().to(torch.uint8).numpy()
    # Accuracy is that of the 8-bit images that ship, through the processor.
    images = [Image.fromarray(image).convert("RGB") for image in sheet]
    truth = digits[held_out]
    with torch.no_grad():
        predicted = model(**processor(images, return_tensors="pt")).logits.argmax(-1)
    model_card = create_model_card(
        "image-classification", "the strokes of the digit", predicted == truth, seed, STEPS, seconds
    )
    folder = save(NAME, model, processor, model_card)
    Image.fromarray(np.concatenate(list(sheet))).save(folder / "samples.png", optimize=True)
    strokes = np.concatenate(list(masks.bool().numpy()))
    Image.fromarray(strokes).save(folder / "masks.png", optimize=True)
    (folder / "labels.json").write_text(json.dumps(truth.tolist()) + "\n")
