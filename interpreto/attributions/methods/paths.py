"""Methods that integrate gradients along paths: straight ones, random ones, of blurs, and ones that avoid gradients."""

from typing import Any, Unpack, final

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import GradientOptions
from interpreto.attributions.perturbations.paths.blur_path import BlurPath
from interpreto.attributions.perturbations.paths.guided_path import GuidedPath
from interpreto.attributions.perturbations.paths.points import AtInput, LinearPath, RandomPath
from interpreto.attributions.plans.adaptive_path import AdaptivePathPlan
from interpreto.attributions.plans.path_gradients import PathGradientsPlan
from interpreto.option_kinds import checks_options


@final
class IntegratedGradients(Explainer):
    """Gradients summed up on the straight path from a baseline to the input.

    The units sum to the score difference between the two, up to the reported completeness gap. Gauss-Legendre nodes by
    default; a path moves only positions that belong to a unit.

    $$\\phi_i = (x_i - x'_i) \\int_0^1 \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i} d\\alpha$$

    Args:
        n_steps: Number of nodes.
        baseline: x'. Texts: "mask", "pad", "zeros", "space", a token or its id, or a tensor; by default the mask
            token, a space where there is none. Images: "zeros" (the processor's mean colour, the default), "mean",
            "black", "white", "blur", "noise", a number, a colour or a tensor. A list is several baselines, averaged.
        rule: "gauss-legendre", "trapezoid", "riemann-left", "riemann-right" or "riemann-middle".

    Source:
        Sundararajan et al. 2017, *Axiomatic Attribution for Deep Networks*, arXiv:1703.01365, section 3.
    """

    @checks_options
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
        self.setup = Setup.create(IntegratedGradients, model, processor, options)
        path = self.setup.path_perturbator(LinearPath(n_steps, rule))
        self.plan = PathGradientsPlan(
            path, self.setup.score_reducer("sum", preserve_sum=True), baseline, is_complete=True
        )


@final
class GradientShap(Explainer):
    """Integrated gradients in expectation, over baselines and over uniform places on the path.

    $$\\phi_i = E_{x', \\alpha}\\left[(x_i - x'_i) \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i}\\right]$$

    Args:
        n_samples: Number of places.
        baseline: As for `IntegratedGradients`; a list is what baselines are drawn from.
        noise_level: Standard deviation of Gaussian noise on the input end, as a share of the input's range.

    Source:
        Erion et al. 2019, *Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients*, arXiv:1906.10670; the name is from Lundberg and Lee's shap package.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 512,
        baseline: Any = None,
        noise_level: float = 0.0,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(GradientShap, model, processor, options)
        path = self.setup.path_perturbator(RandomPath(n_samples, noise_level))
        finish = self.setup.score_reducer("sum", preserve_sum=True)
        self.plan = PathGradientsPlan(path, finish, baseline, sampled=True, is_complete=True)


@final
class BlurIG(Explainer):
    """Gradients summed up while the sample gets sharp, from a wide Gaussian blur to itself.

    No baseline has to be chosen, and at each width only features of that size come in. The units sum to
    f(x) - f(blurred), up to the reported gap. What is outside an image is zero, the processor's mean colour; texts are
    blurred along their tokens, generated ones as a whole, so that a prompt is also blurred by what follows it.

    $$\\phi_i = -\\int_0^{\\sigma_{max}} \\frac{\\partial f(L_\\sigma)}{\\partial L_{\\sigma,i}}
    \\frac{\\partial L_{\\sigma,i}}{\\partial \\sigma} d\\sigma, \\quad L_\\sigma = x * N(0, \\sigma^2)$$

    Args:
        n_steps: Number of blurs.
        max_sigma: Standard deviation of the widest blur, in pixels or tokens.
        rule: As for `IntegratedGradients`, over the widths; the left Riemann sum is the published one.

    Source:
        Xu, Venugopalan and Sundararajan 2020, *Attribution in Scale and Space*, arXiv:2004.03383, equation 8. A
        Gaussian is cut off at four standard deviations, and the derivative by the width is a difference over 0.01.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_steps: int = 32,
        max_sigma: float = 50.0,
        rule: str = "riemann-left",
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(BlurIG, model, processor, options)
        path = self.setup.path_perturbator(BlurPath(n_steps, max_sigma, rule, self.setup.gradient_input().axes))
        self.plan = PathGradientsPlan(path, self.setup.score_reducer("sum", preserve_sum=True), is_complete=True)


@final
class GuidedIG(Explainer):
    """Integrated gradients on a path that avoids large gradients.

    At every step the features whose gradients are smallest move towards the input, until the distance to it has fallen
    as much as on the straight path: noise that a straight path collects in steep places stays out. Each target has a
    path of its own. The units sum to f(x) - f(x'), up to the reported gap.

    Args:
        n_steps: Number of steps, one row each per target.
        fraction: Share of the features that move together, those with the smallest gradients first.
        max_dist: How far a feature may be ahead of the straight path or behind it, as a share of its way; 0 is
            integrated gradients by the left Riemann sum.
        baseline: As for `IntegratedGradients`.

    Source:
        Kapishnikov et al. 2021, *Guided Integrated Gradients*, arXiv:2106.09788, algorithm 1.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_steps: int = 32,
        fraction: float = 0.25,
        max_dist: float = 0.02,
        baseline: Any = None,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(GuidedIG, model, processor, options)
        modality = self.setup.path_perturbator(AtInput()).modality
        path = GuidedPath(n_steps, fraction, max_dist)
        self.plan = AdaptivePathPlan(path, modality, self.setup.score_reducer("sum", preserve_sum=True), baseline)
