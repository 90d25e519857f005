"""XRAI's plan: segments of an image, ranked by the attributions of another method."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.attributions.aggregations.region_ranking import Ranked, ranked_greedily, ranked_once
from interpreto.attributions.granularity import DefaultGranularity, UnitSegmenter, default_segmenter
from interpreto.attributions.granularity.regions import Regions, check_divisible, given, segmented
from interpreto.attributions.granularity.units import Resize
from interpreto.attributions.perturbations.base import GradientInput, Layout
from interpreto.attributions.perturbations.mask_generators.masks import enlarged
from interpreto.attributions.plans.base import Plan, PlanNeeds, PreparedSample, UnitAttribution
from interpreto.attributions.plans.gradient_base import SmoothablePlan
from interpreto.errors import OptionError
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.sample import ImageSample, Sample
from interpreto.option_kinds import call_function
from interpreto.typing import UnitScores

Algorithm = Literal["full", "fast"]
ALGORITHMS: dict[Algorithm, Callable[..., Ranked]] = {"full": ranked_greedily, "fast": ranked_once}


@final
@dataclass(frozen=True)
class RegionRankingPlan(SmoothablePlan):
    """Segments of an image, ranked by the attributions of a base method.

    Args:
        base: The plan of the base method, or an attribution of one image: `H W` or `c H W`.
        modality: The tensor that a noise tunnel adds noise to.
        algorithm: One of `ALGORITHMS`.
        area_threshold: The share of the image that is ranked; the rest has the last rank.
        granularity: The units of a base method that masks units; None for the default of the sample.
        segments: None to compute them; labels `H W`, masks `k H W`, or a function from an image `H W c` with values
            from 0 to 1 to either.
        dilation: Number of pixels by which computed segments are dilated.
        resize: How the map becomes scores of units that are not pixels, one of `RESIZES`; None is "bilinear" if units
            are finer than the map, else "area".
    """

    base: Any
    modality: GradientInput = field(repr=False)
    algorithm: Algorithm = "full"
    area_threshold: float = 1.0
    granularity: UnitSegmenter | DefaultGranularity | None = None
    segments: Any = field(default=None, compare=False)
    dilation: int = 5
    resize: Resize | None = None

    @property
    def gradient_input(self) -> GradientInput:
        """The modality's tensor."""
        return self.modality

    @property
    def has_input_shape(self) -> bool:
        """False: the raw attribution is a map without a channel axis."""
        return False

    @property
    def needs(self) -> PlanNeeds:
        """The cost does not depend on the units; options that are arrays allow only one image."""
        arrays = {
            "base_attribution": not isinstance(self.base, Plan),
            "segments": not (self.segments is None or isinstance(self.segments, Callable)),
        }
        option = next((name for name, is_array in arrays.items() if is_array), "")
        return PlanNeeds(cost_independent_of_units=True, single_sample_option=option)

    def check(self, sample: Sample, layout: Layout) -> None:
        size = (layout.positions[0], layout.positions[1])
        if not isinstance(self.base, Plan):
            self._array(size)
        if self.segments is None:
            check_divisible(self._image(sample))
        elif not isinstance(self.segments, Callable):
            given(self.segments, size)

    def n_evaluations(self, layout: Layout) -> int:
        return self.base.n_evaluations(layout) if isinstance(self.base, Plan) else 0

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        ranked = yield from self._ranked(prepared)
        return UnitAttribution(self.to_unit_scores(prepared, _maps(ranked)), segments=_ranks(ranked))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t H W"]]:
        ranked = yield from self._ranked(prepared)
        return _maps(ranked)

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t H W"]) -> UnitScores:
        return prepared.units.from_layer_map(raw, "mean", self.resize)

    def describe(self) -> dict[str, Any]:
        base = self.base.describe() if isinstance(self.base, Plan) else {"base": f"array {np.shape(self.base)}"}
        segments = (
            "found" if self.segments is None else getattr(self.segments, "__name__", type(self.segments).__name__)
        )
        return {**base, "segments": segments, "algorithm": self.algorithm}

    def _ranked(self, prepared: PreparedSample) -> PlanRun[list[Ranked]]:
        regions = self._regions(prepared.sample, _size(prepared))
        base = yield from self._base(prepared)
        rank = ALGORITHMS[self.algorithm]
        return [rank(attribution.cpu().double().numpy(), regions, self.area_threshold) for attribution in base]

    def _base(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t H W"]]:
        """The base attribution of every pixel, the maximum over channels as in the authors' code."""
        if not isinstance(self.base, Plan):
            # Makes this function a generator in every branch.
            yield from ()
            return self._array(_size(prepared)).expand(len(prepared.targets), -1, -1)
        if isinstance(self.base, SmoothablePlan):
            # The raw attribution has more detail than scores of units.
            raw = yield from self.base.raw_attribution(prepared)
            if self.base.has_input_shape:
                return raw.amax(1)
            return raw if raw.shape[1:] == _size(prepared) else enlarged(raw.float().cpu(), _size(prepared))
        segmenter = self.granularity
        if segmenter is None or isinstance(segmenter, DefaultGranularity):
            segmenter = default_segmenter(prepared.sample, "image", cost_independent_of_units=False)
        # The units of this plan are pixels, too many to mask one by one: the base method gets units of its own.
        base_sample = replace(prepared, units=segmenter.units(prepared.sample))
        attribution: UnitAttribution = yield from self.base.run(base_sample)
        return base_sample.units.to_positions(attribution.scores)

    def _array(self, size: tuple[int, int]) -> Float[Tensor, "1 H W"]:
        """The base attribution that the user passed as an array, as one map.

        Raises:
            OptionError: if it does not match the image, or is not finite.
        """
        attribution = torch.from_numpy(np.asarray(self.base, dtype=np.float64))
        # Channels first or last; a shape that fits both is read as channels first.
        if attribution.ndim == 3 and tuple(attribution.shape[1:]) == size:
            attribution = attribution.amax(0)
        elif attribution.ndim == 3 and tuple(attribution.shape[:2]) == size:
            attribution = attribution.amax(2)
        if tuple(attribution.shape) != size:
            raise OptionError(
                f"base_attribution= must have one number per pixel that the model reads, {size[0]} x {size[1]}, or one "
                f"per channel of each; got the shape {self.base.shape}."
            )
        if not attribution.isfinite().all():
            raise OptionError("base_attribution= contains NaN or infinite values.")
        return attribution[None]

    def _regions(self, sample: Sample, size: tuple[int, int]) -> Regions:
        if self.segments is None:
            return segmented(self._image(sample), self.dilation)
        if isinstance(self.segments, Callable):
            return given(np.asarray(call_function("segments", self.segments, self._unit_range_image(sample))), size)
        return given(self.segments, size)

    def _unit_range_image(self, sample: Sample) -> Float[np.ndarray, "H W c"]:
        """The image that the model reads with its normalisation undone, from 0 for black to 1 for white."""
        assert isinstance(sample, ImageSample)
        black, white = (level.float().cpu().numpy() for level in sample.black_white)
        # A channel that does not depend on the image would divide by 0.
        value_range = np.where(white == black, 1, white - black)
        return ((self._image(sample) - black) / value_range).clip(0, 1)

    def _image(self, sample: Sample) -> Float[np.ndarray, "H W c"]:
        return self.modality.read(sample).detach().float().cpu().movedim(0, -1).numpy()


def _size(prepared: PreparedSample) -> tuple[int, int]:
    """Height and width of the image that the model reads."""
    height, width = prepared.units.index.shape
    return height, width


def _maps(ranked: list[Ranked]) -> Float[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([target.gains for target in ranked])).float()


def _ranks(ranked: list[Ranked]) -> Int[Tensor, "t H W"]:
    return torch.from_numpy(np.stack([target.ranks for target in ranked])).int()
