"""Occlusion."""

from typing import Any, Unpack, final

from interpreto.attributions.aggregations.masks import Differences
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity import Pixels
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.masks import OneAtATime, SlidingWindow
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.errors import OptionError
from interpreto.option_kinds import check_choice, checks_options

OVERLAPS = ("mean", "sum")


@final
class Occlusion(Explainer):
    """How much the score drops when one unit, or a window, is hidden.

    The plainest question that one can ask a model, and one row per unit; units that stand in for each other get too
    little, since each is hidden while the others stay.

    $$\\phi_i = f(x) - f(x \\setminus i)$$

    With `window=`, what is hidden slides over the image by pixels, or over a text by units, and each unit gets the mean
    drop of the windows that cover it, by how much they do. Units of images are then pixels unless `granularity=` says
    otherwise.

    Args:
        window: Height and width of a window in pixels that the model reads, or one number for both; for texts a number
            of units. None hides every unit once, alone.
        stride: By how much the window moves, down and across, or one number for both; where it is larger than the
            window there are gaps, which get 0.
        overlap: "mean" of the drops of all windows over a unit, or their "sum", as the package of Google's PAIR has it.

    Source:
        Zeiler and Fergus 2013, *Visualizing and Understanding Convolutional Networks*, arXiv:1311.2901, section 4.2.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        window: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] = 1,
        overlap: str = "mean",
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Occlusion, model, processor, options)
        check_choice("overlap", overlap, OVERLAPS)
        images = self.setup.wrapper.modality == "image"
        if window is None and (stride, overlap) != (1, "mean"):
            raise OptionError("stride= and overlap= say how a window slides: give window= too.")
        if not images and any(isinstance(given, list | tuple) for given in (window, stride)):
            raise OptionError(f"window={window!r} and stride={stride!r} count units of a text: give one number each.")
        method = OneAtATime() if window is None else SlidingWindow(window, stride)
        cut = Pixels() if window is not None and images else None
        self.plan = PerturbationPlan(
            self.setup.mask_perturbator(method), Differences(overlap == "sum"), granularity=cut
        )
