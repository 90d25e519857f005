"""Targets of classifiers: the scores that are explained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.errors import InputError, TargetError, choices
from interpreto.type_guards import are_all, as_tuple, function_name, is_integer, is_list, shape_or_type
from interpreto.typing import Scores

TargetFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contrast:
    """The score of a fact minus the score of a foil. Explains why the model predicts `fact` rather than `foil`.

    Two continuations of a language model are compared token by token. Each token of `foil` is conditioned on the same
    prefix as its counterpart in `fact`: the prompt and the earlier tokens of `fact`.
    """

    fact: Any
    foil: Any


@dataclass(frozen=True)
class SavedTarget:
    """A target that was saved by its name only: an image or an embedding that a dual encoder compared with a sample."""

    name: str


@dataclass(frozen=True)
class ClassTargets:
    """Classes, contrasts of classes, or functions of the model's outputs, with their names."""

    values: tuple[int | Contrast | TargetFunction, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def spec(self) -> tuple[int | Contrast | TargetFunction, ...]:
        """The values."""
        return self.values

    @property
    def causal_limit(self) -> None:
        """Always None, because all positions can influence a class."""

    def own_positions(self, length: int) -> None:
        """Always None, because classes are not part of a sample."""

    def by_unit(self, index: Int[Tensor, "*l"], labels: object) -> "ClassTargets":
        """Returns self, because classes are not grouped by units."""
        return self

    def without_cache(self) -> "ClassTargets":
        """Returns self, because classes have no key/value cache."""
        return self

    def part(self, start: int, stop: int) -> "ClassTargets":
        """Select the targets from `start` to `stop`."""
        return ClassTargets(self.values[start:stop], self.names[start:stop])

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """Compute the scores of the targets from the model's outputs.

        Raises:
            TargetError: if a class is out of range or a function does not return one score per row.
        """
        if are_all(int, self.values):
            classes: list[Any] = list(self.values)
            _check_in_range(max(classes), outputs)
            # Taking a slice is several times faster than indexing with a list.
            return outputs[:, classes] if len(classes) > 1 else outputs[:, classes[0] : classes[0] + 1]
        return torch.stack([score_of(value, outputs) for value in self.values], dim=1)


@dataclass(frozen=True)
class AllOutputs:
    """All outputs of the model as targets."""

    count: int = 0

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, stop: int) -> "AllOutputs":
        """Returns self, because all outputs are always selected."""
        return self

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """The outputs."""
        return outputs


@dataclass(frozen=True, eq=False)
class DeferredTargets:
    """Targets that depend on the outputs for the unperturbed sample, such as the predicted class.

    Attributes:
        resolve: From the outputs for the unperturbed sample to its targets.
    """

    resolve: Callable[[Float[Tensor, "1 k"]], Any]

    def __len__(self) -> int:
        return 0

    def part(self, start: int, stop: int) -> "DeferredTargets":
        """Returns self, because the number of targets is not known yet."""
        return self

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """Resolve the targets from these outputs, and compute their scores."""
        return self.resolve(outputs.detach()).select(outputs)


def map_targets(function: Callable[[object], object], targets: object) -> Any:
    """Apply a function to every target in contrasts, lists and tuples."""
    if isinstance(targets, Contrast):
        return Contrast(map_targets(function, targets.fact), map_targets(function, targets.foil))
    if is_list(targets):
        return type(targets)([map_targets(function, item) for item in targets])
    return function(targets)


def score_of(value: int | Contrast | TargetFunction, outputs: Float[Tensor, "p k"]) -> Float[Tensor, " p"]:
    """Compute the score of one target from the model's outputs.

    Raises:
        TargetError: if a class is out of range or a function does not return one score per row.
    """
    if isinstance(value, Contrast):
        return score_of(value.fact, outputs) - score_of(value.foil, outputs)
    if isinstance(value, int):
        _check_in_range(value, outputs)
        return outputs[:, value]
    return call_target_function(value, outputs)


