"""The seam between methods and modalities.

A method says how to change a sample without knowing what it is made of; a modality says what changing means for
token ids, pixels, embeddings or pixel values without knowing why. A `Perturbator` holds one of each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.typing import Hidden


@dataclass(frozen=True)
class Layout:
    """How the units of a sample lie: `(g,)` or `(h, w)`, and the shape of the positions beneath them."""

    units: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of units."""
        return math.prod(self.units)


@dataclass(frozen=True, eq=False)
class MaskedRows:
    """Rows in which parts are hidden, with the share of every unit that really is."""

    rows: Rows
    masked_share: Hidden


@dataclass(frozen=True, eq=False)
class PathPoints:
    """Points of the input space, the direction in which each is looked at, and its weight.

    What a gradient method attributes is the sum over points of weight x direction x gradient: a line integral, an
    expectation, or the gradient itself. Directions of a single entry serve all points.
    """

    tensors: Float[Tensor, "p *s"]
    directions: Float[Tensor, "_q *s"]
    weights: Float[Tensor, " p"]


class MaskGenerator(ABC):
    """Generates masks: which units each evaluation masks."""

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """How many rows there will be."""

    @abstractmethod
    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        """Blocks of at most `size` masks, 1 = hidden.

        Cells are the units, the positions, or a grid of the method's own that the modality stretches over the
        positions. Values between 0 and 1 are for grids; a modality that cannot fade rounds them.
        """


class Masker(ABC):
    """Says what hiding means."""

    n_prefetched_batches: ClassVar[int]
    """How many batches of rows may be made at once: few where they are large, many where equal ones can be found."""

    @abstractmethod
    def fully_masked(self, sample: Sample, rng: torch.Generator) -> Rows:
        """The sample with every position hidden, one row."""

    @abstractmethod
    def mask(self, sample: Sample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p *cells"]) -> MaskedRows:
        """One row per mask: the sample where it is 0, the blank where it is 1."""

    def fully_masked_key(self, sample: Sample) -> Hashable:
        """What samples with the very same blank call it; None where it is made of the sample."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What stands in for a hidden unit, for the record."""


@dataclass(frozen=True, eq=False)
class Revealed:
    """Rows of which only a part is told, and how much information each holds, in bytes."""

    rows: Rows
    sizes: Int[Tensor, " p"]


class Revealer(ABC):
    """Says what a sample is like of which only some positions are told, and how much information that is."""

    @abstractmethod
    def initially_revealed(
        self, sample: Sample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "*l"]:
        """The positions that are told from the beginning: a random share of them."""

    @abstractmethod
    def reveal(self, sample: Sample, revealed: Bool[Tensor, "p *l"]) -> Revealed:
        """One row per mask of positions, 1 = told."""


class PathGenerator(ABC):
    """Says at which points of the input space gradients are taken."""

    from_baselines: ClassVar[bool]
    """Whether points lie on paths from baselines; others are given none."""

    @abstractmethod
    def n_points(self, baselines: int) -> int:
        """How many points there will be."""

    @property
    def accuracy_option(self) -> str:
        """The option that makes sums over the points more exact, and its value; empty if none does."""
        return ""

    def starts(self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """Where the paths begin."""
        return baselines

    @abstractmethod
    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        """Blocks of at most `size` points around or on the way to `tensor`."""


class GradientInput(ABC):
    """Says which tensor of a sample a gradient is taken for."""

    field: str
    """The field of rows that holds it."""
    axes: ClassVar[tuple[int, ...]]
    """Its axes along which positions lie: what is close there is close in the text or the image."""

    @abstractmethod
    def read(self, sample: Sample) -> Float[Tensor, "*s"]:
        """The tensor of the unchanged sample."""

    @abstractmethod
    def baselines(self, sample: Sample, units: Units, spec: Any, rng: torch.Generator) -> Float[Tensor, "b *s"]:
        """Where paths start; equal to the sample at positions that belong to no unit."""

    @abstractmethod
    def write(self, sample: Sample, units: Units, tensors: Float[Tensor, "p *s"]) -> Rows:
        """Rows with these tensors; positions that belong to no unit keep the sample's values."""

    @abstractmethod
    def reduce(self, scores: Float[Tensor, "t *s"], reduction: str) -> Float[Tensor, "t *l"]:
        """Scores of positions: the embedding or channel axis is summed up."""

    @abstractmethod
    def describe(self, spec: Any) -> str:
        """Which baseline a spec names, for the record."""


Method = TypeVar("Method", MaskGenerator, PathGenerator)
Modality = TypeVar("Modality", Masker, GradientInput)


@final
@dataclass(frozen=True)
class Perturbator(Generic[Method, Modality]):
    """A method on a modality.

    Raises:
        UnsupportedError: if one of them hides parts and the other moves through a tensor's space.
    """

    method: Method
    modality: Modality

    def __post_init__(self) -> None:
        if isinstance(self.method, MaskGenerator) != isinstance(self.modality, Masker):
            raise UnsupportedError(
                f"{type(self.method).__name__} and {type(self.modality).__name__} do not belong together: methods "
                "that hide go with token ids and pixels, methods that take gradients with embeddings and pixel values."
            )


CreateMasker = Callable[[InferenceWrapper, Any], Masker]
CreateGradientInput = Callable[[InferenceWrapper], GradientInput]
CreateRevealer = Callable[[InferenceWrapper, Any], Revealer]

Reduction = Literal["sum", "norm", "abs_sum", "max_abs"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


def reduce_axis(scores: Tensor, axis: int, reduction: str) -> Tensor:
    """One number per position from those along an axis: signed only with `sum`."""
    if reduction == "sum":
        return scores.sum(axis)
    if reduction == "norm":
        # Several times faster than norm() along a short axis.
        return scores.square().sum(axis).sqrt()
    return scores.abs().sum(axis) if reduction == "abs_sum" else scores.abs().amax(axis)
