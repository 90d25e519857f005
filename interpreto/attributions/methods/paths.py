"""Methods that integrate gradients along a path: straight, random, blurred or guided by gradients."""

from typing import Unpack, final

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import GradientOptions
from interpreto.attributions.perturbations.paths.blur_path import BlurPath
from interpreto.attributions.perturbations.paths.guided_path import GuidedPath
from interpreto.attributions.perturbations.paths.points import AtInput, LinearPath, QuadratureRule, RandomPathPoints
from interpreto.attributions.plans.adaptive_path import AdaptivePathPlan
from interpreto.attributions.plans.path_gradients import PathGradientsPlan
from interpreto.option_kinds import checks_options


@final
class IntegratedGradients(Explainer):
    """The integral of the gradient along the straight path from a baseline to the input.

    It is complete: the units sum to f(x) - f(x'), up to the reported completeness gap. Gauss-Legendre nodes by default.
    Positions that belong to no unit, such as special tokens, are the same at all points of the path.

    $$\\phi_i = (x_i - x'_i) \\int_0^1 \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i} d\\alpha$$

    Args:
        n_steps: Number of nodes per baseline.
        baseline: x'. Texts: "mask", "pad", "zeros", "space", a token, `{"id": 5}` for the token with that id, or a
            tensor; by default the mask token, or a space if there is none. Images: "zeros" (the processor's mean
            colour, the default), "mean", "black", "white", "blur", "noise", a number, a colour as a tuple of numbers,
            or a tensor. Results are averaged over a list of baselines.
        rule: Quadrature rule: "gauss-legendre", "trapezoid", "riemann-left", "riemann-right" or "riemann-middle".

    Source:
        Sundararajan et al. 2017, *Axiomatic Attribution for Deep Networks*, arXiv:1703.01365, section 3.

    Example:
        >>> import numpy as np
        >>> from interpreto import IntegratedGradients, from_callables
        >>> model = from_callables(lambda x: x.prod((2, 3)), lambda x, k: x[..., ::-1])
        >>> IntegratedGradients(model)(np.array([[[1.0, 2.0]]]))[0].attributions
        tensor([[[1., 1.]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_steps: int = 32,
        baseline: object = None,
        rule: QuadratureRule = "gauss-legendre",
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(IntegratedGradients, model, processor, options)
        path = self.setup.path_perturbator(LinearPath(n_steps, rule))
        self.plan = PathGradientsPlan(
            path, self.setup.score_reducer("sum", preserve_sum=True), baseline, is_complete=True
        )


@final
class GradientShap(Explainer):
    """Expected gradients: integrated gradients as an expectation over baselines and uniform points of the path.

    Each point lies on the path from a randomly drawn baseline; standard errors are estimated by the jackknife. Without
    noise the units sum to f(x) - E f(x'), up to the reported gap.

    $$\\phi_i = E_{x', \\alpha}\\left[(x_i - x'_i) \\frac{\\partial f(x' + \\alpha (x - x'))}{\\partial x_i}\\right]$$

    Args:
        n_samples: Number of points.
        baseline: As for `IntegratedGradients`; baselines are drawn at random from a list.
        noise_level: Standard deviation of Gaussian noise on the input, as a share of the input's range.
            With noise no gap is reported, because the units sum to E f(x + noise) - E f(x').

    Source:
        Erion et al. 2019, *Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients*, arXiv:1906.10670; the name is captum's; shap calls the method
        GradientExplainer.

    Example:
        >>> import numpy as np
        >>> from interpreto import GradientShap, from_callables
        >>> model = from_callables(lambda x: x.reshape(-1, 2) @ [[2.0], [-3.0]], lambda x, k: 0 * x + [2.0, -3.0])
        >>> GradientShap(model)(np.array([[[1.0, 2.0]]]))[0].attributions
        tensor([[[ 2., -6.]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 512,
        baseline: object = None,
        noise_level: float = 0.0,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(GradientShap, model, processor, options)
        path = self.setup.path_perturbator(RandomPathPoints(n_samples, noise_level))
        reducer = self.setup.score_reducer("sum", preserve_sum=True)
        self.plan = PathGradientsPlan(path, reducer, baseline, sampled=True, is_complete=noise_level == 0)


@final
class BlurIG(Explainer):
    """The integral of the gradient along the path from a strongly blurred to the sharp input.

    No baseline has to be chosen, and the path adds features from coarse to fine. The units sum to f(x) - f(blurred), up
    to the reported gap. The outside of an image is zero, the processor's mean colour. Embeddings of texts are blurred
    along the tokens; a generated continuation is blurred together with its prompt.

    $$\\phi_i = -\\int_0^{\\sigma_{max}} \\frac{\\partial f(L_\\sigma)}{\\partial L_{\\sigma,i}}
    \\frac{\\partial L_{\\sigma,i}}{\\partial \\sigma} d\\sigma, \\quad L_\\sigma = x * N(0, \\sigma^2)$$

    Args:
        n_steps: Number of blurs.
        max_sigma: Standard deviation of the widest blur, in pixels or tokens.
        rule: Quadrature rule over the widths, as for `IntegratedGradients`; the paper uses the left Riemann sum.

    Source:
        Xu, Venugopalan and Sundararajan 2020, *Attribution in Scale and Space*, arXiv:2004.03383, equation 8. A
        Gaussian is cut off at four standard deviations, and the derivative by the width is a forward difference with
        step 0.01.

    Example:
        >>> import numpy as np
        >>> from interpreto import BlurIG, from_callables
        >>> model = from_callables(lambda x: x.reshape(-1, 2) @ [[2.0], [-3.0]], lambda x, k: 0 * x + [2.0, -3.0])
        >>> BlurIG(model, max_sigma=4)(np.array([[[1.0, 2.0]]]))[0].attributions.round(decimals=1)
        tensor([[[ 1.9000, -5.9000]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_steps: int = 32,
        max_sigma: float = 50.0,
        rule: QuadratureRule = "riemann-left",
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(BlurIG, model, processor, options)
        path = self.setup.path_perturbator(BlurPath(n_steps, max_sigma, rule, self.setup.gradient_input().axes))
        self.plan = PathGradientsPlan(path, self.setup.score_reducer("sum", preserve_sum=True), is_complete=True)


@final
class GuidedIG(Explainer):
    """Integrated gradients on an adaptive path that avoids regions of large gradients.

    At every step the features with the smallest absolute gradients move towards the input, until the distance to it is
    that of the straight path. This avoids the noise that a straight path accumulates where gradients are large. Each
    target has its own path. The units sum to f(x) - f(x'), up to the reported gap.

    Args:
        n_steps: Number of steps, with one evaluation each per target.
        fraction: Share of the features that move together, those with the smallest gradients first.
        max_dist: The largest difference between the progress of a feature and that of the straight path, as a share of
            the distance from baseline to input; 0 is integrated gradients with the left Riemann sum.
        baseline: As for `IntegratedGradients`.

    Source:
        Kapishnikov et al. 2021, *Guided Integrated Gradients*, arXiv:2106.09788, algorithm 1.

    Example:
        >>> import numpy as np
        >>> from interpreto import GuidedIG, from_callables
        >>> model = from_callables(lambda x: x.reshape(-1, 2) @ [[2.0], [-3.0]], lambda x, k: 0 * x + [2.0, -3.0])
        >>> GuidedIG(model)(np.array([[[1.0, 2.0]]]))[0].attributions
        tensor([[[ 2., -6.]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_steps: int = 32,
        fraction: float = 0.25,
        max_dist: float = 0.02,
        baseline: object = None,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(GuidedIG, model, processor, options)
        # The path itself is adaptive. The perturbator only checks that the model has gradients.
        modality = self.setup.path_perturbator(AtInput()).modality
        path = GuidedPath(n_steps, fraction, max_dist)
        self.plan = AdaptivePathPlan(path, modality, self.setup.score_reducer("sum", preserve_sum=True), baseline)
