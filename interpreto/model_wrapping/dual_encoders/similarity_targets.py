"""Targets of models with two towers: what the other side gives is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from interpreto.errors import TargetError
from interpreto.model_wrapping.execution.finite_checks import all_finite
from interpreto.model_wrapping.targets import Contrast, called
from interpreto.typing import Scores


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of the other side that the user has already."""

    values: Float[Tensor, " d"]
    name: str


@dataclass(frozen=True, eq=False)
class Similarity:
    """How two vectors of features become a logit, and logits become what is explained.

    Attributes:
        scale: What the cosine is multiplied with.
        bias: What is added.
        explained: From logits `p k` of all targets to the scores that are explained.
    """

    scale: float
    bias: float
    explained: Callable[[Float[Tensor, "p k"]], Float[Tensor, "p k"]]

    def __call__(self, own: Float[Tensor, "p d"], others: Float[Tensor, "k d"]) -> Float[Tensor, "p k"]:
        return self.explained(self.scale * own @ others.T + self.bias)


@dataclass(frozen=True, eq=False)
class SimilarityTargets:
    """What one sample is compared with.

    Attributes:
        values: What each target is: a prompt, an image, an `Embedding`, a `Contrast` of these, or a function of the
            normalised features.
        names: What to call them.
        places: Of each target among `features`: one, two of a contrast, or none of a function.
        features: Of all that is compared with, normalised.
        similarity: How it is compared.
        normalize: Whether a sample's features are scaled to length 1 before they are compared.
    """

    values: tuple[Any, ...]
    names: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    features: Float[Tensor, "k d"]
    similarity: Similarity
    normalize: bool = True

    def __len__(self) -> int:
        return len(self.values)

    @property
    def spec(self) -> tuple[Any, ...]:
        """The values."""
        return self.values

    @property
    def causal_limit(self) -> None:
        """None: all positions can influence a similarity."""

    def own_positions(self, length: int) -> None:
        """None: what a sample is compared with is not part of it."""

    def by_unit(self, index: Int[Tensor, "*l"], labels: Any) -> "SimilarityTargets":
        """The same: similarities do not belong to units."""
        return self

    def without_cache(self) -> "SimilarityTargets":
        """The same: there is no cache."""
        return self

    def part(self, start: int, stop: int) -> "SimilarityTargets":
        """Some of the targets; a softmax is still taken over all."""
        chosen = slice(start, stop)
        return replace(self, values=self.values[chosen], names=self.names[chosen], places=self.places[chosen])

    def unnormalized(self) -> "SimilarityTargets":
        """The same without scaling a sample's features to length 1."""
        return replace(self, normalize=False)

    def as_logits(self) -> "SimilarityTargets":
        """The same with logits as scores."""
        return replace(self, similarity=replace(self.similarity, explained=_unchanged))

    def select(self, outputs: Float[Tensor, "p d"]) -> Scores:
        """Targeted scores of rows from their features.

        Raises:
            TargetError: if an embedding has another width, or a function returns anything but one score per row.
        """
        if len(self.features) and self.features.shape[1] != outputs.shape[1]:
            raise TargetError(
                f"Embeddings of this model have {outputs.shape[1]} numbers; those given have {self.features.shape[1]}."
            )
        own = functional.normalize(outputs.float(), dim=-1) if self.normalize else outputs.float()
        scores = self.similarity(own, self.features.to(own)) if len(self.features) else own
        return torch.stack(
            [self._score(value, place, own, scores) for value, place in zip(self.values, self.places, strict=True)], 1
        )

    def _score(self, value: Any, place: tuple[int, ...], own: Tensor, scores: Tensor) -> Float[Tensor, " p"]:
        if place:
            first, *others = place
            return scores[:, first] - scores[:, others[0]] if others else scores[:, first]
        return called(value, own, "features")


def _unchanged(logits: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    return logits


def several(spec: Any, expected: str) -> tuple[Any, ...]:
    """One sample's targets, one after the other.

    Raises:
        TargetError: if there is none; `expected` says what they are.
    """
    if spec is None or (isinstance(spec, str) and spec == "all"):
        raise TargetError(f"This model compares an image with a text and predicts no class: name targets=, {expected}.")
    found = spec if isinstance(spec, tuple) else (spec,)
    if not found:
        raise TargetError(f"targets names nothing: the list is empty. Give {expected}.")
    return found


def flattened(targets: tuple[Any, ...]) -> list[Any]:
    """All that is compared with, contrasts taken apart; functions compare with nothing."""
    found: list[Any] = []
    for target in targets:
        if isinstance(target, Contrast):
            found += [target.fact, target.foil]
        elif isinstance(target, Embedding) or not callable(target):
            found.append(target)
    return found


def compared(
    targets: tuple[Any, ...],
    features: Float[Tensor, "k d"],
    similarity: Similarity,
    name: Callable[[Any], str],
) -> SimilarityTargets:
    """Targets, with the features of their `flattened` form in order."""
    labels = _told_apart(flattened(targets), name)
    places, names, place = [], [], 0
    for target in targets:
        if isinstance(target, Contrast):
            places.append((place, place + 1))
            names.append(" - ".join(labels[place : place + 2]))
            place += 2
        elif isinstance(target, Embedding) or not callable(target):
            places.append((place,))
            names.append(labels[place])
            place += 1
        else:
            places.append(())
            names.append(getattr(target, "__name__", type(target).__name__))
    return SimilarityTargets(
        tuple(targets), tuple(names), tuple(places), functional.normalize(features.float(), dim=-1), similarity
    )


def _told_apart(others: Sequence[Any], name: Callable[[Any], str]) -> list[str]:
    """Names of what is compared with; of several of one name that are no texts, all but the first are numbered."""
    names, seen = [], dict[str, list[int]]()
    for other in others:
        own = name(other)
        alike = seen.setdefault(own, [])
        if not isinstance(other, str) and id(other) not in alike:
            alike.append(id(other))
        place = 0 if isinstance(other, str) else alike.index(id(other))
        names.append(f"{own} ({place + 1})" if place else own)
    return names


def embeddings(targets: Any) -> Any:
    """A user's tensors and arrays of features as embeddings: two axes are several, for every sample.

    Raises:
        TargetError: if a number of them is NaN or infinite.
    """
    if isinstance(targets, Contrast):
        return Contrast(embeddings(targets.fact), embeddings(targets.foil))
    if isinstance(targets, list | tuple):
        return type(targets)(map(embeddings, targets))
    if not isinstance(targets, Tensor | np.ndarray):
        return targets
    values = torch.as_tensor(np.array(targets) if isinstance(targets, np.ndarray) else targets)
    if values.is_floating_point() and values.ndim in (1, 2):
        if not all_finite(values):
            raise TargetError("The embedding given as a target holds NaN or infinite numbers.")
        if not values.reshape(-1, values.shape[-1]).any(-1).all():
            raise TargetError(
                "The embedding given as a target is zero everywhere: it has no direction to compare with."
            )
        found = [Embedding(row.detach().cpu().float(), f"embedding {number}") for number, row in enumerate(
            values.reshape(-1, values.shape[-1]))]  # fmt: skip
        return found[0] if values.ndim == 1 else tuple(found)
    return targets
