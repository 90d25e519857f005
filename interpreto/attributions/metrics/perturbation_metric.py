"""The base class of metrics that run the model again on perturbed samples."""

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
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: object = None) -> MetricResult:
        """Measure attributions of this model.

        Args:
            outputs: The outputs of a method. They are measured for their own targets and units.
            inputs: The samples in the same order, as they were explained. None uses the raw inputs that the outputs
                keep; tensors and tokenised mappings are not kept unchanged and must be passed.

        Raises:
            InputError: if outputs and inputs, or outputs and model, do not belong together.
        """
        outputs = as_list(outputs)
        self._check(outputs)
        modality = self.perturbator()

        def run(prepared: PreparedSample, attributions: UnitScores) -> PlanRun[Any]:
            return self.measure(prepared, attributions, modality)

        done = run_on_samples(self.setup, outputs, inputs, run, self.n_evaluations)
        return self.result([sample.result for sample in done], sum(sample.n_evaluations for sample in done))

    def perturbator(self) -> Any:
        """The modality that perturbs samples, by default the masker."""
        return self.setup.masker()

    @property
    def depends_on_removal(self) -> bool:
        """Whether the value depends on the option `removal`."""
        return True

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """Expected number of evaluations of a sample, for the progress bar."""

    @abstractmethod
    def measure(self, prepared: PreparedSample, attributions: UnitScores, modality: object) -> PlanRun[Any]:
        """Measure one sample.

        Args:
            prepared: The sample.
            attributions: Its attributions, `t *g`; NaN for units that cannot influence the target or are part of it.
            modality: The result of `perturbator`.
        """

    @abstractmethod
    def result(self, sample_results: list[object], n_evaluations: int) -> MetricResult:
        """Combine the results of all samples.

        Args:
            sample_results: The return value of `measure` for each sample.
            n_evaluations: Number of evaluations of all samples.
        """

    def _check(self, outputs: Sequence[AttributionOutput]) -> None:
        """Check that outputs are of the same task, modality and model as the metric.

        Raises:
            InputError: if one is not.
        """
        task, modality = self.setup.wrapper.task, self.setup.wrapper.modality
        model = self.setup.wrapper.engine.provenance()["model"]
        for output in outputs:
            if (output.task, output.modality) != (task, modality):
                raise InputError(f"The outputs are of a model for {output.task}, the metric's is for {task}.")
            if output.info.get("model", model) != model:
                raise InputError(f"The outputs are of the model {output.info['model']!r}, not of {model!r}.")


def as_probability(model: object, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a metric that measures probabilities by default, with `inference_mode="softmax"` where it applies.

    It does not apply to a wrapped model, which defines its score already; to `joint=True`, whose score is the
    log-probability of the continuation; and to similarities, of which a softmax over a single prompt would be 1.
    """
    fixed = (
        isinstance(model, InferenceWrapper)
        or options.get("target_granularity") == "sequence"
        or find_task(model, options.get("task")) == "zero-shot-image-classification"
    )
    return options if fixed else {**options, "inference_mode": options.get("inference_mode") or "softmax"}


def check_method(outputs: object, method: Explainer) -> list[AttributionOutput]:
    """Outputs as a list, after a check that they can be of this method.

    Raises:
        InputError: if they are of another method.
    """
    output_list, method_name = as_list(outputs), type(method).__name__
    # Outputs without a recorded method are accepted.
    others = sorted({str(output.info.get("method", method_name)) for output in output_list} - {method_name})
    if others:
        raise InputError(f"The outputs are of {', '.join(others)}, the method is {method_name}.")
    return output_list
