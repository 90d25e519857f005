"""The shape of pixel values that a model expects."""

import re
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs.image_size import (
    INTERPOLATE,
    arguments_of,
    interpolates,
    native_size,
    position_tables,
)
from interpreto.typing import Size


@dataclass(frozen=True)
class PixelShape:
    """The shape of pixel values that a model expects; None for an axis of any length.

    Attributes:
        channels: Number of channels.
        size: Height and width.
    """

    channels: int | None = None
    size: Size | None = None

    @staticmethod
    def of(tower: nn.Module, forward: object, size: Size | None, patch: Size | None) -> "PixelShape":
        """The shape that an image tower expects, at a size that the user requested or at its own.

        Only models of transformers, timm and torchvision are known; nothing is required of others.

        Args:
            tower: The part of the model that reads images.
            forward: The function that is called with the images.
            size: The height and width that the user requested; None for the model's own.
            patch: Height and width of the model's patches.
        """
        channels = getattr(getattr(tower, "config", None), "num_channels", None)
        if channels is None and re.match(r"timm\.|torchvision\.", type(tower).__module__):
            # In these libraries the first convolution is applied to the image itself.
            channels = next((part.in_channels for part in tower.modules() if isinstance(part, nn.Conv2d)), None)
        if size is not None or patch is None:
            return PixelShape(channels, size)
        native, needs_argument = native_size(tower), INTERPOLATE in arguments_of(tower, forward)
        # A tower that interpolates without an argument reads any size.
        if native is None or (interpolates(tower) and not needs_argument):
            return PixelShape(channels)
        return PixelShape(channels, native if needs_argument or _is_strict(tower, native, patch) else None)

    def check(self, values: Float[Tensor, "c H W"]) -> None:
        """Check that the model can read pixel values.

        Raises:
            InputError: if they have another number of channels or another size.
        """
        channels, *sides = values.shape
        if self.channels in (None, channels) and self.size in (None, tuple(sides)):
            return
        expected = [str(self.channels or "c"), *map(str, self.size or ("H", "W"))]
        raise InputError(
            f"The model expects pixel values {' x '.join(expected)}; these are {' x '.join(map(str, values.shape))}. "
            "Preprocess them as the model's processor does, or pass their size as image_size=."
        )


ANY_SHAPE = PixelShape()
"""No requirements, for functions and modules of the user, about which nothing is known."""


def _is_strict(tower: nn.Module, native: Size, patch: Size) -> bool:
    """Whether a tower reads only its own size: it has one position per patch, and does not declare otherwise."""
    grid = native[0] // patch[0], native[1] // patch[1]
    # timm's dynamic_img_size interpolates, and switches this check of the patch embedding off.
    flexible = getattr(getattr(tower, "patch_embed", None), "strict_img_size", None) is False
    return not flexible and any(position_tables(tower, grid))
