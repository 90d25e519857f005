"""Loads models and processors by name (`zoo:NAME`, a folder, an id on the Hugging Face hub), and lists tested names."""

from pathlib import Path
from typing import Any

import transformers

from interpreto import zoo
from interpreto.errors import ModelError
from interpreto.model_wrapping.tasks.detection import find_task_of_class

_AUTO = {
    "text-classification": (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer),
    "text-generation": (transformers.AutoModelForCausalLM, transformers.AutoTokenizer),
    "image-classification": (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor),
    "zero-shot-image-classification": (
        transformers.AutoModelForZeroShotImageClassification,
        transformers.AutoProcessor,
    ),
}

OPEN_CLIP = "open_clip:"
"""Prefix of the names of OpenCLIP models."""

_TRANSFORMERS = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-large-patch14-336",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "facebook/metaclip-b32-400m",
    "facebook/metaclip-b16-fullcc2.5b",
    "facebook/metaclip-2-worldwide-huge-quickgelu",
    "google/siglip-base-patch16-224",
    "google/siglip-base-patch16-384",
    "google/siglip-large-patch16-256",
    "google/siglip-so400m-patch14-384",
    "google/siglip2-base-patch16-224",
    "google/siglip2-base-patch16-512",
    "google/siglip2-large-patch16-256",
    "google/siglip2-so400m-patch14-384",
    "OFA-Sys/chinese-clip-vit-base-patch16",
    "CIDAS/clipseg-rd64-refined",
)
_PREFIXES = ("ViT-", "coca_ViT-")
"""Prefixes of OpenCLIP architectures whose image tower is a plain ViT."""
_UNTESTED = ("CL32", "roberta", "xlm", "nllb", "MobileCLIP", "naflex")
"""Parts of the names of architectures with untested text or image towers."""

_MIN_VOCABULARY = 20
"""Without tokenizer files transformers silently creates a tokenizer that has special tokens only, fewer than this."""


def load(name: str, task: str | None = None) -> tuple[Any, Any]:
    """A model in evaluation mode and its processor or tokenizer.

    Args:
        name: `zoo:NAME`, a local folder, a hub id, or `open_clip:NAME:WEIGHTS` with a tag or a file of weights.
        task: The task of the model; None takes it from the class that the config names.

    Raises:
        ModelError: if the model or its processor cannot be loaded, or its task is unknown or not supported.
    """
    if name.startswith("zoo:"):
        return zoo.load(name.removeprefix("zoo:"))
    if name.startswith(OPEN_CLIP):
        return _open_clip(name.removeprefix(OPEN_CLIP))
    task = task or _task_of(name)
    if task not in _AUTO:
        raise ModelError(f"{name!r} is a model for {task}; the supported tasks are {', '.join(_AUTO)}.")
    auto_model, auto_processor = _AUTO[task]
    try:
        model, report = auto_model.from_pretrained(name, output_loading_info=True)
        processor = auto_processor.from_pretrained(name)
    except (OSError, ValueError) as error:
        # Messages of transformers are long, with advice for its own users after the first line.
        raise ModelError(f"Cannot load {name!r}: {_first_line(error)}.") from error
    # transformers initialises missing weights at random and only warns, such as the head of a pretrained encoder.
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name!r} has no weights for {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}: as a model for "
            f"{task} its outputs would be random. Pass the task that it was trained for with --task."
        )
    # Tiny vocabularies of character-level models are legitimate: the embedding matrix shows what size to expect.
    if task.startswith("text-") and len(processor) < _MIN_VOCABULARY <= model.config.get_text_config().vocab_size:
        raise ModelError(f"Cannot load {name!r}: it has no tokenizer files, only {len(processor)} special tokens.")
    return model.eval(), processor


def _open_clip(name: str) -> tuple[Any, Any]:
    """A model of OpenCLIP and `(transform, tokenizer)`.

    Raises:
        ModelError: if OpenCLIP is not installed, no weights are named, or the model cannot be loaded.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ModelError("Models of OpenCLIP need the package open_clip: pip install open_clip_torch.") from error
    architecture, _, weights = name.partition(":")
    # Without weights OpenCLIP would create a model with random ones.
    if not weights:
        tags = ", ".join(tag for model_name, tag in open_clip.list_pretrained() if model_name == architecture)
        raise ModelError(
            f"Pass weights: {OPEN_CLIP}{architecture}:WEIGHTS, with a file or one of "
            f"{tags or 'the tags that open_clip.list_pretrained() returns'}."
        )
    try:
        # The transform for training, the second value, augments at random.
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=weights)
        return model.eval(), (transform, open_clip.get_tokenizer(architecture))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"Cannot load {OPEN_CLIP}{name}: {_first_line(error)}.") from error


def _task_of(name: str) -> str:
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        place = "folder" if Path(name).exists() else "folder or reachable model on the hub"
        raise ModelError(
            f"There is no {place} with a model named {name!r} ({_first_line(error)}). Models of the package: "
            f"{', '.join(f'zoo:{zoo_name}' for zoo_name in zoo.names())}."
        ) from error
    # `architectures` names the class that the checkpoint was saved from, and with it the task of its head.
    for architecture in config.architectures or ():
        if (task := find_task_of_class(architecture)) is not None:
            return task
    raise ModelError(f"The config of {name!r} does not name the task of the model: pass it with --task.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def list_pretrained() -> tuple[str, ...]:
    """Names of CLIP-type models that every method supports, as `--model` accepts them.

    Hub ids for transformers and, if OpenCLIP is installed, `open_clip:NAME:WEIGHTS`: ViT CLIP, SigLIP through timm,
    and CoCa. The tests cover these architectures with small random weights, not the checkpoints themselves.
    """
    try:
        import open_clip
    except ImportError:
        return _TRANSFORMERS
    names = [
        f"{OPEN_CLIP}{name}:{tag}"
        for name, tag in open_clip.list_pretrained()
        if name.startswith(_PREFIXES) and not any(part in name for part in _UNTESTED)
    ]
    return (*_TRANSFORMERS, *names)
