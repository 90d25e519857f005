"""Metrics that run the model again on perturbed samples, by a plan of their own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.metrics.replay import run_on_samples
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.plans.base import PreparedSample
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.tasks.detection import find_task
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.typing import UnitScores


class PerturbationMetric(ABC):
    """A metric that perturbs samples and measures how the scores change.

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

        def run(prepared: PreparedSample, attributions: UnitScores) -> PlanRun[Any]:
            return self.measure(prepared, attributions, modality)

        done = run_on_samples(self.setup, outputs, inputs, run, self.n_evaluations)
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
        model = self.setup.wrapper.engine.provenance()["model"]
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
        or options.get("target_granularity") == "sequence"
        or find_task(model, options.get("task")) == "zero-shot-image-classification"
    )
    return options if fixed else {**options, "inference_mode": options.get("inference_mode") or "softmax"}


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
