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
from interpreto.type_guards import function_name
from interpreto.typing import UnitScores

Algorithm = Literal["full", "fast"]
ALGORITHMS: dict[Algorithm, Callable[..., Ranked]] = {"full": ranked_greedily, "fast": ranked_once}


@final
@dataclass(frozen=True)
class GivenAttribution(Plan):
    """An attribution of one image that the user passes instead of a base method.

    Args:
        values: `H W`, `c H W` or `H W c`.
    """

    values: np.ndarray

    @property
    def needs(self) -> PlanNeeds:
        """An array allows only one image."""
        return PlanNeeds(single_sample_option="base_attribution")

    def check(self, sample: Sample, layout: Layout) -> None:
        self.map_of((layout.positions[0], layout.positions[1]))

    def n_evaluations(self, layout: Layout) -> int:
        return 0

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        # Makes this function a generator.
        yield from ()
        return UnitAttribution(self.map_of(_size(prepared)).expand(len(prepared.targets), -1, -1))

    def describe(self) -> dict[str, Any]:
        return {"base": f"array {self.values.shape}"}

    def map_of(self, size: tuple[int, int]) -> Float[Tensor, "1 H W"]:
        """The attribution as one map of an image of a size, the maximum over channels.

        Raises:
            OptionError: if it does not match the image, or is not finite.
        """
        attribution = torch.from_numpy(np.asarray(self.values, dtype=np.float64))
        # Channels first or last; a shape that fits both is read as channels first.
        if attribution.ndim == 3 and tuple(attribution.shape[1:]) == size:
            attribution = attribution.amax(0)
        elif attribution.ndim == 3 and tuple(attribution.shape[:2]) == size:
            attribution = attribution.amax(2)
        if tuple(attribution.shape) != size:
            raise OptionError(
                f"base_attribution= must have one number per pixel that the model reads, {size[0]} x {size[1]}, or one "
                f"per channel of each; got the shape {self.values.shape}."
            )
        if not attribution.isfinite().all():
            raise OptionError("base_attribution= contains NaN or infinite values.")
        return attribution[None]


@final
@dataclass(frozen=True)
class RegionRankingPlan(SmoothablePlan):
    """Segments of an image, ranked by the attributions of a base method.

    Args:
        base: The plan of the base method, or the given attribution.
        modality: The tensor that a noise tunnel adds noise to.
        algorithm: One of `ALGORITHMS`.
        area_threshold: The share of the image that is ranked; the rest has the last rank.
        granularity: The units of a base method that masks units; None for the default of the sample.
        segments: None to compute them; labels `H W`, masks `k H W`, or a function from an image `H W c` with values
            from 0 to 1 to either.
        dilation: Number of pixels by which computed segments are dilated.
        resize: How the map becomes scores of units that are not pixels, one of `Resize`; None is "bilinear" if units
            are finer than the map, else "area".
    """

    base: Plan
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
        is_array = self.segments is not None and not callable(self.segments)
        option = self.base.needs.single_sample_option or ("segments" if is_array else "")
        return PlanNeeds(cost_independent_of_units=True, single_sample_option=option)

    def check(self, sample: Sample, layout: Layout) -> None:
        if isinstance(self.base, GivenAttribution):
            self.base.check(sample, layout)
        if self.segments is None:
            check_divisible(self._image(sample))
        elif not callable(self.segments):
            given(self.segments, (layout.positions[0], layout.positions[1]))

    def n_evaluations(self, layout: Layout) -> int:
        return self.base.n_evaluations(layout)

    def run(self, prepared: PreparedSample) -> PlanRun[UnitAttribution]:
        ranked = yield from self._ranked(prepared)
        return UnitAttribution(self.to_unit_scores(prepared, _maps(ranked)), segments=_ranks(ranked))

    def raw_attribution(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t H W"]]:
        ranked = yield from self._ranked(prepared)
        return _maps(ranked)

    def to_unit_scores(self, prepared: PreparedSample, raw: Float[Tensor, "t H W"]) -> UnitScores:
        return prepared.units.from_layer_map(raw, "mean", self.resize)

    def describe(self) -> dict[str, Any]:
        segments = "found" if self.segments is None else function_name(self.segments)
        return {**self.base.describe(), "segments": segments, "algorithm": self.algorithm}

    def _ranked(self, prepared: PreparedSample) -> PlanRun[list[Ranked]]:
        regions = self._regions(prepared.sample, _size(prepared))
        base = yield from self._base(prepared)
        rank = ALGORITHMS[self.algorithm]
        return [rank(attribution.cpu().double().numpy(), regions, self.area_threshold) for attribution in base]

    def _base(self, prepared: PreparedSample) -> PlanRun[Float[Tensor, "t H W"]]:
        """The base attribution of every pixel, the maximum over channels as in the authors' code."""
        if isinstance(self.base, GivenAttribution):
            return (yield from self.base.run(prepared)).scores
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

    def _regions(self, sample: Sample, size: tuple[int, int]) -> Regions:
        if self.segments is None:
            return segmented(self._image(sample), self.dilation)
        if callable(self.segments):
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
