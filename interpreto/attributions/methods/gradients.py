"""Methods that use the gradient at the input: saliency, input x gradient, guided backpropagation."""

from typing import Unpack, final

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import GradientOptions
from interpreto.attributions.perturbations.paths.points import AtInput
from interpreto.attributions.plans.path_gradients import PathGradientsPlan
from interpreto.option_kinds import checks_options


@final
class Saliency(Explainer):
    """The absolute gradient of the score with respect to the input.

    One backward pass and no baseline to choose. It measures how sensitive the score is to small changes, not how much a
    part contributes to it. By default the norm over the embedding or channel axis; `reduction="sum"` keeps signs.

    $$\\phi_i = \\left\\| \\frac{\\partial f}{\\partial x_i} \\right\\|$$

    Source:
        Simonyan et al. 2013, *Deep Inside Convolutional Networks*, arXiv:1312.6034, section 3.

    Example:
        >>> import numpy as np
        >>> from interpreto import Saliency, from_callables
        >>> model = from_callables(lambda x: x.reshape(-1, 2) @ [[2.0], [-3.0]], lambda x, k: 0 * x + [2.0, -3.0])
        >>> Saliency(model)(np.array([[[1.0, 2.0]]]))[0].attributions
        tensor([[[2., 3.]]])
    """

    @checks_options
    def __init__(self, model: object, processor: object = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(Saliency, model, processor, options)
        self.plan = PathGradientsPlan(self.setup.path_perturbator(AtInput()), self.setup.score_reducer("norm"))


@final
class InputXGradient(Explainer):
    """The gradient of the score times the input: the contribution of each part if the model were linear.

    $$\\phi_i = x_i \\frac{\\partial f}{\\partial x_i}$$

    Source:
        Shrikumar et al. 2016, *Not Just a Black Box*, arXiv:1605.01713.

    Example:
        >>> import numpy as np
        >>> from interpreto import InputXGradient, from_callables
        >>> model = from_callables(lambda x: x.reshape(-1, 2) @ [[2.0], [-3.0]], lambda x, k: 0 * x + [2.0, -3.0])
        >>> InputXGradient(model)(np.array([[[1.0, 2.0]]]))[0].attributions
        tensor([[[ 2., -6.]]])
    """

    @checks_options
    def __init__(self, model: object, processor: object = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(InputXGradient, model, processor, options)
        self.plan = PathGradientsPlan(
            self.setup.path_perturbator(AtInput(times_input=True)), self.setup.score_reducer("sum", preserve_sum=True)
        )


@final
class GuidedBackprop(Explainer):
    """The gradient at the input, with negative gradients set to 0 at every activation function.

    It shows what raises the score through active neurons. It is defined for ReLU; GELU, SiLU and similar functions are
    treated the same way, with a warning. By default the norm over the embedding or channel axis; `reduction="sum"`
    keeps signs. Its maps are sharp, but partly reconstruct the image: they change little when the weights of late
    layers are randomised (Adebayo et al. 2018).

    Source:
        Springenberg et al. 2014, *Striving for Simplicity*, arXiv:1412.6806, section 3.4.

    Example:
        >>> from interpreto import GuidedBackprop, zoo
        >>> explainer = GuidedBackprop(*zoo.load("digits-cnn"))
        >>> explainer(zoo.samples("digits-cnn", 1)[0].input)
        [<GuidedBackprop of '6': pixel, 1 x 64 x 64>]
    """

    @checks_options
    def __init__(self, model: object, processor: object = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(GuidedBackprop, model, processor, options)
        self.plan = PathGradientsPlan(
            self.setup.guided_perturbator(AtInput()), self.setup.score_reducer("norm"), guided=True
        )
