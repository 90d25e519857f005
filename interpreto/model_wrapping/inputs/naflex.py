"""Images in the NaFlex format of SigLIP 2: patches that keep the aspect ratio of each image."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

SHAPES = "spatial_shapes"
"""The output of the processor with the number of patches of each image, down and across."""


def pictures(values: Float[Tensor, "n l d"], shapes: object, channels: int = 3) -> list[Float[Tensor, "c H W"]]:
    """Reassemble the images that a processor has cut into patches, without padding."""
    side = round((values.shape[2] / channels) ** 0.5)
    images = []
    for patches, (height, width) in zip(values, torch.as_tensor(shapes).tolist(), strict=True):
        # Each patch is flattened in the order row, column, channel; padding comes after the patches of the image.
        grid = patches[: height * width].reshape(height, width, side, side, channels)
        images.append(grid.permute(4, 0, 2, 1, 3).reshape(channels, height * side, width * side))
    return images


def patches(pixels: Float[Tensor, "p c H W"], side: int) -> Mapping[str, Tensor]:
    """The model's inputs for images of one size: flattened patches, their mask and the shape of their grid."""
    count, channels, height, width = pixels.shape
    n_down, n_across = height // side, width // side
    grid = pixels.reshape(count, channels, n_down, side, n_across, side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": grid.reshape(count, n_down * n_across, -1),
        "pixel_attention_mask": torch.ones(count, n_down * n_across, dtype=torch.long, device=pixels.device),
        SHAPES: torch.tensor([[n_down, n_across]], device=pixels.device).expand(count, -1),
    }
