"""Code that all training runs of the zoo share: the optimisation loop, losses, perturbations, and saving."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

MODELS = Path(__file__).parent / "models"


def fit(
    model: nn.Module,
    loss: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    name: str,
) -> float:
    """Minimise `loss(step)` with AdamW and a one-cycle learning rate schedule; returns the training time in seconds."""
    begin = time.perf_counter()
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=learning_rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step in tqdm(range(steps), desc=name, mininterval=5):
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    return time.perf_counter() - begin


def soft_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with label smoothing per sample: the label has the given weight, the rest is uniform."""
    classes = logits.shape[-1]
    target = label_weight[:, None] * nn.functional.one_hot(labels, classes) + (1 - label_weight[:, None]) / classes
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def random_mask_and_scale(
    keep: torch.Tensor, strength: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask random tokens and scale embeddings, so that perturbed texts are not out of distribution for the model.

    Args:
        keep: Tokens that are not perturbed, `n l`.
        strength: Scales the probabilities: with 1, 50 % of the texts are masked, each at a rate of its own, and the
            embeddings of 30 % are scaled.
        generator: The random generator.

    Returns:
        The scale of every token's embedding `n l`, the masked tokens `n l`, and the scale of each text `n`.
    """
    count = len(keep)
    # The rate is drawn per text, so that a batch has texts with few and with nearly all tokens masked.
    mask_rate = torch.rand(count, 1, generator=generator) * (torch.rand(count, 1, generator=generator) < 0.5 * strength)
    masked = (torch.rand(keep.shape, generator=generator) < mask_rate) & ~keep
    is_scaled = torch.rand(count, 1, generator=generator) < 0.3 * strength
    # One scale for all tokens of a text, as on the path from a zero baseline.
    scale = torch.where(is_scaled, torch.rand(count, 1, generator=generator), 1.0)
    return torch.where(keep, torch.ones_like(mask_rate), scale * (~masked)), masked, scale[:, 0]


def create_model_card(
    task: str, rule: str, is_correct: torch.Tensor, seed: int, steps: int, seconds: float, **entries: object
) -> dict[str, Any]:
    """The model card. `is_correct` says for each held-out sample whether the prediction is correct."""
    return {
        "task": task,
        "rule": rule,
        "held_out_accuracy": is_correct.double().mean().item(),
        "held_out_count": len(is_correct),
        **entries,
        "seed": seed,
        "steps": steps,
        "training_seconds": round(seconds),
    }


def save(name: str, model: Any, processor: Any, card: dict[str, object]) -> Path:
    """Write the model, its processor and its card into its folder, and return the folder."""
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps({"name": name, **card}, indent=2) + "\n")
    return folder
