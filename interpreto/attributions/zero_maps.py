"""Maps in which a rectifier leaves nothing, told once per call and in the record of each result."""

import warnings
from dataclasses import dataclass

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import ZeroMapWarning


def zero_targets(output: AttributionOutput) -> list[str]:
    """The names of targets whose scores are 0 everywhere."""
    return [
        name
        for name, scores in zip(output.target_names, output.attributions, strict=True)
        if scores.numel() and not bool(scores.nan_to_num().any())
    ]


@dataclass
class ZeroMapCheck:
    """Looks at the outputs of one call and warns once of those with a map of zeros.

    Attributes:
        rectifies: Whether the method takes positive sums alone; other methods are not looked at.
        n_outputs: How many outputs were looked at.
        n_zero: How many of them have a target whose map is 0 everywhere.
    """

    rectifies: bool
    n_outputs: int = 0
    n_zero: int = 0

    def add(self, output: AttributionOutput) -> None:
        """Look at one output, and note its targets without a map in its record."""
        self.n_outputs += 1
        if self.rectifies and output.error is None and (names := zero_targets(output)):
            self.n_zero += 1
            output.info["zero_maps"] = names

    def warn(self, method: str) -> None:
        """Warn if any map is 0 everywhere."""
        if self.n_zero:
            warnings.warn(
                f"{method} gives maps that are 0 everywhere for {self.n_zero} of {self.n_outputs} samples: every "
                "weighted sum of channels is negative, and only positive ones are kept. Take another layer=, or a "
                "method that keeps signs (Saliency, IntegratedGradients, Occlusion).",
                ZeroMapWarning,
                stacklevel=3,
            )
