"""Partly revealed images and texts, and their information content as a compressed size."""

import io
import zlib
from dataclasses import dataclass
from typing import final

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
    """Interpolates the other pixels linearly from the revealed ones; information is the size of a lossless WebP."""

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: object) -> "PartialImages":
        """The revealer of a model; `removal` is not used, because pixels are interpolated."""
        return PartialImages()

    def initially_revealed(
        self, sample: ImageSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, "H W"]:
        height, width = sample.size
        revealed = torch.zeros(height * width, dtype=torch.bool)
        revealed[torch.randperm(len(revealed), generator=rng)[: int(share * len(revealed))]] = True
        return revealed.reshape(height, width)

    def reveal(self, sample: ImageSample, revealed: Bool[Tensor, "p H W"]) -> Revealed:
        # WebP compresses 8-bit RGB, so the normalisation of the processor is undone first.
        black, white = (level[:, None, None] for level in sample.black_white)
        values = sample.rows.fields[PIXELS][0].cpu().float()
        image = (255 * (values - black) / (white - black)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        images = [_interpolated(image, mask.numpy()) for mask in revealed]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        rows = sample.rows.expand(len(revealed), **{PIXELS: black + (white - black) * pixels})
        return Revealed(rows, torch.tensor([_webp_size(partial) for partial in images]))


@final
@dataclass(frozen=True)
class PartialTexts(Revealer):
    """Masks the tokens that are not revealed; information is the zlib-compressed size of the revealed ones."""

    masker: TokenIds

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: object) -> "PartialTexts":
        """The revealer of a model, with the option `removal`."""
        return PartialTexts(TokenIds.create(wrapper, removal))

    def initially_revealed(
        self, sample: TextSample, units: Units, share: float, rng: torch.Generator
    ) -> Bool[Tensor, " l"]:
        # Positions that belong to no unit, such as special tokens, cannot be ranked: they are revealed from the start.
        revealed = ~units.assigned
        positions = units.assigned.nonzero()[:, 0]
        revealed[positions[torch.randperm(len(positions), generator=rng)[: int(share * len(positions))]]] = True
        return revealed

    def reveal(self, sample: TextSample, revealed: Bool[Tensor, "p l"]) -> Revealed:
        # Masking tokens draws no random numbers; the generator only fills the parameter.
        fully_masked = self.masker.fully_masked(sample, torch.Generator())
        rows = self.masker.replaced(sample, fully_masked, ~revealed)
        texts = [
            " ".join(token for token, is_revealed in zip(sample.tokens, mask, strict=True) if is_revealed)
            for mask in revealed.tolist()
        ]
        return Revealed(rows, torch.tensor([len(zlib.compress(text.encode(), 9)) for text in texts]))


def _interpolated(picture: UInt8[np.ndarray, "H W c"], revealed: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W c"]:
    """An image interpolated linearly between its revealed pixels and its four corners."""
    revealed = revealed.copy()
    # With the corners, the triangles cover the whole image and nothing is extrapolated.
    revealed[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if revealed.all():
        return picture
    known, missing = np.argwhere(revealed), np.argwhere(~revealed).T
    # scipy's LinearNDInterpolator calls multi-threaded LAPACK for every triangle, which can be a thousand times slower
    # when another process keeps the cores busy.
    triangles = Triangulation(known[:, 0], known[:, 1], Delaunay(known).simplices)
    finder = triangles.get_trifinder()
    # Pixels that rounding places outside all triangles are masked in the result, and get the mean of the channel.
    interpolated = [
        LinearTriInterpolator(triangles, channel[revealed].astype(np.float64), finder)(*missing).filled(channel.mean())
        for channel in picture.transpose(2, 0, 1)
    ]
    out = picture.copy()
    # Cast to float32 before rounding: values that are n + 0.5 up to float64 error become exact halves, which np.round
    # then rounds to even as in the authors' code.
    out[~revealed] = np.round(np.stack(interpolated, -1).astype(np.float32))
    return out


def _webp_size(picture: UInt8[np.ndarray, "H W c"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(picture if picture.shape[2] == 3 else picture[..., 0]).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.tell()
