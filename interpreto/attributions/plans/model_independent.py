"""Plans that do not use the model: random scores, and scores by position, input norm or token rarity."""

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
    """Scores of units from the sample only, the same for every target."""

    @property
    def signed(self) -> bool:
        """Not signed."""
        return False

    def n_evaluations(self, layout: Layout) -> int:
        return 0

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        # A plan is a generator, even one that sends no request.
        yield from ()
        return UnitAttribution(self.of(prepared).float().expand(len(prepared.targets), *prepared.units.shape).clone())

    def describe(self) -> dict[str, Any]:
        return {"model_independent": repr(self)}

    @abstractmethod
    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        """The scores of the units of a sample."""


@final
@dataclass(frozen=True)
class RandomScoresPlan(ModelIndependentPlan):
    """Random scores that depend on the seed and the content of the sample, not on its index among other samples."""

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        # All samples have the same seed. A checksum of the model inputs gives each one different numbers that stay the
        # same in any batch and process; hash() differs between processes.
        digest = prepared.seed
        for values in prepared.sample.rows.fields.values():
            digest = zlib.crc32(values.cpu().contiguous().numpy().tobytes(), digest & 0xFFFFFFFF)
        rng = torch.Generator().manual_seed(digest)
        return torch.randn(prepared.units.shape, generator=rng)


@final
@dataclass(frozen=True)
class PositionPlan(ModelIndependentPlan):
    """The position of a unit in reading order, from 0 to 1.

    Args:
        ascending: Whether the last unit has the score 1 rather than the first; None: only for generated text.
    """

    ascending: bool | None

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        # `can_influence` is not None only for generated targets.
        ascending = prepared.can_influence is not None if self.ascending is None else self.ascending
        positions = torch.linspace(0, 1, prepared.layout.count)
        return (positions if ascending else 1 - positions).reshape(prepared.units.shape)


@final
@dataclass(frozen=True)
class CentreGaussianPlan(ModelIndependentPlan):
    """A Gaussian around the centre of the image.

    Args:
        sigma: Standard deviation, as a share of the image's height and width.
    """

    sigma: float

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        units = prepared.units
        # Segments of any shape are as far from the centre as the mean of their pixels.
        shape = units.shape if units.unit_map is None else units.unit_map.shape
        down, across = ((torch.arange(extent) + 0.5) / extent - 0.5 for extent in shape)
        distances = torch.stack(torch.meshgrid(down, across, indexing="ij"))
        if units.unit_map is not None:
            distances = units.pool(distances, "mean")
        return torch.exp(-distances.square().sum(0) / (2 * self.sigma**2))


@final
@dataclass(frozen=True)
class InputNormPlan(ModelIndependentPlan):
    """The norm of the input tensor at every position.

    Args:
        modality: The input tensor.
        score_reducer: Reduces it to scores of units.
    """

    modality: GradientInput = field(repr=False)
    score_reducer: ScoreReducer

    def of(self, prepared: PreparedSample) -> Float[Tensor, "*g"]:
        tensor = self.modality.read(prepared.sample).detach().float()
        return self.score_reducer(prepared, self.modality, tensor[None])[0]


@final
@dataclass(frozen=True)
class TokenRarityPlan(ModelIndependentPlan):
    """The rarity of a unit's tokens in a corpus, as the mean of -log of their smoothed relative frequencies.

    Args:
        counts: Number of occurrences of each token.
        total: Number of tokens of the corpus.
    """

    counts: Mapping[int, int] = field(repr=False)
    total: int

    @staticmethod
    def from_texts(texts: Iterable[Iterable[int]]) -> "TokenRarityPlan":
        """Count the tokens of tokenised texts."""
        counts = Counter(token for text in texts for token in text)
        return TokenRarityPlan(counts, sum(counts.values()))

    def of(self, prepared: PreparedSample) -> UnitScores:
        ids = prepared.sample.rows.fields["input_ids"][0].tolist()
        # Add-one smoothing: a token that is not in the corpus counts as if it occurred once.
        smoothed_total = self.total + len(self.counts)
        scores = [math.log(smoothed_total / (self.counts.get(token, 0) + 1)) for token in ids]
        return prepared.units.to_units(torch.tensor(scores)[None], UnitReduction("mean"))[0]
