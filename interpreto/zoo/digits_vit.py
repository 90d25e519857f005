"""`digits-vit`: a small ViT, made for testing, on scikit-learn's handwritten digits, 8 x 8 scans enlarged to 32 x 32.

One patch of the model is one pixel of the scan, so that attributions of patches are attributions of the scan's pixels.
"""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from interpreto.zoo.shapes_vit import stand_ins
from interpreto.zoo.training import create_model_card, fit, save, soft_cross_entropy

NAME = "digits-vit"
STEPS, BATCH, HELD_OUT = 4000, 64, 360
SIZE, PATCH = 32, 4


def build() -> tuple[ViTForImageClassification, ViTImageProcessor]:
    """The untrained model and its processor."""
    config = ViTConfig(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # The default of 0.02 is for wider models; with it a model of this width learns several times more slowly.
        initializer_range=0.1,
        id2label={digit: str(digit) for digit in range(10)},
        label2id={str(digit): digit for digit in range(10)},
    )
    processor = ViTImageProcessor(
        size={"height": SIZE, "width": SIZE},
        resample=Image.Resampling.NEAREST,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ViTForImageClassification(config), processor


def shift(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Each 8 x 8 scan shifted by at most one pixel, filled with black."""
    # -1 is black after normalisation.
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
    offsets = torch.randint(3, (len(images), 2), generator=rng).tolist()
    return torch.stack([image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, offsets, strict=True)])


def enlarge(images: torch.Tensor) -> torch.Tensor:
    """Scans enlarged to the size of the model's input, as the processor does it."""
    return nn.functional.interpolate(images, size=(SIZE, SIZE), mode="nearest")


def train(seed: int = 0) -> None:
    """Train, measure on held-out scans and save."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    data: Any = load_digits()
    scans = np.clip(np.round(data.images * 255 / 16), 0, 255).astype(np.uint8)
    order = torch.randperm(len(scans), generator=rng).numpy()
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    images = (torch.from_numpy(scans[training]).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(data.target[training])
    model, processor = build()

    def loss(step: int) -> torch.Tensor:
        strength = min(1.0, step / (0.3 * STEPS))
        indices = torch.randint(len(images), (BATCH,), generator=rng)
        batch = enlarge(shift(images[indices], rng))
        share = torch.rand(BATCH, 1, 1, 1, generator=rng) * (torch.rand(BATCH, 1, 1, 1, generator=rng) < 0.5 * strength)
        masked = enlarge((torch.rand(BATCH, 1, 8, 8, generator=rng) < share).float())
        batch = torch.lerp(batch, stand_ins(batch, rng), masked)
        batch = batch + 0.2 * strength * torch.rand(BATCH, 1, 1, 1, generator=rng) * torch.randn(
            batch.shape, generator=rng
        )
        # There is no mask of the strokes here: the target depends on the masked share of the whole image.
        return soft_cross_entropy(model(pixel_values=batch).logits, labels[indices], 1 - masked.mean((1, 2, 3)))

    seconds = fit(model, loss, steps=STEPS, learning_rate=1.5e-3, weight_decay=0.05, name=NAME)
    digits = [Image.fromarray(scan).convert("RGB") for scan in scans[held_out]]
    truth = torch.from_numpy(data.target[held_out])
    with torch.no_grad():
        predicted = model(**processor(digits, return_tensors="pt")).logits.argmax(-1)
    model_card = create_model_card(
        "image-classification", "the handwritten digit", predicted == truth, seed, STEPS, seconds
    )
    folder = save(NAME, model, processor, model_card)
    Image.fromarray(np.concatenate(list(scans[held_out]))).save(folder / "samples.png", optimize=True)
    (folder / "labels.json").write_text(json.dumps(truth.tolist()) + "\n")
