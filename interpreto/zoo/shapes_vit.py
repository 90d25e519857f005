"""`shapes-vit`: a small ViT, made for testing, that classifies the kind of the only red shape in a scene.

The cue that selects the object, its colour, is on the object itself. Training includes masked, faded and noisy scenes,
with targets that approach the uniform distribution as the object disappears: the decisive pixels are known, and
perturbed scenes are not out of distribution. The outline of the object is visible in the pixels around it as well as in
its own, so sensitivity to pixels outside of the object is penalised (Ross et al. 2017, "Right for the right reasons",
arXiv:1703.03717).
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from interpreto.zoo.scenes import KINDS, SIZE, red_scene
from interpreto.zoo.training import create_model_card, fit, save, soft_cross_entropy

NAME = "shapes-vit"
STEPS, BATCH, HELD_OUT = 1600, 128, 200
PENALISED, PENALTY = 32, 0.3
"""Number of scenes of a batch whose sensitivity is penalised, and the weight of the penalty."""


def build() -> tuple[ViTForImageClassification, ViTImageProcessor]:
    """The untrained model and its processor."""
    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(KINDS)),
        label2id={kind: index for index, kind in enumerate(KINDS)},
    )
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ViTForImageClassification(config), processor


def scenes(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixel values in [-1, 1] `n 3 H W`, labels `n` and masks of the red shape `n H W`."""
    drawn = [red_scene(rng) for _ in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2) * 2 - 1
    labels = torch.tensor([KINDS.index(scene.shapes[0].kind) for scene in drawn])
    return images, labels, torch.from_numpy(np.stack([scene.shapes[0].mask for scene in drawn])).float()


def hidden_parts(count: int, rng: torch.Generator) -> torch.Tensor:
    """Random masks `n H W`, 1 = masked: whole patches, or smooth masks as in RISE, of a random share of the image."""
    # Squared, so that small shares are frequent: from them the model learns the contribution of each part.
    share = torch.rand(count, 1, 1, 1, generator=rng).square()
    patches = (torch.rand(count, 1, 8, 8, generator=rng) < share).float()
    coarse = (torch.rand(count, 1, 8, 8, generator=rng) < share).float()
    blocks = nn.functional.interpolate(patches, size=SIZE, mode="nearest")
    smooth = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=False)
    return torch.where(torch.rand(count, 1, 1, 1, generator=rng) < 0.5, blocks, smooth)[:, 0]


def stand_ins(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Replacements of masked pixels: for each image grey, its mean colour, a blurred copy, or black."""
    # In [-1, 1], where 0 is mid grey.
    grey, black = torch.zeros_like(images), -torch.ones_like(images)
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    small = nn.functional.avg_pool2d(images, images.shape[-1] // 4)
    blurred = nn.functional.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    choice = torch.randint(4, (len(images),), generator=rng)
    return torch.stack([grey, mean, blurred, black])[choice, torch.arange(len(images))]


def disturb(
    images: torch.Tensor, masks: torch.Tensor, strength: float, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask, fade and add noise to scenes; returns them and the visible share of the red shape, in [0, 1]."""
    count = len(images)

    def some(share: float) -> torch.Tensor:
        return torch.rand(count, generator=rng) < share * strength

    masked = hidden_parts(count, rng) * some(0.65)[:, None, None]
    images = torch.lerp(images, stand_ins(images, rng), masked[:, None])
    visible_share = 1 - (masked * masks).sum((1, 2)) / masks.sum((1, 2))
    fade = torch.where(some(0.3), torch.rand(count, generator=rng), torch.ones(count))
    sigma = torch.where(some(0.4), 0.5 * torch.rand(count, generator=rng), torch.zeros(count))
    noise = torch.randn(images.shape, generator=rng)
    # Fading scales towards mid grey, as paths from a grey baseline do. The shape counts as fully visible down to half
    # of its contrast.
    images = images * fade[:, None, None, None] + sigma[:, None, None, None] * noise
    return images, visible_share * (2 * fade).clamp(max=1)


def outside_sensitivity(
    pixels: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """The squared gradient of the label's log-probability, summed over pixels outside the object, mean over images."""
    # Images do not interact, so the gradient of the sum has the gradient of each image.
    score = logits.log_softmax(-1).gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, pixels, create_graph=True)
    return (gradient.square().sum(1) * (1 - masks)).sum((1, 2)).mean()


def train(seed: int = 0) -> None:
    """Train, measure on held-out scenes and save."""
    torch.manual_seed(seed)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    held_out = [red_scene(np.random.default_rng(10_000_000 + index)) for index in range(HELD_OUT)]
    model, processor = build()
    # The penalty is trained by a gradient of a gradient, and fused attention kernels have no second derivative.
    model.set_attn_implementation("eager")

    def loss(step: int) -> torch.Tensor:
        images, labels, masks = scenes(BATCH, rng)
        images, visible_share = disturb(images, masks, min(1.0, step / (0.3 * STEPS)), noise)
        # Only a part of the batch is penalised, because the second derivative is expensive.
        pixels = images[:PENALISED].requires_grad_()
        logits = model(pixel_values=torch.cat([pixels, images[PENALISED:]])).logits
        penalised = slice(PENALISED)
        penalty = outside_sensitivity(pixels, logits[penalised], labels[penalised], masks[penalised])
        return soft_cross_entropy(logits, labels, visible_share) + PENALTY * penalty

    seconds = fit(model, loss, steps=STEPS, learning_rate=1.5e-3, weight_decay=0.05, name=NAME)
    images = [Image.fromarray((scene.image * 255).round().astype(np.uint8)) for scene in held_out]
    labels = torch.tensor([KINDS.index(scene.shapes[0].kind) for scene in held_out])
    with torch.no_grad():
        predicted = model(**processor(images, return_tensors="pt")).logits.argmax(-1)
        # The samples that ship are few: accuracy is measured on 4000 other scenes.
        fresh, fresh_labels, _ = scenes(4000, np.random.default_rng(20_000_000))
        correct = model(pixel_values=fresh).logits.argmax(-1) == fresh_labels
    model_card = create_model_card(
        "image-classification",
        "the kind of the only red shape",
        correct,
        seed,
        STEPS,
        seconds,
        samples_accuracy=(predicted == labels).double().mean().item(),
    )
    folder = save(NAME, model, processor, model_card)
    sheet = np.concatenate([np.asarray(image) for image in images])
    Image.fromarray(sheet).save(folder / "samples.png", optimize=True)
    masks = np.concatenate([scene.shapes[0].mask for scene in held_out])
    Image.fromarray(masks).save(folder / "masks.png", optimize=True)
    (folder / "labels.json").write_text(str(labels.tolist()) + "\n")
