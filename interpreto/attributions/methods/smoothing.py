"""Methods that average another method over noisy copies of the input: SmoothGrad, SquareGrad, VarGrad."""

from collections.abc import Callable
from typing import Any, Unpack, final

from interpreto.attributions.aggregations.points import Mean, MeanSquare, Variance
from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods.gradients import Saliency
from interpreto.attributions.recipes.differentiable import Differentiable
from interpreto.attributions.recipes.smoothed import Smoothed
from interpreto.attributions.setup import GradientOptions, Setup
from interpreto.errors import OptionError, UnsupportedError
from interpreto.option_kinds import checks_options


def smoothed(setup: Setup, of: Callable[..., Explainer]) -> Differentiable:
    """The recipe of the method that is smoothed, on the same model and with the same options.

    Raises:
        OptionError: if it is no method.
        UnsupportedError: if the method has no gradient.
    """
    if not is_method(of):
        raise OptionError(f"of={of!r} must be the class of a method, or a functools.partial of one.")
    inner = of(setup.wrapper, **setup.inherited).recipe
    if not isinstance(inner, Differentiable):
        raise UnsupportedError(
            f"{setup.method} smooths methods that take gradients; of={getattr(of, '__name__', of)!r} does not."
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
        noise: Standard deviation as a share of the input's range, max x - min x.
        of: The method that is smoothed, a class or a `functools.partial` of one; the plain gradient by default.

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
        noise: float = 0.15,
        of: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.of(SmoothGrad, model, processor, options)
        self.recipe = Smoothed(smoothed(self.setup, of), Mean(), None, n_samples, noise)


@final
class SquareGrad(Explainer):
    """The mean square of a gradient method over copies of the input with Gaussian noise.

    Args:
        n_samples: Number of noisy copies.
        noise: Standard deviation as a share of the input's range, max x - min x.
        of: The method that is smoothed, a class or a `functools.partial` of one; the plain gradient by default.

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
        noise: float = 0.15,
        of: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.of(SquareGrad, model, processor, options)
        inner = smoothed(self.setup, of)
        self.recipe = Smoothed(inner, MeanSquare(), self.setup.finish("norm"), n_samples, noise)


@final
class VarGrad(Explainer):
    """The variance of a gradient method over copies of the input with Gaussian noise.

    Args:
        n_samples: Number of noisy copies.
        noise: Standard deviation as a share of the input's range, max x - min x.
        of: The method that is smoothed, a class or a `functools.partial` of one; the plain gradient by default.

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
        noise: float = 0.15,
        of: Callable[..., Explainer] = Saliency,
        **options: Unpack[GradientOptions],
    ) -> None:
        self.setup = Setup.of(VarGrad, model, processor, options)
        inner = smoothed(self.setup, of)
        self.recipe = Smoothed(inner, Variance(), self.setup.finish("norm"), n_samples, noise)
