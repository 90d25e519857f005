"""Metrics with a ground-truth mask: an object of an image, or the decisive words of a text."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interpreto.attributions.granularity.image import boxes_between
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError
from interpreto.option_kinds import checks_options
from interpreto.type_guards import are_all
from interpreto.visualizations.map_scaling import cropped


class _Localization(ABC):
    """Compares attributions with a mask of the ground truth."""

    needs: ClassVar[Needs] = Needs.MASKS
    higher_is_better: ClassVar[bool] = True

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], masks: Any) -> MetricResult:
        """Measure attributions.

        Args:
            outputs: The outputs of a method.
            masks: One mask for a single output, or a list with one mask per output. For an image a boolean array `H W`
                of the raw image's size; another size is resized by nearest neighbours, with a warning. For a text the
                decisive words, or one boolean per unit.

        Raises:
            InputError: if the numbers of masks and outputs differ, a mask does not fit its output, or it is empty.
        """
        mask_list = [masks] if isinstance(outputs, AttributionOutput) else list(masks)
        outputs = as_list(outputs)
        if len(mask_list) != len(outputs):
            raise InputError(f"There are {len(mask_list)} masks for {len(outputs)} outputs: pass one per output.")
        values = []
        for output, mask in zip(outputs, mask_list, strict=True):
            area, inside, total = _areas(output, mask)
            scores = output.ranking_scores.flatten(1).double()
            values.append(torch.stack([self._of_target(target, area, inside, total) for target in scores]))
        return MetricResult(type(self).__name__, values, True)

    def _of_target(
        self, scores: Float[Tensor, " g"], area: Float[Tensor, " g"], inside: Float[Tensor, " g"], total: float
    ) -> Float[Tensor, ""]:
        has_score = ~scores.isnan()
        # The part of the mask on units that cannot influence the target does not count: no method can find it.
        total -= float(inside[~has_score].sum())
        if total <= 0:
            return torch.tensor(torch.nan, dtype=torch.float64)
        return self.value(scores[has_score], area[has_score], inside[has_score], total)

    @abstractmethod
    def value(
        self, scores: Float[Tensor, " g"], area: Float[Tensor, " g"], inside: Float[Tensor, " g"], total: float
    ) -> Float[Tensor, ""]:
        """The metric for one target.

        Args:
            scores: The scores of the units.
            area: The area of each unit, in pixels; 1 for units of a text.
            inside: The area of each unit's overlap with the mask.
            total: The area of the mask.
        """


class PointingGame(_Localization):
    """Whether the unit with the highest attribution is on the mask (Zhang et al. 2016, arXiv 1608.00507).

    1 or 0 for every target. If several units share the highest attribution, the share of them that is on the mask, so
    that constant attributions get the value of chance. The authors accept points within 15 pixels of the mask; here a
    unit is on the mask if at least `min_overlap` of it overlaps the mask.

    Args:
        min_overlap: The smallest share of the unit's area that must overlap the mask; 0 accepts any overlap.
    """

    @checks_options
    def __init__(self, min_overlap: float = 0.0) -> None:
        self.min_overlap = min_overlap

    def value(self, scores, area, inside, total):
        top = scores == scores.max()
        # A unit outside the raw image, where the processor padded it, has area 0.
        share = inside / area.clamp(min=1e-12)
        hits = (share > 0) & (share >= self.min_overlap)
        return hits[top].double().mean()


class RelevanceMass(_Localization):
    r"""The share of the positive attributions that is on the mask (Arras et al. 2022, arXiv 2003.07258).

    \[ \frac{\sum_i \phi_i^+ \, a_i}{\sum_i \phi_i^+} \]

    with the share \(a_i\) of unit i that overlaps the mask. If no attribution is positive, it is the value of uniform
    attributions.
    """

    def value(self, scores, area, inside, total):
        positive = scores.clamp(min=0)
        # Uniform attributions per pixel are proportional to the areas of units.
        positive = positive if positive.sum() > 0 else area
        return (positive * inside / area.clamp(min=1e-12)).sum() / positive.sum()


class RelevanceRank(_Localization):
    """The share of the mask that is covered by the units with the highest attributions, up to the area of the mask.

    Units are taken in descending order of attribution until their total area is that of the mask; the last unit counts
    in part, and so do all units that share its attribution. 1 if the units on the mask have the highest attributions
    (Arras et al. 2022, arXiv 2003.07258).
    """

    def value(self, scores, area, inside, total):
        # Units with equal scores are summed to one level, from which the same share of every unit is taken.
        levels, level = scores.unique(return_inverse=True)
        areas, insides = (torch.zeros(len(levels), dtype=torch.float64).index_add(0, level, x) for x in (area, inside))
        areas, insides = areas.flip(0), insides.flip(0)
        before = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
        taken = ((total - before) / areas.clamp(min=1e-12)).clamp(0, 1)
        return (taken * insides).sum() / total


def _areas(output: AttributionOutput, mask: Any) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """The area of every unit, of its overlap with the mask, and of the mask."""
    if output.is_image:
        on = _image_mask(mask, output.require_image().size)
        if output.unit_map is not None:
            return _segment_overlaps(output.require_boxes().double(), output.unit_map, on)
        return _box_overlaps(output.require_boxes().double(), on)
    units = [str(element).strip().lower() for element in output.elements]
    if are_all(str, mask) and not isinstance(mask, str):
        # Units include the white space before a word, and words may be capitalised at the start of a sentence.
        words = {word.strip().lower() for word in mask}
        on = torch.tensor([unit in words for unit in units])
    else:
        on = torch.as_tensor(np.asarray(mask))
        if on.shape != (len(units),):
            raise InputError(
                f"The mask of a text must be its decisive words, or one boolean for each of its {len(units)} units; "
                f"got the shape {tuple(on.shape)}."
            )
        on = on.bool()
    if not on.any():
        raise InputError(f"The mask {mask!r} contains none of the units {output.elements[:8]}...")
    return torch.ones(len(units), dtype=torch.float64), on.double(), float(on.sum())


def _image_mask(mask: object, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask at the size of the raw image, as width and height."""
    on = torch.as_tensor(np.asarray(mask))
    if on.ndim != 2:
        raise InputError(f"A mask of an image must have the shape (H, W), not {tuple(on.shape)}.")
    width, height = size
    if on.shape != (height, width):
        warnings.warn(
            f"A mask of {on.shape[0]} x {on.shape[1]} pixels is resized to the {height} x {width} of its image by "
            "nearest neighbours.",
            # The line of the user's call of evaluate().
            stacklevel=4,
        )
        on = nn.functional.interpolate(on[None, None].float(), size=(height, width), mode="nearest")[0, 0]
    if not on.any():
        raise InputError("The mask is empty: it has no pixels of the ground truth.")
    return on.bool()


