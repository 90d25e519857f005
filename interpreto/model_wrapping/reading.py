"""Converts the inputs and targets that users pass to samples, each with its own targets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from interpreto.errors import InputError, InterpretoError, TargetError
from interpreto.model_wrapping.parts import InputReader, TargetResolver
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import per_sample
from interpreto.option_kinds import short_repr
from interpreto.type_guards import are_all, is_array, is_collection


@dataclass(frozen=True, eq=False)
class TargetedSample:
    """One of the user's samples and its targets.

    Attributes:
        raw: The sample as the user passed it.
        spec: The targets of the sample, normalized.
        sample: The sample prepared for the model; None before `prepare`.
        error: Why it cannot be explained; None if it can.
    """

    raw: Any
    spec: Any = None
    sample: Sample | None = None
    error: Exception | None = None


def check_not_a_table(inputs: object) -> None:
    """Check that inputs are not a data frame, which iterates over its column names, or a zero-dimensional array.

    Raises:
        InputError: if they are.
    """
    if is_array(inputs) and not inputs.ndim:
        raise InputError(f"A zero-dimensional array, {short_repr(inputs)}, is not a list of samples: pass its .item().")
    columns = getattr(inputs, "columns", None)
    if columns is not None and getattr(inputs, "iloc", None) is not None:
        names = [str(name) for name in columns]
        first = names[0] if names else "text"
        raise InputError(
            f"A data frame with the columns {', '.join(map(repr, names[:20]))} is not a list of samples: pass one of "
            f"its columns, such as df[{first!r}]."
        )


def read(
    reader: InputReader, resolver: TargetResolver, inputs: Any, targets: object, keep_errors: bool
) -> list[TargetedSample]:
    """Read samples that are all available; invalid ones are reported before the model runs.

    `inputs` may also be a list of prepared samples, for callers that explain the same samples several times.

    Args:
        reader: Reads the inputs.
        resolver: Normalizes and validates the targets.
        inputs: The user's inputs.
        targets: The user's targets.
        keep_errors: Whether the error of a sample is stored in its `error` instead of raised.

    Raises:
        InputError: if there are no samples, or one of them cannot be read.
        TargetError: if a target does not exist, or the list of targets has the wrong length.
    """
    check_not_a_table(inputs)
    are_prepared = isinstance(inputs, list) and are_all(Sample, inputs)
    single = not are_prepared and reader.is_single(inputs)
    if are_prepared:
        items = [TargetedSample(sample, sample=sample) for sample in inputs]
    else:
        items = _raised(_split(reader, inputs), keep_errors)
    if not items:
        raise InputError("The list of inputs is empty: there is nothing to explain.")
    normalized = resolver.normalize(targets, len(items))
    specs = per_sample(normalized, len(items), single)
    # An invalid target that applies to every sample is always raised; one of a list is an error of its sample.
    keep = keep_errors and isinstance(normalized, list)
    items = [replace(item, spec=spec) for item, spec in zip(items, specs, strict=True)]
    items = [_validated(item, lambda item: resolver.check(item.spec), keep) for item in items]
    if reader.ragged:
        # Texts are tokenized now, which validates all of them. Images need more memory, and are prepared when needed.
        items = _raised(prepare(reader, items), keep_errors)
        items = [_validated(item, partial(_check_with_sample, resolver), keep) for item in items]
    return items


def read_stream(
    reader: InputReader, resolver: TargetResolver, inputs: object, targets: object, keep_errors: bool
) -> Iterator[TargetedSample]:
    """Read samples from an iterator of any length when they are needed; arguments and errors are those of `read`."""
    check_not_a_table(inputs)
    if reader.is_single(inputs):
        yield from read(reader, resolver, inputs, targets, keep_errors)
        return
    normalized = resolver.normalize(targets)
    is_list = isinstance(normalized, list)
    for spec in normalized if is_list else [normalized]:
        resolver.check(per_sample([spec], 1, False)[0])
    items = _split(reader, inputs)
    yield from _with_targets(items, normalized) if is_list else (replace(item, spec=normalized) for item in items)


def prepare(reader: InputReader, items: Sequence[TargetedSample]) -> list[TargetedSample]:
    """Prepare the samples for the model; a sample for which that fails gets the error."""
    unprepared = [item.raw for item in items if item.sample is None and item.error is None]
    prepared = iter(_prepared(reader, unprepared))
    return [
        item if item.sample is not None or item.error is not None else _with_outcome(item, next(prepared))
        for item in items
    ]


def _prepared(reader: InputReader, raws: Sequence[object]) -> list[Sample | Exception]:
    """Prepare samples together and, if that fails, one by one, to find which of them cannot be read."""
    if not raws:
        return []
    try:
        # Tensors created in a caller's torch.inference_mode could not be used in the computation of gradients.
        with torch.inference_mode(False):
            return list(reader.prepare(raws))
    except Exception as error:
        if len(raws) == 1:
            return [error]
    return [outcome for raw in raws for outcome in _prepared(reader, [raw])]


def _with_outcome(item: TargetedSample, outcome: Sample | Exception) -> TargetedSample:
    if isinstance(outcome, Exception):
        return replace(item, error=outcome)
    return replace(item, sample=outcome)


def _split(reader: InputReader, inputs: object) -> Iterator[TargetedSample]:
    """Iterate over the samples; an invalid sample gets an error."""
    # The reader splits everything else itself, or raises an error for all of it.
    if reader.is_single(inputs) or isinstance(inputs, tuple) or not is_collection(inputs):
        yield from map(TargetedSample, reader.split(inputs))
        return
    for item in inputs:
        try:
            yield from map(TargetedSample, list(reader.split([item])))
        except InterpretoError as error:
            yield TargetedSample(item, error=error)


def _check_with_sample(resolver: TargetResolver, item: TargetedSample) -> None:
    assert item.sample is not None
    resolver.check_with_sample(item.spec, item.sample)


def _validated(item: TargetedSample, check: Callable[[TargetedSample], None], keep: bool) -> TargetedSample:
    if item.error is not None:
        return item
    try:
        check(item)
    except TargetError as error:
        if not keep:
            raise
        return replace(item, error=error)
    return item


def _raised(items: Iterable[TargetedSample], keep_errors: bool) -> list[TargetedSample]:
    valid = []
    for item in items:
        if item.error is not None and not keep_errors:
            raise item.error
        valid.append(item)
    return valid


def _with_targets(items: Iterable[TargetedSample], targets: list[object]) -> Iterator[TargetedSample]:
    """Combine each sample with its entry in the list of targets."""
    count = 0
    for count, item in enumerate(items, start=1):
        if count > len(targets):
            raise TargetError(f"targets is a list of {len(targets)} but there are more samples, at least {count}.")
        yield replace(item, spec=per_sample([targets[count - 1]], 1, False)[0])
    if count < len(targets):
        raise TargetError(f"targets is a list of {len(targets)} but there were only {count} samples.")
