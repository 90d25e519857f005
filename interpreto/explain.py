"""Several methods on the same samples."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods import METHODS
from interpreto.attributions.naming import resolve_classes
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InterpretoError, UnsupportedError

Methods = str | type | Callable[..., Explainer] | Iterable[Any] | Mapping[str, Any]
"""Methods by name, class or `functools.partial`: one, several, a mapping from names of your own to these, or "all"."""


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One method on all samples.

    Attributes:
        name: Name of the method.
        outputs: One per sample; empty if the method failed.
        seconds: Wall time.
        error: Why it failed; None if it did not.
    """

    name: str
    outputs: list[AttributionOutput]
    seconds: float
    error: InterpretoError | None = None


def run_methods(
    methods: Methods, model: object, processor: object, inputs: object, targets: object = None, **options: object
) -> Iterator[MethodRun]:
    """Explain the same samples by one method after another; a method that fails is yielded with its error.

    Arguments are as for `explain_with`.
    """
    for name, method in resolve_classes(methods, METHODS, "method", is_method).items():
        begin, outputs, failure = time.perf_counter(), list[AttributionOutput](), None
        try:
            outputs = method(model, processor, **options).explain(inputs, targets)
        except InterpretoError as error:
            failure = error
        yield MethodRun(name, outputs, time.perf_counter() - begin, failure)


def explain_with(
    methods: Methods, model: object, processor: object, inputs: object, targets: object = None, **options: object
) -> dict[str, list[AttributionOutput]]:
    """Explain the same samples by several methods, for `plot_attributions` and metrics.

    Args:
        methods: Names, classes or `functools.partial`s of methods, or a mapping from names of your own to these. "all"
            is every method that works on the model; those that do not are left out.
        model: As for every method.
        processor: As for every method; None for a wrapped model.
        inputs: As for every method.
        targets: As for every method.
        options: Options of all these methods; for an option of one method, pass a `functools.partial`.

    Returns:
        For each method, by name, one output per sample.

    Raises:
        InterpretoError: if a method fails.

    Example:
        >>> from interpreto import from_callables
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> results = explain_with(("Occlusion", "KernelShap"), model, None, "so good a film")
        >>> {name: outputs[0].attributions.argmax().item() for name, outputs in results.items()}
        {'Occlusion': 1, 'KernelShap': 1}
    """
    results: dict[str, list[AttributionOutput]] = {}
    for run in run_methods(methods, model, processor, inputs, targets, **options):
        if run.error is None:
            results[run.name] = run.outputs
        elif methods != "all" or not isinstance(run.error, UnsupportedError):
            raise run.error
    return results