def _check_in_range(value: int, outputs: Float[Tensor, "p k"]) -> None:
    # Targets are checked before the model runs, but it may return fewer outputs than its config says.
    if value >= outputs.shape[1]:
        raise TargetError(f"Target {value} is out of range: the model returned {outputs.shape[1]} outputs.")


def call_target_function(
    function: TargetFunction, outputs: Float[Tensor, "p k"], what: str = "outputs"
) -> Float[Tensor, " p"]:
    """Call a target function on the model's outputs, and validate its result.

    Args:
        function: The function.
        outputs: The model's outputs.
        what: What the outputs are, for error messages.

    Raises:
        TargetError: if the function raises an exception, which is the cause of the error, or does not return one score
            per row.
    """
    try:
        # A copy, because some functions modify their argument in place.
        scores = function(outputs.clone())
    except torch.OutOfMemoryError:
        # The scheduler handles this error by running smaller batches.
        raise
    except Exception as error:
        raise TargetError(
            f"The target function raised {type(error).__name__} for {what} of shape {tuple(outputs.shape)}: {error}"
        ) from error
    if not isinstance(scores, Tensor) or scores.shape != outputs.shape[:1]:
        raise TargetError(
            f"A target function must return one score per row, shape ({len(outputs)},); it returned "
            f"{shape_or_type(scores)} for {what} of shape {tuple(outputs.shape)}."
        )
    return scores


def saved_by_name_error(names: Sequence[str]) -> InputError:
    """The error for targets of a saved result of which only the names were saved."""
    return InputError(
        f"The targets {tuple(names)} were functions, images or embeddings, of which only names are saved: evaluate "
        "metrics before saving the results."
    )


def continuation_of(tokens: Iterable[Any]) -> Any:
    """Combine target tokens into one continuation; contrasts become one contrast of all facts and all foils."""
    items = tuple(tokens)
    if items and are_all(Contrast, items):
        return Contrast([token.fact for token in items], [token.foil for token in items])
    return items


def resolve(spec: object, outputs: Float[Tensor, " k"], labels: Sequence[str]) -> ClassTargets:
    """Resolve the targets of one sample; None is the class with the highest output.

    Raises:
        TargetError: if a class is out of range or a label is unknown.
    """
    return class_targets(int(outputs.argmax()) if spec is None else spec, labels)


def class_targets(spec: object, labels: Sequence[str]) -> ClassTargets:
    """Resolve targets that do not depend on the model's outputs.

    Raises:
        TargetError: if a class is out of range or a label is unknown.
    """
    items = tuple(range(len(labels))) if is_all(spec) else as_tuple(spec)
    if not items:
        raise TargetError("targets=() contains no target; pass None to explain the predicted class.")
    values = tuple(_value(item, labels) for item in items)
    return ClassTargets(values, tuple(_name(value, labels) for value in values))


def is_all(spec: object) -> bool:
    """Whether the user asks for all targets, by "all"."""
    # The type is checked first, because an array compares with a string entry by entry.
    return isinstance(spec, str) and spec == "all"


def as_target_tuple(targets: list[object]) -> tuple[Any, ...]:
    """Convert a list of targets of one sample to a tuple.

    Raises:
        TargetError: if a class is repeated, as in a multi-hot row; the message shows both interpretations.
    """
    values = tuple(to_python(item) for item in targets)
    classes = [value for value in values if isinstance(value, int)]
    repeated = sorted({value for value in classes if classes.count(value) > 1})
    if not repeated:
        return values
    unique = tuple(dict.fromkeys(values))
    hint = ""
    if set(classes) <= {0, 1} and len(classes) == len(values):
        active_classes = tuple(number for number, value in enumerate(classes) if value)
        hint = f" If this is a multi-hot row, pass the classes that are set: {active_classes!r}."
    raise TargetError(
        f"The targets of one sample, {values[:20]!r}, contain class {repeated[0]} more than once. If these are class "
        f"indices, pass {unique!r}.{hint}"
    )


