"""What both sides of a similarity share: features of the other side, and how a sample is settled."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.dual_encoders.base import DualEncoder
from interpreto.model_wrapping.dual_encoders.similarity_targets import (
    ConcatenatedTargets,
    Embedding,
    Similarity,
    SimilarityTargets,
    compared,
    several,
    sides,
)
from interpreto.model_wrapping.execution.finite_checks import check_features
from interpreto.model_wrapping.messages import ModelRequest, PlanRun, ResolvedSample
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import AllOutputs, DeferredTargets

TOGETHER = 32
"""Of what samples are compared with, how many run at once."""


def _itself(side: Any) -> Any:
    return side


@final
class EncodedTargets:
    """What samples are compared with: each is run through the model once.

    Args:
        towers: The model.
        runtime: How it is run, and which score is explained.
        encode: Runs the model on several of the other side.
        wanted: What the other side is, for who did not name it.
        key: By what the other side is known again.
    """

    def __init__(
        self,
        towers: DualEncoder,
        runtime: Runtime,
        encode: Callable[[Sequence[Any]], Float[Tensor, "k d"]],
        wanted: str,
        key: Callable[[Any], Hashable] = _itself,
    ) -> None:
        self.towers, self.runtime, self.encode, self.wanted, self.key = towers, runtime, encode, wanted, key
        self._known: dict[Hashable, Float[Tensor, " d"]] = {}

    def forget(self) -> None:
        """Forget all features: the model may be another one now."""
        self._known = {}

    def named(self, spec: Any) -> list[Any]:
        """All that one sample is compared with.

        Raises:
            TargetError: if nothing is named.
        """
        return sides(several(spec, self.wanted))

    def targets(self, spec: Any) -> SimilarityTargets:
        """One sample's targets.

        Raises:
            TargetError: if nothing is named, or embeddings differ in width.
        """
        how = Similarity(self.towers.scale, self.towers.bias, self.runtime.explained)
        return compared(several(spec, self.wanted), self._features(self.named(spec)), how, _name)

    def _features(self, sides: Sequence[Any]) -> Float[Tensor, "k d"]:
        """Features of these, in order."""
        fresh = {self.key(side): side for side in sides if not isinstance(side, Embedding)}
        fresh = {key: side for key, side in fresh.items() if key not in self._known}
        if fresh:
            self._known.update(zip(fresh, self.encode(list(fresh.values())), strict=True))
        found = [side.values if isinstance(side, Embedding) else self._known[self.key(side)] for side in sides]
        lengths = {len(values) for values in found}
        if len(lengths) > 1:
            own = {len(values) for values in self._known.values()}
            known = f"Embeddings of this model have {min(own)} numbers" if own else "Embeddings differ in length"
            given = ", ".join(map(str, sorted(lengths - own)))
            raise TargetError(f"{known}; those given have {given}.")
        return torch.stack(found) if found else torch.zeros(0, 1)


def settle(
    sample: Sample,
    targets: SimilarityTargets,
    probe: CaptureRequest | None,
    probed: SimilarityTargets | ConcatenatedTargets | None = None,
) -> PlanRun[ResolvedSample]:
    """Run the unchanged sample; a probe sees that run, of other targets where it is to be asked about others.

    Raises:
        ModelError: if the features are not finite.
    """
    asked = targets if probed is None else probed
    response = yield ModelRequest(
        sample.rows, AllOutputs() if probe is None else DeferredTargets(lambda outputs: asked), capture=probe
    )
    outputs = response.scores
    check_features(outputs)
    return ResolvedSample(sample, targets, outputs, None if response.captured is None else response.captured[0])


def _name(side: Any) -> str:
    return side if isinstance(side, str) else side.name
