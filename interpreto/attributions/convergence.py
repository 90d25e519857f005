"""Checks that attributions sum to what their method promises, with advice if they do not."""

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
"""A gap below this share of the sum of absolute attributions gives no warning, however small the promised sum is."""


def promised_sum(output: AttributionOutput) -> Float[Tensor, " t"]:
    """The promised sum f(x) - f(x') of each target's units.

    Raises:
        ValueError: if the method promises no sum.
    """
    if output.completeness_gap is None:
        raise ValueError(f"{output.info.get('method', 'the method')} promises no sum")
    # Units that cannot influence a target are NaN, and contribute nothing.
    return output.attributions.flatten(1).double().nansum(1) + output.completeness_gap.double()


def relative_gap(output: AttributionOutput) -> Float[Tensor, " t"]:
    """The absolute completeness gap of each target relative to the promised sum; NaN if that sum is 0."""
    promised = promised_sum(output)
    assert output.completeness_gap is not None
    return torch.where(promised == 0, torch.nan, output.completeness_gap.double().abs() / promised.abs())


@dataclass
class ConvergenceCheck:
    """Finds results whose path integrals have not converged.

    Attributes:
        method: The method's name.
        effort: The option that reduces the gap, with its value, such as "n_steps=32".
        advice: What else the user can do.
        n_outputs: Number of outputs that were checked.
        n_missed: Number of outputs with a target that misses the promised sum.
        worst: The largest relative gap, and its description for the warning.
    """

    category: ClassVar[type[Warning]] = ConvergenceWarning

    method: str
    effort: str
    advice: str
    n_outputs: int = 0
    n_missed: int = 0
    worst: tuple[float, str] = field(default=(0.0, ""))

    def add(self, number: int, output: AttributionOutput) -> None:
        """Check the output of sample `number`."""
        self.n_outputs += 1
        if output.completeness_gap is None:
            return
        gap, promised = output.completeness_gap.double().abs(), promised_sum(output)
        # Positive and negative attributions can cancel to a promised sum near 0, which makes any relative gap large.
        mass = output.attributions.flatten(1).double().abs().nansum(1)
        missed = (gap > TOLERANCE * promised.abs()) & (gap > _NEGLIGIBLE * mass)
        if not bool(missed.any()):
            return
        self.n_missed += 1
        shares = torch.where(missed, gap / promised.abs().clamp(min=1e-12), 0.0)
        target = int(shares.argmax())
        if (share := float(shares[target])) > self.worst[0]:
            self.worst = (
                share,
                (
                    f"sample {number}, target {output.target_names[target]!r}: the units sum to "
                    f"{float(promised[target] - output.completeness_gap[target]):.4g} instead of "
                    f"f(x) - f(x') = {float(promised[target]):.4g}, a gap of {_percent(share)}"
                ),
            )

    def message(self) -> str:
        """The warning for all outputs that did not converge; empty if all did."""
        if not self.n_missed:
            return ""
        return (
            f"{self.method} did not converge with {self.effort} for {self.n_missed} of {self.n_outputs} samples "
            f"(worst: {self.worst[1]}). Use a larger {self.effort.partition('=')[0]}=, {self.advice}."
        )


def advice(generates: bool, has_bos: bool) -> str:
    """Advice for a path integral that does not converge, besides using more steps.

    Args:
        generates: Whether the model continues a prompt.
        has_bos: Whether prompts of a language model start with a beginning-of-sequence token, as far as is known.
    """
    if not generates:
        return "another baseline=, or a method that masks units"
    # The first token is an attention sink: all activations change abruptly where the path moves it.
    bos = "" if has_bos else "a first token that the path does not change (prepend_bos=True), "
    return f"{bos}another baseline=, or Occlusion or KernelShap"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 10 else f"{share:.0f} times its size"
