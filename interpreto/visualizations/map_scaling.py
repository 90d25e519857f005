"""Maps as pictures: their numbers brought to the range of a colour map, whatever a few outliers do."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.option_kinds import checks_options


@checks_options
def grayscale(map: Any, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """How much there is of either sign, from 0 for the least to 1 for what lies at a percentile and above.

    Args:
        map: Scores `h w`, or several maps `t h w`, each of which is brought to the range by itself.
        percentile: Where white begins: the few scores above would leave the rest in the dark.

    Returns:
        Maps with values in [0, 1]; 0 everywhere where all scores are alike.

    Raises:
        InputError: if it is no map.
        OptionError: if there is no such percentile.
    """
    scores = _checked(map).abs()
    low, high = scores.flatten(-2).amin(-1), _percentile(scores, percentile)
    reach = (high - low)[..., None, None]
    return ((scores - low[..., None, None]) / reach.where(reach > 0, 1.0)).clamp(0, 1)


@checks_options
def diverging(map: Any, percentile: float = 99.0) -> Float[Tensor, "... h w"]:
    """Scores with their signs, from -1 to 1, both reached at a percentile of the magnitudes.

    Args:
        map: Scores `h w`, or several maps `t h w`, each of which is brought to the range by itself.
        percentile: At which percentile of the magnitudes the ends lie.

    Returns:
        Maps with values in [-1, 1]; 0 stays 0.

    Raises:
        InputError: if it is no map.
        OptionError: if there is no such percentile.
    """
    scores = _checked(map)
    reach = _percentile(scores.abs(), percentile)[..., None, None]
    return (scores / reach.where(reach > 0, 1.0)).clamp(-1, 1)


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
        raise InputError("A map holds infinite scores: there is no range to bring it to.")
    return scores.nan_to_num()


def _percentile(scores: Float[Tensor, "... h w"], percentile: float) -> Float[Tensor, "..."]:
    flat = scores.flatten(-2)
    # The quantile of torch is limited to some millions of numbers; an order statistic is not.
    place = (flat.shape[-1] - 1) * percentile / 100
    ranked, low = flat.sort(-1).values, int(place)
    return torch.lerp(ranked[..., low], ranked[..., min(low + 1, flat.shape[-1] - 1)], place - low)


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
