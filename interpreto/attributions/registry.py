"""The table that says, for every (task, modality), what wraps the model and what perturbing means."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from interpreto.attributions.perturbations.base import GradientInput, Masker, Revealer
from interpreto.attributions.perturbations.modalities.partial_information import Pictures, Texts
from interpreto.attributions.perturbations.modalities.pixels import Pixels, PixelValues
from interpreto.attributions.perturbations.modalities.token_embeddings import TokenEmbeddings
from interpreto.attributions.perturbations.modalities.token_ids import TokenIds
from interpreto.errors import ModelError
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tasks.detection import find_task
from interpreto.model_wrapping.tasks.image_classification import ImageClassification
from interpreto.model_wrapping.tasks.image_similarity import ImageSimilarity
from interpreto.model_wrapping.tasks.text_classification import TextClassification
from interpreto.model_wrapping.tasks.text_generation import TextGeneration
from interpreto.model_wrapping.tasks.text_similarity import TextSimilarity
from interpreto.model_wrapping.wrapper import InferenceWrapper


@dataclass(frozen=True)
class Registration:
    """The classes that meet for one (task, modality).

    Attributes:
        wrapper: Made from a model, its processor and a `Runtime`.
        masker: The modality that hides parts.
        gradient_input: The modality that moves through the space of a tensor.
        revealer: The modality that tells a part of a sample.
    """

    wrapper: type[Any]
    masker: type[Masker]
    gradient_input: type[GradientInput]
    revealer: type[Revealer]


REGISTRY: dict[tuple[str, str], Registration] = {
    ("text-classification", "text"): Registration(TextClassification, TokenIds, TokenEmbeddings, Texts),
    ("text-generation", "text"): Registration(TextGeneration, TokenIds, TokenEmbeddings, Texts),
    ("image-classification", "image"): Registration(ImageClassification, Pixels, PixelValues, Pictures),
    ("zero-shot-image-classification", "image"): Registration(ImageSimilarity, Pixels, PixelValues, Pictures),
    ("zero-shot-image-classification", "text"): Registration(TextSimilarity, TokenIds, TokenEmbeddings, Texts),
}


def resolve_wrapper(
    model: Any, processor: Any, task: str | None, modality: str | None, runtime: Runtime
) -> tuple[InferenceWrapper, Registration]:
    """The wrapper of a model and the entry it belongs to; a wrapper is taken as it is.

    Raises:
        ModelError: if nothing in the table fits.
    """
    if isinstance(model, InferenceWrapper):
        if processor is not None:
            raise ModelError("The model is wrapped already, with its processor: leave the second argument out.")
        return model, _registration(model.task, modality or model.modality)
    found = find_task(model, task)
    entry = _registration(found, modality)
    if not isinstance(model, nn.Module):
        raise ModelError(f"Expected a torch.nn.Module for {found}, got {type(model).__name__}.")
    return entry.wrapper(model, processor, runtime), entry


def _registration(task: str, modality: str | None) -> Registration:
    modalities = [known for name, known in REGISTRY if name == task]
    if not modalities:
        offered = ", ".join(sorted({name for name, _ in REGISTRY}))
        raise ModelError(f"Models for {task} cannot be explained yet; the tasks that can are {offered}.")
    chosen = modalities[0] if modality is None else modality
    if chosen not in modalities:
        raise ModelError(f"modality={modality!r} does not go with {task}: choose from {', '.join(modalities)}.")
    return REGISTRY[task, chosen]
