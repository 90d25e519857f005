"""XRAI: segments of an image, ranked by what another method finds in them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack, final

import numpy as np
from torch import Tensor

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods.paths import IntegratedGradients
from interpreto.attributions.options import MapOptions
from interpreto.attributions.plans.region_ranking import Algorithm, RegionRankingPlan
from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.inputs.image import to_array
from interpreto.option_kinds import checks_options

_BLACK_AND_WHITE = partial(IntegratedGradients, baseline=["black", "white"])


@final
class XRAI(Explainer):
    """Segments of an image in the order of how much another method finds in them, per pixel.

    A pixel's score is the mean attribution of what its segment added to those before it; all pixels of a segment have
    the same, so the map shows things rather than dots. The order of segments, pixel by pixel, is in the result's
    `segments`; where the model has patches these are the units, so for a map of pixels say `granularity="pixel"`.

    Args:
        algorithm: "full" chooses after each segment anew, over what is not covered yet; "fast" ranks segments once.
        area_threshold: How much of the image is ranked, as a share; the rest comes last, with its own mean.
        base_attribution: What is found in the pixels: a method or a `functools.partial` of one, by default integrated
            gradients from black and from white, averaged; or an array `H W` or `c H W` for one image. Of several
            channels the highest counts.
        segments: Labels `H W` or masks `k H W` of one image, in the pixels that the model reads; or a function from an
            image `H W c` with values from 0 to 1 to either. By default Felzenszwalb's at six scales.
        dilation: By how many pixels these grow, so that edges belong to both sides. The published 5 is meant for about
            224 pixels; small images take less.

    Source:
        Kapishnikov et al. 2019, *XRAI: Better Attributions Through Regions*, arXiv:1906.02825, algorithm 1.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        algorithm: Algorithm = "full",
        area_threshold: float = 1.0,
        base_attribution: Any = _BLACK_AND_WHITE,
        segments: Any = None,
        dilation: int = 5,
        **options: Unpack[MapOptions],
    ) -> None:
        self.setup = Setup.create(XRAI, model, processor, options)
        if self.setup.wrapper.modality != "image":
            raise UnsupportedError(f"XRAI ranks segments of images; this model reads a {self.setup.wrapper.modality}.")
        base, cut = array_of(base_attribution, "base_attribution"), None
        if is_method(base_attribution):
            explainer = base_attribution(self.setup.wrapper, **self.setup.inherited_by_base_method)
            base, cut = explainer.plan, explainer.setup.granularity or explainer.plan.needs.granularity
        elif base is None:
            raise OptionError(
                f"base_attribution={base_attribution!r} must be the class of a method, a functools.partial of one, or "
                "an array of scores."
            )
        if segments is not None and not isinstance(segments, Callable):
            segments = array_of(segments, "segments")
            if segments is None:
                raise OptionError("segments= must be labels H W, masks k H W, or a function of the image.")
        resize = self.setup.options.get("resize")
        self.plan = RegionRankingPlan(
            base, self.setup.gradient_input(), algorithm, area_threshold, cut, segments, dilation, resize
        )


def array_of(given: Any, option: str) -> np.ndarray | None:
    """A user's array, tensor or list of these as an array; None where it is nothing of the kind.

    Raises:
        OptionError: if the entries of a list do not go together.
    """
    if isinstance(given, list | tuple) and given:
        parts = [part for one in given if (part := array_of(one, option)) is not None]
        if len(parts) < len(given) or len({part.shape for part in parts}) > 1:
            raise OptionError(f"{option}= is a list whose entries are not arrays of one shape.")
        return np.stack(parts)
    return to_array(given) if isinstance(given, np.ndarray | Tensor) else None
