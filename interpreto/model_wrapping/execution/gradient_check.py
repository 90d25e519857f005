"""Gradients of a model: computed, or refused if they do not exist or are not those of its score."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError, UnsupportedError
from interpreto.model_wrapping.execution.gradient_mode import without_gradients

_DIRECTIONS, _MORE_DIRECTIONS = 3, 12
"""Number of random directions along which the score is measured, for an exact and for a noisy score."""
_MAX_TARGETS = 16
"""Maximum number of targets, or sets of targets, whose gradients are checked."""
_STEPS = (1e-2, 1e-3)
"""Lengths of the two steps, relative to the norm of the input."""
_TINY_STEP, _LONGER_STEPS = 1e-4, (1e-2, 3e-2, 0.1, 0.3)
"""The step that detects noise, and longer steps, of which the first pair that exceeds the noise is used."""
_AGREEMENT, _WRONG = 0.2, 0.5
"""Relative difference up to which the slopes of both steps agree, and beyond which a gradient is wrong."""
_ROUNDING = 20
"""A change of the score below this multiple of its rounding error is ignored."""
_NEARBY = 0.1
"""Distance of the second point at which the gradient is checked, relative to the norm of the input."""
_SIGNAL_TO_NOISE = 2
"""Multiple of the noise that a change, or an error of the gradient, must exceed in a noisy score."""

Result = TypeVar("Result")


@dataclass
class GradientCheck:
    """Compares a model's gradient with finite differences of its score, once for each of the first sets of targets.

    The gradient of quantised layers may be 0 except through skip connections; a custom head may have no gradient for
    some classes.

    Attributes:
        done: The targets that have been checked.
    """

    done: set[Hashable] = field(default_factory=set)

    def has_checked(self, targets: Hashable) -> bool:
        """Whether these targets, or enough others, have been checked."""
        return targets in self.done or len(self.done) >= _MAX_TARGETS

    def check(
        self,
        scores: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p t"]],
        x: Float[Tensor, "1 ..."],
        gradients: Float[Tensor, "1 t ..."],
        targets: Hashable = None,
    ) -> None:
        """Check that gradients are those of the scores.

        Args:
            scores: From inputs `p s` to their scores.
            x: One input.
            gradients: The gradients of its scores.
            targets: A key of the explained targets; each key is checked once.

        Raises:
            UnsupportedError: if finite differences along random directions contradict the gradient, at the input and at
                a point nearby.
        """
        # Steps are relative to the input, so a zero input, such as a baseline, cannot be checked; the next one is.
        if self.has_checked(targets) or not x.any():
            return
        self.done.add(targets)
        steps = _FiniteDifferences(scores, x)
        for target, gradient in enumerate(gradients[0]):
            error = steps.compare(gradient, target)
            # Pixels of one colour tie under max pooling, for which PyTorch uses the gradient of one of them. The score
            # has a kink there, so finite differences contradict every gradient; at a point nearby it is smooth.
            if error is not None and steps.nearby().compare_own(target) is not None:
                raise error


class _FiniteDifferences:
    """Finite differences of scores along random directions, shared by all targets.

    Args:
        scores: From inputs to their scores.
        x: The input from which steps are taken.
    """

    def __init__(self, scores: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p t"]], x: Float[Tensor, "1 ..."]):
        self.scores, self.x = scores, x
        directions = torch.randn(_MORE_DIRECTIONS, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
        self.directions = directions / directions.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        self._found: dict[tuple[float, int], Float[Tensor, "2 k t"]] = {}
        self._nearby: _FiniteDifferences | None = None

    def length(self, step: float) -> float:
        """The length of a step that is relative to the norm of the input."""
        return step * float(self.x.norm())

    def changes(self, step: float, target: int, count: int) -> Float[Tensor, " k"] | None:
        """Half the difference of a score between steps in both directions; None if it is within rounding for all."""
        if (step, count) not in self._found:
            steps = self.length(step) * self.directions[:count]
            with without_gradients():
                results = self.scores(torch.cat([self.x + steps, self.x - steps])).double().cpu()
            self._found[step, count] = results.unflatten(0, (2, count))
        ahead, behind = self._found[step, count][..., target]
        # Central differences, whose error is of second order in the step.
        changes = (ahead - behind) / 2
        size = torch.maximum(ahead.abs().max(), behind.abs().max())
        is_significant = changes.abs() > _ROUNDING * torch.finfo(self.x.dtype).eps * (1 + size)
        return changes if bool(is_significant.any()) else None

    def compare(self, gradient: Float[Tensor, "..."], target: int) -> UnsupportedError | None:
        """The error for a gradient that is not that of the score; None if it is, or cannot be measured."""
        slopes = torch.einsum("k...,...->k", self.directions.double(), gradient.to(self.x).double()).cpu()
        long_step, short_step = (self.changes(step, target, _DIRECTIONS) for step in _STEPS)
        if long_step is None or short_step is None:
            return None
        measured = long_step / self.length(_STEPS[0]), short_step / self.length(_STEPS[1])
        if not _differ(*measured, _AGREEMENT):
            first_slopes = slopes[:_DIRECTIONS]
            return _wrong_gradient(measured[1], first_slopes) if _differ(measured[1], first_slopes, _WRONG) else None
        # If the steps disagree, the score either is too steep to be measured, or is rounded, as by quantised layers:
        # then slopes do not converge however short the steps are.
        tiny = self.changes(_TINY_STEP, target, _DIRECTIONS)
        if tiny is None or not _differ(tiny / self.length(_TINY_STEP), measured[1], _WRONG):
            return None
        # Long enough steps exceed the noise. The tolerance for the gradient is the difference between the slopes of two
        # such steps.
        for pair in pairwise(_LONGER_STEPS):
            short_changes, long_changes = (self.changes(step, target, _MORE_DIRECTIONS) for step in pair)
            if (
                short_changes is None
                or long_changes is None
                or _root_mean_square(short_changes) <= _SIGNAL_TO_NOISE * _root_mean_square(short_step)
            ):
                continue
            measured = short_changes / self.length(pair[0]), long_changes / self.length(pair[1])
            tolerance = _SIGNAL_TO_NOISE * float((measured[0] - measured[1]).norm())
            is_wrong = all(
                float((pair_slopes - slopes).norm()) > tolerance and _differ(pair_slopes, slopes, _WRONG)
                for pair_slopes in measured
            )
            return _wrong_gradient(measured[0], slopes) if is_wrong else None
        return None

    def nearby(self) -> "_FiniteDifferences":
        """Finite differences from a random point near the input."""
        if self._nearby is None:
            noise = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(1)).to(self.x)
            self._nearby = _FiniteDifferences(self.scores, self.x + self.length(_NEARBY) * noise / noise.norm())
        return self._nearby

    def compare_own(self, target: int) -> UnsupportedError | None:
        """The error for the gradient that the model has at this input."""
        leaf = self.x.detach().clone().requires_grad_()
        with torch.enable_grad():
            gradient = gradient_of(self.scores(leaf)[0, target], leaf, retain_graph=False)
        return self.compare(gradient[0], target)


def _root_mean_square(values: Float[Tensor, " k"]) -> float:
    return float(values.square().mean().sqrt())


def _wrong_gradient(measured: Float[Tensor, " k"], slopes: Float[Tensor, " k"]) -> UnsupportedError:
    return UnsupportedError(
        "The gradient of this model is not that of its score: along random directions the score changes by "
        f"{_listed(measured)} per unit, but the gradient predicts {_listed(slopes)}. {_REMEDY}"
    )


def _listed(slopes: Float[Tensor, " k"]) -> str:
    return ", ".join(f"{slope:.3g}" for slope in slopes[:_DIRECTIONS].tolist())


def _differ(one: Float[Tensor, " k"], other: Float[Tensor, " k"], share: float) -> bool:
    """Whether two vectors of slopes differ by more than a fraction of the larger norm."""
    return float((one - other).norm()) > share * float(torch.maximum(one.norm(), other.norm()))


_REMEDY = (
    "Quantised layers often have no gradient, and neither has what was detached or computed in "
    "torch.inference_mode(): load the model without quantisation, remove such parts, or use a perturbation method "
    "(Occlusion, KernelShap, Lime, Sobol, Rise)."
)


def gradient_of(output: Tensor, leaf: Tensor, retain_graph: bool, grad_outputs: Tensor | None = None) -> Tensor:
    """The gradient of an output with respect to a leaf.

    Raises:
        ModelError: if the output does not depend on the leaf.
        UnsupportedError: if the backward pass fails.
    """
    try:
        (gradient,) = torch.autograd.grad(output, leaf, grad_outputs, retain_graph=retain_graph, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        # Reentrant checkpoints, operators without a backward pass, in-place changes, custom autograd functions.
        raise UnsupportedError(f"PyTorch cannot differentiate this model ({error}). {_REMEDY}") from error
    if gradient is None:
        raise not_differentiable_error()
    return gradient


def run_with_gradients(run: Callable[[], Result]) -> Result:
    """Run a model that may fail only while gradients are enabled.

    Raises:
        UnsupportedError: if it runs only without gradients.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        # An error that also occurs without gradients is that of the model, and is raised by this run. Inference mode,
        # because function modes that keep gradients enabled do not intercept it.
        with torch.inference_mode():
            run()
        raise UnsupportedError(f"This model runs only without gradients ({error}). {_REMEDY}") from error


def not_differentiable_error() -> ModelError:
    """The error for a score that does not depend on the input in a differentiable way."""
    return ModelError(f"The score does not depend on the input in a way that PyTorch can differentiate. {_REMEDY}")
