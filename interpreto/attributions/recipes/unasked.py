"""Recipes that ask nothing of the model: scores of units from chance, place, size or rarity."""

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

from interpreto.attributions.granularity import Combine
from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.attributions.recipes.differentiable import Finish
from interpreto.model_wrapping.conversation import Plan
from interpreto.typing import UnitScores


@dataclass(frozen=True)
class Unasked(Recipe):
    """Scores of units that are the same for every target."""

    @property
    def signed(self) -> bool:
        """Numbers that are larger for some units than for others."""
        return False

    def rows(self, layout: Layout) -> int:
        return 0

    def plan(self, case: Case) -> Plan[Explained]:
        yield from ()
        return Explained(self.of(case).float().expand(len(case.targets), *case.units.shape).clone())

    def describe(self) -> dict[str, Any]:
        return {"asks": f"nothing of the model: {self!r}"}

    @abstractmethod
    def of(self, case: Case) -> Float[Tensor, "*g"]:
        """The scores of one sample's units."""


@final
@dataclass(frozen=True)
class Noise(Unasked):
    """Random numbers that depend on the seed and on what the sample holds, not on its place among others."""

    def of(self, case: Case) -> Float[Tensor, "*g"]:
        digest = case.seed
        for values in case.sample.rows.fields.values():
            digest = zlib.crc32(values.cpu().contiguous().numpy().tobytes(), digest & 0xFFFFFFFF)
        rng = torch.Generator().manual_seed(digest)
        return torch.randn(case.units.shape, generator=rng)


@final
@dataclass(frozen=True)
class Order(Unasked):
    """The place of a unit in the order of reading, between 0 and 1."""

    rising: bool | None

    def of(self, case: Case) -> Float[Tensor, "*g"]:
        # Targets that only some units can reach are generated words.
        rising = case.visible is not None if self.rising is None else self.rising
        places = torch.linspace(0, 1, case.layout.count)
        return (places if rising else 1 - places).reshape(case.units.shape)


@final
@dataclass(frozen=True)
class Centre(Unasked):
    """A Gaussian around the middle of a grid."""

    width: float

    def of(self, case: Case) -> Float[Tensor, "h w"]:
        down, across = (
            ((torch.arange(extent) + 0.5) / extent - 0.5).square() / (2 * self.width**2) for extent in case.units.shape
        )
        return torch.exp(-down[:, None] - across)


@final
@dataclass(frozen=True)
class Norm(Unasked):
    """The size of what the model reads."""

    modality: TensorModality = field(repr=False)
    finish_with: Finish

    def of(self, case: Case) -> Float[Tensor, "*g"]:
        return self.finish_with(case, self.modality, self.modality.read(case.sample).detach().float()[None])[0]


@final
@dataclass(frozen=True)
class Rarity(Unasked):
    """How seldom tokens are met."""

    counts: Mapping[int, int] = field(repr=False)
    total: int

    @staticmethod
    def of_texts(texts: Iterable[Iterable[int]]) -> "Rarity":
        """Count the token ids of texts."""
        counts = Counter(token for text in texts for token in text)
        return Rarity(counts, sum(counts.values()))

    def of(self, case: Case) -> UnitScores:
        ids = case.sample.rows.fields["input_ids"][0].tolist()
        known = self.total + len(self.counts)
        scores = [math.log(known / (self.counts.get(token, 0) + 1)) for token in ids]
        return case.units.combine(torch.tensor(scores)[None], Combine("mean"))[0]
