"""Regions of an image, in the order of what another method finds in them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.aggregations.ranking import Ranked, ranked_greedily, ranked_once
from interpreto.attributions.granularity import Natural, Unitization, natural
from interpreto.attributions.granularity.regions import Regions, check_divisible, given, segmented
from interpreto.attributions.granularity.units import RESIZES
from interpreto.attributions.perturbations.masks import enlarged
from interpreto.attributions.perturbations.seams import Layout, TensorModality
from interpreto.attributions.recipes.case import Case, Explained, Recipe
from interpreto.attributions.recipes.differentiable import Differentiable
from interpreto.errors import OptionError
from interpreto.model_wrapping.conversation import Plan
from interpreto.model_wrapping.sample import ImageSample, Sample
from interpreto.option_kinds import call_function, check_choice
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
        cut: What a base that hides parts hides; None is what is natural for the sample.
        segments: None for those that are found; labels `H W`, masks `k H W`, or a function from an image `H W c` with
            values from 0 to 1 to either.
        dilation: By how many pixels those that are found grow.
        resize: How the map becomes one of units where these are no pixels; None is their mean.
    """

    base: Any
    modality: TensorModality = field(repr=False)  # type: ignore[misc]
    algorithm: str = "full"
    share: float = 1.0
    cut: Unitization | Natural | None = None
    segments: Any = field(default=None, compare=False)
    dilation: int = 5
    resize: str | None = None

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, ALGORITHMS)
        if self.resize is not None:
            check_choice("resize", self.resize, RESIZES)

    @property
    def whole(self) -> bool:
        """What is averaged is a map without channels."""
        return False

    @property
    def fine(self) -> bool:
        """Every unit comes for free: where there are no patches, pixels do."""
        return True

    @property
    def alone(self) -> str:
        """Which option is an array, of one image."""
        arrays = {
            "base_attribution": not isinstance(self.base, Recipe),
            "segments": not (self.segments is None or isinstance(self.segments, Callable)),
        }
        return next((name for name, is_array in arrays.items() if is_array), "")

    def check(self, sample: Sample, layout: Layout) -> None:
        size = (layout.positions[0], layout.positions[1])
        if not isinstance(self.base, Recipe):
            self._array(size)
        if self.segments is None:
            check_divisible(self._image(sample))
        elif not isinstance(self.segments, Callable):
            given(self.segments, size)

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
        regions = self._regions(case.sample, _size(case))
        base = yield from self._base(case)
        rank = ALGORITHMS[self.algorithm]
        return [rank(one.cpu().double().numpy(), regions, self.share) for one in base]

    def _base(self, case: Case) -> Plan[Float[Tensor, "t H W"]]:
        """What the base finds, per pixel: of several channels the highest counts."""
        if not isinstance(self.base, Recipe):
            yield from ()
            return self._array(_size(case)).expand(len(case.targets), -1, -1)
        if isinstance(self.base, Differentiable):
            raw = yield from self.base.raw(case)
            if self.base.whole:
                return raw.amax(1)
            return raw if raw.shape[1:] == _size(case) else enlarged(raw.float().cpu(), _size(case))
        cut = self.cut.of(case.sample) if isinstance(self.cut, Natural) else self.cut
        own = replace(case, units=(cut or natural(case.sample, "image", fine=False)).units(case.sample))
        explained: Explained = yield from self.base.plan(own)
        return own.units.spread(explained.scores)

    def _array(self, size: tuple[int, int]) -> Float[Tensor, "1 H W"]:
        """The base where it is an array.

        Raises:
            OptionError: if it does not match the image, or is not finite.
        """
        found = torch.from_numpy(np.asarray(self.base, dtype=np.float64))
        if found.ndim == 3 and tuple(found.shape[1:]) == size:
            found = found.amax(0)
        elif found.ndim == 3 and tuple(found.shape[:2]) == size:
            found = found.amax(2)
        if tuple(found.shape) != size:
            raise OptionError(
                f"base_attribution= must have one number per pixel that the model reads, {size[0]} x {size[1]}, or one "
                f"per channel of each; got the shape {self.base.shape}."
            )
        if not found.isfinite().all():
            raise OptionError("base_attribution= holds NaN or infinite values.")
        return found[None]

    def _regions(self, sample: Sample, size: tuple[int, int]) -> Regions:
        if self.segments is None:
            return segmented(self._image(sample), self.dilation)
        if isinstance(self.segments, Callable):
            return given(np.asarray(call_function("segments", self.segments, self._picture(sample))), size)
        return given(self.segments, size)

    def _picture(self, sample: Sample) -> Float[np.ndarray, "H W c"]:
        """What the model reads, from 0 for black to 1 for white."""
        assert isinstance(sample, ImageSample)
        black, white = (level.float().cpu().numpy() for level in sample.levels)
        reach = np.where(white == black, 1, white - black)
        return ((self._image(sample) - black) / reach).clip(0, 1)

    def _image(self, sample: Sample) -> Float[np.ndarray, "H W c"]:
        return self.modality.read(sample).detach().float().cpu().movedim(0, -1).numpy()


def _size(case: Case) -> tuple[int, int]:
    """Height and width that the model reads."""
    height, width = case.units.index.shape
    return height, width


def _maps(ranked: list[Ranked]) -> Float[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([one.gains for one in ranked])).float()


def _ranks(ranked: list[Ranked]) -> Int[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([one.ranks for one in ranked])).int()
