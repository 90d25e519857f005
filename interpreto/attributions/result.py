"""The result of an explanation: enough for plots, metrics and files without the model."""

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


@dataclass(frozen=True, eq=False)
class Request:
    """What was explained, to run the model on it again. It is not saved with a result.

    Attributes:
        inputs: The sample in the user's form.
        targets: The targets, as a user would pass them.
        segmenter: The granularity.
    """

    inputs: Any
    targets: Any
    segmenter: UnitSegmenter


@dataclass(frozen=True, eq=False)
class AttributionOutput:
    """What one sample's targets rest on.

    Attributes:
        attributions: Scores of units, `t g`, or `t h w` where units lie on a grid. Signed unless the method is not.
            NaN where a unit comes behind a generated target and can have no say in it.
        elements: The units as a person sees them: pieces of the text, which joined give it back; or boxes `g 4`, left,
            top, right and bottom in pixels of `raw_input`, row by row.
        targets: What was explained: class indices, token ids or runs of them, contrasts or functions.
        target_names: Their names.
        scores: The targets' scores on the unchanged sample, `t`.
        task: The model's task.
        modality: "text" or "image".
        granularity: What the units are.
        raw_input: The text, the pair of texts, the prompt and what follows it, or the picture (RGB).
        standard_errors: Of the attributions, for methods that sample; else None.
        completeness_gap: By how much the units miss the promised sum f(x) - f(x'), `t`, for methods that promise one.
        segments: For methods that put stretches of an image in order, the rank of every pixel's that the model read,
            1 for the one with the highest score; every pixel belongs to one.
        unit_map: For units of an image that are not on a grid: the unit of every pixel that the model read, -1 for
            none. None for other units.
        target_units: Which units are part of the target itself: the later tokens of a generated word rest on its first
            ones. Rankings, figures and metrics leave them out; sums have them. None where there are none.
        n_evaluations: How many rows went through the model.
        info: Model, method, options, removal or baseline, dtype, seed, versions, seconds.
        error: Why the sample could not be explained, if errors are recorded; then there is nothing else. None else.
        request: What was explained, for metrics that run the model again; None for results that were loaded.
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
    def ranking_scores(self) -> Float[Tensor, "t *g"]:
        """The attributions, with NaN where a unit is part of the target itself: what can be put in order."""
        own = self.target_units
        return self.attributions if own is None else self.attributions.masked_fill(own, torch.nan)

    def heatmap(self, size: tuple[int, int] | None = None, interpolation: str = "bilinear") -> Float[Tensor, "t H W"]:
        """The attributions as maps over the raw picture, in their own scale; 0 where the model did not look.

        Args:
            size: Height and width of the maps; None is the raw picture's.
            interpolation: "nearest", "bilinear" or "bicubic".

        Raises:
            OptionError: if the sample is a text.
            InputError: if the sample could not be explained.
        """
        self._check_explained()
        return self._over_picture(to_map(self.attributions, self.unit_map), size, interpolation)

    def _check_explained(self) -> None:
        if self.error is not None:
            raise InputError(f"This sample could not be explained: {self.error}")

    def top_mask(self, percent: float = 30.0) -> Bool[Tensor, "t H W"]:
        """The part of the raw picture that scores highest: whole segments where the method ranked some, else pixels.

        Segments are taken by their rank for as long as together they cover at most this share of what the model saw;
        the first one is always among them. Pixels of one score are taken all or none, as the share allows.

        Args:
            percent: How much, between 0 and 100.

        Raises:
            OptionError: if the sample is a text, or there is no such share.
            InputError: if the sample could not be explained.
        """
        self._check_explained()
        if not 0 < percent <= 100:
            raise OptionError(f"percent={percent} is a share of the picture: it must lie above 0, up to 100.")
        share = percent / 100
        if self.segments is None:
            seen = self._over_picture(to_map(torch.ones_like(self.attributions), self.unit_map), None, "nearest") > 0.5
            return torch.stack([_highest(*pair, share) for pair in zip(self.heatmap(), seen, strict=True)])
        chosen = []
        for ranks in self.segments:
            covered = ranks.flatten().bincount().cumsum(0) / ranks.numel()
            last = int((covered <= share + 1e-9).sum()) - 1
            chosen.append(ranks <= max(last, 1))
        return self._over_picture(torch.stack(chosen).float(), None, "nearest") > 0.5

    def _over_picture(
        self, maps: Float[Tensor, "t a b"], size: tuple[int, int] | None, interpolation: str
    ) -> Float[Tensor, "t H W"]:
        """Maps of what the model saw, where that lies in the picture."""
        if not isinstance(self.raw_input, Image.Image) or not isinstance(self.elements, Tensor):
            raise OptionError("Maps are for images; the scores of a text are in attributions and elements.")
        width, height = self.raw_input.size
        rows, columns = size or (height, width)
        boxes = self.elements
        # What the model saw, in pixels of the map; only whole pixels inside the picture are drawn.
        left, right = (round(float(edge) * columns / width) for edge in (boxes[:, 0].min(), boxes[:, 2].max()))
        top, bottom = (round(float(edge) * rows / height) for edge in (boxes[:, 1].min(), boxes[:, 3].max()))
        corners = None if interpolation == "nearest" else False
        seen = nn.functional.interpolate(
            maps[:, None],
            size=(max(bottom - top, 1), max(right - left, 1)),
            mode=interpolation,
            align_corners=corners,
        )[:, 0]
        out = seen.new_zeros(len(seen), rows, columns)
        inside = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
        visible = out[:, inside[0], inside[1]]
        above, beside = max(-top, 0), max(-left, 0)
        visible.copy_(seen[:, above : above + visible.shape[1], beside : beside + visible.shape[2]])
        return out

    def plot(self, save_path: str | Path | None = None) -> Any:
        """Draw it: see `interpreto.plot_attributions`."""
        return plot_attributions(self, save_path=save_path)

    @checks_options
    def save(self, path: str | Path) -> Path:
        """Write it into a folder: JSON, safetensors and, for an image, the picture as PNG. Nothing is half written.

        Raises:
            OptionError: if no folder can have this name.
            SavedFileError: if something else has the place, or it cannot be written.
        """
        return save_result(self, Path(path))

    @staticmethod
    @checks_options
    def load(path: str | Path) -> "AttributionOutput":
        """Read what `save` wrote; no model is needed.

        Raises:
            OptionError: if no folder can have this name.
            SavedFileError: if files are missing, were changed or cut off, or are of another version.
        """
        return load_result(Path(path), AttributionOutput)


def _highest(scores: Float[Tensor, "H W"], seen: Bool[Tensor, "H W"], share: float) -> Bool[Tensor, "H W"]:
    """The highest scores of what was seen, at most this share of it."""
    known = scores.masked_fill(~seen, -torch.inf).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    count = int(share * float(seen.sum()) + 1e-9)
    if not count:
        return torch.zeros_like(seen)
    level = known.flatten().sort(descending=True).values[count - 1]
    mask = known >= level
    return (mask if int(mask.sum()) <= count else known > level) & seen & ~scores.isnan()


def top_unit(output: AttributionOutput, target: int = 0) -> str:
    """The unit with the largest score for a target: its text, or its place on the grid."""
    scores = output.ranking_scores[target]
    best = int(torch.argmax(scores.nan_to_num(-torch.inf)))
    if isinstance(output.elements, Tensor):
        place = ", ".join(str(int(i)) for i in torch.unravel_index(torch.tensor(best), scores.shape))
        return f"{output.granularity} ({place})"
    return output.elements[best].strip()
