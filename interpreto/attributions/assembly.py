"""From a model and the shared options to the parts that a method combines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interpreto.attributions.granularity import (
    DefaultGranularity,
    Patches,
    Segments,
    UnitReduction,
    UnitSegmenter,
    resolve,
)
from interpreto.attributions.options import check_fits_task, check_names
from interpreto.attributions.perturbations.base import (
    GradientInput,
    Masker,
    MaskGenerator,
    PathGenerator,
    Perturbator,
    Reduction,
    Revealer,
)
from interpreto.attributions.plans.gradient_base import ScoreReducer
from interpreto.attributions.plans.internals import InternalsPlan, MapCorrection
from interpreto.attributions.registry import Registration, resolve_wrapper
from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.capture_request import ActivationRequest, CaptureRequest
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.wrapper import InferenceWrapper

_RUNNING = ("batch_size", "removal", "show_progress", "seed")


@dataclass(frozen=True, eq=False)
class Setup:
    """A wrapped model and the shared options of a method on it, from which the parts of the method are assembled.

    Attributes:
        method: Name of the method.
        wrapper: The wrapped model.
        registration: The perturbation modalities of the model.
        granularity: What gets a score; None if the user does not say.
        target_segmenter: Which generated tokens are one target; None for those of one unit.
        batch_size: Rows per batch.
        removal: The option `removal`.
        show_progress: The option `show_progress`.
        seed: Start of the randomness.
        options: The shared options as the user passed them.
    """

    method: str
    wrapper: InferenceWrapper
    registration: Registration
    granularity: UnitSegmenter | DefaultGranularity | None
    target_segmenter: UnitSegmenter | None
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
            ModelError: if no inference wrapper fits the model.
        """
        check_names(method, options)
        of_runtime = {key: options[key] for key in Runtime.__dataclass_fields__ if key in options}
        if isinstance(model, InferenceWrapper) and of_runtime:
            raise OptionError(
                f"{method.__name__} got {', '.join(f'{name}=' for name in of_runtime)} for a model that is wrapped "
                "already: pass options of running a model where it is wrapped. A method that smooths another one takes "
                "these options itself; the functions of from_callables return the scores that are explained."
            )
        runtime = Runtime(**of_runtime)
        task, modality = options.get("task"), options.get("modality")
        wrapper, registration = resolve_wrapper(model, processor, task, modality, runtime)
        check_fits_task(options, wrapper.task, registration.options)
        return Setup(
            method.__name__,
            wrapper,
            registration,
            _granularity(options, wrapper.modality),
            _target_segmenter(options),
            options.get("batch_size", 32),
            options.get("removal"),
            options.get("show_progress"),
            options.get("seed", 0),
            dict(options),
        )

    def mask_perturbator(self, generator: MaskGenerator) -> Perturbator[MaskGenerator, Masker]:
        """A mask generator with the masker of this model."""
        return Perturbator(generator, self.masker())

    def masker(self) -> Masker:
        """What masks units, with the option `removal`."""
        return self.registration.masker(self.wrapper, self.removal)

    def path_perturbator(self, generator: PathGenerator) -> Perturbator[PathGenerator, GradientInput]:
        """A path generator with the gradient input of this model.

        Raises:
            UnsupportedError: if the model has no gradients.
        """
        if why := self.wrapper.engine.gradient_obstacle:
            raise UnsupportedError(
                f"{self.method} needs gradients, and this model has none: {why} Methods that perturb the input "
                "(Occlusion, Lime, KernelShap, Sobol, Rise) need none."
            )
        return Perturbator(generator, self.gradient_input())

    def guided_perturbator(self, generator: PathGenerator) -> Perturbator[PathGenerator, GradientInput]:
        """The same for gradients that are changed on their way through the model.

        Raises:
            UnsupportedError: if the model has no gradients, or is not a PyTorch module that takes hooks.
        """
        if self.wrapper.engine.module is None:
            raise UnsupportedError(
                f"{self.method} changes gradients on their way through a PyTorch model, and the functions of "
                "from_callables compute theirs elsewhere. Use a method that takes plain gradients."
            )
        if why := self.wrapper.engine.hook_obstacle:
            raise UnsupportedError(f"{self.method} changes gradients on their way through the model: {why}")
        return self.path_perturbator(generator)

    def gradient_input(self) -> GradientInput:
        """The tensor that gradients are taken for."""
        return self.registration.gradient_input(self.wrapper)

    def internals_plan(self, request: CaptureRequest, correction: MapCorrection | None = None) -> InternalsPlan:
        """A plan that captures internals, with the options for units.

        Args:
            request: What is captured.
            correction: What changes the maps; None for nothing.

        Raises:
            UnsupportedError: if the model's internals cannot be captured.
        """
        engine = self.wrapper.engine
        if isinstance(request, ActivationRequest):
            if not self.wrapper.inputs.spatial:
                raise UnsupportedError(
                    f"{self.method} makes maps of images; this model reads a {self.wrapper.modality}."
                )
            request, obstacle = request.named_in(engine.module), engine.activation_obstacle
        else:
            obstacle = engine.attention_obstacle
        if why := obstacle or engine.hook_obstacle:
            raise UnsupportedError(f"{self.method} captures internals of the model: {why}")
        chosen = UnitReduction(self.options.get("pooling", "mean"), self.options.get("resize", "bilinear"))
        resize = chosen.resize if "resize" in self.options else None
        return InternalsPlan(request, self.gradient_input(), chosen.pooling, resize, correction)

    def revealer(self) -> Revealer:
        """What reveals a part of a sample."""
        return self.registration.revealer(self.wrapper, self.removal)

    def score_reducer(self, reduction: Reduction, *, preserve_sum: bool = False) -> ScoreReducer:
        """From raw attributions to scores of units: as the user says, else with these defaults.

        Args:
            reduction: Default over the embedding or channel axis.
            preserve_sum: Whether the defaults over positions preserve the sum.
        """
        default = {
            "reduction": reduction,
            "pooling": "sum" if preserve_sum else "mean",
            "resize": "sum" if preserve_sum else "area",
        }
        chosen = {name: self.options.get(name, default[name]) for name in default}
        return ScoreReducer(chosen["reduction"], UnitReduction(chosen["pooling"], chosen["resize"]))

    @property
    def inherited_options(self) -> dict[str, Any]:
        """Options that a base method on the same wrapped model takes over."""
        of_wrapper = (*Runtime.__dataclass_fields__, "task", "modality")
        return {name: value for name, value in self.options.items() if name not in of_wrapper}

    @property
    def inherited_by_base_method(self) -> dict[str, Any]:
        """The same for a base method of which only the raw map is used, without units."""
        return {name: value for name, value in self.inherited_options.items() if name in _RUNNING}


def _target_segmenter(options: Mapping[str, Any]) -> UnitSegmenter | None:
    name = options.get("target_granularity")
    # A whole continuation is one target before there are units.
    return None if name in (None, "sequence") else resolve(name, "text")


def _granularity(options: Mapping[str, Any], modality: str) -> UnitSegmenter | DefaultGranularity | None:
    patch, given = options.get("patch_size"), options.get("granularity")
    if isinstance(given, DefaultGranularity):
        return given
    if (spans := options.get("segments")) is not None:
        if given is not None:
            raise OptionError("segments= is a granularity of its own, for texts: leave granularity= out.")
        return resolve(Segments(spans), modality, "segments=")
    if patch is None:
        return None if given is None else resolve(given, modality)
    patches = resolve(Patches(patch), modality, f"patch_size={patch!r}")
    if given is not None and not isinstance(resolve(given, modality), Patches):
        raise OptionError(f"patch_size={patch!r} and granularity={given!r} contradict each other: pass one of them.")
    return patches
