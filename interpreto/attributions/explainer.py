"""A method on a model: its plan, run by the pipeline, and the results."""

from abc import ABC
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from interpreto.attributions import granularity, provenance
from interpreto.attributions.assembly import Setup
from interpreto.attributions.convergence import ConvergenceCheck, advice
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

_SHOWN = 200
"""Characters that are shown of a sample that could not be read."""


class Explainer(ABC):
    """A method on a model. A method chooses the parts of its plan; everything else is implemented here.

    Attributes:
        setup: The wrapped model and the shared options.
        plan: How the method explains one sample.
    """

    setup: Setup
    plan: Plan

    def __call__(
        self, inputs: Any, targets: Any = None, *, on_error: OnError = "raise", **unknown: Any
    ) -> list[AttributionOutput]:
        """Same as `explain`."""
        return self.explain(inputs, targets, on_error=on_error, **unknown)

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute(type(self).__name__, name)

    def explain(
        self, inputs: Any, targets: Any = None, *, on_error: OnError = "raise", **unknown: Any
    ) -> list[AttributionOutput]:
        """Explain each sample's targets.

        Args:
            inputs: Texts or images, one or several, in any form that the modality accepts.
            targets: None for the predicted class; a class index or label, a `Contrast`, "all" or a function of the
                outputs for every sample; a tuple of these for several targets; a list with one entry per sample.
            on_error: "raise" ends with the first error, whose attribute `outputs` has the results that were finished
                before it. "record" continues: the output of a sample that failed has the reason in `error`.
            unknown: No other option exists; the error says where those of other libraries belong.

        Returns:
            One output per sample, in order.

        Raises:
            InputError: if a sample cannot be explained.
            TargetError: if a target does not exist or the list of targets has the wrong length.
            OptionError: if `on_error` is neither "raise" nor "record", or there are other options.
        """
        for name in unknown:
            raise unknown_option(f"The call of {type(self).__name__}", name, ("inputs", "targets", "on_error"))
        checks = self.result_checks()
        outputs = self.explain_unchecked(inputs, targets, on_error=on_error)
        for number, output in enumerate(outputs):
            checks.add(number, output)
        checks.warn(stacklevel=2)
        return outputs

    def explain_unchecked(
        self, inputs: Any, targets: Any = None, *, on_error: OnError = "raise"
    ) -> list[AttributionOutput]:
        """Same as `explain` without warnings about results, for runs that check the results of all batches together."""
        outputs: list[AttributionOutput] = []
        try:
            outputs.extend(map(self._output, Pipeline(self.setup, on_error).all(inputs, targets, self._job())))
        except BaseException as error:
            attach_outputs(error, outputs)
            raise
        return outputs

    def result_checks(self) -> ResultChecks:
        """Fresh checks for the results of one run."""
        method = self.setup.method
        advised = advice(self.setup.wrapper.targets.generated, bool(self.setup.options.get("prepend_bos")))
        return ResultChecks((ConvergenceCheck(method, self.plan.accuracy_option, advised), ZeroMapCheck(method)))

    def stream(self, inputs: Any, targets: Any = None, *, on_error: OnError = "raise") -> Iterator[AttributionOutput]:
        """Explain samples from an iterator of any length, yielding outputs in order as they finish.

        `targets` is as for `explain`; a list is read along with the inputs. Between outputs the model is as it was.
        `on_error` is as for `explain`; an error comes after the outputs of all samples before it.
        """
        checks = self.result_checks()
        found = Pipeline(self.setup, on_error).stream(inputs, targets, self._job())
        for number, output in enumerate(map(self._output, found)):
            checks.add(number, output)
            yield output
        checks.warn(stacklevel=2)

    def _job(self) -> Job[UnitAttribution]:
        plan = self.plan
        return Job(lambda number, prepared: plan.run(prepared), plan.n_evaluations, plan.needs, check=plan.check)

    def _output(self, done: Completed[UnitAttribution] | FailedSample) -> AttributionOutput:
        if isinstance(done, FailedSample):
            return self._failure(done)
        prepared = done.prepared
        attribution = done.result.restricted_to(prepared.can_influence)
        # A score of 0 is informative for methods that keep signs, but not for those that keep positive sums alone.
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
            n_evaluations=done.n_evaluations,
            info=provenance.record(self.setup, self.plan, done.seconds)
            | done.notes
            | _of_sample(prepared)
            | ({ZERO_MAPS: zeros} if zeros else {}),
            request=Request(prepared.raw, prepared.targets.spec, prepared.segmenter),
        )

    def _failure(self, failed: FailedSample) -> AttributionOutput:
        raw = failed.raw.raw if isinstance(failed.raw, Sample) else failed.raw
        shown = raw if isinstance(raw, str | Image.Image) else f"{type(raw).__name__} {str(raw)[:_SHOWN]}"
        return AttributionOutput(
            attributions=torch.zeros(0, 0),
            elements=[],
            targets=(),
            target_names=(),
            scores=torch.zeros(0),
            task=self.setup.wrapper.task,
            modality=self.setup.wrapper.modality,
            granularity="",
            raw_input=shown,
            info=provenance.record(self.setup, self.plan, 0.0),
            error=f"{type(failed.error).__name__}: {' '.join(str(failed.error).split())}",
        )


def _of_sample(prepared: PreparedSample) -> dict[str, Any]:
    """Facts about one sample for the record: the truncation of a text, the turns of a chat, target probabilities."""
    cut = prepared.sample.truncation if isinstance(prepared.sample, TextSample) else None
    found: dict[str, Any] = {} if cut is None else {"truncated": str(cut)}
    if isinstance(prepared.sample, TextSample) and prepared.sample.roles:
        found["turns"] = _turns(prepared.sample, prepared.units)
    return found if prepared.probabilities is None else {**found, "probabilities": list(prepared.probabilities)}


def _turns(sample: TextSample, units: Units) -> list[list[Any]]:
    """The role of each turn of a chat, and the unit at which the turn starts."""
    text_of_unit = sample.sequence[units.start.flatten()].tolist()
    found: list[list[Any]] = []
    spoken = -1
    for unit, text in enumerate(text_of_unit):
        # Tokens of the template belong to the turn before them.
        if text > spoken:
            spoken = text
            found.append([sample.roles[text], unit])
    return found


def is_method(given: Any) -> bool:
    """Whether an object is the class of a method, or a `functools.partial` of one."""
    inner = unwrap_partial(given)
    return isinstance(inner, type) and issubclass(inner, Explainer)
