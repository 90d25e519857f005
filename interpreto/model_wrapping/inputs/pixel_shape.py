"""What a model's pixel values must be like."""

import re
from dataclasses import dataclass
from typing import Any

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
    """What a model's pixel values must be like; None where anything will do.

    Attributes:
        channels: How many channels they have.
        size: Their height and width.
    """

    channels: int | None = None
    size: Size | None = None

    @staticmethod
    def of(tower: nn.Module, forward: Any, size: Size | None, patch: Size | None) -> "PixelShape":
        """What an image tower reads, at a size that was named or at its own.

        Only what is known of models of transformers, timm and torchvision is told.

        Args:
            tower: The part of the model that reads images.
            forward: What is called with the images.
            size: Height and width that were named; None for the model's own.
            patch: Of the model's patches.
        """
        channels = getattr(getattr(tower, "config", None), "num_channels", None)
        if channels is None and re.match(r"timm\.|torchvision\.", type(tower).__module__):
            channels = next((part.in_channels for part in tower.modules() if isinstance(part, nn.Conv2d)), None)
        if size is not None or patch is None:
            return PixelShape(channels, size)
        native, asks_first = native_size(tower), INTERPOLATE in arguments_of(tower, forward)
        if native is None or (interpolates(tower) and not asks_first):
            return PixelShape(channels)
        return PixelShape(channels, native if asks_first or _is_strict(tower, native, patch) else None)

    def check(self, values: Float[Tensor, "c H W"]) -> None:
        """Refuse pixel values that the model cannot read.

        Raises:
            InputError: if it cannot.
        """
        channels, *sides = values.shape
        if self.channels in (None, channels) and self.size in (None, tuple(sides)):
            return
        wanted = [str(self.channels or "c"), *map(str, self.size or ("H", "W"))]
        raise InputError(
            f"The model reads pixel values {' x '.join(wanted)}; these are {' x '.join(map(str, values.shape))}. "
            "Prepare them as the model's processor does, or name their size with image_size=."
        )


ANY_SHAPE = PixelShape()
"""Of functions and own modules nothing is known."""


def _is_strict(tower: nn.Module, native: Size, patch: Size) -> bool:
    """Whether a tower reads images of its own size alone: it has a position for each patch, and does not say else."""
    grid = native[0] // patch[0], native[1] // patch[1]
    flexible = getattr(getattr(tower, "patch_embed", None), "strict_img_size", None) is False
    return not flexible and any(position_tables(tower, grid))