def _value(item: object, labels: Sequence[str]) -> Any:
    if isinstance(item, Contrast):
        for part in (item.fact, item.foil):
            if callable(part) or isinstance(part, Contrast):
                raise TargetError(f"A Contrast compares two classes, passed as indices or labels; {part!r} is neither.")
        return Contrast(_value(item.fact, labels), _value(item.foil, labels))
    if isinstance(item, str):
        if item not in labels:
            raise TargetError(f"The model has no label {item!r}: {choices(item, labels)}")
        classes = [index for index, label in enumerate(labels) if label == item]
        if len(classes) > 1:
            raise TargetError(f"Several classes have the label {item!r}, {classes}: pass the index of one.")
        return classes[0]
    # bool is a subclass of int, but True is not class 1.
    if not (callable(item) or is_integer(item)):
        raise TargetError(
            f"{item!r} is not a target; pass a class index, a label, Contrast(a, b), 'all' or a function of the "
            "outputs."
        )
    if callable(item):
        return item
    if not 0 <= item < len(labels):
        names = ", ".join(repr(label) for label in labels[:20])
        raise TargetError(
            f"Target {item} is out of range: the model has {len(labels)} outputs, 0 to {len(labels) - 1} ({names})."
        )
    return int(item)


def _name(value: int | Contrast | TargetFunction, labels: Sequence[str]) -> str:
    if isinstance(value, Contrast):
        return f"{_name(value.fact, labels)} - {_name(value.foil, labels)}"
    return labels[value] if isinstance(value, int) else function_name(value)


def per_sample(targets: object, count: int, is_single: bool) -> list[Any]:
    """Convert targets to a list with one entry per sample.

    A list or 1-d tensor already has one entry per sample. A tuple or a row of a 2-d tensor contains several targets of
    one sample. Anything else is the target of every sample.

    Args:
        targets: The user's targets.
        count: Number of samples.
        is_single: Whether the user passed a single sample instead of a list.

    Raises:
        TargetError: if the lengths do not match; the message shows both interpretations.
    """
    entries = to_python(targets)
    if not isinstance(entries, list):
        return [entries] * count
    # For a single sample, a list contains several targets of this sample.
    if is_single and len(entries) != 1:
        return [as_target_tuple(entries)]
    if len(entries) != count:
        raise TargetError(
            f"targets is a list of {len(entries)} for {count} sample{'s' * (count != 1)}. A list has one entry per "
            f"sample; to explain the same {len(entries)} targets of every sample pass the tuple {tuple(entries)!r}."
        )
    entries = [to_python(item) for item in entries]
    return [as_target_tuple(item) if isinstance(item, list) else item for item in entries]


def to_python(targets: Any) -> Any:
    """Convert tensors, arrays, columns of data frames and sequences to lists and ints.

    An array of one row becomes a tuple: several targets of every sample.
    """
    if isinstance(targets, Tensor | np.ndarray | np.generic):
        listed = targets.tolist()
        return tuple(listed[0]) if targets.ndim == 2 and len(listed) == 1 else listed
    if is_list(targets):
        return type(targets)(to_python(item) if isinstance(item, Tensor | np.generic) else item for item in targets)
    # Columns of data frames: to_list of pandas and polars, to_pylist of pyarrow; tolist of other array libraries.
    for name in ("to_list", "tolist", "to_pylist"):
        if callable(to_list := getattr(targets, name, None)):
            return to_python(to_list())
    is_sequence = isinstance(targets, Sequence) and not isinstance(targets, str | bytes)
    return list(targets) if is_sequence else targets


def labels_of(config: object, count: int) -> tuple[str, ...]:
    """The names of a classifier's outputs: `id2label` if it matches the number of outputs, else their indices."""
    id2label = getattr(config, "id2label", None)
    # The keys are strings if the config was loaded from JSON without transformers.
    if isinstance(id2label, Mapping) and len(id2label) == count and all(str(index).isdecimal() for index in id2label):
        return tuple(str(id2label[index]) for index in sorted(id2label, key=int))
    return tuple(str(index) for index in range(count))
