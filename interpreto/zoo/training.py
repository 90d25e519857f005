"""What the training runs of the zoo share: the optimiser's loop, the measured accuracy, the files left behind."""

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
    """Minimise `loss(step)` with AdamW under a one-cycle schedule; returns the seconds it took."""
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
    """Cross-entropy with a target that goes from uniform (certainty 0) to the label (certainty 1)."""
    classes = logits.shape[-1]
    target = certainty[:, None] * nn.functional.one_hot(labels, classes) + (1 - certainty[:, None]) / classes
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def fading(
    fixed: torch.Tensor, strength: float, noise: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which tokens of a batch are hidden, and how far the others fade, so that removal is nothing new to a model.

    Args:
        fixed: Tokens that stay as they are, `n l`.
        strength: From 0 to 1; at 1 half of the texts have tokens hidden at a rate of their own, and 30 % are faded.
        noise: Where chance comes from.

    Returns:
        What to multiply the word embeddings with `n l`, which tokens are hidden `n l`, and what is left of each text
        `n`.
    """
    count = len(fixed)
    rate = torch.rand(count, 1, generator=noise) * (torch.rand(count, 1, generator=noise) < 0.5 * strength)
    masked = (torch.rand(fixed.shape, generator=noise) < rate) & ~fixed
    fades = torch.rand(count, 1, generator=noise) < 0.3 * strength
    left = torch.where(fades, torch.rand(count, 1, generator=noise), 1.0)
    return torch.where(fixed, torch.ones_like(rate), left * (~masked)), masked, left[:, 0]


def card(
    task: str, rule: str, right: torch.Tensor, seed: int, steps: int, seconds: float, **more: Any
) -> dict[str, Any]:
    """How a model was made and how good it is: `right` says which of the held-out samples it got right."""
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


def save(name: str, model: Any, processor: Any, card: dict[str, Any]) -> Path:
    """Write the model, its processor and the card that says how it was made and how good it is."""
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps({"name": name, **card}, indent=2) + "\n")
    return folder
