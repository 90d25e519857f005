"""Normalises attribution maps to the range of a colour map, robustly to outliers."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.option_kinds import checks_options


@checks_options
def grayscale(map: Any, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """Magnitudes normalised to [0, 1]: 0 is the smallest, 1 is the given percentile and everything above.

    The saliency maps of the SmoothGrad paper are drawn so: a few outliers would leave the rest of the map black.

    Args:
        map: Scores `h w`, or several maps `t h w`, which are normalised independently.
        percentile: Percentile of the magnitudes that becomes 1.

    Returns:
        Maps with values in [0, 1]; 0 everywhere if all magnitudes are equal.

    Raises:
        InputError: if `map` is not a map.
        OptionError: if the percentile is out of range.
    """
    scores = _checked(map).abs()
    low, high = scores.flatten(-2).amin(-1), _percentile(scores, percentile)
    span = (high - low)[..., None, None]
    # A constant map has a span of 0: divided by 1 it becomes 0, not NaN.
    return ((scores - low[..., None, None]) / span.where(span > 0, 1.0)).clamp(0, 1)


@checks_options
def diverging(map: Any, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """Signed scores normalised to [-1, 1] by a percentile of their magnitudes.

    Args:
        map: Scores `h w`, or several maps `t h w`, which are normalised independently.
        percentile: Percentile of the magnitudes that becomes 1; larger ones are clipped.

    Returns:
        Maps with values in [-1, 1]; 0 stays 0.

    Raises:
        InputError: if `map` is not a map.
        OptionError: if the percentile is out of range.
    """
    scores = _checked(map)
    limit = _percentile(scores.abs(), percentile)[..., None, None]
    # The percentile of a sparse map may be 0.
    return (scores / limit.where(limit > 0, 1.0)).clamp(-1, 1)


def _checked(map: Any) -> Float[Tensor, "... h w"]:
    if not isinstance(map, Tensor | np.ndarray | list | tuple):
        raise InputError(
            f"Expected a map, an array or tensor h w, got {type(map).__name__}: see .heatmap() of a result."
        )
    scores = torch.as_tensor(map).detach().cpu()
    if scores.ndim < 2 or not scores.numel() or scores.is_complex():
        raise InputError(f"A map has the shape h w, several have t h w, of real numbers; got {tuple(scores.shape)}.")
    scores = scores.float()
    if scores.isinf().any():
        raise InputError("The map has infinite scores and cannot be normalised.")
    # NaN stands for units without a score, which are drawn as if it were 0.
    return scores.nan_to_num()


def _percentile(scores: Float[Tensor, "... h w"], percentile: float) -> Float[Tensor, "..."]:
    flat = scores.flatten(-2)
    # torch.quantile refuses inputs of more than 16 million numbers. This is its linear interpolation between the two
    # neighbouring order statistics.
    rank = (flat.shape[-1] - 1) * percentile / 100
    ordered, low = flat.sort(-1).values, int(rank)
    return torch.lerp(ordered[..., low], ordered[..., min(low + 1, flat.shape[-1] - 1)], rank - low)


def to_map(scores: Float[Tensor, "t *g"], unit_map: Int[Tensor, "H W"] | None) -> Float[Tensor, "t a b"]:
    """Scores of an image's units as maps: those of a grid as they are, others at every pixel of their unit.

    Args:
        scores: Per target and unit.
        unit_map: The unit of every pixel, -1 for none; None for units on a grid.

    Returns:
        Maps of the rectangle that the units span; 0 at pixels that belong to none.
    """
    if unit_map is None:
        return scores
    rows, columns = ((unit_map >= 0).any(axis).nonzero().flatten() for axis in (1, 0))
    index = unit_map[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Index -1 selects the zero that is appended.
    return torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)[:, index]
