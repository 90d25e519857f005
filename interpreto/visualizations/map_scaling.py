"""Normalises attribution maps to the range of a colour map, with a percentile that limits the effect of outliers."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.option_kinds import checks_options


@checks_options
def grayscale(map: object, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """Absolute values of a map, normalised to [0, 1]: the minimum becomes 0, the given percentile becomes 1.

    The SmoothGrad paper draws saliency maps in this way: if the maximum became 1, a few outliers would leave the rest
    of the map black.

    Args:
        map: A map of shape `h w`, or several of shape `t h w`, which are normalised independently.
        percentile: The percentile of the absolute values that becomes 1; larger values are clipped.

    Returns:
        Maps with values in [0, 1]; 0 everywhere if all absolute values are equal.

    Raises:
        InputError: if `map` does not have the shape of a map or contains infinite values.
        OptionError: if the percentile is out of range.
    """
    scores = _to_scores(map).abs()
    low, high = scores.flatten(-2).amin(-1), _percentile(scores, percentile)
    span = (high - low)[..., None, None]
    # A constant map has a span of 0; dividing by 1 instead gives 0 rather than NaN.
    return ((scores - low[..., None, None]) / span.where(span > 0, 1.0)).clamp(0, 1)


@checks_options
def diverging(map: object, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """A signed map, divided by a percentile of its absolute values and clipped to [-1, 1].

    Args:
        map: A map of shape `h w`, or several of shape `t h w`, which are normalised independently.
        percentile: The percentile of the absolute values that becomes 1; larger values are clipped.

    Returns:
        Maps with values in [-1, 1]; 0 stays 0.

    Raises:
        InputError: if `map` does not have the shape of a map or contains infinite values.
        OptionError: if the percentile is out of range.
    """
    scores = _to_scores(map)
    limit = _percentile(scores.abs(), percentile)[..., None, None]
    # The percentile is 0 if most of the map is 0.
    return (scores / limit.where(limit > 0, 1.0)).clamp(-1, 1)


def _to_scores(map: object) -> Float[Tensor, "... h w"]:
    """Convert a map to a float tensor on the CPU and validate it."""
    if not isinstance(map, Tensor | np.ndarray | list | tuple):
        raise InputError(
            f"Expected a map as an array or tensor of shape h w, got {type(map).__name__}: see .heatmap() of a result."
        )
    scores = torch.as_tensor(map).detach().cpu()
    if scores.ndim < 2 or not scores.numel() or scores.is_complex():
        raise InputError(
            f"Expected real numbers of shape h w (one map) or t h w (several maps); got {scores.dtype}, shape "
            f"{tuple(scores.shape)}."
        )
    scores = scores.float()
    if scores.isinf().any():
        raise InputError("The map has infinite scores and cannot be normalised.")
    # NaN marks units without a score; they are drawn like a score of 0.
    return scores.nan_to_num()


def _percentile(scores: Float[Tensor, "... h w"], percentile: float) -> Float[Tensor, "..."]:
    flat = scores.flatten(-2)
    # torch.quantile raises an error for more than 16 million values. This computes the same result, by linear
    # interpolation between the two nearest order statistics.
    rank = (flat.shape[-1] - 1) * percentile / 100
    ordered, low = flat.sort(-1).values, int(rank)
    return torch.lerp(ordered[..., low], ordered[..., min(low + 1, flat.shape[-1] - 1)], rank - low)


def cropped(unit_map: Int[Tensor, "H W"]) -> Int[Tensor, "a b"]:
    """The bounding box of all units in a unit map."""
    rows, columns = ((unit_map >= 0).any(axis).nonzero().flatten() for axis in (1, 0))
    return unit_map[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def to_map(scores: Float[Tensor, "t *g"], unit_map: Int[Tensor, "H W"] | None) -> Float[Tensor, "t a b"]:
    """Convert the scores of an image's units to two-dimensional maps.

    Units on a grid already have that shape. For other units, such as segments, each pixel gets the score of its unit.

    Args:
        scores: One score per target and unit.
        unit_map: The index of the unit that each pixel belongs to, -1 for none; None for units on a grid.

    Returns:
        One map per target, of the bounding box of all units; 0 at pixels that belong to no unit.
    """
    if unit_map is None:
        return scores
    # Index -1 selects the last column, the appended zeros.
    return torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)[:, cropped(unit_map)]
