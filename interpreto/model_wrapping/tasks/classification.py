"""What classifiers share: their targets, and the logits among what they return."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import ModelError, OptionError, choices
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.finite_checks import check_scores
from interpreto.model_wrapping.execution.precision import at_least_float32
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.parts import TargetResolver
from interpreto.model_wrapping.runtime import ModelOutput, Runtime
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import AllOutputs, ClassTargets, DeferredTargets, labels_of, named, resolve
from interpreto.option_kinds import call_function, short_repr

_SHOWN = 12
"""Parts of an output that a message names."""


@final
@dataclass(frozen=True, eq=False)
class ClassTargetResolver(TargetResolver):
    """Resolves classes, contrasts of classes and functions of a classifier's outputs.

    Attributes:
        config: Has the names of the classes in `id2label`, and may say in `problem_type` what outputs mean.
        module: A model whose config is its own, and tells how many classes there are before it runs; else None.
        runtime: Which score is explained; None for functions, which return it.
        count: The number of classes, if it is known in another way.
    """

    config: Any
    module: nn.Module | None = None
    runtime: Runtime | None = None
    count: int | None = None

    def check(self, spec: Any, sample: Sample | None = None) -> None:
        count = self.count if self.module is None else _number_of_classes(self.config, self.module)
        if count is not None and spec is not None:
            named(spec, labels_of(self.config, count))

    def resolve(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        # Only the gradients for internals need the targets in the same run.
        requested = AllOutputs() if capture is None else DeferredTargets(partial(self._resolved, spec))
        response: ModelResponse = yield ModelRequest(sample.rows, requested, capture=capture, return_outputs=True)
        assert response.outputs is not None
        return ResolvedSample(sample, self._resolved(spec, response.outputs), response)

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 k"]) -> tuple[float | None, ...] | None:
        mode = None if self.runtime is None else self.runtime.mode
        problem = getattr(self.config, "problem_type", None)
        if problem == "regression":
            return None
        if mode == "log_softmax":
            likely = outputs[0].exp()
        elif mode == "softmax":
            likely = outputs[0]
        elif mode == "logits":
            is_multi_label = problem == "multi_label_classification" or outputs.shape[1] == 1
            likely = outputs[0].sigmoid() if is_multi_label else outputs[0].softmax(-1)
        else:
            return None
        known = [float(likely[value]) if isinstance(value, int) else math.nan for value in targets.values]
        return tuple(share if math.isfinite(share) else None for share in known)

    def _resolved(self, spec: Any, outputs: Float[Tensor, "1 k"]) -> ClassTargets:
        targets = resolve(spec, outputs[0], labels_of(self.config, outputs.shape[1]))
        check_scores(targets.select(outputs), targets.names)
        return targets


def _number_of_classes(config: Any, module: nn.Module) -> int | None:
    """The number of classes that a config gives, if the model's last linear layer has as many outputs.

    Users put heads of their own on models, and then only the outputs tell how many classes there are.
    """
    count = getattr(config, "num_labels", None)
    outputs = [found for part in module.modules() if isinstance(found := getattr(part, "out_features", None), int)]
    return count if not outputs or outputs[-1] == count else None


def logits_of(output: Any, count: int, chosen: ModelOutput = None) -> Float[Tensor, "p k"]:
    """The logits of a model's output: a tensor, what it calls logits, or what the user chose.

    Args:
        output: What the model returned.
        count: How many rows it was given.
        chosen: A key of a mapping or an attribute, the place in a tuple or list, or a function from the output to
            logits; None takes a tensor itself, else what is called "logits".

    Raises:
        OptionError: if the output has nothing of that name or place.
        ModelError: if there are no logits, or not one row of logits per input.
    """
    if chosen is not None:
        logits = select_output(output, chosen)
    else:
        logits = output if isinstance(output, Tensor) else _part_named(output, "logits")
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.is_complex():
        part = "" if chosen is None else f", of which model_output={short_repr(chosen)} is {describe_output(logits)}"
        raise ModelError(
            "A classifier must return logits of shape (rows, classes); this model returned "
            f"{describe_output(output)}{part}. Say which part is the logits with model_output=: a key, a place, or a "
            "function from what the model returns to logits."
        )
    if len(logits) != count:
        raise ModelError(
            f"A classifier must return one row of logits per input; this model returned {describe_output(logits)} for "
            f"{count} input{'s' * (count != 1)}."
        )
    return at_least_float32(logits)


def select_output(output: Any, chosen: str | int | Callable[[Any], Any]) -> Any:
    """The part of a model's output that the user chose."""
    if callable(chosen):
        return call_function("model_output", chosen, output)
    known: list[Any] = list(output) if isinstance(output, Mapping) else []
    if isinstance(chosen, str):
        found = _part_named(output, chosen)
        if found is not None:
            return found
    else:
        parts = list(output.values()) if isinstance(output, Mapping) else output
        if isinstance(parts, list | tuple):
            known = [*known, *range(len(parts))]
            if -len(parts) <= chosen < len(parts):
                return parts[chosen]
    hint = choices(chosen, known) if known else f"it is {describe_output(output)}."
    raise OptionError(f"The model's output has no {chosen!r}: {hint}")


def _part_named(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def describe_output(output: Any) -> str:
    """A model's output in a message: its kind, and the keys or places of its parts."""
    if isinstance(output, Tensor):
        kind = f"{output.dtype} " if output.is_complex() else ""
        return f"a {kind}tensor of shape {tuple(output.shape)}"
    kind = type(output).__name__
    if not isinstance(output, Mapping | list | tuple):
        return kind
    named = list(output.items() if isinstance(output, Mapping) else enumerate(output))
    return f"{kind} with {', '.join(f'{key!r} ({describe_output(part)})' for key, part in named[:_SHOWN])}"
