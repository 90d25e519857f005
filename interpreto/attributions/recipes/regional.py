"""Regions of an image, in the order of what another method finds in them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.aggregations.ranking import Ranked, ranked_greedily, ranked_once
from interpreto.attributions.granularity import natural
from interpreto.attributions.granularity.regions import Regions, given, segmented
from interpreto.attributions.perturbations.masks import at_least, enlarged
from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.attributions.recipes.differentiable import Differentiable
from interpreto.errors import OptionError, choices
from interpreto.model_wrapping.conversation import Plan
from interpreto.model_wrapping.images import to_array
from interpreto.model_wrapping.sample import ImageSample
from interpreto.typing import UnitScores

ALGORITHMS = {"full": ranked_greedily, "fast": ranked_once}


@final
@dataclass(frozen=True)
class Regional(Differentiable):
    """Regions of an image, in the order of what another method finds in them.

    Args:
        base: The recipe of that method, or what it found: `H W` or `c H W`, for one image.
        modality: What noise would be added to.
        algorithm: One of `ALGORITHMS`.
        share: How much of the image is ranked; the rest comes last.
        segments: None for those that are found; labels `H W`, masks `k H W`, or a function from an image `H W c` with
            values from 0 to 1 to either.
        dilation: By how many pixels those that are found grow.
        resize: How the map becomes one of units where these are no pixels; None is their mean.
    """

    base: Any
    modality: TensorModality = field(repr=False)  # type: ignore[misc]
    algorithm: str = "full"
    share: float = 1.0
    segments: Any = field(default=None, compare=False)
    dilation: int = 5
    resize: str | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise OptionError(f"There is no algorithm={self.algorithm!r}: {choices(self.algorithm, ALGORITHMS)}")
        at_least("dilation", self.dilation, 0)
        if not 0 < self.share <= 1:
            raise OptionError(f"area_threshold={self.share} is a share of the image: it must lie above 0, up to 1.")

    @property
    def whole(self) -> bool:
        """What is averaged is a map without channels."""
        return False

    @property
    def fine(self) -> bool:
        """Every unit comes for free: where there are no patches, pixels do."""
        return True

    def rows(self, layout: Layout) -> int:
        return self.base.rows(layout) if isinstance(self.base, Recipe) else 0

    def plan(self, case: Case) -> Plan[Explained]:
        ranked = yield from self._ranked(case)
        return Explained(self.finish(case, _maps(ranked)), segments=_ranks(ranked))

    def raw(self, case: Case) -> Plan[Float[Tensor, "t H W"]]:
        ranked = yield from self._ranked(case)
        return _maps(ranked)

    def finish(self, case: Case, raw: Float[Tensor, "t H W"]) -> UnitScores:
        return case.units.gather(raw, "mean", self.resize)

    def describe(self) -> dict[str, Any]:
        based = self.base.describe() if isinstance(self.base, Recipe) else {"base": f"array {np.shape(self.base)}"}
        own = "found" if self.segments is None else getattr(self.segments, "__name__", type(self.segments).__name__)
        return {**based, "segments": own, "algorithm": self.algorithm}

    def _ranked(self, case: Case) -> Plan[list[Ranked]]:
        # Before the base is asked for, which takes longer than to find out that there is nothing to divide.
        regions = self._regions(case)
        base = yield from self._base(case)
        rank = ALGORITHMS[self.algorithm]
        return [rank(one.double().cpu().numpy(), regions, self.share) for one in base]

    def _base(self, case: Case) -> Plan[Float[Tensor, "t H W"]]:
        """What the base finds, per pixel: of several channels the highest counts."""
        if not isinstance(self.base, Recipe):
            yield from ()
            return self._array(case).expand(len(case.targets), -1, -1)
        if isinstance(self.base, Differentiable):
            raw = yield from self.base.raw(case)
            if self.base.whole:
                return raw.amax(1)
            return raw if raw.shape[1:] == _size(case) else enlarged(raw.float().cpu(), _size(case))
        own = replace(case, units=natural(case.sample, "image", fine=False).units(case.sample))
        explained: Explained = yield from self.base.plan(own)
        return own.units.spread(explained.scores)

    def _array(self, case: Case) -> Float[Tensor, "1 H W"]:
        _check_alone("base_attribution", case)
        found = torch.from_numpy(np.asarray(to_array(self.base), dtype=np.float64))
        size = _size(case)
        if found.ndim == 3 and tuple(found.shape[1:]) == size:
            found = found.amax(0)
        elif found.ndim == 3 and tuple(found.shape[:2]) == size:
            found = found.amax(2)
        if tuple(found.shape) != size:
            raise OptionError(
                f"base_attribution= must have one number per pixel that the model reads, {size[0]} x {size[1]}, or one "
                f"per channel of each; got the shape {tuple(np.shape(self.base))}."
            )
        if not found.isfinite().all():
            raise OptionError("base_attribution= holds NaN or infinite values.")
        return found[None]

    def _regions(self, case: Case) -> Regions:
        if self.segments is None:
            return segmented(self._image(case), self.dilation)
        if isinstance(self.segments, Callable):
            return given(np.asarray(self.segments(self._picture(case))), _size(case))
        _check_alone("segments", case)
        own = [to_array(mask) for mask in self.segments] if isinstance(self.segments, list | tuple) else self.segments
        return given(np.asarray(own if isinstance(own, list) else to_array(own)), _size(case))

    def _picture(self, case: Case) -> Float[np.ndarray, "H W c"]:
        """What the model reads, from 0 for black to 1 for white."""
        assert isinstance(case.sample, ImageSample)
        black, white = (level.float().cpu().numpy() for level in case.sample.levels)
        reach = np.where(white == black, 1, white - black)
        return ((self._image(case) - black) / reach).clip(0, 1)

    def _image(self, case: Case) -> Float[np.ndarray, "H W c"]:
        return self.modality.read(case.sample).detach().float().cpu().movedim(0, -1).numpy()


def _size(case: Case) -> tuple[int, int]:
    """Height and width that the model reads."""
    height, width = case.units.index.shape
    return height, width


def _check_alone(option: str, case: Case) -> None:
    if case.number:
        raise OptionError(
            f"{option}= is an array, which belongs to one image, and there are several: give a "
            + ("method" if option == "base_attribution" else "function of the image")
            + ", or explain them one by one."
        )


def _maps(ranked: list[Ranked]) -> Float[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([one.gains for one in ranked])).float()


def _ranks(ranked: list[Ranked]) -> Int[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([one.ranks for one in ranked]))
