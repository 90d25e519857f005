"""Methods that average another method over noisy copies of the input: SmoothGrad, SquareGrad, VarGrad."""

from collections.abc import Callable
from typing import Any, Unpack, final

from interpreto.attributions.aggregations.gradients import Mean, MeanSquare, Variance
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods.gradients import Saliency
from interpreto.attributions.naming import display_name
from interpreto.attributions.options import GradientOptions
from interpreto.attributions.plans.gradient_base import SmoothablePlan
from interpreto.attributions.plans.noise_tunnel import NoiseTunnelPlan
from interpreto.errors import OptionError, UnsupportedError
from interpreto.option_kinds import checks_options


def base_plan(setup: Setup, base_method: Callable[..., Explainer]) -> SmoothablePlan:
    """The recipe of the method that is smoothed, on the same model and with the same options.

    Raises:
        OptionError: if it is no method.
        UnsupportedError: if the method has no gradient.
    """
    if not is_method(base_method):
        raise OptionError(f"base_method={base_method!r} must be the class of a method, or a functools.partial of one.")
    inner = base_method(setup.wrapper, **setup.inherited_options).plan
    if not isinstance(inner, SmoothablePlan):
        raise UnsupportedError(
            f"{setup.method} smooths methods that take gradients; base_method={display_name(base_method)} does not."
        )
    return inner


@final
class SmoothGrad(Explainer):
    """The mean of a gradient method over copies of the input with Gaussian noise.

    Gradients fluctuate over distances that no person can see; their mean over a neighbourhood does not. Units are made
    of the mean as the smoothed method makes them.

    $$\\phi = \\frac{1}{n} \\sum_{k=1}^n \\mathrm{of}(x + \\epsilon_k), \\quad \\epsilon_k \\sim N(0, \\sigma^2)$$

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation as a share of the input's range, max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; the plain gradient by default.

    Source:
        Smilkov et al. 2017, *SmoothGrad*, arXiv:1706.03825, section 2.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 25,
        noise_level: float = 0.15,
        base_method: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(SmoothGrad, model, processor, options)
        self.plan = NoiseTunnelPlan(base_plan(self.setup, base_method), Mean(), None, n_samples, noise_level)


@final
class SquareGrad(Explainer):
    """The mean square of a gradient method over copies of the input with Gaussian noise.

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation as a share of the input's range, max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; the plain gradient by default.

    Source:
        Hooker et al. 2018, *A Benchmark for Interpretability Methods in Deep Neural Networks*, arXiv:1806.10758,
        section 3.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 25,
        noise_level: float = 0.15,
        base_method: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(SquareGrad, model, processor, options)
        inner = base_plan(self.setup, base_method)
        self.plan = NoiseTunnelPlan(inner, MeanSquare(), self.setup.score_reducer("norm"), n_samples, noise_level)


@final
class VarGrad(Explainer):
    """The variance of a gradient method over copies of the input with Gaussian noise.

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation as a share of the input's range, max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; the plain gradient by default.

    Source:
        Adebayo et al. 2018, *Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
        Values*, arXiv:1810.03307; Hooker et al. 2018, arXiv:1806.10758, section 3.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 25,
        noise_level: float = 0.15,
        base_method: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(VarGrad, model, processor, options)
        inner = base_plan(self.setup, base_method)
        self.plan = NoiseTunnelPlan(inner, Variance(), self.setup.score_reducer("norm"), n_samples, noise_level)
