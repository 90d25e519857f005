"""Shared by all classifiers: resolving targets, and finding the logits in a model's output."""

import math
from collections.abc import Callable, Iterator, Mapping
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
from interpreto.model_wrapping.targets import (
    AllOutputs,
    ClassTargets,
    DeferredTargets,
    class_targets,
    labels_of,
    resolve,
)
from interpreto.option_kinds import call_function, short_repr
from interpreto.type_guards import is_list

_MAX_PARTS = 12
"""Maximum number of parts of a model's output that an error message lists."""


@final
@dataclass(frozen=True, eq=False)
class ClassTargetResolver(TargetResolver):
    """Resolves classes, contrasts of classes and functions of a classifier's outputs.

    Attributes:
        config: The model's config, or a stand-in, with `id2label` and possibly `problem_type`.
        module: The model, if `config` belongs to it, so that the number of classes can be read before it runs; else
            None.
        runtime: Determines which score is explained; None for functions, which return this score.
        count: The number of classes, if there is no module and the caller knows it.
    """

    config: Any
    module: nn.Module | None = None
    runtime: Runtime | None = None
    count: int | None = None

    def check(self, spec: object) -> None:
        self._given_targets(spec)

    def known_targets(self, spec: object) -> PlanRun[ClassTargets | None]:
        yield from ()
        # The part of the output that `model_output` selects may have other classes than the config says.
        selects = self.runtime is not None and self.runtime.model_output is not None
        return None if selects else self._given_targets(spec)

    def resolve(
        self, sample: Sample, spec: object, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        # Targets are resolved from the outputs; only captured gradients need them in the same forward pass.
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
            probabilities = outputs[0].exp()
        elif mode == "softmax":
            probabilities = outputs[0]
        elif mode == "logits":
            is_multi_label = problem == "multi_label_classification" or outputs.shape[1] == 1
            probabilities = outputs[0].sigmoid() if is_multi_label else outputs[0].softmax(-1)
        else:
            return None
        values = [float(probabilities[value]) if isinstance(value, int) else math.nan for value in targets.values]
        return tuple(value if math.isfinite(value) else None for value in values)

    def _given_targets(self, spec: object) -> ClassTargets | None:
        """The targets that the user passes; None if there are none, or the number of classes is not known."""
        if spec is None:
            return None
        count = self.count if self.module is None else _number_of_classes(self.config, self.module)
        return None if count is None else class_targets(spec, labels_of(self.config, count))

    def _resolved(self, spec: object, outputs: Float[Tensor, "1 k"]) -> ClassTargets:
        targets = resolve(spec, outputs[0], labels_of(self.config, outputs.shape[1]))
        check_scores(targets.select(outputs), targets.names)
        return targets


def _number_of_classes(config: object, module: nn.Module) -> int | None:
    """The number of classes according to the config, if the model's last linear layer has as many outputs.

    None if they differ, because users replace the head of a model without updating its config.
    """
    count = getattr(config, "num_labels", None)
    sizes = (getattr(part, "out_features", None) for part in _from_last(module))
    head = next((size for size in sizes if isinstance(size, int)), None)
    return count if head in (None, count) else None


def _from_last(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of a model from the last to the first."""
    # Recursive, because `modules()` of a large model takes long, and the head is found at once.
    for child in reversed(list(module.children())):
        yield from _from_last(child)
    yield module


def logits_of(output: object, count: int, chosen: ModelOutput = None) -> Float[Tensor, "p k"]:
    """Find the logits in a model's output.

    Args:
        output: The model's output.
        count: Number of rows of the input.
        chosen: The option `model_output`: a key of a mapping or the name of an attribute, an index of a tuple or list,
            or a function from the output to logits. None for the output itself if it is a tensor, else "logits".

    Raises:
        OptionError: if the output has no such key, attribute or index.
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
            f"{describe_output(output)}{part}. Pass model_output= to select the logits: a key, an index, or a function "
            "from the model's output to logits."
        )
    if len(logits) != count:
        raise ModelError(
            f"A classifier must return one row of logits per input; this model returned {describe_output(logits)} for "
            f"{count} input{'s' * (count != 1)}."
        )
    return at_least_float32(logits)


def select_output(output: object, chosen: str | int | Callable[[object], object]) -> Any:
    """Select the part of a model's output that the option `model_output` names."""
    if callable(chosen):
        return call_function("model_output", chosen, output)
    parts = _parts(output)
    if isinstance(chosen, str):
        if (part := _part_named(output, chosen)) is not None:
            return part
    elif -len(parts) <= chosen < len(parts):
        return list(parts.values())[chosen]
    keys = list(dict.fromkeys([*parts, *range(len(parts))]))
    hint = choices(chosen, keys) if keys else f"it is {describe_output(output)}."
    raise OptionError(f"The model's output has no {chosen!r}: {hint}")


def _parts(output: object) -> dict[Any, Any]:
    """The parts of a model's output by their keys, or by their indices."""
    if isinstance(output, Mapping):
        return dict(output.items())
    return dict(enumerate(output)) if is_list(output) else {}


def _part_named(output: object, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def describe_output(output: object) -> str:
    """Describe a model's output in an error message: its type, and the keys or indices of its parts."""
    if isinstance(output, Tensor):
        dtype = f"{output.dtype} " if output.is_complex() else ""
        return f"a {dtype}tensor of shape {tuple(output.shape)}"
    parts = [f"{key!r} ({describe_output(part)})" for key, part in _parts(output).items()]
    return f"{type(output).__name__} with {', '.join(parts[:_MAX_PARTS])}" if parts else type(output).__name__
