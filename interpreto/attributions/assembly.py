"""The options that every method shares, and where the classes of the table meet."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from interpreto.attributions.granularity import (
    DefaultGranularity,
    Patches,
    Segments,
    UnitReduction,
    UnitSegmenter,
    resolve,
)
from interpreto.attributions.perturbations.base import (
    GradientInput,
    Masker,
    MaskGenerator,
    PathGenerator,
    Perturbator,
    Revealer,
)
from interpreto.attributions.plans.gradient_base import ScoreReducer
from interpreto.attributions.plans.internals import InternalsPlan
from interpreto.attributions.registry import Registration, resolve_wrapper
from interpreto.errors import OptionError, UnsupportedError, choices
from interpreto.model_wrapping.capture_request import ActivationRequest, CaptureRequest
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.wrapper import InferenceWrapper


class SharedOptions(TypedDict, total=False):
    """Options of every method, whatever it is for.

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
    modality: str | None
    granularity: str | UnitSegmenter | None
    patch_size: int | tuple[int, int] | None
    batch_size: int
    device: torch.device | str | None
    autocast: torch.dtype | None
    inference_mode: str | Callable[[Tensor], Tensor] | None
    model_output: str | int | Callable[[Any], Any] | None
    removal: Any
    image_size: int | tuple[int, int] | None
    show_progress: bool | None
    seed: int


class Options(SharedOptions, total=False):
    """Options of methods that texts can be given to: everything in `SharedOptions`, and what is for texts.

    Attributes:
        segments: Short for `granularity=Segments(...)`: named stretches of a text as units.
        truncation: For classifiers, whether texts longer than the model's positions are cut instead of refused.
        generation_kwargs: For language models, what `generate` is called with beyond the model's own config; sampling
            starts from `seed`.
        prepend_bos: For language models, whether a prompt given as a text starts with the beginning-of-sequence token
            where the tokenizer adds none. It is not explained.
        joint: For language models, whether the log-probability of the whole continuation is the one target.
        reuse_prefix: For language models, whether rows go on from where they begin to differ from the unchanged text;
            exact, and faster.
    """

    segments: Mapping[str, tuple[int, int]] | None
    truncation: bool
    generation_kwargs: Mapping[str, Any] | None
    prepend_bos: bool
    joint: bool
    reuse_prefix: bool


class GradientOptions(Options, total=False):
    """Options of methods that attribute tensors: everything in `Options`, and how units are made of positions.

    Attributes:
        reduction: How the embedding or channel axis becomes one number: "sum" (signed), "norm", "abs_sum", "max_abs".
        pooling: How scores of tokens become those of a unit: "mean", "sum", "max", "min", "signed_max", "first",
            "last".
        resize: How scores of pixels become those of a unit: "area" (mean), "sum", "bilinear", "bicubic", "nearest".
    """

    reduction: str
    pooling: str
    resize: str


class InsideOptions(Options, total=False):
    """Options of methods that look inside the model: everything in `Options`, and how units are made.

    Attributes:
        pooling: How scores of tokens become those of a unit: "mean", "sum", "max", "min", "signed_max", "first",
            "last".
        resize: How a map becomes one of units where these are not its own cells: "area" (mean), "sum", "bilinear",
            "bicubic", "nearest"; by default bilinear where units are finer, else their mean.
    """

    pooling: str
    resize: str


class MapOptions(SharedOptions, total=False):
    """Options of methods that make maps of images alone: everything in `SharedOptions`, and how units are made.

    Attributes:
        resize: How a map becomes one of units that are no pixels: "area" (mean, the default), "sum", "bilinear",
            "bicubic", "nearest".
    """

    resize: str


_FINISH = ("reduction", "pooling", "resize")
_RUNNING = ("batch_size", "removal", "show_progress", "seed")


