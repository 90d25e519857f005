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
    """The coefficients of a linear model that is fitted to the scores of randomly masked samples.

    Masked samples that are closer to the unperturbed sample have larger weights, so that the linear model is a local
    approximation. Each unit is masked with probability 1/2.

    $$\\min_{b, \\phi} \\sum_z e^{-D(z)^2 / w^2} \\left(f(z) - b - \\phi^\\top z\\right)^2 + \\alpha \\|\\phi\\|^2$$

    Args:
        n_samples: Number of evaluations.
        ridge: The penalty alpha; 0 for none.
        kernel: The distance D from the unperturbed sample: "euclidean" (square root of the number of masked units),
            "hamming" (the share of masked units) or "cosine" (1 - cosine of the masks).
        kernel_width: The width w; None takes 0.75 sqrt(g), 0.75 or 0.25 for the three distances.

    Source:
        Ribeiro et al. 2016, *"Why Should I Trust You?"*, arXiv:1602.04938, section 3.4.

    Example:
        >>> from interpreto import Lime, from_callables
        >>> model = from_callables(lambda texts: [[2 * t.count("so") + 3 * t.count("good")] for t in texts], texts=True)
        >>> Lime(model, ridge=0.0)("so good")[0].attributions
        tensor([[2., 3.]])
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
