"""The content of a figure: results of several samples, targets and methods, arranged in rows of panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.colors import Colormap, Normalize
from torch import Tensor

from interpreto.errors import InputError
from interpreto.typing import AttributionResult
from interpreto.visualizations.map_scaling import to_map

_LINE = 80
"""Maximum number of characters of a sample's title."""

Outputs = AttributionResult | Sequence[AttributionResult] | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Panel:
    """One target of one result.

    Attributes:
        method: Name of the method, for the title.
        output: The result.
        target: Index of the target in the result.
        relative: Whether scores are divided by the largest magnitude in the result, and drawn from -1 to 1.
        clip_percentile: Percentile of the magnitudes at which the colour scale is clipped.
    """

    method: str
    output: AttributionResult
    target: int
    relative: bool = False
    clip_percentile: float = 99.0

    @property
    def signed(self) -> bool:
        """Whether the method's scores have signs."""
        # Results that were saved by earlier versions do not record it; scores below 0 are then the best guess.
        return bool(self.output.info.get("signed", bool((self.scores < 0).any())))

    @cached_property
    def scores(self) -> Float[Tensor, "*g"]:
        """The scores that are drawn."""
        return self.all_scores[self.target]

    @cached_property
    def all_scores(self) -> Float[Tensor, "t *g"]:
        """The scores of all targets of the result."""
        scores = self.output.ranking_scores
        # One divisor for all targets of a result, so that their scores stay comparable.
        return scores / scores.abs().nan_to_num().max().clamp(min=1e-12) if self.relative else scores

    @property
    def map(self) -> Float[Tensor, "a b"]:
        """The scores that are drawn, as a map of an image."""
        return to_map(self.scores[None], self.output.unit_map)[0]

    @property
    def colours(self) -> tuple[Colormap, Normalize]:
        """Colour map and normalisation for the scores of this target."""
        return scale(self.scores, self.relative, self.signed, self.clip_percentile)

    @property
    def all_colours(self) -> tuple[Colormap, Normalize]:
        """Colour map and normalisation for the scores of all targets, on one scale."""
        return scale(self.all_scores, self.relative, self.signed, self.clip_percentile)

    @property
    def extend(self) -> str:
        """The ends of the colour bar at which scores are clipped: `extend=` of matplotlib's colour bars."""
        _, norm = self.colours
        drawn = self.scores[~self.scores.isnan()]
        low, high = bool((drawn < float(norm.vmin or 0)).any()), bool((drawn > float(norm.vmax or 0)).any())
        return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((low, high), "neither")

    @property
    def title(self) -> str:
        """The target's name and score, and how much of a truncated text the model reads."""
        title = f"{self.output.target_names[self.target]} ({self._scores})"
        truncated = self.output.info.get("truncated")
        return title if truncated is None else f"{title}, {truncated}"

    @property
    def _scores(self) -> str:
        """The probability, if known, and the explained score, if it is not the probability."""
        score, probabilities = float(self.output.scores[self.target]), self.output.info.get("probabilities")
        # Some targets have no probability, such as contrasts and functions of the outputs.
        probability = None if probabilities is None else probabilities[self.target]
        if probability is None:
            return f"{score:.3g}"
        suffixes = {"logits": f", logit {score:.3g}", "log_softmax": f", log p {score:.3g}"}
        return f"p = {probability:.2g}" + suffixes.get(str(self.output.info.get("inference_mode")), "")


def build_panels(outputs: Outputs, relative: bool = False, clip_percentile: float = 99.0) -> list[list[Panel]]:
    """One row per sample and target, with one panel per method.

    Args:
        outputs: One result, a list of results (one sample each), or a mapping from method names to either; the lists of
            all methods are then of the same samples.
        relative: Whether each result's scores are divided by their largest magnitude.
        clip_percentile: Percentile of the magnitudes at which the colour scale is clipped.

    Raises:
        InputError: if there are no results, or methods differ in the number of results, the modality, the text or the
            targets.
    """
    named = outputs if isinstance(outputs, Mapping) else {"": outputs}
    columns = {name: _listed(some) for name, some in named.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if not lengths or 0 in lengths.values():
        raise InputError("There is no result to plot.")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name!r}: {length}" for name, length in lengths.items())
        raise InputError(f"Every method needs the same number of results; got {counts}.")
    if len({output.modality for column in columns.values() for output in column}) > 1:
        raise InputError("Results of texts and of images do not go into one figure: plot them separately.")
    rows = []
    samples = list(zip(*columns.values(), strict=True))
    # With on_error="record" a result may be an error. A sample is drawn only if all methods have a result for it.
    errors = [output.error for sample in samples for output in sample if output.error is not None]
    samples = [sample for sample in samples if all(output.error is None for output in sample)]
    if not samples:
        raise InputError(f"There is no result to plot: {errors[0]}")
    for sample in samples:
        if len({str(output.raw_input) for output in sample if not output.is_image}) > 1:
            raise InputError("The methods explain different texts: pass the same inputs to all of them.")
        if len({output.target_names for output in sample}) > 1:
            raise InputError(
                "The methods explain different targets of a sample, or split its generation into different units: pass "
                "the same targets= and granularity= to all of them."
            )
        # A result that was passed without a name, under the key "", gets the name of its method.
        names = [
            name or output.info.get("method", "attributions") for name, output in zip(columns, sample, strict=True)
        ]
        targets = range(len(sample[0].target_names))
        pairs = list(zip(names, sample, strict=True))
        rows += [[Panel(*pair, target, relative, clip_percentile) for pair in pairs] for target in targets]
    return rows


def group_by_sample(rows: list[list[Panel]]) -> list[list[list[Panel]]]:
    """The rows, grouped by sample."""
    # Rows of one sample are adjacent and share its result; equal texts may occur twice, so they are told apart by `id`.
    return [list(some) for _, some in groupby(rows, key=lambda row: id(row[0].output))]


def shortened(text: str, length: int = _LINE) -> str:
    """The beginning of a text, on one line and with an ellipsis if it is longer than `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _listed(some: Any) -> list[AttributionResult]:
    results = [some] if isinstance(some, AttributionResult) else list(some)
    for item in results:
        if not isinstance(item, AttributionResult):
            raise InputError(f"Expected results of a method, got {type(item).__name__}.")
    return results


def scale(
    scores: Float[Tensor, "*g"], relative: bool, signed: bool, clip_percentile: float
) -> tuple[Colormap, Normalize]:
    """A colour map and its limits: symmetric around 0 for signed scores, from 0 for unsigned ones.

    The limit is a percentile of the magnitudes, so that a few outliers do not leave the rest pale. Relative scores are
    drawn from -1 to 1, one scale for all results.
    """
    if relative:
        return mpl.colormaps["RdBu_r"], Normalize(-1, 1)
    magnitudes = scores[~scores.isnan()].abs().flatten().double()
    limit = highest = float(magnitudes.max()) if len(magnitudes) else 0.0
    if len(magnitudes):
        # "higher" is a score, not an interpolation: by default nothing is clipped of up to 100 scores. The percentile
        # of a sparse map may be 0; then the highest score is the limit.
        limit = float(np.percentile(magnitudes.numpy(), clip_percentile, method="higher")) or highest
    # matplotlib needs limits that differ, even if all scores are 0.
    limit = max(limit, 1e-12)
    name, low = ("RdBu_r", -limit) if signed else ("Reds", 0)
    return mpl.colormaps[name], Normalize(low, limit)
