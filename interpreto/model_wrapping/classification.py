"""What classifiers share, whatever they read."""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError
from interpreto.model_wrapping.conversation import Ask, NamedTargets, Plan, Settled
from interpreto.model_wrapping.finite import check_outputs
from interpreto.model_wrapping.inside.probe import Probe
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import ClassTargets, Everything, Foreseen, labels_of, named, resolve


def settle(sample: Sample, spec: Any, config: Any, probe: Probe | None = None) -> Plan[Settled]:
    """Run the unchanged sample and settle which classes are explained; a probe sees that run.

    Raises:
        ModelError: if the outputs are not finite.
        TargetError: if the model has no such target.
    """
    targets = partial(_resolved, spec, config)
    answer = yield Ask(sample.rows, Everything() if probe is None else Foreseen(targets), probe=probe)
    outputs = answer.scores
    check_outputs(outputs)
    return Settled(sample, targets(outputs), outputs, None if answer.inside is None else answer.inside[0])


def _resolved(spec: Any, config: Any, outputs: Float[Tensor, "1 k"]) -> ClassTargets:
    return resolve(spec, outputs[0], labels_of(config, outputs.shape[1]))


def probabilities(
    targets: NamedTargets, outputs: Float[Tensor, "1 k"], runtime: Runtime, config: Any
) -> tuple[float | None, ...] | None:
    """How likely the model says each class among the targets is; None where the explained score does not tell."""
    mode = runtime.mode
    if mode == "log_softmax":
        found = outputs[0].exp()
    elif mode == "softmax":
        found = outputs[0]
    elif mode == "logits":
        several = getattr(config, "problem_type", None) == "multi_label_classification" or outputs.shape[1] == 1
        found = outputs[0].sigmoid() if several else outputs[0].softmax(-1)
    else:
        return None
    if getattr(config, "problem_type", None) == "regression":
        return None
    return tuple(float(found[value]) if isinstance(value, int) else None for value in targets.values)


def check_target(spec: Any, config: Any) -> None:
    """Refuse a class or label that the config knows not to exist.

    Raises:
        TargetError: if it does not.
    """
    count = getattr(config, "num_labels", None)
    if count is not None and spec is not None:
        named(spec, labels_of(config, count))


def logits_of(output: Any) -> Float[Tensor, "p k"]:
    """The logits of a model's output: a tensor, or an output object of transformers.

    Raises:
        ModelError: if there are none, or not one row of logits per input.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None or logits.ndim != 2:
        shape = None if logits is None else tuple(logits.shape)
        raise ModelError(
            f"A classifier must return logits of shape (rows, classes); this model returned {type(output).__name__}"
            f"{'' if shape is None else f' with logits of shape {shape}'}."
        )
    return logits.float()
