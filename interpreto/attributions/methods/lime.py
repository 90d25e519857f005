"""LIME."""

from typing import Unpack, final

from interpreto.attributions.aggregations.regression import Kernel, LocalRegression
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.masks import RandomMasks
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class Lime(Explainer):
    """The coefficients of a linear model that is fitted to the scores of randomly masked samples.

    Each unit is masked with probability 1/2. Masked samples that are closer to the unperturbed sample have larger
    weights in the regression, so that the linear model approximates the model locally. With z_i = 1 for a unit i that
    is present and 0 for one that is masked, f(z) the score, D the distance from the unperturbed sample, w the kernel
    width and alpha the ridge penalty, the attributions are the coefficients phi:

    $$\\min_{b, \\phi} \\sum_z e^{-D(z)^2 / w^2} \\left(f(z) - b - \\phi^\\top z\\right)^2 + \\alpha \\|\\phi\\|^2$$

    Args:
        n_samples: Number of evaluations.
        ridge: The ridge penalty alpha; 0 for ordinary least squares.
        kernel: The distance D: "euclidean" (square root of the number of masked units), "hamming" (fraction of units
            that are masked) or "cosine" (1 minus the cosine of the angle between z and a vector of ones).
        kernel_width: The kernel width w. By default 0.75 sqrt(g) for "euclidean", where g is the number of units, 0.75
            for "hamming" and 0.25 for "cosine".

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
        model: object,
        processor: object = None,
        *,
        n_samples: int = 512,
        ridge: float = 1.0,
        kernel: Kernel = "euclidean",
        kernel_width: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Lime, model, processor, options)
        self.plan = PerturbationPlan(
            self.setup.mask_perturbator(RandomMasks(n_samples)), LocalRegression(ridge, kernel, kernel_width)
        )
