"""Detects the task of a model from its class."""

import re
from functools import cache

from torch import nn
from transformers import PreTrainedModel

from interpreto.errors import ModelError, choices
from interpreto.model_wrapping.runtime import unwrap_peft

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
"""Python modules whose models are image classifiers."""

_MAPPINGS = {
    "text-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "text-generation": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "zero-shot-image-classification": "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}


@cache
def _task_of_class() -> dict[str, str]:
    """From the class names of transformers models to their tasks."""
    from transformers.models.auto import modeling_auto

    tasks: dict[str, str] = {}
    for task, mapping in _MAPPINGS.items():
        for entry in getattr(modeling_auto, mapping).values():
            for name in (entry,) if isinstance(entry, str) else entry:
                tasks.setdefault(name, task)
    return tasks


def find_task_of_class(name: str) -> str | None:
    """The task of a transformers class; None if it is not one of `TASKS`."""
    return _task_of_class().get(name)


def find_task(model: object, task: str | None = None) -> str:
    """Detect the task of a model from the name and Python module of its class and base classes.

    Only the class is reliable: a `model_type` has models for several tasks, and `config.architectures` is empty for a
    model that was created from a config.

    Args:
        model: The model.
        task: The user's option `task`, which overrides the detection.

    Raises:
        ModelError: if the option is not one of `TASKS`, or the task cannot be detected.
    """
    if task is not None:
        if task not in TASKS:
            raise ModelError(f"There is no task {task!r}: {choices(task, TASKS)}")
        return task
    classes = type(unwrap_peft(model)).__mro__
    if all(callable(getattr(model, f"encode_{modality}", None)) for modality in ("image", "text")):
        # OpenCLIP, and models with the same interface.
        return "zero-shot-image-classification"
    detected = next((task for cls in classes if (task := find_task_of_class(cls.__name__))), None)
    if detected is None and any(_CLASSIFIERS.match(cls.__module__) for cls in classes):
        # A timm model with num_classes=0 returns features instead of logits.
        detected = "image-classification" if getattr(unwrap_peft(model), "num_classes", 1) != 0 else None
    if detected is not None:
        return detected
    if isinstance(model, PreTrainedModel):
        raise ModelError(
            f"{classes[0].__name__} has no head for classification or generation: load the model with a class such as "
            " AutoModelForSequenceClassification, AutoModelForCausalLM or AutoModelForImageClassification."
        )
    if isinstance(model, nn.Module):
        raise ModelError(
            f"The task of {classes[0].__name__} cannot be detected, because it is not a transformers class with a "
            "known head. Pass task=, such as task='image-classification' for a module that maps pixels to logits."
        )
    raise ModelError(
        f"Expected a model, got {classes[0].__name__}: pass a transformers model, a torch.nn.Module with task=, or "
        "from_callables(scores=...)."
    )
