"""Which task a model was made for."""

import re
from functools import cache
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from interpreto.errors import ModelError, choices
from interpreto.model_wrapping.runtime import unwrapped

TASKS = (
    "text-classification",
    "image-classification",
    "text-generation",
    "zero-shot-image-classification",
    "image-text-to-text",
)

_CLASSIFIERS = re.compile(
    r"timm\.models\.|torchvision\.models\.(?!detection|segmentation|video|optical_flow|_utils|feature_extraction)"
)
"""Modules whose models say which class an image belongs to."""

_MAPPINGS = {
    "text-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "text-generation": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "zero-shot-image-classification": "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}


@cache
def _known() -> dict[str, str]:
    """Class names of transformers' models and their task."""
    from transformers.models.auto import modeling_auto

    known: dict[str, str] = {}
    for task, mapping in _MAPPINGS.items():
        for entry in getattr(modeling_auto, mapping).values():
            for name in (entry,) if isinstance(entry, str) else entry:
                known.setdefault(name, task)
    return known


def find_task_of_class(name: str) -> str | None:
    """The task of a class of transformers, None where it has none of those in `TASKS`."""
    return _known().get(name)


def find_task(model: Any, task: str | None = None) -> str:
    """The task of a model: as given, or by the name of its class or of a base class of it, or by where that is from.

    The class is the only reliable witness: `model_type` stands for several tasks, and `config.architectures` is empty
    for a model built from a config.

    Raises:
        ModelError: if the task is unknown, or cannot be told.
    """
    if task is not None:
        if task not in TASKS:
            raise ModelError(f"There is no task {task!r}: {choices(task, TASKS)}")
        return task
    kinds = type(unwrapped(model)).__mro__
    if all(callable(getattr(model, f"encode_{side}", None)) for side in ("image", "text")):
        # OpenCLIP, and what follows its interface.
        return "zero-shot-image-classification"
    found = next((task for kind in kinds if (task := find_task_of_class(kind.__name__))), None)
    if found is None and any(_CLASSIFIERS.match(kind.__module__) for kind in kinds):
        # A model of timm without classes gives features.
        found = "image-classification" if getattr(unwrapped(model), "num_classes", 1) != 0 else None
    if found is not None:
        return found
    if isinstance(model, PreTrainedModel):
        raise ModelError(
            f"{kinds[0].__name__} has no head that says anything of a text or an image as a whole: load it with a "
            "class such as AutoModelForSequenceClassification, AutoModelForCausalLM or AutoModelForImageClassification."
        )
    if isinstance(model, nn.Module):
        raise ModelError(
            f"Cannot tell what {kinds[0].__name__} is for: its class is no model with a head known to transformers. "
            "Say it with task=, for example task='image-classification' for a module from pixels to logits."
        )
    raise ModelError(
        f"Expected a model, got {kinds[0].__name__}: give a transformers model, a torch.nn.Module with task=, or "
        "from_callables(scores=...)."
    )
