"""What goes into one figure: results of several samples, targets and methods, sorted out."""

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
"""Letters of a sample's title."""

Outputs = AttributionResult | Sequence[AttributionResult] | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Panel:
    """One target of one result.

    Attributes:
        method: What to call the method.
        output: The result.
        target: The number of the target in it.
        relative: Whether scores are divided by the largest magnitude in the result, and drawn from -1 to 1.
        clip_percentile: At which percentile of the magnitudes colours end.
    """

    method: str
    output: AttributionResult
    target: int
    relative: bool = False
    clip_percentile: float = 99.0

    @property
    def signed(self) -> bool:
        """Whether the method's scores have signs."""
        # Results of earlier versions do not say so.
        return bool(self.output.info.get("signed", bool((self.scores < 0).any())))

    @cached_property
    def scores(self) -> Float[Tensor, "*g"]:
        """The scores that are drawn."""
        return self.all_scores[self.target]

    @cached_property
    def all_scores(self) -> Float[Tensor, "t *g"]:
        """The scores of all targets of the result."""
        scores = self.output.ranking_scores
        return scores / scores.abs().nan_to_num().max().clamp(min=1e-12) if self.relative else scores

    @property
    def map(self) -> Float[Tensor, "a b"]:
        """The scores that are drawn, as a map of an image."""
        return to_map(self.scores[None], self.output.unit_map)[0]

    @property
    def colours(self) -> tuple[Colormap, Normalize]:
        """The colours of the scores."""
        return scale(self.scores, self.relative, self.signed, self.clip_percentile)

    @property
    def all_colours(self) -> tuple[Colormap, Normalize]:
        """The colours of the scores of all targets, on one scale."""
        return scale(self.all_scores, self.relative, self.signed, self.clip_percentile)

    @property
    def extend(self) -> str:
        """At which ends of the colours there are scores beyond them, as matplotlib's colour bars have it."""
        _, norm = self.colours
        drawn = self.scores[~self.scores.isnan()]
        low, high = bool((drawn < float(norm.vmin or 0)).any()), bool((drawn > float(norm.vmax or 0)).any())
        return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((low, high), "neither")

    @property
    def title(self) -> str:
        """The target's name and score, and how much was read of a text that is too long for the model."""
        title = f"{self.output.target_names[self.target]} ({self._scores})"
        truncated = self.output.info.get("truncated")
        return title if truncated is None else f"{title}, {truncated}"

    @property
    def _scores(self) -> str:
        """The explained score and, where it is another, the probability."""
        score, known = float(self.output.scores[self.target]), self.output.info.get("probabilities")
        likely = None if known is None else known[self.target]
        if likely is None:
            return f"{score:.3g}"
        other = {"logits": f", logit {score:.3g}", "log_softmax": f", log p {score:.3g}"}
        return f"p = {likely:.2g}" + other.get(str(self.output.info.get("inference_mode")), "")


def gather(outputs: Outputs, relative: bool = False, clip_percentile: float = 99.0) -> list[list[Panel]]:
    """One row per sample and target, one panel per method in it.

    Args:
        outputs: One result, a list of results (one row each), or a mapping from method names to either; then each
            position of the lists is one sample.
        relative: Whether scores are drawn relative to the largest of each result.
        clip_percentile: At which percentile of the magnitudes colours end.

    Raises:
        InputError: if there is nothing in it, or things of different kinds or lengths.
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
        raise InputError("Results of texts and of images do not go into one figure: plot them apart.")
    rows = []
    samples = list(zip(*columns.values(), strict=True))
    errors = [output.error for sample in samples for output in sample if output.error is not None]
    samples = [sample for sample in samples if all(output.error is None for output in sample)]
    if not samples:
        raise InputError(f"There is no result to plot: {errors[0]}")
    for sample in samples:
        if len({str(output.raw_input) for output in sample if output.modality == "text"}) > 1:
            raise InputError("The methods explain different texts: give each of them the same inputs.")
        if len({output.target_names for output in sample}) > 1:
            raise InputError(
                "The methods explain different targets of a sample, or cut its generation into different units: give "
                "them the same targets= and granularity=."
            )
        names = [
            name or output.info.get("method", "attributions") for name, output in zip(columns, sample, strict=True)
        ]
        targets = range(len(sample[0].target_names))
        pairs = list(zip(names, sample, strict=True))
        rows += [[Panel(*pair, target, relative, clip_percentile) for pair in pairs] for target in targets]
    return rows


def sample_rows(rows: list[list[Panel]]) -> list[list[list[Panel]]]:
    """The rows of each sample."""
    return [list(some) for _, some in groupby(rows, key=lambda row: id(row[0].output))]


def shortened(text: str) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 1].rstrip()}…"


def _listed(some: Any) -> list[AttributionResult]:
    found = [some] if isinstance(some, AttributionResult) else list(some)
    for item in found:
        if not isinstance(item, AttributionResult):
            raise InputError(f"Expected results of a method, got {type(item).__name__}.")
    return found


def scale(
    scores: Float[Tensor, "*g"], relative: bool, signed: bool, clip_percentile: float
) -> tuple[Colormap, Normalize]:
    """Colours for unnormalised scores: around 0 for methods whose scores have signs, else from 0.

    They end at a percentile of the magnitudes, so that a few high scores do not leave the rest without colour: of up to
    a hundred scores at the highest. Relative ones are drawn from -1 to 1, so that one scale serves all.
    """
    if relative:
        return mpl.colormaps["RdBu_r"], Normalize(-1, 1)
    drawn = scores[~scores.isnan()].abs().flatten().double()
    limit = highest = float(drawn.max()) if len(drawn) else 0.0
    if len(drawn):
        limit = float(np.percentile(drawn.numpy(), clip_percentile, method="higher")) or highest
    limit = max(limit, 1e-12)
    name, low = ("RdBu_r", -limit) if signed else ("Reds", 0)
    return mpl.colormaps[name], Normalize(low, limit)