@dataclass(frozen=True, eq=False)
class Setup:
    """A model, wrapped, and the shared options of a method on it."""

    method: str
    wrapper: InferenceWrapper
    registration: Registration
    granularity: UnitSegmenter | DefaultGranularity | None
    batch_size: int
    removal: Any
    show_progress: bool | None
    seed: int
    options: Mapping[str, Any]

    @staticmethod
    def create(method: type, model: Any, processor: Any, options: Mapping[str, Any]) -> "Setup":
        """Check the shared options of a method and wrap its model.

        Raises:
            OptionError: if an option does not exist or has an impossible value.
            ModelError: if no wrapper fits the model.
        """
        _check_names(method, options)
        chosen = {key: options[key] for key in Runtime.__dataclass_fields__ if key in options}
        if isinstance(model, InferenceWrapper) and chosen:
            raise OptionError(
                f"{method.__name__} got {', '.join(f'{name}=' for name in chosen)} for a model that is wrapped "
                "already: how a model is run is said where it is wrapped. A method that smooths another one takes "
                "these options itself; the functions of from_callables return the scores that are explained."
            )
        runtime = Runtime(**chosen)
        wrapper, entry = resolve_wrapper(model, processor, options.get("task"), options.get("modality"), runtime)
        _check_task(options, wrapper.task)
        return Setup(
            method.__name__,
            wrapper,
            entry,
            _granularity(options, wrapper.modality),
            options.get("batch_size", 32),
            options.get("removal"),
            options.get("show_progress"),
            options.get("seed", 0),
            dict(options),
        )

    def mask_perturbator(self, method: MaskGenerator) -> Perturbator[MaskGenerator, Masker]:
        """This method on the modality that hides parts."""
        return Perturbator(method, self.masker())

    def masker(self) -> Masker:
        """The modality that hides parts, with the removal that the user named."""
        modality: Any = self.registration.masker
        return modality.of(self.wrapper, self.removal)

    def path_perturbator(self, method: PathGenerator) -> Perturbator[PathGenerator, GradientInput]:
        """This method on the modality that moves through a tensor's space.

        Raises:
            UnsupportedError: if the model has no gradients.
        """
        if self.wrapper.no_gradients:
            raise UnsupportedError(
                f"{self.method} needs gradients and this model gives none: {self.wrapper.no_gradients} Methods that "
                "hide parts (Occlusion, Lime, KernelShap, Sobol, Rise) do without."
            )
        return Perturbator(method, self.gradient_input())

    def guided_perturbator(self, method: PathGenerator) -> Perturbator[PathGenerator, GradientInput]:
        """The same for gradients that are changed on their way through the model.

        Raises:
            UnsupportedError: if the model has no gradients, or they are made elsewhere.
        """
        if self.wrapper.module is None:
            raise UnsupportedError(
                f"{self.method} changes gradients on their way through a model of PyTorch, and the functions of "
                "from_callables make theirs elsewhere. Methods that take plain gradients do."
            )
        if why := self.wrapper.no_hooks:
            raise UnsupportedError(f"{self.method} changes gradients on their way through the model: {why}")
        return self.path_perturbator(method)

    def gradient_input(self) -> GradientInput:
        """The modality that moves through a tensor's space."""
        modality: Any = self.registration.gradient_input
        return modality.of(self.wrapper, self.removal)

    def internals_plan(self, probe: CaptureRequest) -> InternalsPlan:
        """What a probe finds inside the model, as the user wants its units made.

        Raises:
            UnsupportedError: if the model's inside cannot be seen.
        """
        features = isinstance(probe, ActivationRequest)
        if features and self.wrapper.modality != "image":
            raise UnsupportedError(f"{self.method} makes maps of images; this model reads a {self.wrapper.modality}.")
        lacking = self.wrapper.no_features if features else self.wrapper.no_attention
        if why := lacking or self.wrapper.no_hooks:
            raise UnsupportedError(f"{self.method} looks inside the model: {why}")
        if isinstance(probe, ActivationRequest):
            probe = probe.named_in(self.wrapper.module)
        chosen = UnitReduction(self.options.get("pooling", "mean"), self.options.get("resize", "bilinear"))
        return InternalsPlan(
            probe, self.gradient_input(), chosen.pooling, chosen.resize if "resize" in self.options else None
        )

    def revealer(self) -> Revealer:
        """The modality that tells a part of a sample."""
        modality: Any = self.registration.revealer
        return modality.of(self.wrapper, self.removal)

    def score_reducer(self, reduction: str, *, sums: bool = False) -> ScoreReducer:
        """How raw attributions become scores of units: as the user said, else in a way that keeps promised sums."""
        default = {"reduction": reduction, "pooling": "sum" if sums else "mean", "resize": "sum" if sums else "area"}
        chosen = {name: self.options.get(name, default[name]) for name in _FINISH}
        return ScoreReducer(chosen["reduction"], UnitReduction(chosen["pooling"], chosen["resize"]))

    @property
    def inherited_options(self) -> dict[str, Any]:
        """What a method that is wrapped by this one takes over."""
        model_options = (*Runtime.__dataclass_fields__, "task", "modality")
        return {name: value for name, value in self.options.items() if name not in model_options}

    @property
    def inherited_by_base_method(self) -> dict[str, Any]:
        """The same for a method whose map is only looked at: it makes no units."""
        return {name: value for name, value in self.inherited_options.items() if name in _RUNNING}


def _granularity(options: Mapping[str, Any], modality: str) -> UnitSegmenter | DefaultGranularity | None:
    patch, given = options.get("patch_size"), options.get("granularity")
    if isinstance(given, DefaultGranularity):
        return given
    if (spans := options.get("segments")) is not None:
        if modality != "text" or given is not None:
            raise OptionError("segments= is a granularity of its own, for texts: leave granularity= out.")
        return Segments(spans)
    if patch is None:
        return None if given is None else resolve(given, modality)
    if modality != "image":
        raise OptionError(f"patch_size={patch!r} is for images; this model reads a {modality}.")
    if given is not None and not isinstance(resolve(given, modality), Patches):
        raise OptionError(f"patch_size={patch!r} and granularity={given!r} say two different things; give one.")
    return Patches(patch)


def _check_task(options: Mapping[str, Any], task: str) -> None:
    """Refuse options that mean nothing for a task."""
    if task.startswith("text-") and options.get("image_size") is not None:
        raise OptionError(f"image_size= is for images; this model is for {task}.")
    if task not in ("text-classification", "image-classification") and options.get("model_output") is not None:
        raise OptionError(f"model_output= is for classifiers; this model is for {task}.")
    if task == "text-generation" and options.get("truncation"):
        raise OptionError("truncation=True would change what is said next: shorten the prompt where it can be spared.")
    if task != "text-generation":
        for name in ("generation_kwargs", "prepend_bos", "joint", "reuse_prefix"):
            if name in options:
                raise OptionError(f"{name}= is for text-generation; this model is for {task}.")


def _check_names(method: type, options: Mapping[str, Any]) -> None:
    """Refuse options that neither the method nor the shared ones have."""
    signature = inspect.signature(method)
    own = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    rest = next(p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD)
    shared = list(rest.annotation.__args__[0].__annotations__)
    for name in options:
        if name not in shared:
            raise OptionError(f"{method.__name__} has no option {name!r}: {choices(name, [*own, *shared])}")
