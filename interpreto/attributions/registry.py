"""Which inference wrapper and which perturbation modalities belong to each (task, modality)."""

from dataclasses import dataclass

from torch import nn

from interpreto.attributions.perturbations.base import CreateGradientInput, CreateMasker, CreateRevealer
from interpreto.attributions.perturbations.modalities.partial_information import PartialImages, PartialTexts
from interpreto.attributions.perturbations.modalities.pixels import Pixels, PixelValues
from interpreto.attributions.perturbations.modalities.token_embeddings import TokenEmbeddings
from interpreto.attributions.perturbations.modalities.token_ids import TokenIds
from interpreto.errors import ModelError
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tasks.detection import find_task
from interpreto.model_wrapping.tasks.image_classification import image_classification
from interpreto.model_wrapping.tasks.text_classification import text_classification
from interpreto.model_wrapping.tasks.text_generation import text_generation
from interpreto.model_wrapping.tasks.zero_shot_image_classification import image_with_prompts, text_with_images
from interpreto.model_wrapping.wrapper import Build, InferenceWrapper
from interpreto.typing import Modality


@dataclass(frozen=True)
class Registration:
    """The parts for one (task, modality).

    Attributes:
        build: From a model, its processor and a `Runtime` to the parts of its inference wrapper.
        masker: From an inference wrapper and the option `removal` to what masks units.
        gradient_input: From an inference wrapper to the tensor that gradients are taken for.
        revealer: From an inference wrapper and the option `removal` to what reveals a part of a sample.
        options: Those of `TASK_OPTIONS` that the task has.
    """

    build: Build
    masker: CreateMasker
    gradient_input: CreateGradientInput
    revealer: CreateRevealer
    options: tuple[str, ...] = ()


TEXT_PARTS = (TokenIds.create, TokenEmbeddings.create, PartialTexts.create)
IMAGE_PARTS = (Pixels.create, PixelValues.create, PartialImages.create)

GENERATION_OPTIONS = ("generation_kwargs", "prepend_bos", "target_granularity", "reuse_prefix")
_OF_CLASSIFIERS = ("model_output", "truncation")
_OF_DUAL_ENCODERS = ("image_size", "truncation")

REGISTRY: dict[tuple[str, Modality], Registration] = {
    ("text-classification", "text"): Registration(text_classification, *TEXT_PARTS, _OF_CLASSIFIERS),
    ("text-generation", "text"): Registration(text_generation, *TEXT_PARTS, GENERATION_OPTIONS),
    ("image-classification", "image"): Registration(
        image_classification, *IMAGE_PARTS, ("image_size", *_OF_CLASSIFIERS)
    ),
    ("zero-shot-image-classification", "image"): Registration(image_with_prompts, *IMAGE_PARTS, _OF_DUAL_ENCODERS),
    ("zero-shot-image-classification", "text"): Registration(text_with_images, *TEXT_PARTS, _OF_DUAL_ENCODERS),
}


def resolve_wrapper(
    model: object, processor: object, task: str | None, modality: str | None, runtime: Runtime
) -> tuple[InferenceWrapper, Registration]:
    """The inference wrapper of a model, and its registration; a wrapper is returned as it is.

    Raises:
        ModelError: if nothing is registered for the model.
    """
    if isinstance(model, InferenceWrapper):
        if processor is not None:
            raise ModelError("The model is wrapped already, with its processor: leave the second argument out.")
        return model, _registration(model.task, modality or model.modality)
    task_name = find_task(model, task)
    registration = _registration(task_name, modality)
    if not isinstance(model, nn.Module):
        raise ModelError(f"Expected a torch.nn.Module for {task_name}, got {type(model).__name__}.")
    return InferenceWrapper.create(registration.build, model, processor, runtime), registration


def default_modality(task: str) -> Modality:
    """The modality that is explained of models for a task if the user names none: the first that is registered.

    Raises:
        ModelError: if nothing is registered for the task.
    """
    return next(iter(_of_task(task)))


def _registration(task: str, modality: str | None) -> Registration:
    registrations = _of_task(task)
    chosen = next(iter(registrations)) if modality is None else modality
    if chosen not in registrations:
        raise ModelError(f"modality={modality!r} does not go with {task}: choose from {', '.join(registrations)}.")
    return registrations[chosen]


def _of_task(task: str) -> dict[Modality, Registration]:
    registrations: dict[Modality, Registration] = {key[1]: parts for key, parts in REGISTRY.items() if key[0] == task}
    if not registrations:
        names = ", ".join(sorted({name for name, _ in REGISTRY}))
        raise ModelError(f"Models for {task} cannot be explained yet; the tasks that can are {names}.")
    return registrations
