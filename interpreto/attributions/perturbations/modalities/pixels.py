"""Masking parts of an image, and its pixel values as the input for gradients."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.base import GradientInput, MaskedRows, Masker, reduce_axis
from interpreto.attributions.perturbations.mask_generators.masks import enlarged
from interpreto.errors import OptionError, choices
from interpreto.model_wrapping.rows import LazyBlend, Rows
from interpreto.model_wrapping.sample import PIXELS, ImageSample
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.option_kinds import check_choice
from interpreto.type_guards import are_all, is_array, is_list

NAMES = ("zeros", "mean", "black", "white", "blur", "noise")


def replacement(sample: ImageSample, spec: object, rng: torch.Generator, option: str) -> Float[Tensor, "c H W"]:
    """The replacement for masked pixels, or the baseline of a path, as a tensor of the image's shape.

    Args:
        sample: The image.
        spec: None or "zeros" (the processor's mean colour), "mean" (the image's mean colour), "black", "white", "blur"
            (Gaussian with a standard deviation of a tenth of the shorter side), "noise" (uniform over the image's
            range), a number, a colour of c numbers, or a tensor `c H W`. Numbers are in the model's normalised units.
        rng: Random numbers for "noise".
        option: The option's name, for the error message.

    Raises:
        OptionError: if `spec` is none of these, or is not finite.
    """
    pixels = sample.rows.fields[PIXELS][0]
    if spec is None or isinstance(spec, str):
        return _named(sample, spec or "zeros", rng, option)
    try:
        value = torch.as_tensor(spec, dtype=pixels.dtype, device=pixels.device)
    except (TypeError, ValueError):
        # No number at all: an empty tensor fits none of the shapes below, and gets the same error message.
        value = torch.zeros(0)
    if value.numel() and not bool(value.isfinite().all()):
        raise OptionError(f"{option}={spec!r} is not finite.")
    if value.ndim == 0:
        return value.expand_as(pixels)
    if value.shape == pixels.shape[:1]:
        return value[:, None, None].expand_as(pixels)
    if value.shape == pixels.shape:
        return value
    raise OptionError(
        f"{option}={spec!r} must be one of {', '.join(map(repr, NAMES))}, a number, {len(pixels)} numbers (a colour), "
        f"or a tensor of shape {tuple(pixels.shape)}."
    )


def _named(sample: ImageSample, name: str, rng: torch.Generator, option: str) -> Float[Tensor, "c H W"]:
    pixels = sample.rows.fields[PIXELS][0]
    if name in ("black", "white"):
        level = sample.black_white[name == "white"].to(pixels)
        return level[:, None, None].expand_as(pixels)
    if name == "zeros":
        return pixels.new_zeros(()).expand_as(pixels)
    if name == "mean":
        return pixels.mean((1, 2), keepdim=True).expand_as(pixels)
    if name == "blur":
        sigma = min(pixels.shape[1:]) / 10
        # Reflection padding in gaussian_blur needs a radius below the shorter side.
        radius = min(int(3 * sigma), min(pixels.shape[1:]) - 1)
        return gaussian_blur(pixels, [2 * radius + 1] * 2, [max(sigma, 0.1)] * 2)
    if name == "noise":
        low, high = pixels.min(), pixels.max()
        # Drawn on the CPU, so that the same seed gives the same noise on every device.
        return low + (high - low) * torch.rand(pixels.shape, generator=rng).to(pixels)
    raise OptionError(f"There is no {option}={name!r}: {choices(name, NAMES)}")


def describe(spec: object) -> str:
    """The name of a replacement, for the `info` of a result."""
    if is_array(spec):
        return f"tensor {tuple(spec.shape)}"
    return "zeros" if spec is None else str(spec)


@final
@dataclass(frozen=True)
class Pixels(Masker):
    """Blends masked pixels into a replacement, linearly in the mask.

    Args:
        removal: The replacement, as for `replacement`.
    """

    removal: Any = None
    n_prefetched_batches = 1

    def __post_init__(self) -> None:
        if isinstance(self.removal, str):
            check_choice("removal", self.removal, NAMES)

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: object) -> "Pixels":
        """The masker of a model, with the option `removal`."""
        return Pixels(removal)

    def fully_masked(self, sample: ImageSample, rng: torch.Generator) -> Rows:
        return sample.rows.replace(**{PIXELS: replacement(sample, self.removal, rng, "removal")[None]})

    def mask(
        self, sample: ImageSample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p *cells"]
    ) -> MaskedRows:
        # Masks of units are expanded to pixels only when a batch runs: they are many times smaller in memory.
        of_units = cells.shape[1:] == units.shape
        masks, masked_share = (cells, cells) if of_units else to_pixel_masks(cells, units, sample.size)
        original = sample.rows.fields[PIXELS]
        pixels = LazyBlend(
            original,
            fully_masked.fields[PIXELS],
            masks,
            lambda some: (units.to_positions_compact(some) if of_units else some)[:, None],
            (original.shape[1], *units.view_shape) if of_units else None,
        )
        return MaskedRows(sample.rows.expand(len(cells), **{PIXELS: pixels}), masked_share)

    def fully_masked_key(self, sample: ImageSample) -> Hashable:
        # "mean", "blur" and "noise" depend on the image's content, and the levels of "black" and "white" on its
        # preprocessing. Constants and "zeros" depend on the shape alone.
        shape = tuple(sample.rows.fields[PIXELS].shape[1:])
        return None if isinstance(self.removal, str) and self.removal != "zeros" else shape

    def describe(self) -> str:
        return describe(self.removal)


def to_pixel_masks(
    cells: Float[Tensor, "p *cells"], units: Units, size: tuple[int, int]
) -> tuple[Float[Tensor, "p H W"], Float[Tensor, "p *g"]]:
    """Masks of pixels from masks of pixels or of a coarser grid, and the share of every unit that they mask."""
    if cells.shape[1:] != size:
        cells = enlarged(cells, size)
    # An effect of pixels that belong to no unit could be attributed to none, so these pixels are never masked.
    masks = cells * units.assigned
    return masks, units.pool(masks, "mean")


@final
@dataclass(frozen=True)
class PixelValues(GradientInput):
    """The pixel values that the model reads, after resizing and normalisation."""

    field = PIXELS
    axes = (1, 2)

    @staticmethod
    def create(wrapper: InferenceWrapper) -> "PixelValues":
        """The pixel values of a model."""
        return PixelValues()

    def read(self, sample: ImageSample) -> Float[Tensor, "c H W"]:
        return sample.rows.fields[PIXELS][0]

    def baselines(
        self, sample: ImageSample, units: Units, spec: object, rng: torch.Generator
    ) -> Float[Tensor, "b c H W"]:
        pixels = self.read(sample)
        values = torch.stack([replacement(sample, baseline, rng, "baseline") for baseline in self.listed(spec)])
        return torch.where(units.assigned, values, pixels)

    def write(self, sample: ImageSample, units: Units, tensors: Float[Tensor, "p c H W"]) -> Rows:
        if units.covers_input:
            # Saves a copy of the whole batch.
            return sample.rows.expand(len(tensors), **{PIXELS: tensors})
        values = torch.where(units.assigned.to(tensors.device), tensors, self.read(sample).to(tensors))
        return sample.rows.expand(len(tensors), **{PIXELS: values})

    def reduce(self, scores: Float[Tensor, "t c H W"], reduction: str) -> Float[Tensor, "t H W"]:
        return reduce_axis(scores, 1, reduction)

    def split(self, spec: object) -> Sequence[Any]:
        """Split the option: an array `b c H W` contains several, a tuple of numbers is one colour."""
        if is_array(spec) and spec.ndim == 4:
            return list(spec)
        is_colour = type(spec) is tuple and are_all(Real, spec)
        return spec if is_list(spec) and not is_colour else [spec]

    def baseline_name(self, baseline: object) -> str:
        return describe(baseline)
