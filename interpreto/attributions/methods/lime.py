"""LIME."""

from typing import Any, Unpack, final

from interpreto.attributions.aggregations.regression import LocalRegression
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.masks import RandomMasks
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class Lime(Explainer):
    """The slopes of a linear model fitted to the scores of samples with random units hidden.

    The fit weighs rows by how close they are to the unchanged sample, so it says how units add up nearby. Each unit is
    hidden with probability one half.

    $$\\min_{b, \\phi} \\sum_z e^{-D(z)^2 / w^2} \\left(f(z) - b - \\phi^\\top z\\right)^2 + \\alpha \\|\\phi\\|^2$$

    Args:
        n_samples: Number of rows.
        ridge: The penalty alpha; 0 for none.
        kernel: The distance D from the unchanged sample: "euclidean" (square root of the number of hidden units),
            "hamming" (their share) or "cosine".
        kernel_width: w; None takes 0.75 sqrt(g), 0.75 and 0.25 for the three.

    Source:
        Ribeiro et al. 2016, *"Why Should I Trust You?"*, arXiv:1602.04938, section 3.4.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 512,
        ridge: float = 1.0,
        kernel: str = "euclidean",
        kernel_width: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Lime, model, processor, options)
        self.plan = PerturbationPlan(
            self.setup.mask_perturbator(RandomMasks(n_samples)), LocalRegression(ridge, kernel, kernel_width)
        )
