"""The interface between methods and modalities.

A method's generator chooses which units to mask, or at which points of the input space to take gradients, without
knowing the modality. The modality applies the masks to token ids or pixels, or gives the tensor (token embeddings,
pixel values) that gradients are taken for. A `Perturbator` combines one of each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.errors import OptionError, UnsupportedError, choices
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.typing import MaskedShare


@dataclass(frozen=True)
class Layout:
    """The shape of the units of a sample, `(g,)` or `(h, w)`, and of its positions, `(l,)` or `(H, W)`."""

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
    masked_share: MaskedShare


@dataclass(frozen=True, eq=False)
class PathPoints:
    """Points of the input space, with a direction and a weight each.

    The raw attribution is the sum over points of weight x direction x gradient: a line integral, an expectation, or
    the gradient itself. A single direction is used for all points.
    """

    tensors: Float[Tensor, "p *s"]
    directions: Float[Tensor, "_q *s"]
    weights: Float[Tensor, " p"]


class MaskGenerator(ABC):
    """Generates the masks of the units, one per evaluation."""

    @abstractmethod
    def n_evaluations(self, layout: Layout) -> int:
        """The number of masks."""

    @abstractmethod
    def masks(self, layout: Layout, rng: torch.Generator, size: int) -> Iterator[Float[Tensor, "p *cells"]]:
        """Yield blocks of at most `size` masks, 1 = masked.

        Masks have the shape of the units, of the positions, or of a coarser grid, which the masker enlarges to the
        positions. Values between 0 and 1 are for images; a masker of discrete tokens rounds them.
        """


class Masker(ABC):
    """Applies masks to a sample: defines what replaces the masked parts."""

    n_prefetched_batches: ClassVar[int]
    """Number of batches of rows to create at a time: few if rows are large, many if duplicates are likely."""

    @abstractmethod
    def fully_masked(self, sample: Sample, rng: torch.Generator) -> Rows:
        """The sample with every position masked, one row."""

    @abstractmethod
    def mask(self, sample: Sample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p *cells"]) -> MaskedRows:
        """One row per mask: the sample where the mask is 0, the fully masked sample where it is 1."""

    def fully_masked_key(self, sample: Sample) -> Hashable:
        """A key that is equal for samples with the same fully masked row; None if that row depends on the sample."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What replaces a masked unit, for the `info` of a result."""


@dataclass(frozen=True, eq=False)
class Revealed:
    """Rows of which only a part is revealed, and the information in each, in bytes."""

    rows: Rows
    sizes: Int[Tensor, " p"]


class Revealer(ABC):
    """Creates copies of a sample with only some positions revealed, and measures their information content."""

    @abstractmethod
    def initially_revealed(
        self, sample: Sample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "*l"]:
        """The positions that are revealed from the beginning: a random `share` of them."""

    @abstractmethod
    def reveal(self, sample: Sample, revealed: Bool[Tensor, "p *l"]) -> Revealed:
        """One row per mask of positions, 1 = revealed."""


class PathGenerator(ABC):
    """Generates the points of the input space at which gradients are taken."""

    from_baselines: ClassVar[bool]
    """Whether points are on paths from baselines; other generators get an empty tensor of baselines."""

    @abstractmethod
    def n_points(self, baselines: int) -> int:
        """The number of points."""

    @property
    def accuracy_option(self) -> str:
        """The option that makes the sum over points more accurate, such as "n_steps=32"; empty if there is none."""
        return ""

    def starts(self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"]) -> Float[Tensor, "_b *s"]:
        """The points at which paths start: the baselines, or points that the path derives from the input."""
        return baselines

    @abstractmethod
    def points(
        self, tensor: Float[Tensor, "*s"], baselines: Float[Tensor, "b *s"], rng: torch.Generator, size: int
    ) -> Iterator[PathPoints]:
        """Yield blocks of at most `size` points at, around, or on the path to `tensor`."""


class GradientInput(ABC):
    """The tensor of a sample that gradients are taken for."""

    field: str
    """Name of the field of the rows that holds the tensor."""
    axes: ClassVar[tuple[int, ...]]
    """The axes of the tensor that are positions, as opposed to embeddings or channels."""

    @abstractmethod
    def read(self, sample: Sample) -> Float[Tensor, "*s"]:
        """The tensor of the sample."""

    def listed(self, spec: object) -> Sequence[Any]:
        """The baselines in the option `spec`, one entry each.

        Raises:
            OptionError: if there are none.
        """
        baselines = self.split(spec)
        if not baselines:
            raise OptionError(f"baseline={spec!r} is empty; pass at least one baseline.")
        return baselines

    @abstractmethod
    def split(self, spec: object) -> Sequence[Any]:
        """Split the option `spec` into baselines; there may be none."""

    @abstractmethod
    def baselines(self, sample: Sample, units: Units, spec: object, rng: torch.Generator) -> Float[Tensor, "b *s"]:
        """Baselines from the option `spec`; equal to the sample at positions that belong to no unit.

        Raises:
            OptionError: if there are none, or one does not fit the sample.
        """

    @abstractmethod
    def write(self, sample: Sample, units: Units, tensors: Float[Tensor, "p *s"]) -> Rows:
        """Rows with these tensors; positions that belong to no unit keep the sample's values."""

    @abstractmethod
    def reduce(self, scores: Float[Tensor, "t *s"], reduction: str) -> Float[Tensor, "t *l"]:
        """Scores of positions: the embedding or channel axis is reduced."""

    def describe(self, spec: object) -> str:
        """The names of the baselines in the option `spec`, for the `info` of a result."""
        return ", ".join(map(self.baseline_name, self.listed(spec)))

    @abstractmethod
    def baseline_name(self, baseline: object) -> str:
        """The name of one baseline."""


Method = TypeVar("Method", MaskGenerator, PathGenerator)
Modality = TypeVar("Modality", Masker, GradientInput)


@final
@dataclass(frozen=True)
class Perturbator(Generic[Method, Modality]):
    """A method's generator combined with a modality.

    Raises:
        UnsupportedError: if one is for masks and the other for gradients.
    """

    method: Method
    modality: Modality

    def __post_init__(self) -> None:
        # The type variables allow all four combinations, and only two of them make sense.
        if isinstance(self.method, MaskGenerator) != isinstance(self.modality, Masker):
            raise UnsupportedError(
                f"{type(self.method).__name__} and {type(self.modality).__name__} cannot be combined: mask "
                "generators go with token ids and pixels, path generators with embeddings and pixel values."
            )


CreateMasker = Callable[[InferenceWrapper, Any], Masker]
CreateGradientInput = Callable[[InferenceWrapper], GradientInput]
CreateRevealer = Callable[[InferenceWrapper, Any], Revealer]

Reduction = Literal["sum", "norm", "abs_sum", "max_abs"]


def reduce_axis(scores: Tensor, axis: int, reduction: str) -> Tensor:
    """Reduce the embedding or channel axis to one number per position.

    Args:
        scores: The scores.
        axis: The axis.
        reduction: "sum", which keeps signs, "norm" (the L2 norm), "abs_sum" (the L1 norm) or "max_abs".

    Raises:
        OptionError: if there is no such reduction.
    """
    if reduction == "sum":
        return scores.sum(axis)
    if reduction == "norm":
        # Several times faster than Tensor.norm() along a short axis such as three channels.
        return scores.square().sum(axis).sqrt()
    if reduction == "abs_sum":
        return scores.abs().sum(axis)
    if reduction == "max_abs":
        return scores.abs().amax(axis)
    raise OptionError(f"There is no reduction={reduction!r}: {choices(reduction, get_args(Reduction))}")
