"""Small models with known truth, made for testing attributions: weights, held-out samples, and what decides each.

| name | task | decided by |
|---|---|---|
| `digits-cnn` | CNN: a handwritten digit at a random place of an image | its strokes; their mask is known |
| `digits-vit` | ViT: handwritten digits, real scans | the strokes |
| `shapes-vit` | ViT: the kind of the only red shape in a scene | that shape; its mask is known |
| `shapes-clip` | CLIP: the similarity of a caption and a scene | the object that the caption names; its mask is known |
| `reviews-bert` | BERT: the sentiment of a generated review | one adjective and its negation; the words are known |
| `stories-gpt2` | GPT-2: the next word of a generated story | the object that somebody took; the word is known |
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from interpreto.errors import ModelError, choices

_MODELS = Path(__file__).parent / "models"

_CLASSES = {
    "image-classification": ("AutoModelForImageClassification", "AutoImageProcessor"),
    "text-classification": ("AutoModelForSequenceClassification", "AutoTokenizer"),
    "text-generation": ("AutoModelForCausalLM", "AutoTokenizer"),
    "zero-shot-image-classification": ("AutoModelForZeroShotImageClassification", "AutoProcessor"),
}
"""Classes of transformers for each task, by name, so that models can be listed without importing transformers."""


@dataclass(frozen=True, eq=False)
class Example:
    """A held-out sample.

    Attributes:
        input: An image, a text, or a prompt.
        label: Index of the true class, the true continuation, or a caption that is true of the image.
        truth: What decides the label: the mask of an object `H W`, the decisive words with the most important first, or
            None if unknown.
    """

    input: Image.Image | str
    label: int | str
    truth: Bool[np.ndarray, "H W"] | tuple[str, ...] | None


def names() -> tuple[str, ...]:
    """The names of the models in the package."""
    return tuple(sorted(folder.name for folder in _MODELS.iterdir() if (folder / "card.json").exists()))


def card(name: str) -> dict[str, Any]:
    """The model card: how a model was trained, and its accuracy on held-out data."""
    return json.loads((path(name) / "card.json").read_text())


def path(name: str) -> Path:
    """The folder of a model, in the format of transformers.

    Raises:
        ModelError: if there is no model of this name.
    """
    if name not in names():
        raise ModelError(f"The zoo has no model {name!r}: {choices(name, names())}")
    return _MODELS / name


def load(name: str) -> tuple[Any, Any]:
    """A model in evaluation mode, and its processor or tokenizer."""
    import transformers

    folder = path(name)
    model_class, processor_class = _CLASSES[card(name)["task"]]
    model = getattr(transformers, model_class).from_pretrained(folder).eval()
    return model, getattr(transformers, processor_class).from_pretrained(folder)


def samples(name: str, count: int | None = None) -> list[Example]:
    """Held-out samples: the first `count`, or all."""
    folder = path(name)
    # Text models have one JSON file; image models have sheets of images and masks, and a list of labels.
    if (folder / "samples.json").exists():
        rows = json.loads((folder / "samples.json").read_text())[:count]
        return [Example(row["input"], row["label"], tuple(row["truth"])) for row in rows]
    labels = json.loads((folder / "labels.json").read_text())
    images = [Image.fromarray(tile).convert("RGB") for tile in _tiles(folder / "samples.png")]
    masks = _tiles(folder / "masks.png") if (folder / "masks.png").exists() else [None] * len(labels)
    # `shapes-clip` has two captions and two masks per image, one for each object.
    labels_per_image = len(labels) // len(images)
    return [
        Example(images[number // labels_per_image], label, None if mask is None else mask.astype(bool))
        for number, (label, mask) in enumerate(zip(labels[:count], masks[:count], strict=True))
    ]


def _tiles(sheet: Path) -> list[np.ndarray]:
    """Square images that are stacked vertically in one file."""
    with Image.open(sheet) as file:
        stacked = np.asarray(file)
    # The width of the sheet is the side of a tile.
    return np.split(stacked, len(stacked) // stacked.shape[1])
