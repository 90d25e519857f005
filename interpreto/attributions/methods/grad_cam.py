"""Grad-CAM: channels of a layer, weighted by their mean gradient."""

from typing import Any, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import InternalsOptions
from interpreto.model_wrapping.capture_request import ActivationRequest
from interpreto.option_kinds import checks_options


@final
class GradCam(Explainer):
    """Channels of a layer weighted by their mean gradient, where the sum is positive.

    $$\\phi = \\operatorname{relu}\\Big(\\sum_c \\operatorname{mean}_{hw}\\!
    \\Big(\\frac{\\partial s}{\\partial A_c}\\Big) A_c\\Big)$$

    Where the places of a layer lie is found: channels first or last, or tokens, of which those that are no patches
    are left out. The map has the grid of the layer unless `granularity=` says otherwise.

    Args:
        layer: A module of the model or its name, such as "layer4". By default the last one with places: the last stage
            of a network of convolutions; for a ViT the patches as they enter the last block, since after it most read
            their class token alone.

    Source:
        Selvaraju et al. 2017, *Grad-CAM*, arXiv:1610.02391, equations 1 and 2.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
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
