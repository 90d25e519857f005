"""Targets of dual encoders: prompts or images that samples are compared with, encoded once for all samples."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.dual_encoders.base import DualEncoder
from interpreto.model_wrapping.dual_encoders.similarity_targets import (
    Embedding,
    Similarity,
    SimilarityTargets,
    compared,
    embeddings,
    flattened,
    targets_of,
)
from interpreto.model_wrapping.execution.finite_checks import check_features
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.parts import TargetResolver
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import AllOutputs, SavedTarget, saved_by_name_error


class OtherSide(ABC):
    """The modality that samples are compared with: prompts for images, images for texts."""

    expected: ClassVar[str]
    """A description of valid targets, for error messages."""

    def mark(self, targets: object) -> Any:
        """The user's targets, with those of this modality wrapped in a type of their own."""
        return targets

    @abstractmethod
    def check(self, target: object) -> None:
        """Check one target.

        Raises:
            TargetError: if it is not of this modality.
        """

    @abstractmethod
    def key(self, target: object) -> Hashable:
        """A key that identifies a target, so that it is encoded once."""

    @abstractmethod
    def name(self, target: object) -> str:
        """The name of a target."""

    @abstractmethod
    def rows(self, targets: Sequence[object]) -> list[Rows]:
        """Model inputs of targets, one row each."""


@final
class EncodedTargetResolver(TargetResolver):
    """Resolves targets to similarities with encoded prompts or images.

    Args:
        dual: The model.
        other_side: The modality that samples are compared with.
        runtime: The explained score.
    """

    def __init__(self, dual: DualEncoder, other_side: OtherSide, runtime: Runtime) -> None:
        self.dual, self.other_side, self.runtime = dual, other_side, runtime
        self._features: dict[Hashable, Float[Tensor, " d"]] = {}

    def normalize(self, targets: object, count: int | None = None) -> Any:
        return self.other_side.mark(embeddings(targets))

    def check(self, spec: object) -> None:
        for target in self._listed(spec):
            if not isinstance(target, Embedding):
                self.other_side.check(target)

    def prefetch(self, specs: Sequence[object]) -> PlanRun[None]:
        targets = [target for spec in specs for target in self._listed(spec) if not isinstance(target, Embedding)]
        to_encode = {self.other_side.key(target): target for target in targets}
        to_encode = {key: target for key, target in to_encode.items() if key not in self._features}
        if not to_encode:
            return
        # One request per target, for prompts differ in length. Together they can share batches.
        rows = self.other_side.rows(list(to_encode.values()))
        requests = [ModelRequest(row, AllOutputs()) for row in rows]
        response: ModelResponse = yield ModelRequest.combine(requests)
        self._features.update(zip(to_encode, (part.scores[0] for part in response.flattened), strict=True))

    def from_saved(self, values: tuple[object, ...], names: tuple[str, ...]) -> Any:
        # Texts are prompts; images and embeddings are saved by their names.
        if any(isinstance(value, SavedTarget) for value in values):
            raise saved_by_name_error(names)
        return values

    def resolve(
        self, sample: Sample, spec: object, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        targets = yield from self.known_targets(spec)
        response: ModelResponse = yield ModelRequest(sample.rows, targets, capture=capture, return_outputs=True)
        assert response.outputs is not None
        check_features(response.outputs)
        return ResolvedSample(sample, targets, response)

    def known_targets(self, spec: object) -> PlanRun[SimilarityTargets]:
        yield from self.prefetch([spec])
        similarity = Similarity(self.dual.scale, self.dual.bias, self.runtime.explained)
        return compared(self._several(spec), self._features_of(self._listed(spec)), similarity, self._name)

    def clear(self) -> None:
        self._features = {}

    def _several(self, spec: object) -> tuple[Any, ...]:
        return targets_of(spec, self.other_side.expected)

    def _listed(self, spec: object) -> list[Any]:
        """All prompts, images and embeddings that one sample is compared with."""
        return flattened(self._several(spec))

    def _name(self, target: object) -> str:
        return target.name if isinstance(target, Embedding) else self.other_side.name(target)

    def _features_of(self, targets: Sequence[object]) -> Float[Tensor, "k d"]:
        """Features of targets, in order.

        Raises:
            TargetError: if embeddings have another width than the model's.
        """
        features = [
            target.values if isinstance(target, Embedding) else self._features[self.other_side.key(target)]
            for target in targets
        ]
        widths = {len(values) for values in features}
        if len(widths) > 1:
            model_widths = {len(values) for values in self._features.values()}
            expected = (
                f"Embeddings of this model have {min(model_widths)} numbers"
                if model_widths
                else "Embeddings differ in length"
            )
            # Without encoded prompts the width of the model's own is unknown here; `select` checks it.
            others = ", ".join(map(str, sorted(widths - model_widths)))
            raise TargetError(f"{expected}; those passed have {others}.")
        return torch.stack(features) if features else torch.zeros(0, 1)
