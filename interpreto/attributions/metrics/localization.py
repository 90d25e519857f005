"""Metrics against a mask of what is known to decide: an object in a picture, words of a text."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from interpreto.attributions.granularity.image import boxes_between
from interpreto.attributions.metrics.metric_result import MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError
from interpreto.option_kinds import checks_options


class _Localization(ABC):
    """How attributions lie on a mask."""

    needs: ClassVar[Needs] = Needs.MASKS
    higher_is_better: ClassVar[bool] = True

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], masks: Any) -> MetricResult:
        """Measure attributions.

        Args:
            outputs: What a method said.
            masks: One for a lone output, a list with one each for a list. For an image a boolean array `H W` of the raw
                picture's size; one of another size is brought to it by nearest neighbours, with a warning. For a text
                the words that decide, or one boolean per unit.

        Raises:
            InputError: if there are not as many masks as outputs, or a mask does not fit its output or is empty.
        """
        several = [masks] if isinstance(outputs, AttributionOutput) else list(masks)
        outputs = as_list(outputs)
        if len(several) != len(outputs):
            raise InputError(f"There are {len(several)} masks for {len(outputs)} outputs: give one per output.")
        values = []
        for output, mask in zip(outputs, several, strict=True):
            area, inside, total = _areas(output, mask)
            scores = output.ranking_scores.flatten(1).double()
            values.append(torch.stack([self._of_target(one, area, inside, total) for one in scores]))
        return MetricResult(type(self).__name__, values, True)

    def _of_target(
        self, scores: Float[Tensor, " g"], area: Float[Tensor, " g"], inside: Float[Tensor, " g"], total: float
    ) -> Float[Tensor, ""]:
        seen = ~scores.isnan()
        # What can have no say in a target cannot be asked for.
        total -= float(inside[~seen].sum())
        if total <= 0:
            return torch.tensor(torch.nan, dtype=torch.float64)
        return self.value(scores[seen], area[seen], inside[seen], total)

    @abstractmethod
    def value(
        self, scores: Float[Tensor, " g"], area: Float[Tensor, " g"], inside: Float[Tensor, " g"], total: float
    ) -> Float[Tensor, ""]:
        """The metric for one target.

        Args:
            scores: Of the units.
            area: How large each unit is.
            inside: How much of each unit lies on the mask.
            total: How large the mask is.
        """


class PointingGame(_Localization):
    """Whether the unit with the highest attribution lies on the mask (Zhang et al. 2016, arXiv 1608.00507).

    1 or 0 for every target; where several units share the highest attribution, the part of them that does, so that
    constant attributions get what chance would. The authors allow for 15 pixels; here a unit counts if more than
    `least` of it lies on the mask.

    Args:
        min_overlap: The part of the unit that must at least lie on the mask; 0 asks it to touch the mask.
    """

    @checks_options
    def __init__(self, min_overlap: float = 0.0) -> None:
        self.min_overlap = min_overlap

    def value(self, scores, area, inside, total):
        top = scores == scores.max()
        share = inside / area.clamp(min=1e-12)
        hits = (share > 0) & (share >= self.min_overlap)
        return hits[top].double().mean()


class RelevanceMass(_Localization):
    r"""The part of the positive attributions that lies on the mask (Arras et al. 2022, arXiv 2003.07258).

    \[ \frac{\sum_i \phi_i^+ \, a_i}{\sum_i \phi_i^+} \]

    with \(a_i\) the part of unit i on the mask. Where no attribution is positive, what attributions that are the same
    everywhere would get.
    """

    def value(self, scores, area, inside, total):
        positive = scores.clamp(min=0)
        positive = positive if positive.sum() > 0 else area
        return (positive * inside / area.clamp(min=1e-12)).sum() / positive.sum()


class RelevanceRank(_Localization):
    """The part of the mask that the highest attributions cover, if they are given as much room as the mask has.

    Units are taken from the highest attribution down until they are as large as the mask, the last one in part; of
    units with the same attribution all are taken in part. 1 where exactly the mask is on top (Arras et al. 2022, arXiv
    2003.07258).
    """

    def value(self, scores, area, inside, total):
        levels, level = scores.unique(return_inverse=True)
        areas, insides = (torch.zeros(len(levels), dtype=torch.float64).index_add(0, level, x) for x in (area, inside))
        areas, insides = areas.flip(0), insides.flip(0)
        before = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
        taken = ((total - before) / areas.clamp(min=1e-12)).clamp(0, 1)
        return (taken * insides).sum() / total


def _areas(output: AttributionOutput, mask: Any) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """The size of every unit, how much of it lies on the mask, and the size of the mask."""
    if isinstance(output.elements, Tensor):
        assert isinstance(output.raw_input, Image.Image)
        on = _picture_mask(mask, output.raw_input.size)
        if output.unit_map is not None:
            return _covered_segments(output.elements.double(), output.unit_map, on)
        return _covered(output.elements.double(), on)
    units = [str(element).strip().lower() for element in output.elements]
    if all(isinstance(word, str) for word in mask) and not isinstance(mask, str):
        words = {word.strip().lower() for word in mask}
        on = torch.tensor([unit in words for unit in units])
    else:
        on = torch.as_tensor(np.asarray(mask))
        if on.shape != (len(units),):
            raise InputError(
                f"The mask of a text has its decisive words, or one boolean for each of its {len(units)} units; this "
                f"one has the shape {tuple(on.shape)}."
            )
        on = on.bool()
    if not on.any():
        raise InputError(f"The mask {mask!r} has none of the units {output.elements[:8]}...")
    return torch.ones(len(units), dtype=torch.float64), on.double(), float(on.sum())


def _picture_mask(mask: Any, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    on = torch.as_tensor(np.asarray(mask))
    if on.ndim != 2:
        raise InputError(f"A mask of an image has the shape (H, W), not {tuple(on.shape)}.")
    width, height = size
    if on.shape != (height, width):
        warnings.warn(
            f"A mask of {on.shape[0]} x {on.shape[1]} pixels is brought to the {height} x {width} of its picture by "
            "nearest neighbours.",
            stacklevel=4,
        )
        on = nn.functional.interpolate(on[None, None].float(), size=(height, width), mode="nearest")[0, 0]
    if not on.any():
        raise InputError("The mask is empty: no pixel is known to decide.")
    return on.bool()


def _covered(
    boxes: Float[Tensor, "g 4"], on: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """Areas of boxes inside the picture, and of their parts on the mask; edges may lie within pixels."""
    height, width = on.shape
    lefts, rights = (boxes[:, edge].clamp(0, width) for edge in (0, 2))
    tops, bottoms = (boxes[:, edge].clamp(0, height) for edge in (1, 3))
    sums = nn.functional.pad(on.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    left = _before(sums, bottoms, lefts) - _before(sums, tops, lefts)
    inside = _before(sums, bottoms, rights) - _before(sums, tops, rights) - left
    return (rights - lefts) * (bottoms - tops), inside.clamp(min=0), float(on.sum())


def _covered_segments(
    boxes: Float[Tensor, "g 4"], unit_map: Int[Tensor, "H1 W1"], on: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"], float]:
    """The same for units of any shape: the sums over the boxes of their pixels."""
    assigned = unit_map >= 0
    rows, columns = (assigned.any(axis).nonzero().flatten() for axis in (1, 0))
    index = unit_map[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    left, top, right, bottom = *boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist()
    height, width = index.shape
    down, across = tuple(range(height + 1)), tuple(range(width + 1))
    pixels = boxes_between((height, width), (left, top, right, bottom), down, across)
    area, inside, total = _covered(pixels.double(), on)
    kept, units = index.flatten() >= 0, index.flatten().clamp(min=0)
    area, inside = (area.new_zeros(len(boxes)).index_add(0, units, values * kept) for values in (area, inside))
    return area, inside, total


def _before(sums: Float[Tensor, "H1 W1"], y: Float[Tensor, " g"], x: Float[Tensor, " g"]) -> Float[Tensor, " g"]:
    """The mask's area above and to the left of points; linear in both within a pixel."""
    height, width = sums.shape
    row, column = y.long().clamp(max=height - 2), x.long().clamp(max=width - 2)
    down, across = y - row, x - column
    upper = sums[row, column] * (1 - across) + sums[row, column + 1] * across
    lower = sums[row + 1, column] * (1 - across) + sums[row + 1, column + 1] * across
    return upper * (1 - down) + lower * down
