"""What both sides of a similarity share: features of the other side, and how a sample is settled."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError, TargetError
from interpreto.model_wrapping.conversation import Ask, Plan, Settled
from interpreto.model_wrapping.finite import all_finite
from interpreto.model_wrapping.inside.probe import Probe
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.similarity import Both, Embedding, SimilarityTargets
from interpreto.model_wrapping.targets import Everything, Foreseen

TOGETHER = 32
"""Of what samples are compared with, how many run at once."""


@final
class Sides:
    """Features of what samples are compared with, each run through the model once.

    Args:
        encode: Runs the model on several of the other side.
        key: By what the other side is known again; None where it cannot be.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Any]], Float[Tensor, "k d"]],
        key: Callable[[Any], Hashable] = lambda side: side,
    ) -> None:
        self.encode, self.key = encode, key
        self._known: dict[Hashable, Float[Tensor, " d"]] = {}

    def forget(self) -> None:
        """Forget all features: the model may be another one now."""
        self._known = {}

    def __call__(self, sides: Sequence[Any]) -> Float[Tensor, "k d"]:
        """Features of these, in order."""
        fresh = {self.key(side): side for side in sides if not isinstance(side, Embedding)}
        fresh = {key: side for key, side in fresh.items() if key not in self._known}
        if fresh:
            self._known.update(zip(fresh, self.encode(list(fresh.values())), strict=True))
        found = [side.values if isinstance(side, Embedding) else self._known[self.key(side)] for side in sides]
        if len({len(values) for values in found}) > 1:
            raise TargetError(
                f"Embeddings of this model have {min(map(len, self._known.values()), default=0)} numbers; one of the "
                f"targets has {max(map(len, found))}."
            )
        return torch.stack(found) if found else torch.zeros(0, 1)


def settle(
    sample: Sample, targets: SimilarityTargets, probe: Probe | None, probed: SimilarityTargets | Both | None = None
) -> Plan[Settled]:
    """Run the unchanged sample; a probe sees that run, of other targets where it is to be asked about others.

    Raises:
        ModelError: if the features are not finite.
    """
    asked = targets if probed is None else probed
    answer = yield Ask(sample.rows, Everything() if probe is None else Foreseen(lambda outputs: asked), probe=probe)
    outputs = answer.scores
    if not all_finite(outputs):
        raise ModelError(
            f"The model's features of the unchanged sample are not finite ({outputs[0].tolist()[:4]}...): its weights "
            "or the input hold NaN or overflow, so no attribution would mean anything."
        )
    return Settled(sample, targets, outputs, None if answer.inside is None else answer.inside[0])
