"""Grad-CAM."""

from typing import Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import ActivationRequest
from interpreto.option_kinds import checks_options


@final
class GradCam(Explainer):
    """The positive part of the sum of a layer's channels, weighted by their mean gradients.

    The map has the resolution of the layer: coarse, but it uses the features with which the model decides.

    $$\\phi = \\operatorname{relu}\\Big(\\sum_c \\operatorname{mean}_{hw}\\!
    \\Big(\\frac{\\partial s}{\\partial A_c}\\Big) A_c\\Big)$$

    The spatial axes of the layer are detected: channels first, channels last, or tokens, of which only patch tokens are
    used. The units are the cells of the layer's grid unless `granularity=` is passed.

    Args:
        layer: A module of the model or its name, such as "layer4". By default the last one with spatial positions: the
            last stage of a convolutional network; for a ViT the input of the last block, because most ViTs classify by
            the class token, so that the output of patch tokens has no gradient.

    Source:
        Selvaraju et al. 2017, *Grad-CAM*, arXiv:1610.02391, equations 1 and 2.

    Example:
        >>> import numpy as np
        >>> from interpreto import GradCam, from_callables
        >>> model = from_callables(lambda x: x.mean((2, 3)), features=lambda x, k: (x, np.ones_like(x)))
        >>> GradCam(model)(np.array([[[-1.0, 2.0]]]))[0].attributions
        tensor([[[0., 2.]]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        layer: str | nn.Module | None = None,
        **options: Unpack[InternalsOptions],
    ) -> None:
        self.setup = Setup.create(GradCam, model, processor, options)
        self.plan = self.setup.internals_plan(ActivationRequest(grad_cam, layer))


def grad_cam(features: Float[Tensor, "p c h w"], gradients: Float[Tensor, "p c h w"]) -> Float[Tensor, "p h w"]:
    """Channels weighted by their mean gradient, where the sum is positive."""
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()
