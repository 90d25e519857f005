"""Checks that attributions sum to the difference f(x) - f(x'), with advice if they do not."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import ConvergenceWarning

TOLERANCE = 0.05
"""Relative completeness gap above which there is a warning."""

_NEGLIGIBLE = 0.005
"""A gap below this share of the sum of absolute attributions gives no warning, however small the difference is."""


def expected_sum(output: AttributionOutput) -> Float[Tensor, " t"]:
    """The sum of each target's units by completeness: f(x) - f(x').

    Raises:
        ValueError: if the method is not complete.
    """
    if output.completeness_gap is None:
        raise ValueError(f"{output.info.get('method', 'the method')} is not complete")
    # Units that cannot influence a target are NaN, and contribute nothing.
    return output.attributions.flatten(1).double().nansum(1) + output.completeness_gap.double()


def relative_gap(output: AttributionOutput) -> Float[Tensor, " t"]:
    """The absolute completeness gap of each target relative to f(x) - f(x'); NaN if that is 0."""
    expected = expected_sum(output)
    assert output.completeness_gap is not None
    return torch.where(expected == 0, torch.nan, output.completeness_gap.double().abs() / expected.abs())


@dataclass
class ConvergenceCheck:
    """Finds results whose path integrals have not converged.

    Attributes:
        method: The method's name.
        accuracy_option: The option that reduces the gap, with its value, such as "n_steps=32".
        alternatives: What the user can do instead of increasing it.
        n_outputs: Number of outputs with a completeness gap.
        n_missed: Number of outputs with a target whose gap is too large.
        worst: The largest relative gap, and its description for the warning.
    """

    category: ClassVar[type[Warning]] = ConvergenceWarning

    method: str
    accuracy_option: str
    alternatives: str
    n_outputs: int = 0
    n_missed: int = 0
    worst: tuple[float, str] = field(default=(0.0, ""))

    def add(self, number: int, output: AttributionOutput) -> None:
        """Check the output of sample `number`."""
        if output.completeness_gap is None:
            return
        self.n_outputs += 1
        gap, expected = output.completeness_gap.double().abs(), expected_sum(output)
        # Positive and negative attributions can cancel to a sum near 0, which makes any relative gap large.
        abs_sum = output.attributions.flatten(1).double().abs().nansum(1)
        missed = (gap > TOLERANCE * expected.abs()) & (gap > _NEGLIGIBLE * abs_sum)
        if not bool(missed.any()):
            return
        self.n_missed += 1
        relative_gaps = torch.where(missed, gap / expected.abs().clamp(min=1e-12), 0.0)
        target = int(relative_gaps.argmax())
        if (share := float(relative_gaps[target])) > self.worst[0]:
            self.worst = (
                share,
                (
                    f"sample {number}, target {output.target_names[target]!r}: the units sum to "
                    f"{float(expected[target] - output.completeness_gap[target]):.4g} instead of "
                    f"f(x) - f(x') = {float(expected[target]):.4g}, a gap of {_percent(share)}"
                ),
            )

    def message(self) -> str:
        """The warning for all outputs that did not converge; empty if all did."""
        if not self.n_missed:
            return ""
        option = self.accuracy_option.partition("=")[0]
        return (
            f"{self.method} did not converge with {self.accuracy_option} for {self.n_missed} of {self.n_outputs} "
            f"samples (worst: {self.worst[1]}). Use a larger {option}=, {self.alternatives}."
        )


def convergence_alternatives(generates: bool, prepend_bos: bool) -> str:
    """What to do about a path integral that does not converge, besides using more steps.

    Args:
        generates: Whether the model continues a prompt.
        prepend_bos: Whether the user has passed prepend_bos=True.
    """
    if not generates:
        return "another baseline=, or a method that masks units"
    # The first token is an attention sink: all activations change abruptly as soon as the path moves its embedding.
    bos = "" if prepend_bos else "a first token that the path does not change (prepend_bos=True), "
    return f"{bos}another baseline=, or Occlusion or KernelShap"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 10 else f"{share:.0f} times this difference"
