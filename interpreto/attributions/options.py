"""The options that methods share, and functions that check option names."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict, get_type_hints

import torch
from torch import Tensor

from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.granularity.units import Pooling, Resize
from interpreto.attributions.option_hints import unknown_option
from interpreto.attributions.perturbations.base import Reduction
from interpreto.errors import OptionError
from interpreto.model_wrapping.runtime import InferenceMode, TargetGranularity
from interpreto.option_kinds import unpacked_annotations
from interpreto.typing import Modality


class SharedOptions(TypedDict, total=False):
    """Options of every method.

    Attributes:
        task: The task of the model, as named by transformers pipelines; None to detect it from the model's class.
        modality: "text" or "image"; None if the task has only one modality.
        granularity: The units that get a score: a `Granularity` or its name, or an object such as `Grid(14, 14)`. By
            default words of texts. The default for images is the model's patches; for models without patches it is
            pixels for gradient methods, and a grid of 14 x 14 for methods that mask units.
        patch_size: Short for `granularity=Patches(patch_size)`: the side of a patch in pixels of the model's input.
        batch_size: Number of rows per forward pass.
        device: The device to run the model on during a call; None for the device that the model is on.
        autocast: Computes in this dtype, such as `torch.bfloat16`, as `torch.autocast` does.
        inference_mode: The score that is explained: "logits", "softmax", "log_softmax", or a function of the logits.
            By default log-probabilities for generated tokens, logits for classes, and similarities for dual encoders.
        model_output: Selects the logits of a classifier that returns a tuple, or a dictionary without "logits": a key,
            an index, or a function from the model's output to logits.
        removal: The replacement of masked units. Texts: "mask", "unk", "space", "pad", "attention" (excluded by the
            attention mask), "attention-sink" (like "attention", but a masked first token of a text becomes a space), a
            token as a string, or a token id. The default is "attention-sink" for language models; for other models,
            the first of these that the tokenizer has and the model supports.
            Images: "zeros" (the processor's mean colour, the default), "mean", "black", "white", "blur", "noise", a
            number or a colour.
        image_size: For image models, the height and width that images are resized to, or one number for both. Position
            embeddings are interpolated during the call. By default the size in the model's config.
        show_progress: Whether to show a progress bar; None shows it on a terminal if the call takes over a second.
        seed: The random seed; every sample starts with this seed.
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
    """Options of methods for texts and images: those of `SharedOptions`, and those for texts.

    Attributes:
        segments: Short for `granularity=Segments(...)`: from names to (start, stop) character ranges of the text.
        truncation: For classifiers, whether texts that exceed the model's maximum length are truncated; else they are
            an error.
        generation_kwargs: For language models, keyword arguments for `generate` that override the generation config;
            sampling uses `seed`.
        prepend_bos: For language models, whether to prepend the beginning-of-sequence token to a prompt that is a
            string, if the tokenizer does not. The token does not get a score.
        target_granularity: For language models, how generated tokens are grouped into targets: "token", "word",
            "clause", "sentence", or "sequence" for the log-probability of the whole continuation. By default they are
            grouped as in `granularity`.
        reuse_prefix: For language models, whether the key/value cache of the unperturbed text is reused up to the
            first masked token. Faster, with the same results.
    """

    segments: Mapping[str, tuple[int, int]] | None
    truncation: bool
    generation_kwargs: Mapping[str, Any] | None
    prepend_bos: bool
    target_granularity: TargetGranularity | None
    reuse_prefix: bool


class GradientOptions(Options, total=False):
    """Options of gradient methods: those of `Options`, and how gradients are reduced to one score per unit.

    Attributes:
        reduction: Reduction of the embedding or channel axis: "sum" (keeps signs), "norm", "abs_sum", "max_abs".
        pooling: Reduction over the tokens of a unit: "mean", "sum", "max", "min", "signed_max" (the score of largest
            magnitude), "first", "last".
        resize: Reduction over the pixels of a unit: "area" (mean), "sum", "bilinear", "bicubic", "nearest".
    """

    reduction: Reduction
    pooling: Pooling
    resize: Resize


class InternalsOptions(Options, total=False):
    """Options of methods that capture attention or activations: those of `Options`, and the reduction to units.

    Attributes:
        pooling: Reduction over the tokens of a unit: "mean", "sum", "max", "min", "signed_max" (the score of largest
            magnitude), "first", "last".
        resize: How a layer's map is resized if the units are not the cells of the map: "area" (mean), "sum",
            "bilinear", "bicubic", "nearest". By default "bilinear" if the units are smaller than the cells, else
            "area".
    """

    pooling: Pooling
    resize: Resize


class MapOptions(SharedOptions, total=False):
    """Options of methods for images only: those of `SharedOptions`, and how a map of pixels is pooled into units.

    Attributes:
        resize: How a map of pixels is resized if the units are not pixels: "area" (mean, the default), "sum",
            "bilinear", "bicubic", "nearest".
    """

    resize: Resize


TASK_OPTIONS = {
    "image_size": "images",
    "model_output": "classifiers",
    "truncation": "classifiers (a truncated prompt has another continuation: shorten the prompt)",
    "generation_kwargs": "text-generation",
    "prepend_bos": "text-generation",
    "target_granularity": "text-generation",
    "reuse_prefix": "text-generation",
}
"""Options that only some tasks have, and the models that they are for, as error messages name them."""


def check_fits_task(options: Mapping[str, object], task: str, allowed: Collection[str]) -> None:
    """Check that the user passed no option that is for other tasks.

    Args:
        options: The options as the user passed them.
        task: Name of the task.
        allowed: The options among `TASK_OPTIONS` that the task has.

    Raises:
        OptionError: if an option is for other tasks.
    """
    for name, purpose in TASK_OPTIONS.items():
        # truncation=False is accepted for all tasks, because models without this option do not truncate.
        is_unset = options.get(name) is None or (name == "truncation" and not options[name])
        if name not in allowed and not is_unset:
            raise OptionError(f"{name}= is for {purpose}; this model is for {task}.")


def check_names(method: type, options: Mapping[str, object]) -> None:
    """Check the names of options.

    Raises:
        OptionError: if the method has no option of one of these names.
    """
    own_names = [p.name for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    shared = _shared_names(method)
    for name in options:
        if name not in shared:
            raise unknown_option(method.__name__, name, [*own_names, *shared])


def _shared_names(method: type) -> list[str]:
    """The names of a method's `**options`: those of their annotation `Unpack[...]`, or of `Options` without one."""
    parameters = inspect.signature(method).parameters.values()
    keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD]
    if not keywords:
        return []
    # Also resolves annotations that are strings (PEP 563).
    annotation = get_type_hints(method.__init__).get(keywords[0])
    return list(unpacked_annotations(annotation) or get_type_hints(Options))
