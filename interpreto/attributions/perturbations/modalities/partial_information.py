"""Samples of which only a part is revealed, and the information in that part: compressed images and texts."""

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
    """Interpolates pixels linearly from the revealed ones; the information is the size of a lossless WebP."""

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: Any) -> "PartialImages":
        """The revealer of a model."""
        return PartialImages()

    def initially_revealed(
        self, sample: ImageSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "H W"]:
        height, width = sample.size
        revealed = torch.zeros(height * width, dtype=torch.bool)
        revealed[torch.randperm(len(revealed), generator=rng)[: int(share * len(revealed))]] = True
        return revealed.reshape(height, width)

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
    """Masks tokens that are not revealed; the information is the size of the others, compressed by zlib."""

    masker: TokenIds

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: Any) -> "PartialTexts":
        """The revealer of a model, with the option `removal`."""
        return PartialTexts(TokenIds.create(wrapper, removal))

    def initially_revealed(
        self, sample: TextSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, " l"]:
        # Positions that belong to no unit, such as special tokens, are revealed from the beginning.
        revealed = ~units.assigned
        places = units.assigned.nonzero()[:, 0]
        revealed[places[torch.randperm(len(places), generator=rng)[: int(share * len(places))]]] = True
        return revealed

    def reveal(self, sample: TextSample, revealed: Bool[Tensor, "p l"]) -> Revealed:
        blank = self.masker.fully_masked(sample, torch.Generator())
        rows = self.masker.replaced(sample, blank, ~revealed)
        texts = [
            " ".join(token for token, there in zip(sample.tokens, mask, strict=True) if there)
            for mask in revealed.tolist()
        ]
        return Revealed(rows, torch.tensor([len(zlib.compress(text.encode(), 9)) for text in texts]))


def _interpolated(picture: UInt8[np.ndarray, "H W c"], revealed: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W c"]:
    """An image from some of its pixels and its corners."""
    revealed = revealed.copy()
    revealed[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if revealed.all():
        return picture
    places, requested = np.argwhere(revealed), np.argwhere(~revealed).T
    # LinearNDInterpolator solves two equations per triangle with the threads of LAPACK: a thousand times slower, at
    # times, when another process keeps the processors busy.
    triangles = Triangulation(places[:, 0], places[:, 1], Delaunay(places).simplices)
    find = triangles.get_trifinder()
    # Points outside of all triangles, by rounding alone, get the mean colour.
    between = [
        LinearTriInterpolator(triangles, channel[revealed].astype(np.float64), find)(*requested).filled(channel.mean())
        for channel in picture.transpose(2, 0, 1)
    ]
    out = picture.copy()
    # In single precision halves are exact again, and are rounded as in the authors' release.
    out[~revealed] = np.round(np.stack(between, -1).astype(np.float32))
    return out


def _size_of_picture(picture: UInt8[np.ndarray, "H W c"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(picture if picture.shape[2] == 3 else picture[..., 0]).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.tell()
