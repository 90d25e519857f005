"""The options that methods share, and the checks of their names."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.granularity.units import Pooling, Resize
from interpreto.attributions.option_hints import unknown_option
from interpreto.attributions.perturbations.base import Reduction
from interpreto.errors import OptionError
from interpreto.model_wrapping.runtime import InferenceMode, TargetGranularity
from interpreto.typing import Modality


class SharedOptions(TypedDict, total=False):
    """Options of every method.

    Attributes:
        task: What the model is for, by the name of its transformers pipeline; None tells it from the model's class.
        modality: "text" or "image"; None is the only one that the task has.
        granularity: What gets a score: a `Granularity` or its name, or an object such as `Grid(14, 14)`. By default
            words of texts; patches of images where the model has patches, else pixels for methods that take
            gradients and a grid of 14 x 14 for methods that hide parts.
        patch_size: Short for patches of this size in the model's pixels.
        batch_size: Rows per run of the model.
        device: Where the model runs during a call; None leaves it where it is.
        autocast: A floating dtype such as `torch.bfloat16` to compute in.
        inference_mode: Which score is explained: "logits", "softmax", "log_softmax", or a function of the logits. By
            default the log-probability of generated tokens, the logit of classes and similarities.
        model_output: For classifiers that return a tuple or a dictionary without "logits": which part is the logits, a
            key, a place, or a function from what the model returns to logits.
        removal: What stands in for a hidden unit. Texts: "mask", "unk", "space", "pad", "attention" (hidden from
            attention), "attention-sink" (the same, but a text's first token becomes a space), a token as it is
            written, or its id; by default "attention-sink" for language models, for others the first of these that
            the tokenizer has and the model allows.
            Images: "zeros" (the processor's mean colour, the default), "mean", "black", "white", "blur", "noise", a
            number or a colour.
        image_size: For image models, the height and width that images are read at, or one number for both. Position
            embeddings are interpolated for as long as the call takes; by default the model's own size.
        show_progress: False for no progress bar; None shows one on a terminal when work takes more than a moment.
        seed: Where randomness starts, afresh for every sample.
    """

    task: str | None
    modality: Modality | None
    granularity: str | UnitSegmenter | None
    patch_size: int | tuple[int, int] | None
    batch_size: int
    device: torch.device | str | None
    autocast: torch.dtype | None
    inference_mode: InferenceMode | Callable[[Tensor], Tensor] | None
    model_output: str | int | Callable[[Any], Any] | None
    removal: Any
    image_size: int | tuple[int, int] | None
    show_progress: bool | None
    seed: int


class Options(SharedOptions, total=False):
    """Options of methods that explain texts too: everything in `SharedOptions`, and what is for texts.

    Attributes:
        segments: Short for `granularity=Segments(...)`: named stretches of a text as units.
        truncation: For classifiers, whether texts longer than the model's positions are cut instead of refused.
        generation_kwargs: For language models, what `generate` is called with beyond the model's own config; sampling
            starts from `seed`.
        prepend_bos: For language models, whether a prompt given as a text starts with the beginning-of-sequence token
            where the tokenizer adds none. It is not explained.
        target_granularity: For language models, which generated tokens are explained as one target: "token", "word",
            "clause", "sentence", or "sequence" for the log-probability of the whole continuation. By default the
            tokens of one unit of `granularity`.
        reuse_prefix: For language models, whether rows go on from where they begin to differ from the unchanged text;
            exact, and faster.
    """

    segments: Mapping[str, tuple[int, int]] | None
    truncation: bool
    generation_kwargs: Mapping[str, Any] | None
    prepend_bos: bool
    target_granularity: TargetGranularity | None
    reuse_prefix: bool


class GradientOptions(Options, total=False):
    """Options of methods that attribute tensors: everything in `Options`, and how scores become those of units.

    Attributes:
        reduction: How the embedding or channel axis becomes one number: "sum" (signed), "norm", "abs_sum", "max_abs".
        pooling: How scores of tokens become those of a unit: "mean", "sum", "max", "min", "signed_max", "first",
            "last".
        resize: How scores of pixels become those of a unit: "area" (mean), "sum", "bilinear", "bicubic", "nearest".
    """

    reduction: Reduction
    pooling: Pooling
    resize: Resize


class InternalsOptions(Options, total=False):
    """Options of methods that capture internals: everything in `Options`, and how scores become those of units.

    Attributes:
        pooling: How scores of tokens become those of a unit: "mean", "sum", "max", "min", "signed_max", "first",
            "last".
        resize: How a map becomes one of units where these are not its own cells: "area" (mean), "sum", "bilinear",
            "bicubic", "nearest"; by default bilinear where units are finer, else their mean.
    """

    pooling: Pooling
    resize: Resize


class MapOptions(SharedOptions, total=False):
    """Options of methods for images alone: everything in `SharedOptions`, and how scores become those of units.

    Attributes:
        resize: How a map becomes one of units that are no pixels: "area" (mean, the default), "sum", "bilinear",
            "bicubic", "nearest".
    """

    resize: Resize


TASK_OPTIONS = {
    "image_size": "images",
    "model_output": "classifiers",
    "truncation": "models that read a text as a whole (cut off, a prompt has another continuation: shorten the prompt)",
    "generation_kwargs": "text-generation",
    "prepend_bos": "text-generation",
    "target_granularity": "text-generation",
    "reuse_prefix": "text-generation",
}
"""Options that not all tasks have, and what they are for."""


def check_fits_task(options: Mapping[str, Any], task: str, allowed: Collection[str]) -> None:
    """Check that options are for the task of a model.

    Args:
        options: The options as the user passed them.
        task: Name of the task.
        allowed: Those of `TASK_OPTIONS` that the task has.

    Raises:
        OptionError: if one is for another task.
    """
    for name, purpose in TASK_OPTIONS.items():
        # truncation=False is what tasks without truncation do.
        is_default = options.get(name) is None or (name == "truncation" and not options[name])
        if name not in allowed and not is_default:
            raise OptionError(f"{name}= is for {purpose}; this model is for {task}.")


def check_names(method: type, options: Mapping[str, Any]) -> None:
    """Check the names of options.

    Raises:
        OptionError: if the method does not have one of them.
    """
    signature = inspect.signature(method)
    own = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    rest = next(p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD)
    shared = list(rest.annotation.__args__[0].__annotations__)
    for name in options:
        if name not in shared:
            raise unknown_option(method.__name__, name, [*own, *shared])
