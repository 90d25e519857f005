"""XRAI."""

from functools import partial
from typing import Any, Unpack, final

import numpy as np

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods.paths import IntegratedGradients
from interpreto.attributions.options import MapOptions
from interpreto.attributions.plans.region_ranking import Algorithm, GivenAttribution, RegionRankingPlan
from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.inputs.image import to_array
from interpreto.option_kinds import checks_options
from interpreto.type_guards import is_array, is_list

_BLACK_AND_WHITE = partial(IntegratedGradients, baseline=["black", "white"])


@final
class XRAI(Explainer):
    """Segments of an image, ranked by the mean attribution that a base method gives to their pixels.

    The score of a pixel is the mean attribution of the pixels that its segment added to the segments before it. All
    pixels of a segment have the same score, so that the map shows objects rather than single pixels. The rank of every
    pixel's segment is in the result's `segments`. Units are patches if the model has patches; pass
    `granularity="pixel"` for a map of pixels.

    Args:
        algorithm: "full" recomputes the means over uncovered pixels after each segment; "fast" ranks segments once.
        area_threshold: The share of the image that is ranked; the rest has the last rank, with its own mean.
        base_attribution: A method or a `functools.partial` of one, by default integrated gradients averaged over a
            black and a white baseline; or an array `H W` or `c H W` for one image. Of several channels the maximum is
            taken.
        segments: Labels `H W` or masks `k H W` of one image, in the pixels that the model reads; or a function from an
            image `H W c` with values from 0 to 1 to either. By default Felzenszwalb's segmentation at six scales.
        dilation: Number of pixels by which these default segments are dilated, so that edges belong to the segments on
            both sides. The published value of 5 is meant for images of about 224 pixels; use less for small images.

    Source:
        Kapishnikov et al. 2019, *XRAI: Better Attributions Through Regions*, arXiv:1906.02825, algorithm 1.

    Example:
        >>> import numpy as np
        >>> from interpreto import XRAI, from_callables
        >>> scores, labels = np.array([[1.0, 3.0, 5.0]]), np.array([[0, 1, 1]])
        >>> explainer = XRAI(from_callables(lambda x: x.mean((2, 3))), base_attribution=scores, segments=labels)
        >>> explainer(np.ones((1, 1, 3)))[0].attributions
        tensor([[[1., 4., 4.]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        algorithm: Algorithm = "full",
        area_threshold: float = 1.0,
        base_attribution: Any = _BLACK_AND_WHITE,
        segments: object = None,
        dilation: int = 5,
        **options: Unpack[MapOptions],
    ) -> None:
        self.setup = Setup.create(XRAI, model, processor, options)
        if not self.setup.wrapper.inputs.spatial:
            raise UnsupportedError(f"XRAI ranks segments of images; this model reads {self.setup.wrapper.modality}s.")
        if is_method(base_attribution):
            explainer = base_attribution(self.setup.wrapper, **self.setup.inherited_by_base_method)
            # A base method that masks units keeps its own granularity; XRAI's units are those of the final map.
            base, granularity = explainer.plan, explainer.setup.granularity or explainer.plan.needs.granularity
        elif (values := array_of(base_attribution, "base_attribution")) is not None:
            base, granularity = GivenAttribution(values), None
        else:
            raise OptionError(
                f"base_attribution={base_attribution!r} must be the class of a method, a functools.partial of one, or "
                "an array of scores."
            )
        if segments is not None and not callable(segments):
            segments = array_of(segments, "segments")
            if segments is None:
                raise OptionError("segments= must be labels H W, masks k H W, or a function of the image.")
        resize = self.setup.options.get("resize")
        self.plan = RegionRankingPlan(
            base, self.setup.gradient_input(), algorithm, area_threshold, granularity, segments, dilation, resize
        )


def array_of(value: object, option: str) -> np.ndarray | None:
    """Convert an array, a tensor or a list of these to an array; None for anything else.

    Raises:
        OptionError: if the entries of a list are not arrays of one shape.
    """
    if is_list(value) and value:
        parts = [part for entry in value if (part := array_of(entry, option)) is not None]
        if len(parts) < len(value) or len({part.shape for part in parts}) > 1:
            raise OptionError(f"{option}= is a list whose entries are not arrays of one shape.")
        return np.stack(parts)
    return to_array(value) if is_array(value) else None