def _box_overlaps(
    boxes: Float[Tensor, "g 4"], on: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """Areas of boxes inside the image, of their overlaps with the mask, and of the mask; edges can be fractions."""
    height, width = on.shape
    lefts, rights = (boxes[:, edge].clamp(0, width) for edge in (0, 2))
    tops, bottoms = (boxes[:, edge].clamp(0, height) for edge in (1, 3))
    # A summed-area table: the overlap of any box is a combination of its values at the four corners.
    sums = nn.functional.pad(on.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    left = _area_before(sums, bottoms, lefts) - _area_before(sums, tops, lefts)
    inside = _area_before(sums, bottoms, rights) - _area_before(sums, tops, rights) - left
    return (rights - lefts) * (bottoms - tops), inside.clamp(min=0), float(on.sum())


def _segment_overlaps(
    boxes: Float[Tensor, "g 4"], unit_map: Int[Tensor, "H1 W1"], on: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """The same for units of any shape: the sums over the boxes of their pixels."""
    index = cropped(unit_map)
    left, top, right, bottom = *boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist()
    height, width = index.shape
    down, across = tuple(range(height + 1)), tuple(range(width + 1))
    pixels = boxes_between((height, width), (left, top, right, bottom), down, across)
    area, inside, total = _box_overlaps(pixels.double(), on)
    kept, units = index.flatten() >= 0, index.flatten().clamp(min=0)
    area, inside = (area.new_zeros(len(boxes)).index_add(0, units, values * kept) for values in (area, inside))
    return area, inside, total


def _area_before(sums: Float[Tensor, "H1 W1"], y: Float[Tensor, " g"], x: Float[Tensor, " g"]) -> Float[Tensor, " g"]:
    """The mask's area above and to the left of points; bilinear interpolation is exact within a pixel."""
    height, width = sums.shape
    row, column = y.long().clamp(max=height - 2), x.long().clamp(max=width - 2)
    down, across = y - row, x - column
    upper = sums[row, column] * (1 - across) + sums[row, column + 1] * across
    lower = sums[row + 1, column] * (1 - across) + sums[row + 1, column + 1] * across
    return upper * (1 - down) + lower * down
