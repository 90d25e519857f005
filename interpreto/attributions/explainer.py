"""The base class of all attribution methods."""

import inspect
from abc import ABC
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from interpreto.attributions import granularity, provenance
from interpreto.attributions.assembly import Setup
from interpreto.attributions.convergence import ConvergenceCheck, convergence_alternatives
from interpreto.attributions.granularity import Units
from interpreto.attributions.naming import unwrap_partial
from interpreto.attributions.option_hints import unknown_attribute, unknown_option
from interpreto.attributions.pipeline import Completed, FailedSample, Job, Pipeline
from interpreto.attributions.plans.base import Plan, PreparedSample, UnitAttribution
from interpreto.attributions.result import AttributionOutput, Request
from interpreto.attributions.result_checks import ResultChecks
from interpreto.attributions.zero_maps import ZERO_MAPS, ZeroMapCheck, zero_targets
from interpreto.errors import attach_outputs
from interpreto.model_wrapping.sample import Sample, TextSample
from interpreto.typing import OnError

_MAX_CHARACTERS = 200
"""Maximum length of the text that represents a failed sample in its result."""


class Explainer(ABC):
    """An attribution method applied to a model.

    A subclass only chooses the parts of its plan in `__init__`; everything else is implemented here.

    Attributes:
        setup: The wrapped model and the shared options.
        plan: The computation for one sample.
    """

    setup: Setup
    plan: Plan

    def __call__(
        self, inputs: object, targets: object = None, *, on_error: OnError = "raise", **unknown: object
    ) -> list[AttributionOutput]:
        """Same as `explain`."""
        return self.explain(inputs, targets, on_error=on_error, **unknown)

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute(type(self).__name__, name)

    def explain(
        self, inputs: object, targets: object = None, *, on_error: OnError = "raise", **unknown: object
    ) -> list[AttributionOutput]:
        """Compute the attributions of each sample.

        Args:
            inputs: One or several texts or images, in any form that the modality accepts.
            targets: What is explained. None for the predicted class; a class index, a label, a `Contrast`, "all" or a
                function of the model's outputs, for every sample; a tuple of these for several targets of every
                sample; a list with one entry per sample.
            on_error: "raise" stops at the first error; its attribute `outputs` contains the results of the samples
                before it. "record" continues; the result of a sample that failed has a message in `error`.
            unknown: Options of other libraries, such as `target`; the error message names our equivalent.

        Returns:
            One result per sample, in the order of the inputs.

        Raises:
            InputError: if a sample cannot be explained.
            TargetError: if a target does not exist or the list of targets has the wrong length.
            OptionError: if `on_error` is neither "raise" nor "record", or another option is passed.
        """
        for name in unknown:
            raise unknown_option(f"{type(self).__name__}.explain()", name, ("inputs", "targets", "on_error"))
        checks = self.result_checks()
        outputs = self.explain_unchecked(inputs, targets, on_error=on_error)
        for number, output in enumerate(outputs):
            checks.add(number, output)
        checks.warn(stacklevel=2)
        return outputs

    def explain_unchecked(
        self, inputs: object, targets: object = None, *, on_error: OnError = "raise"
    ) -> list[AttributionOutput]:
        """Same as `explain`, without warnings about results, for callers that check those of several calls together."""
        outputs: list[AttributionOutput] = []
        try:
            outputs.extend(map(self._output, Pipeline(self.setup, on_error).run_all(inputs, targets, self._job())))
        except BaseException as error:
            attach_outputs(error, outputs)
            raise
        return outputs

    def result_checks(self) -> ResultChecks:
        """Create the checks for the results of one run."""
        method = self.setup.method
        alternatives = convergence_alternatives(
            self.setup.wrapper.targets.generated, bool(self.setup.options.get("prepend_bos"))
        )
        return ResultChecks((ConvergenceCheck(method, self.plan.accuracy_option, alternatives), ZeroMapCheck(method)))

    def stream(
        self, inputs: object, targets: object = None, *, on_error: OnError = "raise"
    ) -> Iterator[AttributionOutput]:
        """Explain samples from an iterator of any length, and yield results in order as they are finished.

        The model is in its original state whenever a result is yielded.

        Args:
            inputs: An iterator over samples.
            targets: As for `explain`.
            on_error: As for `explain`; with "raise", the results of all samples before the error are yielded first.
        """
        checks = self.result_checks()
        outcomes = Pipeline(self.setup, on_error).stream(inputs, targets, self._job())
        for number, output in enumerate(map(self._output, outcomes)):
            checks.add(number, output)
            yield output
        checks.warn(stacklevel=2)

    def _job(self) -> Job[UnitAttribution]:
        plan = self.plan
        return Job(lambda number, prepared: plan.run(prepared), plan.n_evaluations, plan.needs, check=plan.check)

    def _output(self, outcome: Completed[UnitAttribution] | FailedSample) -> AttributionOutput:
        if isinstance(outcome, FailedSample):
            return self._failure(outcome)
        prepared = outcome.prepared
        attribution = outcome.result.restricted_to(prepared.can_influence)
        # Only methods with a ReLU yield maps that are 0 everywhere because all their values were negative.
        zeros = zero_targets(attribution.scores, prepared.targets.names) if self.plan.rectifies else []
        return AttributionOutput(
            attributions=attribution.scores,
            elements=prepared.labels,
            targets=prepared.targets.values,
            target_names=prepared.targets.names,
            scores=prepared.scores,
            task=self.setup.wrapper.task,
            modality=self.setup.wrapper.modality,
            granularity=granularity.name_of(prepared.segmenter),
            raw_input=prepared.sample.raw,
            standard_errors=attribution.standard_errors,
            completeness_gap=attribution.completeness_gap,
            segments=attribution.segments,
            unit_map=prepared.units.unit_map,
            target_units=prepared.part_of_target,
            n_evaluations=outcome.n_evaluations,
            info=provenance.record(self.setup, self.plan, outcome.seconds)
            | outcome.run_info
            | _sample_info(prepared)
            | ({ZERO_MAPS: zeros} if zeros else {}),
            request=Request(prepared.raw, prepared.targets.spec, prepared.segmenter),
        )

    def _failure(self, failed: FailedSample) -> AttributionOutput:
        raw = failed.raw.raw if isinstance(failed.raw, Sample) else failed.raw
        raw_input = raw if isinstance(raw, str | Image.Image) else f"{type(raw).__name__} {str(raw)[:_MAX_CHARACTERS]}"
        return AttributionOutput(
            attributions=torch.zeros(0, 0),
            elements=[],
            targets=(),
            target_names=(),
            scores=torch.zeros(0),
            task=self.setup.wrapper.task,
            modality=self.setup.wrapper.modality,
            granularity="",
            raw_input=raw_input,
            info=provenance.record(self.setup, self.plan, 0.0),
            error=f"{type(failed.error).__name__}: {' '.join(str(failed.error).split())}",
        )


