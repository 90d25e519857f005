"""Samples of which only a part is told, and how much information that is: compressed pictures and texts."""

import io
import zlib
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from matplotlib.tri import LinearTriInterpolator, Triangulation
from PIL import Image
from scipy.spatial import Delaunay
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.base import Revealed, Revealer
from interpreto.attributions.perturbations.modalities.token_ids import TokenIds
from interpreto.model_wrapping.sample import PIXELS, ImageSample, TextSample
from interpreto.model_wrapping.wrapper import InferenceWrapper


@final
@dataclass(frozen=True)
class PartialImages(Revealer):
    """Pixels that are not told are interpolated linearly from those that are; size is that of a lossless WebP."""

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: Any) -> "PartialImages":
        """The revealer of a model."""
        return PartialImages()

    def initially_revealed(
        self, sample: ImageSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "H W"]:
        height, width = sample.size
        told = torch.zeros(height * width, dtype=torch.bool)
        told[torch.randperm(len(told), generator=rng)[: int(share * len(told))]] = True
        return told.reshape(height, width)

    def reveal(self, sample: ImageSample, revealed: Bool[Tensor, "p H W"]) -> Revealed:
        black, white = (level[:, None, None] for level in sample.black_white)
        values = sample.rows.fields[PIXELS][0].cpu().float()
        picture = (255 * (values - black) / (white - black)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        pictures = [_interpolated(picture, mask.numpy()) for mask in revealed]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        rows = sample.rows.expand(len(revealed), **{PIXELS: black + (white - black) * pixels})
        return Revealed(rows, torch.tensor([_size_of_picture(one) for one in pictures]))


@final
@dataclass(frozen=True)
class PartialTexts(Revealer):
    """Tokens that are not told are hidden; size is that of the tokens that are, compressed by zlib."""

    masker: TokenIds

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: Any) -> "PartialTexts":
        """The revealer of a model, with the option `removal`."""
        return PartialTexts(TokenIds.create(wrapper, removal))

    def initially_revealed(
        self, sample: TextSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, " l"]:
        # What belongs to no unit, special tokens among it, is there from the beginning.
        told = ~units.assigned
        places = units.assigned.nonzero()[:, 0]
        told[places[torch.randperm(len(places), generator=rng)[: int(share * len(places))]]] = True
        return told

    def reveal(self, sample: TextSample, revealed: Bool[Tensor, "p l"]) -> Revealed:
        blank = self.masker.fully_masked(sample, torch.Generator())
        rows = self.masker.replaced(sample, blank, ~revealed)
        texts = [
            " ".join(token for token, there in zip(sample.tokens, mask, strict=True) if there)
            for mask in revealed.tolist()
        ]
        return Revealed(rows, torch.tensor([len(zlib.compress(text.encode(), 9)) for text in texts]))


def _interpolated(picture: UInt8[np.ndarray, "H W c"], told: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W c"]:
    """A picture from some of its pixels, corners always among them."""
    told = told.copy()
    told[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if told.all():
        return picture
    places, asked = np.argwhere(told), np.argwhere(~told).T
    # LinearNDInterpolator solves two equations per triangle with the threads of LAPACK: a thousand times slower, at
    # times, when another process keeps the processors busy.
    triangles = Triangulation(places[:, 0], places[:, 1], Delaunay(places).simplices)
    find = triangles.get_trifinder()
    # Outside of all triangles, which only rounding can be, stands the mean colour.
    between = [
        LinearTriInterpolator(triangles, channel[told].astype(np.float64), find)(*asked).filled(channel.mean())
        for channel in picture.transpose(2, 0, 1)
    ]
    out = picture.copy()
    # Halves are halves again in single precision, and are rounded as the authors round them.
    out[~told] = np.round(np.stack(between, -1).astype(np.float32))
    return out


def _size_of_picture(picture: UInt8[np.ndarray, "H W c"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(picture if picture.shape[2] == 3 else picture[..., 0]).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.tell()
