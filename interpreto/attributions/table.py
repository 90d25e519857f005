"""The table that says, for every (task, modality), what wraps the model and what perturbing means."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from interpreto.attributions.perturbations.information import Pictures, Texts
from interpreto.attributions.perturbations.pixels import Pixels, PixelValues
from interpreto.attributions.perturbations.seams import InformationModality, MaskModality, TensorModality
from interpreto.attributions.perturbations.token_embeddings import TokenEmbeddings
from interpreto.attributions.perturbations.token_ids import TokenIds
from interpreto.errors import ModelError
from interpreto.model_wrapping.image_classification import ImageClassification
from interpreto.model_wrapping.image_similarity import ImageSimilarity
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.task import find_task
from interpreto.model_wrapping.text_classification import TextClassification
from interpreto.model_wrapping.text_generation import TextGeneration
from interpreto.model_wrapping.text_similarity import TextSimilarity
from interpreto.model_wrapping.wrapper import Wrapper


@dataclass(frozen=True)
class Entry:
    """The classes that meet for one (task, modality).

    Attributes:
        wrapper: Made from a model, its processor and a `Runtime`.
        masks: The modality that hides parts.
        tensors: The modality that moves through the space of a tensor.
        information: The modality that tells a part of a sample.
    """

    wrapper: type[Any]
    masks: type[MaskModality]
    tensors: type[TensorModality]
    information: type[InformationModality]


TABLE: dict[tuple[str, str], Entry] = {
    ("text-classification", "text"): Entry(TextClassification, TokenIds, TokenEmbeddings, Texts),
    ("text-generation", "text"): Entry(TextGeneration, TokenIds, TokenEmbeddings, Texts),
    ("image-classification", "image"): Entry(ImageClassification, Pixels, PixelValues, Pictures),
    ("zero-shot-image-classification", "image"): Entry(ImageSimilarity, Pixels, PixelValues, Pictures),
    ("zero-shot-image-classification", "text"): Entry(TextSimilarity, TokenIds, TokenEmbeddings, Texts),
}


def pick(model: Any, processor: Any, task: str | None, modality: str | None, runtime: Runtime) -> tuple[Wrapper, Entry]:
    """The wrapper of a model and the entry it belongs to; a wrapper is taken as it is.

    Raises:
        ModelError: if nothing in the table fits.
    """
    if isinstance(model, Wrapper):
        if processor is not None:
            raise ModelError("The model is wrapped already, with its processor: leave the second argument out.")
        return model, _entry(model.task, modality or model.modality)
    found = find_task(model, task)
    entry = _entry(found, modality)
    if not isinstance(model, nn.Module):
        raise ModelError(f"Expected a torch.nn.Module for {found}, got {type(model).__name__}.")
    return entry.wrapper(model, processor, runtime), entry


def _entry(task: str, modality: str | None) -> Entry:
    modalities = [known for name, known in TABLE if name == task]
    if not modalities:
        offered = ", ".join(sorted({name for name, _ in TABLE}))
        raise ModelError(f"Models for {task} cannot be explained yet; the tasks that can are {offered}.")
    chosen = modalities[0] if modality is None else modality
    if chosen not in modalities:
        raise ModelError(f"modality={modality!r} does not go with {task}: choose from {', '.join(modalities)}.")
    return TABLE[task, chosen]
