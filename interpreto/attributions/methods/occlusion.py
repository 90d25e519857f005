"""Occlusion."""

from typing import Literal, Unpack, final

from interpreto.attributions.aggregations.masks import Differences
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity import Pixels
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.masks import OneAtATime, SlidingWindow
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.errors import OptionError
from interpreto.option_kinds import checks_options
from interpreto.type_guards import is_list

Overlap = Literal["mean", "sum"]


@final
class Occlusion(Explainer):
    """The drop in the score when one unit, or a sliding window, is masked.

    The simplest perturbation method, with one evaluation per unit. It underestimates redundant units, because each one
    is masked while the others are kept.

    $$\\phi_i = f(x) - f(x \\setminus i)$$

    With `window=`, a window slides over an image by pixels, or over a text by units. The score of a unit is the mean
    drop over the windows that cover it, weighted by the covered share of the unit. Units of images are then pixels
    unless `granularity=` is passed.

    Args:
        window: Height and width of the window in pixels that the model reads, or one number for both; for texts a
            number of units. None masks one unit at a time.
        stride: Step of the window, down and across, or one number for both. If it is larger than the window, the units
            that no window covers get 0.
        overlap: How the drops of overlapping windows are combined: "mean", or "sum" as in PAIR's package `saliency`.

    Source:
        Zeiler and Fergus 2013, *Visualizing and Understanding Convolutional Networks*, arXiv:1311.2901, section 4.2.

    Example:
        >>> from interpreto import Occlusion, from_callables
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> Occlusion(model)("so good a film")[0].attributions
        tensor([[0., 1., 0., 0.]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        window: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] = 1,
        overlap: Overlap = "mean",
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Occlusion, model, processor, options)
        is_image = self.setup.wrapper.inputs.spatial
        if window is None and (stride, overlap) != (1, "mean"):
            raise OptionError("stride= and overlap= are options of a sliding window: pass window= too.")
        if not is_image and any(is_list(value) for value in (window, stride)):
            raise OptionError(
                f"window={window!r} and stride={stride!r} of a text are numbers of units: pass one number for each."
            )
        mask_generator = OneAtATime() if window is None else SlidingWindow(window, stride)
        # A window moves by pixels, so that scores are those of pixels rather than of patches or grid cells.
        granularity = Pixels() if window is not None and is_image else None
        self.plan = PerturbationPlan(
            self.setup.mask_perturbator(mask_generator), Differences(overlap == "sum"), granularity=granularity
        )
