"""Which outputs of a classifier are explained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.errors import TargetError, choices
from interpreto.typing import Scores

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contrast:
    """The difference of two targets: why `for_` rather than `against`?

    Two continuations of a language model are compared token by token, each token of `against` behind the same tokens as
    that of `for_` at its place: the prompt and the earlier tokens of `for_`.
    """

    fact: Any
    foil: Any


@dataclass(frozen=True)
class SavedTarget:
    """A target of which a file knows nothing but the name: an image or an embedding that a sample was compared with."""

    name: str


@dataclass(frozen=True)
class ClassTargets:
    """Classes, contrasts of classes, or functions of the model's outputs, each with its name."""

    values: tuple[int | Contrast | Score, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def spec(self) -> tuple[int | Contrast | Score, ...]:
        """The values."""
        return self.values

    @property
    def causal_limit(self) -> None:
        """None: all positions can influence a class."""

    def own_positions(self, length: int) -> None:
        """None: classes are not part of a sample."""

    def by_unit(self, index: Int[Tensor, "*l"], labels: Any) -> "ClassTargets":
        """The same: classes do not belong to units."""
        return self

    def without_cache(self) -> "ClassTargets":
        """The same: there is no cache."""
        return self

    def part(self, start: int, stop: int) -> "ClassTargets":
        """Some of the targets."""
        return ClassTargets(self.values[start:stop], self.names[start:stop])

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """Targeted scores of rows.

        Raises:
            TargetError: if a function returns anything but one score per row.
        """
        classes = [value for value in self.values if isinstance(value, int)]
        if len(classes) == len(self.values) == 1:
            # A slice is several times faster to take than a list of one.
            return outputs[:, classes[0] : classes[0] + 1]
        if len(classes) == len(self.values):
            return outputs[:, classes]
        return torch.stack([score_of(value, outputs) for value in self.values], dim=1)


@dataclass(frozen=True)
class AllOutputs:
    """All outputs of the model, as they are."""

    count: int = 0

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, stop: int) -> "AllOutputs":
        """All outputs are one thing."""
        return self

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """The outputs."""
        return outputs


@dataclass(frozen=True, eq=False)
class DeferredTargets:
    """Targets that depend on the outputs of the unperturbed sample, such as the predicted class.

    Attributes:
        resolve: From the outputs of the unperturbed sample to its targets.
    """

    resolve: Callable[[Float[Tensor, "1 k"]], Any]

    def __len__(self) -> int:
        return 0

    def part(self, start: int, stop: int) -> "DeferredTargets":
        """All of them: how many there are is not known yet."""
        return self

    def select(self, outputs: Float[Tensor, "p k"]) -> Scores:
        """The scores of the targets that these outputs determine."""
        return self.resolve(outputs.detach()).select(outputs)


def score_of(value: int | Contrast | Score, outputs: Float[Tensor, "p k"]) -> Float[Tensor, " p"]:
    """The score of one target in the model's outputs.

    Raises:
        TargetError: if a function returns anything but one score per row.
    """
    if isinstance(value, Contrast):
        return outputs[:, value.fact] - outputs[:, value.foil]
    if isinstance(value, int):
        return outputs[:, value]
    return called(value, outputs)


def called(function: Score, outputs: Float[Tensor, "p k"], what: str = "outputs") -> Float[Tensor, " p"]:
    """What a target function makes of the model's outputs.

    Raises:
        TargetError: if the function raises an exception, which is the cause of the error, or it is anything but one
            score per row.
    """
    try:
        # A copy: some functions change their argument in place.
        scores = function(outputs.clone())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise TargetError(
            f"The target function raised {type(error).__name__} for {what} of shape {tuple(outputs.shape)}: {error}"
        ) from error
    if not isinstance(scores, Tensor) or scores.shape != outputs.shape[:1]:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TargetError(
            f"A target function must return one score per row, shape ({len(outputs)},); it returned {found} for "
            f"{what} of shape {tuple(outputs.shape)}."
        )
    return scores


def continuation_of(tokens: Iterable[Any]) -> Any:
    """Tokens as one continuation, in the user's form: of contrasts, one contrast of all facts and all foils."""
    listed = tuple(tokens)
    contrasts = [token for token in listed if isinstance(token, Contrast)]
    if listed and len(contrasts) == len(listed):
        return Contrast([token.fact for token in contrasts], [token.foil for token in contrasts])
    return listed


def resolve(spec: Any, outputs: Float[Tensor, " k"], labels: Sequence[str]) -> ClassTargets:
    """One sample's targets from what the user said and the model's outputs for it.

    Raises:
        TargetError: if a class is out of range or a label unknown.
    """
    return named(int(outputs.argmax()) if spec is None else spec, labels)


