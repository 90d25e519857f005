"""Creates the parts that a method combines, from the model and the options that all methods share."""

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

_OPTIONS_WITHOUT_UNITS = ("batch_size", "removal", "show_progress", "seed")
"""Options that affect raw attributions, before scores are assigned to units."""


@dataclass(frozen=True, eq=False)
class Setup:
    """A wrapped model with the shared options of a method; creates the parts of the method.

    Attributes:
        method: Name of the method.
        wrapper: The wrapped model.
        registration: The factories of masker, gradient input and revealer for the modality of the model.
        granularity: The units that get a score; None for the default of the method.
        target_segmenter: Groups generated tokens into targets; None to group them as the units of the prompt.
        batch_size: Number of rows per batch.
        removal: The option `removal`.
        show_progress: The option `show_progress`.
        seed: The random seed.
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
    def create(method: type, model: object, processor: object, options: Mapping[str, Any]) -> "Setup":
        """Validate the shared options of a method, and wrap its model.

        Raises:
            OptionError: if an option does not exist or has an invalid value.
            ModelError: if no inference wrapper fits the model.
        """
        check_names(method, options)
        runtime_options = {key: options[key] for key in Runtime.__dataclass_fields__ if key in options}
        if isinstance(model, InferenceWrapper) and runtime_options:
            raise OptionError(
                f"{method.__name__} got {', '.join(f'{name}=' for name in runtime_options)} for a model that is "
                "wrapped already: pass these options when the model is wrapped. For a base method, pass them to the "
                "outer method, such as SmoothGrad. For from_callables, let scores= return the scores to explain."
            )
        runtime = Runtime(**runtime_options)
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
        """The masker of this model, with the option `removal`."""
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
        """Like `path_perturbator`, for methods that modify gradients inside the model, such as guided backpropagation.

        Raises:
            UnsupportedError: if the model has no gradients, or is not a PyTorch module that supports hooks.
        """
        if self.wrapper.engine.module is None:
            raise UnsupportedError(
                f"{self.method} modifies gradients inside a PyTorch model, which is not possible for the functions of "
                "from_callables. Use a method with unmodified gradients, such as Saliency."
            )
        if why := self.wrapper.engine.hook_obstacle:
            raise UnsupportedError(f"{self.method} modifies gradients inside the model: {why}")
        return self.path_perturbator(generator)

    def gradient_input(self) -> GradientInput:
        """The tensor with respect to which gradients are computed."""
        return self.registration.gradient_input(self.wrapper)

    def internals_plan(self, request: CaptureRequest, correction: MapCorrection | None = None) -> InternalsPlan:
        """Create a plan that captures attention or activations inside the model.

        Args:
            request: The internals to capture.
            correction: Postprocesses the maps; None to leave them unchanged.

        Raises:
            UnsupportedError: if the model's internals cannot be captured.
        """
        engine = self.wrapper.engine
        if isinstance(request, ActivationRequest):
            if not self.wrapper.inputs.spatial:
                raise UnsupportedError(
                    f"{self.method} explains image models; the input of this model is {self.wrapper.modality}."
                )
            request, obstacle = request.named_in(engine.module), engine.activation_obstacle
        else:
            obstacle = engine.attention_obstacle
        if why := obstacle or engine.hook_obstacle:
            raise UnsupportedError(f"{self.method} captures internals of the model: {why}")
        reduction = UnitReduction(self.options.get("pooling", "mean"), self.options.get("resize", "bilinear"))
        resize = reduction.resize if "resize" in self.options else None
        return InternalsPlan(request, self.gradient_input(), reduction.pooling, resize, correction)

    def revealer(self) -> Revealer:
        """The revealer of this model, with the option `removal`."""
        return self.registration.revealer(self.wrapper, self.removal)

    def score_reducer(self, reduction: Reduction, *, preserve_sum: bool = False) -> ScoreReducer:
        """Create the reducer from raw attributions to scores of units.

        The options `reduction`, `pooling` and `resize` override these defaults.

        Args:
            reduction: Default reduction of the embedding or channel axis.
            preserve_sum: Whether scores of positions are summed by default, so that the total is preserved, instead of
                averaged.
        """
        defaults = {
            "reduction": reduction,
            "pooling": "sum" if preserve_sum else "mean",
            "resize": "sum" if preserve_sum else "area",
        }
        values = {name: self.options.get(name, default) for name, default in defaults.items()}
        return ScoreReducer(values["reduction"], UnitReduction(values["pooling"], values["resize"]))

    @property
    def inherited_options(self) -> dict[str, Any]:
        """The options that are passed on to a base method, which uses the same wrapped model."""
        wrapper_options = (*Runtime.__dataclass_fields__, "task", "modality")
        return {name: value for name, value in self.options.items() if name not in wrapper_options}

    @property
    def inherited_by_base_method(self) -> dict[str, Any]:
        """Like `inherited_options`, for a base method of which only the raw attributions are used, without units."""
        return {name: value for name, value in self.inherited_options.items() if name in _OPTIONS_WITHOUT_UNITS}


def _target_segmenter(options: Mapping[str, object]) -> UnitSegmenter | None:
    name = options.get("target_granularity")
    # The score of a whole continuation is one target already, so that there is nothing to group.
    return None if name in (None, "sequence") else resolve(name, "text")


def _granularity(options: Mapping[str, Any], modality: str) -> UnitSegmenter | DefaultGranularity | None:
    patch, value = options.get("patch_size"), options.get("granularity")
    if isinstance(value, DefaultGranularity):
        return value
    if (spans := options.get("segments")) is not None:
        if value is not None:
            raise OptionError("segments= defines the units of a text, as granularity= does: pass only one of them.")
        return resolve(Segments(spans), modality, "segments=")
    if patch is None:
        return None if value is None else resolve(value, modality)
    patches = resolve(Patches(patch), modality, f"patch_size={patch!r}")
    if value is not None and not isinstance(resolve(value, modality), Patches):
        raise OptionError(f"patch_size={patch!r} and granularity={value!r} contradict each other: pass one of them.")
    return patches
