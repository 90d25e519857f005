"""Whether attributions sum to what their method promises, and what to do if they do not."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.result import AttributionOutput
from interpreto.errors import ConvergenceWarning

TOLERANCE = 0.05
"""Relative completeness gap from which there is a warning."""

_NEGLIGIBLE = 0.005
"""A gap that is smaller than this share of all absolute attributions does not matter, however small their sum is."""


def promised_sum(output: AttributionOutput) -> Float[Tensor, " t"]:
    """f(x) - f(x'), which the units of each target should sum to.

    Raises:
        ValueError: if the method promises no sum.
    """
    if output.completeness_gap is None:
        raise ValueError(f"{output.info.get('method', 'the method')} promises no sum")
    return output.attributions.flatten(1).double().nansum(1) + output.completeness_gap.double()


def relative_gap(output: AttributionOutput) -> Float[Tensor, " t"]:
    """By which share of the promised sum the units of each target miss it; NaN where that sum is 0."""
    promised = promised_sum(output)
    assert output.completeness_gap is not None
    return torch.where(promised == 0, torch.nan, output.completeness_gap.double().abs() / promised.abs())


@dataclass
class ConvergenceCheck:
    """Finds results that have not converged.

    Attributes:
        method: The method's name.
        effort: The option by which the method comes closer, and its value, such as "n_steps=32".
        advice: What else the user can do.
        n_outputs: How many outputs were looked at.
        n_missed: How many of them have a target that misses the promised sum.
        worst: The relative gap of the worst of them, and what the warning says of it.
    """

    category: ClassVar[type[Warning]] = ConvergenceWarning

    method: str
    effort: str
    advice: str
    n_outputs: int = 0
    n_missed: int = 0
    worst: tuple[float, str] = field(default=(0.0, ""))

    def add(self, number: int, output: AttributionOutput) -> None:
        """Look at the result of a sample."""
        self.n_outputs += 1
        if output.completeness_gap is None:
            return
        gap, promised = output.completeness_gap.double().abs(), promised_sum(output)
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
        """Which results have not converged, and what to do."""
        if not self.n_missed:
            return ""
        return (
            f"{self.method} did not converge with {self.effort} for {self.n_missed} of {self.n_outputs} samples "
            f"(worst: {self.worst[1]}). Take more with {self.effort.partition('=')[0]}=, {self.advice}."
        )


def advice(task: str, has_bos: bool) -> str:
    """What to do besides taking more nodes where a path integral does not converge.

    Args:
        task: Of the model.
        has_bos: Whether prompts of a language model start with a beginning-of-sequence token as far as is known.
    """
    if task != "text-generation":
        return "start from another baseline=, or use a method that hides parts"
    # The first token is an attention sink: all activations change at once where the path moves it.
    bos = "" if has_bos else "put a token first that the path does not move (prepend_bos=True), "
    return f"{bos}start from another baseline=, or use Occlusion or KernelShap"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 10 else f"{share:.0f} times its size"
