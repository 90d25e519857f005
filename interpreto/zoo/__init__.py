"""Small trained models that ship with the package, with held-out samples and the truth about what decides them.

| name | task | decided by |
|---|---|---|
| `digits-cnn` | a handwritten digit somewhere in a picture, by convolutions | its strokes; their mask is known |
| `digits-vit` | handwritten digits, real scans | the strokes |
| `shapes-vit` | the kind of the only red shape of a scene | that shape; its mask is known |
| `shapes-clip` | how well a caption fits a scene | the object that the caption names; its mask is known |
| `reviews-bert` | the sentiment of a generated review | one adjective and its negation; the words are known |
| `stories-gpt2` | the next word of a generated story | the thing that somebody took; the word is known |
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
"""Names, so that the zoo can be listed without importing transformers."""


@dataclass(frozen=True, eq=False)
class Example:
    """A held-out sample.

    Attributes:
        input: A picture, a text, or a prompt.
        label: Index of the right class, the right continuation, or a prompt that is true of the picture.
        truth: What decides it: the mask of an object `H W`, the decisive words with the most important first, or None
            where that is not known.
    """

    input: Image.Image | str
    label: int | str
    truth: Bool[np.ndarray, "H W"] | tuple[str, ...] | None


def names() -> tuple[str, ...]:
    """The models that ship."""
    return tuple(sorted(folder.name for folder in _MODELS.iterdir() if (folder / "card.json").exists()))


def card(name: str) -> dict[str, Any]:
    """How a model was trained and its accuracy on held-out data."""
    return json.loads((path(name) / "card.json").read_text())


def path(name: str) -> Path:
    """The folder of a model, in the format of transformers.

    Raises:
        ModelError: if there is no such model.
    """
    if name not in names():
        raise ModelError(f"The zoo has no model {name!r}: {choices(name, names())}")
    return _MODELS / name


def load(name: str) -> tuple[Any, Any]:
    """A model, ready to use, and its processor or tokenizer."""
    import transformers

    folder = path(name)
    model, processor = _CLASSES[card(name)["task"]]
    loaded = getattr(transformers, model).from_pretrained(folder).eval()
    return loaded, getattr(transformers, processor).from_pretrained(folder)


def samples(name: str, count: int | None = None) -> list[Example]:
    """Held-out samples, all or the first `count`."""
    folder = path(name)
    if (folder / "samples.json").exists():
        rows = json.loads((folder / "samples.json").read_text())[:count]
        return [Example(row["input"], row["label"], tuple(row["truth"])) for row in rows]
    labels = json.loads((folder / "labels.json").read_text())
    pictures = [Image.fromarray(tile).convert("RGB") for tile in _tiles(folder / "samples.png")]
    masks = _tiles(folder / "masks.png") if (folder / "masks.png").exists() else [None] * len(labels)
    # One picture may be asked about several times.
    questions = len(labels) // len(pictures)
    return [
        Example(pictures[number // questions], label, None if mask is None else mask.astype(bool))
        for number, (label, mask) in enumerate(zip(labels[:count], masks[:count], strict=True))
    ]


def _tiles(sheet: Path) -> list[np.ndarray]:
    """Square pictures that are stacked in one file."""
    with Image.open(sheet) as file:
        stacked = np.asarray(file)
    return np.split(stacked, len(stacked) // stacked.shape[1])
