"""Noise tunnels over another method: SmoothGrad, SquareGrad, VarGrad."""

from collections.abc import Callable
from typing import Unpack, final

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
    """The plan of the base method, on the same model and with the same options.

    Raises:
        OptionError: if `base_method` is not a method.
        UnsupportedError: if the base method does not use gradients.
    """
    if not is_method(base_method):
        raise OptionError(f"base_method={base_method!r} must be the class of a method, or a functools.partial of one.")
    # The base method gets the wrapped model, so that nothing is loaded or moved twice.
    plan = base_method(setup.wrapper, **setup.inherited_options).plan
    if not isinstance(plan, SmoothablePlan):
        raise UnsupportedError(
            f"{setup.method} smooths methods that use gradients; base_method={display_name(base_method)} does not."
        )
    return plan


@final
class SmoothGrad(Explainer):
    """The mean of a gradient method over copies of the input with Gaussian noise.

    Gradients fluctuate under changes too small to see; their mean over a neighbourhood is stable. The mean is reduced
    to units as in the base method.

    $$\\phi = \\frac{1}{n} \\sum_{k=1}^n \\mathrm{base}(x + \\epsilon_k), \\quad \\epsilon_k \\sim N(0, \\sigma^2)$$

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation of the noise, as a share of the input's range max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; by default `Saliency`.

    Source:
        Smilkov et al. 2017, *SmoothGrad*, arXiv:1706.03825, section 2.

    Example:
        >>> import numpy as np
        >>> from interpreto import SmoothGrad, from_callables
        >>> model = from_callables(lambda x: x.clip(0.5).sum((2, 3)), lambda x, k: 1.0 * (x > 0.5))
        >>> SmoothGrad(model)(np.array([[[0.0, 0.5, 1.0]]]))[0].attributions
        tensor([[[0.0000, 0.4000, 1.0000]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
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

    Squares do not cancel where the sign of the gradient changes between copies.

    $$\\phi = \\frac{1}{n} \\sum_{k=1}^n \\mathrm{base}(x + \\epsilon_k)^2, \\quad \\epsilon_k \\sim N(0, \\sigma^2)$$

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation of the noise, as a share of the input's range max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; by default `Saliency`.

    Source:
        Hooker et al. 2018, *A Benchmark for Interpretability Methods in Deep Neural Networks*, arXiv:1806.10758,
        section 3.

    Example:
        >>> import numpy as np
        >>> from interpreto import SquareGrad, from_callables
        >>> model = from_callables(lambda x: x.clip(0.5).sum((2, 3)), lambda x, k: 1.0 * (x > 0.5))
        >>> SquareGrad(model)(np.array([[[0.0, 0.5, 1.0]]]))[0].attributions
        tensor([[[0.0000, 0.4000, 1.0000]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 25,
        noise_level: float = 0.15,
        base_method: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.create(SquareGrad, model, processor, options)
        plan = base_plan(self.setup, base_method)
        self.plan = NoiseTunnelPlan(plan, MeanSquare(), self.setup.score_reducer("norm"), n_samples, noise_level)


@final
class VarGrad(Explainer):
    """The variance of a gradient method over copies of the input with Gaussian noise.

    $$\\phi = \\operatorname{Var}_{\\epsilon}\\left[\\mathrm{base}(x + \\epsilon)\\right], \\quad
    \\epsilon \\sim N(0, \\sigma^2)$$

    Args:
        n_samples: Number of noisy copies.
        noise_level: Standard deviation of the noise, as a share of the input's range max x - min x.
        base_method: The method to smooth, a class or a `functools.partial` of one; by default `Saliency`.

    Source:
        Adebayo et al. 2018, *Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
        Values*, arXiv:1810.03307; Hooker et al. 2018, arXiv:1806.10758, section 3.

    Example:
        >>> import numpy as np
        >>> from interpreto import VarGrad, from_callables
        >>> model = from_callables(lambda x: x.clip(0.5).sum((2, 3)), lambda x, k: 1.0 * (x > 0.5))
        >>> VarGrad(model)(np.array([[[0.0, 0.5, 1.0]]]))[0].attributions
        tensor([[[0.0000, 0.2400, 0.0000]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 25,
        noise_level: float = 0.15,
        base_method: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        if n_samples < Variance.min_samples:
            raise OptionError(f"n_samples={n_samples} must be at least 2: the variance of one copy is 0.")
        self.setup = Setup.create(VarGrad, model, processor, options)
        plan = base_plan(self.setup, base_method)
        self.plan = NoiseTunnelPlan(plan, Variance(), self.setup.score_reducer("norm"), n_samples, noise_level)
