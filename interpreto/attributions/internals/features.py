"""From features of a layer, and gradients for them, to a map."""

from jaxtyping import Float
from torch import Tensor


def grad_cam(features: Float[Tensor, "p c h w"], gradients: Float[Tensor, "p c h w"]) -> Float[Tensor, "p h w"]:
    """Channels weighted by their mean gradient, where the sum is positive."""
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()
