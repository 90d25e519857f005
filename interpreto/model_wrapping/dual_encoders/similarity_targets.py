"""Targets of dual encoders: similarities with features of the other modality."""

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
from interpreto.model_wrapping.targets import Contrast, call_target_function, is_all, map_targets
from interpreto.type_guards import as_tuple, function_name, is_array
from interpreto.typing import Scores


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of the other modality that the user has computed."""

    values: Float[Tensor, " d"]
    name: str


@dataclass(frozen=True, eq=False)
class Similarity:
    """How two feature vectors give a logit, and logits give the explained score.

    Attributes:
        scale: The factor of the cosine similarity.
        bias: The bias that is added.
        explained: Maps logits `p k` of all targets to the scores that are explained.
    """

    scale: float
    bias: float
    explained: Callable[[Float[Tensor, "p k"]], Float[Tensor, "p k"]]

    def __call__(self, own: Float[Tensor, "p d"], others: Float[Tensor, "k d"]) -> Float[Tensor, "p k"]:
        return self.explained(self.scale * own @ others.T + self.bias)


@dataclass(frozen=True, eq=False)
class SimilarityTargets:
    """The prompts, images or embeddings with which one sample is compared.

    Attributes:
        values: The targets: prompts, images, `Embedding`s, `Contrast`s of these, or functions of the normalized
            features.
        names: Names of the targets.
        feature_indices: The indices of each target among `features`: one, two for a contrast, or none for a function.
        features: Normalized features of everything that the sample is compared with.
        similarity: Computes scores from features.
        normalize: Whether a sample's features are scaled to length 1 before they are compared.
    """

    values: tuple[Any, ...]
    names: tuple[str, ...]
    feature_indices: tuple[tuple[int, ...], ...]
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
        """None: targets are not part of the sample."""

    def by_unit(self, index: Int[Tensor, "*l"], labels: object) -> "SimilarityTargets":
        """The same targets: similarities do not belong to units."""
        return self

    def without_cache(self) -> "SimilarityTargets":
        """The same targets: there is no cache."""
        return self

    def part(self, start: int, stop: int) -> "SimilarityTargets":
        """Some of the targets; a softmax is still taken over all."""
        chosen = slice(start, stop)
        return replace(
            self, values=self.values[chosen], names=self.names[chosen], feature_indices=self.feature_indices[chosen]
        )

    def unnormalized(self) -> "SimilarityTargets":
        """The same targets, for features that are not scaled to length 1."""
        return replace(self, normalize=False)

    def as_logits(self) -> "SimilarityTargets":
        """The same targets with logits as scores."""
        return replace(self, similarity=replace(self.similarity, explained=_identity))

    def select(self, outputs: Float[Tensor, "p d"]) -> Scores:
        """Scores of the targets from the features of rows.

        Raises:
            TargetError: if an embedding has another width, or a function does not return one score per row.
        """
        if len(self.features) and self.features.shape[1] != outputs.shape[1]:
            raise TargetError(
                f"Embeddings of this model have {outputs.shape[1]} numbers; those passed have {self.features.shape[1]}."
            )
        # In float32: half precision may round cosines by more than they change when a unit is masked.
        sample_features = functional.normalize(outputs.float(), dim=-1) if self.normalize else outputs.float()
        scores = (
            self.similarity(sample_features, self.features.to(sample_features))
            if len(self.features)
            else sample_features
        )
        return torch.stack(
            [
                self._score(value, place, sample_features, scores)
                for value, place in zip(self.values, self.feature_indices, strict=True)
            ],
            1,
        )

    def _score(self, value: Any, place: tuple[int, ...], own: Tensor, scores: Tensor) -> Float[Tensor, " p"]:
        if place:
            index, *foil_index = place
            return scores[:, index] - scores[:, foil_index[0]] if foil_index else scores[:, index]
        return call_target_function(value, own, "features")


def _identity(logits: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    return logits


def targets_of(spec: object, expected: str) -> tuple[Any, ...]:
    """The targets of one sample as a tuple.

    Raises:
        TargetError: if there are none; `expected` describes valid targets.
    """
    if spec is None or is_all(spec):
        raise TargetError(f"This model compares an image with a text and predicts no class: pass targets=, {expected}.")
    targets = as_tuple(spec)
    if not targets:
        raise TargetError(f"targets is empty: pass {expected}.")
    return targets


def flattened(targets: tuple[object, ...]) -> list[Any]:
    """The prompts, images and embeddings among targets: fact and foil of a contrast, nothing of a function."""
    return [item for target in targets for item in _compared_items(target)]


def _compared_items(target: object) -> tuple[object, ...]:
    if isinstance(target, Contrast):
        return target.fact, target.foil
    # An image or an embedding may be an object that can be called.
    return () if callable(target) and not isinstance(target, Embedding) else (target,)


def compared(
    targets: tuple[object, ...],
    features: Float[Tensor, "k d"],
    similarity: Similarity,
    name: Callable[[object], str],
) -> SimilarityTargets:
    """Targets with the features of their `flattened` form, in the same order."""
    labels = _distinct_names(flattened(targets), name)
    feature_indices, names, index = [], [], 0
    for target in targets:
        # A contrast takes two features, a function none.
        end = index + len(_compared_items(target))
        feature_indices.append(tuple(range(index, end)))
        names.append(" - ".join(labels[index:end]) or function_name(target))
        index = end
    return SimilarityTargets(
        tuple(targets), tuple(names), tuple(feature_indices), functional.normalize(features.float(), dim=-1), similarity
    )


def _distinct_names(others: Sequence[object], name: Callable[[object], str]) -> list[str]:
    """Names of targets; different images or embeddings with the same name are numbered from the second on."""
    names, ids_by_name = [], dict[str, list[int]]()
    for target in others:
        base_name = name(target)
        # The same object may occur twice, in two contrasts for example; it keeps its name.
        ids = ids_by_name.setdefault(base_name, [])
        if not isinstance(target, str) and id(target) not in ids:
            ids.append(id(target))
        number = 0 if isinstance(target, str) else ids.index(id(target))
        names.append(f"{base_name} ({number + 1})" if number else base_name)
    return names


def embeddings(targets: object) -> Any:
    """Convert a user's tensors and arrays of features to embeddings; two axes are several targets for every sample.

    Raises:
        TargetError: if a value is NaN or infinite, or an embedding is zero.
    """
    return map_targets(_embeddings, targets)


def _embeddings(targets: object) -> Any:
    if not is_array(targets):
        return targets
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "OUST":
        # An array of prompts, such as a column of a data frame.
        return targets.tolist()
    # A copy of an array, because torch warns of one that cannot be written to.
    values = torch.as_tensor(np.array(targets) if isinstance(targets, np.ndarray) else targets)
    # Arrays with three or four axes are images.
    if values.is_floating_point() and values.ndim in (1, 2):
        if not all_finite(values):
            raise TargetError("The embedding passed as a target contains NaN or infinite values.")
        if not values.reshape(-1, values.shape[-1]).any(-1).all():
            raise TargetError("The embedding passed as a target is zero: it has no direction to compare with.")
        rows = [Embedding(row.detach().cpu().float(), f"embedding {number}") for number, row in enumerate(
            values.reshape(-1, values.shape[-1]))]  # fmt: skip
        return rows[0] if values.ndim == 1 else tuple(rows)
    return targets
