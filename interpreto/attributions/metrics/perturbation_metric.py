"""Metrics that ask the model: outputs are put back onto their samples, and a plan of the metric's own is run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from interpreto.attributions import granularity
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity import Grid, Patches, Pixels, UnitSegmenter
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.pipeline import Completed, Job, Opened, Pipeline
from interpreto.attributions.plans.base import PreparedSample
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError, OptionError
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.sample import ImageSample, Sample
from interpreto.model_wrapping.targets import Contrast, SavedTarget
from interpreto.model_wrapping.tasks.detection import find_task
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.typing import UnitScores

Found = TypeVar("Found")


class PerturbationMetric(ABC):
    """A metric that hides units and looks at the scores.

    Attributes:
        setup: The wrapped model and the shared options.
        higher_is_better: Whether large values are good.
    """

    needs: ClassVar[Needs] = Needs.MODEL
    setup: Setup
    higher_is_better: bool

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: Any = None) -> MetricResult:
        """Measure attributions of this model.

        Args:
            outputs: What a method said: for the targets, in the units, that it was said for.
            inputs: The samples, in the same order, as they were explained. None takes the raw inputs that the outputs
                keep; tensors and tokenised mappings are not kept as they were and must be given.

        Raises:
            InputError: if outputs and inputs, or outputs and model, do not belong together.
        """
        outputs = as_list(outputs)
        self._check(outputs)
        modality = self.perturbator()

        def plan(opened: Opened, attributions: UnitScores) -> PlanRun[Any]:
            return self.measure(opened.prepared, attributions, modality)

        done = run_on_samples(self.setup, outputs, inputs, plan, self.n_evaluations)
        return self.result([one.result for one in done], sum(one.n_evaluations for one in done))

    def perturbator(self) -> Any:
        """What changes samples: by default what hides parts."""
        return self.setup.masker()

    @property
    def depends_on_removal(self) -> bool:
        """Whether what stands in for hidden parts matters."""
        return True

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """How many rows a sample takes."""

    @abstractmethod
    def measure(self, prepared: PreparedSample, attributions: UnitScores, modality: Any) -> PlanRun[Any]:
        """The conversation that measures one sample; attributions are `t *g`, NaN where a unit has no say."""

    @abstractmethod
    def result(self, found: list[Any], rows: int) -> MetricResult:
        """The values of all samples."""

    def _check(self, outputs: Sequence[AttributionOutput]) -> None:
        task, modality = self.setup.wrapper.task, self.setup.wrapper.modality
        model = self.setup.wrapper.provenance()["model"]
        for output in outputs:
            if (output.task, output.modality) != (task, modality):
                raise InputError(f"The outputs are of a model for {output.task}, the metric's is for {task}.")
            if output.info.get("model", model) != model:
                raise InputError(f"The outputs are of the model {output.info['model']!r}, not of {model!r}.")


def as_probability(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a metric that looks at probabilities unless its user says otherwise.

    A wrapped model says already which score it gives; a whole continuation's is its log-probability, and a similarity
    is compared with nothing where there is one prompt.
    """
    fixed = (
        isinstance(model, InferenceWrapper)
        or options.get("joint")
        or find_task(model, options.get("task")) == "zero-shot-image-classification"
    )
    return options if fixed else {**options, "inference_mode": options.get("inference_mode") or "softmax"}


def inputs_and_targets(outputs: Sequence[AttributionOutput], inputs: Any) -> tuple[Any, Any]:
    """The samples and targets of outputs, as a user would give them to a method.

    Raises:
        InputError: if a target cannot be known any more.
    """
    specs = [_targets_of(output) for output in outputs]
    return [_raw(output) for output in outputs] if inputs is None else inputs, specs[0] if len(specs) == 1 else specs


