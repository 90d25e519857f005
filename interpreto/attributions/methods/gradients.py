"""Methods that look at the gradient at the input: saliency, input times gradient, guided backpropagation."""

from typing import Any, Unpack, final

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import GradientOptions
from interpreto.attributions.perturbations.paths.points import AtInput
from interpreto.attributions.plans.path_gradients import PathGradientsPlan
from interpreto.option_kinds import checks_options


@final
class Saliency(Explainer):
    """How strongly the score reacts to a small change of the input.

    One backward pass, no baseline to choose; it says where the model is sensitive, not what made the score. By default
    the norm over the embedding or channel axis; `reduction="sum"` keeps signs.

    $$\\phi_i = \\left\\| \\frac{\\partial f}{\\partial x_i} \\right\\|$$

    Source:
        Simonyan et al. 2013, *Deep Inside Convolutional Networks*, arXiv:1312.6034, section 3.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(Saliency, model, processor, options)
        self.plan = PathGradientsPlan(self.setup.path_perturbator(AtInput()), self.setup.score_reducer("norm"))


@final
class InputXGradient(Explainer):
    """The input times its gradient: what each part adds to the score if the model is linear.

    $$\\phi_i = x_i \\frac{\\partial f}{\\partial x_i}$$

    Source:
        Shrikumar et al. 2016, *Not Just a Black Box*, arXiv:1605.01713.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(InputXGradient, model, processor, options)
        self.plan = PathGradientsPlan(
            self.setup.path_perturbator(AtInput(times_input=True)), self.setup.score_reducer("sum", preserve_sum=True)
        )


@final
class GuidedBackprop(Explainer):
    """The gradient at the input, where at every activation only positive gradients pass.

    It shows what strengthens the score through neurons that fire. It is meant for ReLU; GELU, SiLU and their kin are
    treated alike, with a warning. By default the norm over the embedding or channel axis; `reduction="sum"` keeps
    signs. Its maps are sharp, and partly those of the picture itself: they change little when late layers lose what
    they have learned (Adebayo et al. 2018).

    Source:
        Springenberg et al. 2014, *Striving for Simplicity*, arXiv:1412.6806, section 3.4.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(GuidedBackprop, model, processor, options)
        self.plan = PathGradientsPlan(
            self.setup.guided_perturbator(AtInput()), self.setup.score_reducer("norm"), guided=True
        )
