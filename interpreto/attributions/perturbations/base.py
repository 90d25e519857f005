"""The interface between methods and modalities.

A method says which units or points to evaluate, without knowing what a sample is made of. A modality says what masking
or moving means for token ids, pixels, embeddings or pixel values. A `Perturbator` combines one of each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

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
    """The shape of the units of a sample, `(g,)` or `(h, w)`, and of the positions beneath them."""

    units: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of units."""
        return math.prod(self.units)


@dataclass(frozen=True, eq=False)
class MaskedRows:
    """Rows with masked units, and the share of every unit that is masked."""

    rows: Rows
    masked_share: Hidden


@dataclass(frozen=True, eq=False)
class PathPoints:
    """Points of the input space, with a direction and a weight each.

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
        """The number of masks."""

    @abstractmethod
    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        """Yield blocks of at most `size` masks, 1 = masked.

        Cells are the units, the positions, or a grid of the method's own that the masker enlarges to the positions.
        Values between 0 and 1 are for grids; a masker of discrete tokens rounds them.
        """


class Masker(ABC):
    """Says what masking means."""

    n_prefetched_batches: ClassVar[int]
    """Number of batches of rows to make at once: few if they are large, many if equal rows can be deduplicated."""

    @abstractmethod
    def fully_masked(self, sample: Sample, rng: torch.Generator) -> Rows:
        """The sample with every position masked, one row."""

    @abstractmethod
    def mask(self, sample: Sample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p *cells"]) -> MaskedRows:
        """One row per mask: the sample where the mask is 0, the fully masked sample where it is 1."""

    def fully_masked_key(self, sample: Sample) -> Hashable:
        """A key that samples with equal fully masked rows share; None if these rows depend on the sample."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What replaces a masked unit, for the record."""


@dataclass(frozen=True, eq=False)
class Revealed:
    """Rows of which only a part is revealed, and the information in each, in bytes."""

    rows: Rows
    sizes: Int[Tensor, " p"]


class Revealer(ABC):
    """Says what a sample is of which only some positions are revealed, and how much information that is."""

    @abstractmethod
    def initially_revealed(
        self, sample: Sample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "*l"]:
        """The positions that are revealed from the beginning: a random share of them."""

    @abstractmethod
    def reveal(self, sample: Sample, revealed: Bool[Tensor, "p *l"]) -> Revealed:
        """One row per mask of positions, 1 = revealed."""


class PathGenerator(ABC):
    """Generates the points of the input space at which gradients are taken."""

    from_baselines: ClassVar[bool]
    """Whether points are on paths from baselines; other generators are given none."""

    @abstractmethod
    def n_points(self, baselines: int) -> int:
        """The number of points."""

    @property
    def accuracy_option(self) -> str:
        """The option that makes sums over the points more accurate, and its value; empty if none does."""
        return ""

    def starts(self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """The start of the paths."""
        return baselines

    @abstractmethod
    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        """Yield blocks of at most `size` points at, around, or on the path to `tensor`."""


class GradientInput(ABC):
    """Says which tensor of a sample gradients are taken for."""

    field: str
    """The field of rows that has the tensor."""
    axes: ClassVar[tuple[int, ...]]
    """The axes of the tensor that are positions: neighbours along them are neighbours in the text or image."""

    @abstractmethod
    def read(self, sample: Sample) -> Float[Tensor, "*s"]:
        """The tensor of the sample."""

    @abstractmethod
    def baselines(self, sample: Sample, units: Units, spec: Any, rng: torch.Generator) -> Float[Tensor, "b *s"]:
        """The start of paths; equal to the sample at positions that belong to no unit."""

    @abstractmethod
    def write(self, sample: Sample, units: Units, tensors: Float[Tensor, "p *s"]) -> Rows:
        """Rows with these tensors; positions that belong to no unit keep the sample's values."""

    @abstractmethod
    def reduce(self, scores: Float[Tensor, "t *s"], reduction: str) -> Float[Tensor, "t *l"]:
        """Scores of positions: the embedding or channel axis is reduced."""

    @abstractmethod
    def describe(self, spec: Any) -> str:
        """The name of a baseline, for the record."""


Method = TypeVar("Method", MaskGenerator, PathGenerator)
Modality = TypeVar("Modality", Masker, GradientInput)


@final
@dataclass(frozen=True)
class Perturbator(Generic[Method, Modality]):
    """A method's generator with a modality.

    Raises:
        UnsupportedError: if one of them is for masks and the other for gradients.
    """

    method: Method
    modality: Modality

    def __post_init__(self) -> None:
        if isinstance(self.method, MaskGenerator) != isinstance(self.modality, Masker):
            raise UnsupportedError(
                f"{type(self.method).__name__} and {type(self.modality).__name__} do not belong together: mask "
                "generators go with token ids and pixels, path generators with embeddings and pixel values."
            )


CreateMasker = Callable[[InferenceWrapper, Any], Masker]
CreateGradientInput = Callable[[InferenceWrapper], GradientInput]
CreateRevealer = Callable[[InferenceWrapper, Any], Revealer]

Reduction = Literal["sum", "norm", "abs_sum", "max_abs"]


def reduce_axis(scores: Tensor, axis: int, reduction: str) -> Tensor:
    """Reduce an axis to one number per position: signed only with "sum"."""
    if reduction == "sum":
        return scores.sum(axis)
    if reduction == "norm":
        # Several times faster than norm() along a short axis.
        return scores.square().sum(axis).sqrt()
    return scores.abs().sum(axis) if reduction == "abs_sum" else scores.abs().amax(axis)
