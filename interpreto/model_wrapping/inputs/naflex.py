"""Images as SigLIP 2 reads them: cut into patches by the processor, in the form of each picture."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SHAPES = "spatial_shapes"
"""The processor's output that tells how many patches a picture has down and across."""


def pictures(values: Float[Tensor, "n l d"], shapes: Any, channels: int = 3) -> list[Float[Tensor, "c H W"]]:
    """The pictures that a processor cut into patches, put together again without what fills them up."""
    side = round((values.shape[2] / channels) ** 0.5)
    found = []
    for patches, (height, width) in zip(values, torch.as_tensor(shapes).tolist(), strict=True):
        grid = patches[: height * width].reshape(height, width, side, side, channels)
        found.append(grid.permute(4, 0, 2, 1, 3).reshape(channels, height * side, width * side))
    return found


def patches(pixels: Float[Tensor, "p c H W"], side: int) -> Mapping[str, Tensor]:
    """What the model reads of pictures of one form."""
    count, channels, height, width = pixels.shape
    down, across = height // side, width // side
    grid = pixels.reshape(count, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": grid.reshape(count, down * across, -1),
        "pixel_attention_mask": torch.ones(count, down * across, dtype=torch.long, device=pixels.device),
        SHAPES: torch.tensor([[down, across]], device=pixels.device).expand(count, -1),
    }