def run_on_samples(
    setup: Setup,
    outputs: Sequence[AttributionOutput],
    inputs: Any,
    plan: Callable[[Opened, UnitScores], PlanRun[Found]],
    rows: Callable[[Layout], int],
) -> list[Completed[Found]]:
    """Work through the samples of outputs, each with its attributions.

    Args:
        setup: The model that is asked.
        outputs: What a method said.
        inputs: The samples; None takes what the outputs keep of them.
        plan: What is done to a sample, given its attributions.
        rows: How many rows a sample takes.

    Raises:
        InputError: if outputs and samples do not belong together.
    """
    samples, specs = inputs_and_targets(outputs, inputs)
    work = Job(
        lambda number, opened: plan(opened, _aligned(outputs[number], opened)),
        rows,
        cost_independent_of_units=False,
        default_granularity=lambda number, sample: _segmenter_of(outputs[number], sample),
    )
    done = [one for one in Pipeline(setup).all(samples, specs, work) if isinstance(one, Completed)]
    if len(done) != len(outputs):
        raise InputError(f"There are {len(outputs)} outputs for {len(done)} inputs: give one output per sample.")
    return done


def check_method(outputs: Any, method: Explainer) -> list[AttributionOutput]:
    """Outputs as a list, if this method may have made them.

    Raises:
        InputError: if another one has.
    """
    found, own = as_list(outputs), type(method).__name__
    said = sorted({str(output.info.get("method", own)) for output in found} - {own})
    if said:
        raise InputError(f"The outputs are of {', '.join(said)}, the method is {own}.")
    return found


def _raw(output: AttributionOutput) -> Any:
    raw = output.raw_input
    # A prompt and what follows it: the rest is the target.
    return raw[0] if output.task == "text-generation" and isinstance(raw, tuple) else raw


def _targets_of(output: AttributionOutput) -> Any:
    """The targets of an output as a user would name them."""
    prompts = output.task == "zero-shot-image-classification"
    if any(isinstance(value, SavedTarget) or (isinstance(value, str) and not prompts) for value in output.targets):
        raise InputError(
            f"The targets {output.target_names} were functions, images or embeddings and were saved by name alone: "
            "measure outputs before they are saved."
        )
    if output.task != "text-generation":
        return output.targets
    tokens = [token for value in output.targets for token in (value if isinstance(value, tuple) else (value,))]
    if all(isinstance(token, Contrast) for token in tokens):
        return Contrast([token.fact for token in tokens], [token.foil for token in tokens])
    return tuple(tokens)


def _segmenter_of(output: AttributionOutput, sample: Sample) -> UnitSegmenter:
    """The granularity of an output, found by its name, or for images by its boxes."""
    modality = output.modality
    known = {str(name): unitization for name, unitization in granularity.KNOWN[modality].items()}
    if output.granularity == "segments":
        return granularity.Segments()
    if modality == "text":
        if output.granularity not in known:
            raise OptionError(f"The outputs are by {output.granularity}: say what that is with granularity=.")
        return known[output.granularity]
    assert isinstance(sample, ImageSample)
    assert isinstance(output.elements, Tensor)
    height, width = output.attributions.shape[1:]
    tall, wide = sample.size
    candidates: list[Grid | Patches | Pixels] = [Grid(height, width)] if height <= tall and width <= wide else []
    candidates += [Patches((tall // height, wide // width))] if height <= tall and width <= wide else []
    for candidate in candidates:
        labels = candidate.labels(sample)
        if _same_units(labels, output.elements):
            return candidate
    raise InputError(
        f"The boxes of the outputs, {height} x {width}, do not lie on the image that this model reads: they are of "
        "another image or model; or say their granularity=."
    )


def _same_units(labels: Any, elements: Any) -> bool:
    """Whether units are called the same, boxes up to rounding."""
    if labels is elements or not isinstance(labels, Tensor) or not isinstance(elements, Tensor):
        return labels is elements or labels == elements
    return labels.shape == elements.shape and torch.allclose(labels, elements, atol=1e-3)


def _aligned(output: AttributionOutput, opened: Opened) -> UnitScores:
    """The attributions of an output, if its units and targets are those of the sample."""
    if not _same_units(opened.labels, output.elements) or output.attributions.shape[1:] != opened.prepared.units.shape:
        raise InputError(
            "The units of an output are not those of its sample: give the inputs that were explained, in the same "
            "order, and the same granularity=."
        )
    if output.attributions.shape[0] != len(opened.targets):
        raise InputError(
            f"An output has {output.attributions.shape[0]} targets where the metric's sample has "
            f"{len(opened.targets)}: {output.target_names} and {opened.targets.names}."
        )
    return output.ranking_scores.float()
