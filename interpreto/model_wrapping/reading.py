"""The edge of the package: what users pass as inputs and targets becomes one sample with its targets after another."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpreto.errors import InputError, InterpretoError, TargetError
from interpreto.model_wrapping.parts import InputReader, TargetResolver
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import per_sample
from interpreto.option_kinds import short_repr
from interpreto.typing import BYTES


@dataclass(frozen=True, eq=False)
class TargetedSample:
    """One of the user's samples and its targets.

    Attributes:
        raw: The sample in the user's form.
        spec: Its targets, normalized.
        sample: The sample prepared for the model; None before `prepare`.
        error: Why it cannot be explained; None if it can.
    """

    raw: Any
    spec: Any = None
    sample: Sample | None = None
    error: Exception | None = None


def check_not_a_table(inputs: Any) -> None:
    """Refuse a data frame, which iterates over its column names, and an array without axes.

    Raises:
        InputError: if the inputs are one of them.
    """
    if isinstance(inputs, np.ndarray | Tensor) and not inputs.ndim:
        raise InputError(
            f"An array without axes, {short_repr(inputs)}, is not a list of samples: pass what it contains."
        )
    columns = getattr(inputs, "columns", None)
    if columns is not None and getattr(inputs, "iloc", None) is not None:
        names = [str(name) for name in columns]
        first = names[0] if names else "text"
        raise InputError(
            f"A table with the columns {', '.join(map(repr, names[:20]))} is not a list of samples: pass one of its "
            f"columns, such as df[{first!r}]."
        )


def read(
    reader: InputReader, resolver: TargetResolver, inputs: Any, targets: Any, keep_errors: bool
) -> list[TargetedSample]:
    """Read samples that are all available, so that mistakes are reported before any sample is explained.

    A list of samples that are prepared already is accepted too, for callers who explain the same ones repeatedly.

    Args:
        reader: Reads the inputs.
        resolver: Checks the targets.
        inputs: The user's inputs.
        targets: The user's targets.
        keep_errors: Whether an error of one sample is kept in its `error`, instead of raised.

    Raises:
        InputError: if there are no samples, or one of them cannot be read.
        TargetError: if a target does not exist, or the list of targets has the wrong length.
    """
    check_not_a_table(inputs)
    are_prepared = isinstance(inputs, list) and all(isinstance(one, Sample) for one in inputs)
    single = not are_prepared and reader.is_single(inputs)
    if are_prepared:
        items = [TargetedSample(sample, sample=sample) for sample in inputs]
    else:
        items = _raised(_split(reader, inputs), keep_errors)
    if not items:
        raise InputError("The list of inputs is empty: there is nothing to explain.")
    normalized = resolver.normalize(targets, len(items))
    specs = per_sample(normalized, len(items), single)
    # A target that serves every sample is a mistake of the call; one of several is a mistake of its sample.
    keep = keep_errors and isinstance(normalized, list)
    items = [_checked(resolver, replace(item, spec=spec), None, keep) for item, spec in zip(items, specs, strict=True)]
    if reader.ragged:
        # Texts are tokenised before any of them is explained; images are large, and are prepared when they are needed.
        items = _raised(prepare(reader, items), keep_errors)
        items = [_checked(resolver, item, item.sample, keep) for item in items]
    return items


def read_stream(
    reader: InputReader, resolver: TargetResolver, inputs: Any, targets: Any, keep_errors: bool
) -> Iterator[TargetedSample]:
    """Read samples of an iterator of any length as they are needed; arguments and errors are those of `read`."""
    check_not_a_table(inputs)
    if reader.is_single(inputs):
        yield from read(reader, resolver, inputs, targets, keep_errors)
        return
    normalized = resolver.normalize(targets)
    is_list = isinstance(normalized, list)
    for spec in normalized if is_list else [normalized]:
        resolver.check(per_sample([spec], 1, False)[0])
    items = _split(reader, inputs)
    yield from _alongside(items, normalized) if is_list else (replace(item, spec=normalized) for item in items)


def prepare(reader: InputReader, items: Sequence[TargetedSample]) -> list[TargetedSample]:
    """The same with samples that are prepared for the model, or the error that prevents it."""
    fresh = [item.raw for item in items if item.sample is None and item.error is None]
    prepared = iter(_prepared(reader, fresh))
    return [
        item if item.sample is not None or item.error is not None else _with_outcome(item, next(prepared))
        for item in items
    ]


def _prepared(reader: InputReader, raws: Sequence[Any]) -> list[Sample | Exception]:
    """Samples prepared together, and one by one if that fails, to find which of them cannot be read."""
    if not raws:
        return []
    try:
        # Tensors made inside a caller's inference mode could not be used where gradients are taken.
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


def _split(reader: InputReader, inputs: Any) -> Iterator[TargetedSample]:
    """The samples one by one; one that is not a sample has an error."""
    is_whole = isinstance(inputs, Mapping | tuple | BYTES)
    if reader.is_single(inputs) or is_whole or not isinstance(inputs, Iterable):
        yield from map(TargetedSample, reader.split(inputs))
        return
    for item in inputs:
        try:
            yield from map(TargetedSample, list(reader.split([item])))
        except InterpretoError as error:
            yield TargetedSample(item, error=error)


def _checked(resolver: TargetResolver, item: TargetedSample, sample: Sample | None, keep: bool) -> TargetedSample:
    if item.error is not None:
        return item
    try:
        resolver.check(item.spec, sample)
    except TargetError as error:
        if not keep:
            raise
        return replace(item, error=error)
    return item


def _raised(items: Iterable[TargetedSample], keep_errors: bool) -> list[TargetedSample]:
    found = []
    for item in items:
        if item.error is not None and not keep_errors:
            raise item.error
        found.append(item)
    return found


def _alongside(items: Iterable[TargetedSample], targets: list[Any]) -> Iterator[TargetedSample]:
    """Each sample with its entry of the list of targets."""
    count = 0
    for count, item in enumerate(items, start=1):
        if count > len(targets):
            raise TargetError(f"targets is a list of {len(targets)} but there is a sample number {count}.")
        yield replace(item, spec=per_sample([targets[count - 1]], 1, False)[0])
    if count < len(targets):
        raise TargetError(f"targets is a list of {len(targets)} but there were only {count} samples.")
