"""Models and processors by name (`zoo:NAME`, a folder, an id on the Hugging Face hub), and names that are known."""

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
"""What names of models of OpenCLIP begin with."""

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
_KINDS = ("ViT-", "coca_ViT-")
"""Of the architectures of OpenCLIP those whose image tower is a plain ViT."""
_OTHER = ("CL32", "roberta", "xlm", "nllb", "MobileCLIP", "naflex")
"""Parts of names whose text or image towers are built in ways that were not tried."""

_LEAST_WORDS = 20
"""Where tokenizer files are missing transformers makes a tokenizer of special tokens alone, without a word."""


def load(name: str, task: str | None = None) -> tuple[Any, Any]:
    """A model in evaluation mode and its processor or tokenizer.

    Args:
        name: `zoo:NAME`, a local folder, a hub id, or `open_clip:NAME:WEIGHTS` with a tag or a file of weights.
        task: What the model is for; None tells it from the class that the config names.

    Raises:
        ModelError: if the model or its processor cannot be had, or its task cannot be told or explained.
    """
    if name.startswith("zoo:"):
        return zoo.load(name.removeprefix("zoo:"))
    if name.startswith(OPEN_CLIP):
        return _open_clip(name.removeprefix(OPEN_CLIP))
    task = task or _task_of(name)
    if task not in _AUTO:
        raise ModelError(f"{name!r} is a model for {task}; the tasks that can be explained are {', '.join(_AUTO)}.")
    auto_model, auto_processor = _AUTO[task]
    try:
        model, report = auto_model.from_pretrained(name, output_loading_info=True)
        processor = auto_processor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot load {name!r}: {_first_line(error)}.") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name!r} has no weights for {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}: as a model for "
            f"{task} it would answer at random. Name the task that it was trained for with --task."
        )
    if task.startswith("text-") and len(processor) < _LEAST_WORDS <= model.config.get_text_config().vocab_size:
        raise ModelError(f"Cannot load {name!r}: it has no tokenizer files, only {len(processor)} special tokens.")
    return model.eval(), processor


def _open_clip(name: str) -> tuple[Any, Any]:
    """A model of OpenCLIP and `(transform, tokenizer)`.

    Raises:
        ModelError: if OpenCLIP is not installed, or the model cannot be had.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ModelError("Models of OpenCLIP need it installed: pip install open_clip_torch.") from error
    architecture, _, weights = name.partition(":")
    if not weights:
        tags = ", ".join(tag for known, tag in open_clip.list_pretrained() if known == architecture)
        raise ModelError(
            f"Say which weights: {OPEN_CLIP}{architecture}:WEIGHTS, with a file or one of "
            f"{tags or 'the tags that open_clip.list_pretrained() names'}."
        )
    try:
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=weights)
        return model.eval(), (transform, open_clip.get_tokenizer(architecture))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"Cannot load {OPEN_CLIP}{name}: {_first_line(error)}.") from error


def _task_of(name: str) -> str:
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        place = "folder" if Path(name).exists() else "folder or model on the hub that can be reached"
        raise ModelError(
            f"There is no {place} with a model named {name!r} ({_first_line(error)}). Models that ship: "
            f"{', '.join(f'zoo:{known}' for known in zoo.names())}."
        ) from error
    for architecture in config.architectures or ():
        if (task := find_task_of_class(architecture)) is not None:
            return task
    raise ModelError(f"The config of {name!r} does not say what the model is for: say it with --task.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def list_pretrained() -> tuple[str, ...]:
    """CLIP-type models that every method is known to work on, by names that `--model` takes.

    Hub ids for transformers and, where OpenCLIP is installed, `open_clip:NAME:WEIGHTS`: ViT CLIP, SigLIP through timm,
    and CoCa. What is known is the architecture: it is tested with small random weights.
    """
    try:
        import open_clip
    except ImportError:
        return _TRANSFORMERS
    known = [
        f"{OPEN_CLIP}{name}:{tag}"
        for name, tag in open_clip.list_pretrained()
        if name.startswith(_KINDS) and not any(part in name for part in _OTHER)
    ]
    return (*_TRANSFORMERS, *known)