def _sample_info(prepared: PreparedSample) -> dict[str, Any]:
    """The entries of `info` that depend on the sample: truncation of a text, turns of a chat, target probabilities."""
    truncation = prepared.sample.truncation if isinstance(prepared.sample, TextSample) else None
    info: dict[str, Any] = {} if truncation is None else {"truncated": str(truncation)}
    if isinstance(prepared.sample, TextSample) and prepared.sample.roles:
        info["turns"] = _turns(prepared.sample, prepared.units)
    probabilities = prepared.evaluation.probabilities
    return info if probabilities is None else {**info, "probabilities": list(probabilities)}


def _turns(sample: TextSample, units: Units) -> list[list[Any]]:
    """The role of each turn of a chat, and the index of the first unit of the turn."""
    turn_of_unit = sample.text_index[units.start.flatten()].tolist()
    turns: list[list[Any]] = []
    current = -1
    for unit, turn in enumerate(turn_of_unit):
        # Tokens that the chat template added have the value -1, and belong to the turn before them.
        if turn > current:
            current = turn
            turns.append([sample.roles[turn], unit])
    return turns


def is_method(value: object) -> bool:
    """Whether a value is the class of a method, or a `functools.partial` of one."""
    cls = unwrap_partial(value)
    return inspect.isclass(cls) and issubclass(cls, Explainer)
