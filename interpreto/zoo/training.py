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
    model: nn.Module, loss: Callable[[int], torch.Tensor], *, steps: int, rate: float, decay: float, name: str
) -> float:
    """Minimise `loss(step)` with AdamW and a one-cycle learning rate schedule; returns the training time in seconds."""
    begin = time.perf_counter()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps, pct_start=0.1)
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


def soft_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, certainty: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with targets between the uniform distribution (certainty 0) and the label (certainty 1)."""
    classes = logits.shape[-1]
    target = certainty[:, None] * nn.functional.one_hot(labels, classes) + (1 - certainty[:, None]) / classes
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def fading(
    fixed: torch.Tensor, strength: float, noise: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random masking and fading of tokens, so that perturbed texts are not out of distribution for the model.

    Args:
        fixed: Tokens that are not perturbed, `n l`.
        strength: From 0 to 1; at 1 half of the texts have masked tokens, each at a random rate, and 30 % are faded.
        noise: The random generator.

    Returns:
        The factors of the word embeddings `n l`, the masked tokens `n l`, and the factor of each text `n`.
    """
    count = len(fixed)
    # A rate per text, not per batch: from single words to nearly all of them are masked.
    rate = torch.rand(count, 1, generator=noise) * (torch.rand(count, 1, generator=noise) < 0.5 * strength)
    masked = (torch.rand(fixed.shape, generator=noise) < rate) & ~fixed
    is_faded = torch.rand(count, 1, generator=noise) < 0.3 * strength
    # One factor for all tokens of a text, as on the path from a zero baseline.
    factor = torch.where(is_faded, torch.rand(count, 1, generator=noise), 1.0)
    return torch.where(fixed, torch.ones_like(rate), factor * (~masked)), masked, factor[:, 0]


def card(
    task: str, rule: str, right: torch.Tensor, seed: int, steps: int, seconds: float, **more: object
) -> dict[str, Any]:
    """The model card. `right` says for each held-out sample whether the prediction is correct."""
    return {
        "task": task,
        "rule": rule,
        "held_out_accuracy": right.double().mean().item(),
        "held_out_count": len(right),
        **more,
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
