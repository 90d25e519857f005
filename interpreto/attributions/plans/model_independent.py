"""Plans that do not use the model: scores of units from chance, position, norm or rarity."""

import math
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import UnitReduction
from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.plans.base import Plan, PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import ScoreReducer
from interpreto.model_wrapping.messages import PlanRun
from interpreto.typing import UnitScores


@dataclass(frozen=True)
class ModelIndependentPlan(Plan):
    """Scores of units that are the same for every target."""

    @property
    def signed(self) -> bool:
        """The scores have no sign."""
        return False

    def n_evaluations(self, layout: Layout) -> int:
        return 0

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        yield from ()
        return UnitAttribution(self.of(prepared).float().expand(len(prepared.targets), *prepared.units.shape).clone())

    def describe(self) -> dict[str, Any]:
        return {"model_independent": repr(self)}

    @abstractmethod
    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        """The scores of one sample's units."""


@final
@dataclass(frozen=True)
class RandomScoresPlan(ModelIndependentPlan):
    """Random numbers that depend on the seed and on the sample, not on its place among others."""

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        digest = prepared.seed
        for values in prepared.sample.rows.fields.values():
            digest = zlib.crc32(values.cpu().contiguous().numpy().tobytes(), digest & 0xFFFFFFFF)
        rng = torch.Generator().manual_seed(digest)
        return torch.randn(prepared.units.shape, generator=rng)


@final
@dataclass(frozen=True)
class PositionPlan(ModelIndependentPlan):
    """The position of a unit in reading order, between 0 and 1."""

    ascending: bool | None

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        # Targets that only some units can influence are generated words.
        rising = prepared.can_influence is not None if self.ascending is None else self.ascending
        places = torch.linspace(0, 1, prepared.layout.count)
        return (places if rising else 1 - places).reshape(prepared.units.shape)


@final
@dataclass(frozen=True)
class CentreGaussianPlan(ModelIndependentPlan):
    """A Gaussian around the middle of a grid."""

    sigma: float

    def of(self, prepared: PreparedSample) -> Float[Tensor, "h w"]:
        centred = [(torch.arange(extent) + 0.5) / extent - 0.5 for extent in prepared.units.shape]
        down, across = (distance.square() / (2 * self.sigma**2) for distance in centred)
        return torch.exp(-down[:, None] - across)


@final
@dataclass(frozen=True)
class InputNormPlan(ModelIndependentPlan):
    """The norm of the input tensor."""

    modality: GradientInput = field(repr=False)
    score_reducer: ScoreReducer

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        tensor = self.modality.read(prepared.sample).detach().float()
        return self.score_reducer(prepared, self.modality, tensor[None])[0]


@final
@dataclass(frozen=True)
class TokenRarityPlan(ModelIndependentPlan):
    """How rare tokens are in a corpus."""

    counts: Mapping[int, int] = field(repr=False)
    total: int

    @staticmethod
    def from_texts(texts: Iterable[Iterable[int]]) -> "TokenRarityPlan":
        """Count the token ids of texts."""
        counts = Counter(token for text in texts for token in text)
        return TokenRarityPlan(counts, sum(counts.values()))

    def of(self, prepared: PreparedSample) -> UnitScores:
        ids = prepared.sample.rows.fields["input_ids"][0].tolist()
        known = self.total + len(self.counts)
        scores = [math.log(known / (self.counts.get(token, 0) + 1)) for token in ids]
        return prepared.units.to_units(torch.tensor(scores)[None], UnitReduction("mean"))[0]