def named(spec: Any, labels: Sequence[str]) -> ClassTargets:
    """The targets that a user names.

    Raises:
        TargetError: if a class is out of range or a label unknown.
    """
    if isinstance(spec, str) and spec == "all":
        spec = tuple(range(len(labels)))
    several = spec if isinstance(spec, tuple) else (spec,)
    if not several:
        raise TargetError("targets=() names no target; None explains the predicted class.")
    values = tuple(_value(item, labels) for item in several)
    return ClassTargets(values, tuple(_name(value, labels) for value in values))


def several(listed: list[Any]) -> tuple[Any, ...]:
    """Several targets of one sample, given as a list.

    Raises:
        TargetError: if it names a class twice, as a multi-hot row does; the message shows both readings.
    """
    values = tuple(without_tensors(item) for item in listed)
    classes = [value for value in values if isinstance(value, int)]
    repeated = sorted({value for value in classes if classes.count(value) > 1})
    if not repeated:
        return values
    once = tuple(dict.fromkeys(values))
    hint = ""
    if set(classes) <= {0, 1} and len(classes) == len(values):
        row = tuple(place for place, value in enumerate(classes) if value)
        hint = f" If this is a multi-hot row, write the classes that are set: {row!r}."
    raise TargetError(
        f"The targets of one sample, {values[:20]!r}, name class {repeated[0]} more than once. For the classes "
        f"themselves write {once!r}.{hint}"
    )


def _value(item: Any, labels: Sequence[str]) -> Any:
    if isinstance(item, Contrast):
        for part in (item.fact, item.foil):
            if callable(part) or isinstance(part, Contrast):
                raise TargetError(f"A Contrast compares two classes, given as indices or labels; {part!r} is none.")
        return Contrast(_value(item.fact, labels), _value(item.foil, labels))
    if isinstance(item, str):
        if item not in labels:
            raise TargetError(f"The model has no label {item!r}: {choices(item, labels)}")
        places = [place for place, label in enumerate(labels) if label == item]
        if len(places) > 1:
            raise TargetError(f"The label {item!r} is that of several classes, {places}: give the index of one.")
        return places[0]
    if isinstance(item, bool) or not (callable(item) or isinstance(item, int | np.integer)):
        raise TargetError(
            f"{item!r} is no target; give a class index, a label, Contrast(a, b), 'all' or a function of the outputs."
        )
    if callable(item):
        return item
    if not 0 <= item < len(labels):
        known = ", ".join(repr(label) for label in labels[:20])
        raise TargetError(
            f"Target {item} is out of range: the model has {len(labels)} outputs, 0 to {len(labels) - 1} ({known})."
        )
    return int(item)


def _name(value: int | Contrast | Score, labels: Sequence[str]) -> str:
    if isinstance(value, Contrast):
        return f"{_name(value.fact, labels)} - {_name(value.foil, labels)}"
    return labels[value] if isinstance(value, int) else getattr(value, "__name__", type(value).__name__)


def per_sample(targets: Any, count: int, is_single: bool) -> list[Any]:
    """What each of `count` samples is explained for; `alone` says that the user gave one sample without a list.

    A list or 1-d tensor has one entry per sample; a tuple and a row of a 2-d tensor are several targets; anything
    else serves every sample.

    Raises:
        TargetError: if the lengths do not match; the message shows both readings.
    """
    given = without_tensors(targets)
    if not isinstance(given, list):
        return [given] * count
    if is_single and len(given) != 1:
        return [several(given)]
    if len(given) != count:
        raise TargetError(
            f"targets is a list of {len(given)} for {count} sample{'s' * (count != 1)}. A list has one entry per "
            f"sample; to explain the same {len(given)} targets of every sample give the tuple {tuple(given)!r}."
        )
    entries = [without_tensors(item) for item in given]
    return [several(item) if isinstance(item, list) else item for item in entries]


def without_tensors(targets: Any) -> Any:
    """Tensors and arrays as nested lists and ints; a single row of a 2-d one as a tuple that serves every sample."""
    if isinstance(targets, Tensor | np.ndarray | np.generic):
        listed = targets.tolist()
        return tuple(listed[0]) if targets.ndim == 2 and len(listed) == 1 else listed
    if isinstance(targets, tuple | list):
        return type(targets)(
            without_tensors(item) if isinstance(item, Tensor | np.generic) else item for item in targets
        )
    # Columns of data frames, of whatever library.
    for name in ("to_list", "tolist", "to_pylist"):
        if callable(listed := getattr(targets, name, None)):
            return without_tensors(listed())
    is_sequence = isinstance(targets, Sequence) and not isinstance(targets, str | bytes)
    return list(targets) if is_sequence else targets


def labels_of(config: Any, count: int) -> tuple[str, ...]:
    """The names of a classifier's outputs: `id2label` where it fits, else their numbers."""
    known = getattr(config, "id2label", None)
    if isinstance(known, Mapping) and len(known) == count and all(str(index).isdecimal() for index in known):
        return tuple(str(known[index]) for index in sorted(known, key=int))
    return tuple(str(index) for index in range(count))
