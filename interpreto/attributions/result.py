"""The result of a method for one sample, with all that plots, metrics and files need besides the model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from interpreto.attributions.granularity import UnitSegmenter
from interpreto.attributions.serialization import load_result, save_result
from interpreto.errors import InputError, OptionError
from interpreto.option_kinds import checks_options
from interpreto.typing import Modality, RawInput
from interpreto.visualizations import plot_attributions
from interpreto.visualizations.map_scaling import to_map

_NO_IMAGE = "Maps are for images; the scores of a text are in attributions and elements."


@dataclass(frozen=True, eq=False)
class Request:
    """The request that a result answers, to run the model on its sample again. It is not saved with a result.

    Attributes:
        inputs: The sample in the user's form.
        targets: The targets, as a user would pass them.
        segmenter: The segmenter that made the units.
    """

    inputs: Any
    targets: Any
    segmenter: UnitSegmenter


@dataclass(frozen=True, eq=False)
class AttributionOutput:
    """The attributions of one sample, one map per target.

    Attributes:
        attributions: Scores of units, `t h w` for images with units on a grid, else `t g`. Signed unless the method is
            not. NaN for units that come after a generated target and cannot influence it.
        elements: The units for display: pieces of the text, which joined are the text; or boxes `g 4` with left, top,
            right and bottom in pixels of `raw_input`, row by row.
        targets: The explained targets: class indices, token ids or tuples of them, contrasts or functions.
        target_names: Their names.
        scores: The targets' scores on the unperturbed sample, `t`.
        task: The model's task.
        modality: "text" or "image".
        granularity: Name of the granularity.
        raw_input: The text, the pair of texts, the prompt and its continuation, or the image (RGB).
        standard_errors: Standard errors of the attributions, for methods that sample; else None.
        completeness_gap: The promised sum f(x) - f(x') minus the sum of the units, `t`, for methods that promise a sum;
            else None.
        segments: For methods that rank segments of an image, the rank of every pixel's segment, 1 for the highest
            score, in the pixels that the model reads; else None.
        unit_map: For units of an image that are not on a grid: the unit of every pixel that the model reads, -1 for
            none. None for other units.
        target_units: Which units are part of the target itself: the later tokens of a generated word depend on its
            first ones. They are excluded from rankings, figures and metrics, and included in sums. None if there are
            none.
        n_evaluations: Number of evaluations of the model.
        info: Model, method, options, removal or baseline, dtype, seed, versions, seconds.
        error: Why the sample could not be explained, with `on_error="record"`; all other fields are then empty. Else
            None.
        request: The request, for metrics that run the model again; None for results that were loaded.
    """

    attributions: Float[Tensor, "t *g"]
    elements: list[str] | Float[Tensor, "u 4"]
    targets: tuple[Any, ...]
    target_names: tuple[str, ...]
    scores: Float[Tensor, " t"]
    task: str
    modality: Modality
    granularity: str
    raw_input: RawInput
    standard_errors: Float[Tensor, "t *g"] | None = None
    completeness_gap: Float[Tensor, " t"] | None = None
    segments: Int[Tensor, "t H W"] | None = None
    unit_map: Int[Tensor, "H W"] | None = None
    target_units: Bool[Tensor, "t *g"] | None = None
    n_evaluations: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    request: Request | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<{self.info.get('method', 'attributions')} failed: {self.error}>"
        shape = " x ".join(map(str, self.attributions.shape))
        method = self.info.get("method", "attributions")
        return f"<{method} of {', '.join(map(repr, self.target_names[:3]))}: {self.granularity}, {shape}>"

    @property
    def is_image(self) -> bool:
        """Whether the explained sample is an image."""
        return isinstance(self.raw_input, Image.Image)

    def require_image(self) -> Image.Image:
        """The explained image.

        Raises:
            OptionError: if the sample is a text.
        """
        if not isinstance(self.raw_input, Image.Image):
            raise OptionError(_NO_IMAGE)
        return self.raw_input

    def require_boxes(self) -> Float[Tensor, "u 4"]:
        """The boxes of the units of an image: left, top, right and bottom in pixels of the image.

        Raises:
            OptionError: if the sample is a text.
        """
        if not isinstance(self.elements, Tensor):
            raise OptionError(_NO_IMAGE)
        return self.elements

    @property
    def prompt(self) -> str:
        """The prompt that a language model continues; empty for other tasks."""
        return str(self.raw_input[0]) if self.is_generation and isinstance(self.raw_input, tuple) else ""

    @property
    def is_generation(self) -> bool:
        """Whether the targets are tokens that continue the sample."""
        return self.task == "text-generation"

    @property
    def ranking_scores(self) -> Float[Tensor, "t *g"]:
        """The attributions with NaN for units that are part of the target itself, for rankings."""
        units = self.target_units
        return self.attributions if units is None else self.attributions.masked_fill(units, torch.nan)

    def heatmap(self, size: tuple[int, int] | None = None, interpolation: str = "bilinear") -> Float[Tensor, "t H W"]:
        """The attributions as maps over the raw image, not rescaled; 0 where the image was cropped away.

        Args:
            size: Height and width of the maps; None is the size of the raw image.
            interpolation: "nearest", "bilinear" or "bicubic".

        Raises:
            OptionError: if the sample is a text.
            InputError: if the sample could not be explained.
        """
        self._check_explained()
        return self._over_raw_image(to_map(self.attributions, self.unit_map), size, interpolation)

    def _check_explained(self) -> None:
        """Raise an `InputError` if the sample could not be explained."""
        if self.error is not None:
            raise InputError(f"This sample could not be explained: {self.error}")

    def top_mask(self, percent: float = 30.0) -> Bool[Tensor, "t H W"]:
        """The part of the raw image with the highest scores: segments if the method ranks segments, else pixels.

        Segments are taken in the order of their ranks while together they cover at most this share of what the model
        reads; the first one is always taken. Of pixels with equal scores all are taken or none.

        Args:
            percent: Share of the image in percent, above 0 and at most 100.

        Raises:
            OptionError: if the sample is a text, or `percent` is out of range.
            InputError: if the sample could not be explained.
        """
        self._check_explained()
        if not 0 < percent <= 100:
            raise OptionError(f"percent={percent} must be above 0 and at most 100.")
        share = percent / 100
        if self.segments is None:
            # A map of ones is 1 where the model reads the image, and 0 where it was cropped away.
            ones = to_map(torch.ones_like(self.attributions), self.unit_map)
            visible = self._over_raw_image(ones, None, "nearest") > 0.5
            return torch.stack([_highest(*pair, share) for pair in zip(self.heatmap(), visible, strict=True)])
        chosen = []
        for ranks in self.segments:
            # covered[r] is the share of pixels with ranks up to r; the tolerance absorbs rounding.
            covered = ranks.flatten().bincount().cumsum(0) / ranks.numel()
            last = int((covered <= share + 1e-9).sum()) - 1
            chosen.append(ranks <= max(last, 1))
        return self._over_raw_image(torch.stack(chosen).float(), None, "nearest") > 0.5

    def _over_raw_image(
        self, maps: Float[Tensor, "t a b"], size: tuple[int, int] | None, interpolation: str
    ) -> Float[Tensor, "t H W"]:
        """Maps over what the model reads, placed at its position in the raw image.

        Raises:
            OptionError: if the sample is a text.
        """
        boxes = self.require_boxes()
        width, height = self.require_image().size
        rows, columns = size or (height, width)
        # The box that the model reads, in pixels of the map. It can extend beyond the image if the processor pads; only
        # the part inside is drawn.
        left, right = (round(float(edge) * columns / width) for edge in (boxes[:, 0].min(), boxes[:, 2].max()))
        top, bottom = (round(float(edge) * rows / height) for edge in (boxes[:, 1].min(), boxes[:, 3].max()))
        corners = None if interpolation == "nearest" else False
        resized = nn.functional.interpolate(
            maps[:, None],
            size=(max(bottom - top, 1), max(right - left, 1)),
            mode=interpolation,
            align_corners=corners,
        )[:, 0]
        out = resized.new_zeros(len(resized), rows, columns)
        inside = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
        visible = out[:, inside[0], inside[1]]
        above, beside = max(-top, 0), max(-left, 0)
        visible.copy_(resized[:, above : above + visible.shape[1], beside : beside + visible.shape[2]])
        return out

    def plot(self, save_path: str | Path | None = None) -> Any:
        """Plot the result with `interpreto.plot_attributions`."""
        return plot_attributions(self, save_path=save_path)

    @checks_options
    def save(self, path: str | Path) -> Path:
        """Write the result to a folder, atomically: JSON, safetensors, and a PNG of an image.

        Raises:
            OptionError: if the path is not a valid name.
            SavedFileError: if something else is at the path, or it cannot be written.
        """
        return save_result(self, Path(path))

    @staticmethod
    @checks_options
    def load(path: str | Path) -> "AttributionOutput":
        """Read a result that `save` wrote; no model is needed.

        Raises:
            OptionError: if the path is not a valid name.
            SavedFileError: if files are missing, changed, truncated or of another version.
        """
        return load_result(Path(path), AttributionOutput)


def _highest(scores: Float[Tensor, "H W"], seen: Bool[Tensor, "H W"], share: float) -> Bool[Tensor, "H W"]:
    """The pixels with the highest scores, at most a share of the pixels that the model reads.

    Args:
        scores: The map.
        seen: The pixels that the model reads.
        share: The largest share of them.
    """
    comparable = scores.masked_fill(~seen, -torch.inf).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    count = int(share * float(seen.sum()) + 1e-9)
    if not count:
        return torch.zeros_like(seen)
    level = comparable.flatten().sort(descending=True).values[count - 1]
    # If not all pixels of this level fit into the share, none of them is taken: any choice would be arbitrary.
    mask = comparable >= level
    return (mask if int(mask.sum()) <= count else comparable > level) & seen & ~scores.isnan()


def top_unit(output: AttributionOutput, target: int = 0) -> str:
    """The unit with the largest score for a target: its text, or its position on the grid."""
    scores = output.ranking_scores[target]
    best = int(torch.argmax(scores.nan_to_num(-torch.inf)))
    if output.is_image:
        position = ", ".join(str(int(i)) for i in torch.unravel_index(torch.tensor(best), scores.shape))
        return f"{output.granularity} ({position})"
    return str(output.elements[best]).strip()
