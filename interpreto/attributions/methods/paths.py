"""Methods that integrate gradients along paths: integrated gradients and gradient SHAP."""

from typing import Any, Unpack, final

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.perturbations.points import LinearPath, RandomPath
from interpreto.attributions.recipes.pointwise import Pointwise
from interpreto.attributions.setup import GradientOptions, Setup


@final
class IntegratedGradients(Explainer):
    """Gradients summed up on the straight path from a baseline to the input.

    The units sum to the score difference between the two, up to the reported completeness gap. Gauss-Legendre nodes by
    default; a path moves only positions that belong to a unit.

    $$\\phi_i = (x_i - x'_i) \\int_0^1 \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i} d\\alpha$$

    Args:
        n_steps: Number of nodes.
        baseline: x'. Texts: "mask", "pad", "zeros", a token or its id, or a tensor; by default the mask token, zeros
            where there is none. Images: "zeros" (the processor's mean colour, the default), "mean", "blur", "noise",
            a number, a colour or a tensor. A list is several baselines, averaged.
        rule: "gauss-legendre", "trapezoid", "riemann-left", "riemann-right" or "riemann-middle".

    Source:
        Sundararajan et al. 2017, *Axiomatic Attribution for Deep Networks*, arXiv:1703.01365, section 3.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_steps: int = 32,
        baseline: Any = None,
        rule: str = "gauss-legendre",
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.of(IntegratedGradients, model, processor, options)
        path = self.setup.moving(LinearPath(n_steps, rule))
        self.recipe = Pointwise(path, self.setup.finish("sum", sums=True), baseline, complete=True)


@final
class GradientShap(Explainer):
    """Integrated gradients in expectation, over baselines and over uniform places on the path.

    $$\\phi_i = E_{x', \\alpha}\\left[(x_i - x'_i) \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i}\\right]$$

    Args:
        n_samples: Number of places.
        baseline: As for `IntegratedGradients`; a list is what baselines are drawn from.
        noise: Standard deviation of Gaussian noise on the input end, as a share of the input's range.

    Source:
        Erion et al. 2019, *Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients*, arXiv:1906.10670; the name is from Lundberg and Lee's shap package.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 512,
        baseline: Any = None,
        noise: float = 0.0,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.of(GradientShap, model, processor, options)
        path = self.setup.moving(RandomPath(n_samples, noise))
        finish = self.setup.finish("sum", sums=True)
        self.recipe = Pointwise(path, finish, baseline, sampled=True, complete=True)
