"""Gradients of a model: taken, or refused where there are none or they are not those of its score."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError, UnsupportedError

_DIRECTIONS, _MORE_DIRECTIONS = 3, 12
"""Along how many random directions the score is measured: where it is exact, and where it is noisy."""
_TARGETS = 16
"""For how many targets, or sets of them, gradients are checked."""
_STEPS = (1e-2, 1e-3)
"""Lengths of the two steps as shares of the input's."""
_TINY_STEP, _LONGER_STEPS = 1e-4, (1e-2, 3e-2, 0.1, 0.3)
"""The step by which noise is found, and those of which the first two that rise above it are taken."""
_AGREEMENT, _MISSED = 0.2, 0.5
"""By which share slopes of both steps may differ to be believed, and by which the gradient differs to be refused."""
_ROUNDING = 20
"""A change of the score below so many times its rounding error says nothing."""
_CLEAR = 2
"""How many times the noise a change, or a miss of the gradient, must be to count in a noisy score."""

Found = TypeVar("Found")


@dataclass
class GradientCheck:
    """Compares a model's gradient with finite differences of its score, once for each of the first few targets.

    Quantised layers may let no gradient through, so that it is 0 but for what goes past them; a head of its own may let
    none through for some classes.

    Attributes:
        done: The targets for which it was compared.
    """

    done: set[Hashable] = field(default_factory=set)

    def check(
        self,
        scores: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p t"]],
        x: Float[Tensor, "1 ..."],
        gradients: Float[Tensor, "1 t ..."],
        targets: Hashable = None,
    ) -> None:
        """Refuse gradients that are not those of the scores.

        Args:
            scores: From inputs `p s` to their scores.
            x: One input.
            gradients: Of its scores.
            targets: What the scores are those of.

        Raises:
            UnsupportedError: if the score changes otherwise than the gradient says along random directions.
        """
        if targets in self.done or len(self.done) >= _TARGETS:
            return
        self.done.add(targets)
        steps = _Steps(scores, x)
        slopes = torch.einsum("k...,t...->kt", steps.directions.double(), gradients[0].to(x).double()).cpu()
        for target in range(slopes.shape[1]):
            _check_target(steps, slopes[:, target], target)


class _Steps:
    """Changes of scores along random directions, which targets share.

    Args:
        scores: From inputs to their scores.
        x: The input from which steps are taken.
    """

    def __init__(self, scores: Callable[[Float[Tensor, "p ..."]], Float[Tensor, "p t"]], x: Float[Tensor, "1 ..."]):
        self.scores, self.x = scores, x
        directions = torch.randn(_MORE_DIRECTIONS, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
        self.directions = directions / directions.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        self._found: dict[tuple[float, int], Float[Tensor, "2 k t"]] = {}

    def length(self, step: float) -> float:
        """A step as a share of the input's length."""
        return step * float(self.x.norm())

    def changes(self, step: float, target: int, count: int) -> Float[Tensor, " k"] | None:
        """How much a step along each of so many directions changes a score; None if all is lost in rounding."""
        if (step, count) not in self._found:
            moved = self.length(step) * self.directions[:count]
            with torch.no_grad():
                found = self.scores(torch.cat([self.x + moved, self.x - moved])).double().cpu()
            self._found[step, count] = found.unflatten(0, (2, count))
        ahead, behind = self._found[step, count][..., target]
        changes = (ahead - behind) / 2
        size = torch.maximum(ahead.abs().max(), behind.abs().max())
        known = changes.abs() > _ROUNDING * torch.finfo(self.x.dtype).eps * (1 + size)
        return changes if bool(known.any()) else None


def _check_target(steps: _Steps, slopes: Float[Tensor, " k"], target: int) -> None:
    """Compare the gradient of one target.

    Raises:
        UnsupportedError: if it is not that of the score.
    """
    long, short = (steps.changes(step, target, _DIRECTIONS) for step in _STEPS)
    if long is None or short is None:
        return
    measured = long / steps.length(_STEPS[0]), short / steps.length(_STEPS[1])
    if not _far(*measured, _AGREEMENT):
        if _far(measured[1], slopes[:_DIRECTIONS], _MISSED):
            raise _wrong_gradient(measured[1], slopes[:_DIRECTIONS])
        return
    # Where the steps disagree the score is too steep to be measured, or its layers round, as quantised ones do: then
    # slopes do not settle however short the steps are.
    tiny = steps.changes(_TINY_STEP, target, _DIRECTIONS)
    if tiny is None or not _far(tiny / steps.length(_TINY_STEP), measured[1], _MISSED):
        return
    # Steps that are long enough rise above the noise; the gradient may be as far from them as they are from each other.
    for pair in pairwise(_LONGER_STEPS):
        near, far = (steps.changes(step, target, _MORE_DIRECTIONS) for step in pair)
        if near is None or far is None or _root_mean_square(near) <= _CLEAR * _root_mean_square(short):
            continue
        measured = near / steps.length(pair[0]), far / steps.length(pair[1])
        apart = _CLEAR * float((measured[0] - measured[1]).norm())
        if all(float((one - slopes).norm()) > apart and _far(one, slopes, _MISSED) for one in measured):
            raise _wrong_gradient(measured[0], slopes)
        return


def _root_mean_square(values: Float[Tensor, " k"]) -> float:
    return float(values.square().mean().sqrt())


def _wrong_gradient(measured: Float[Tensor, " k"], slopes: Float[Tensor, " k"]) -> UnsupportedError:
    return UnsupportedError(
        "The gradient of this model is not that of its score: along random directions the score changes by "
        f"{_listed(measured)} per unit, and the gradient says {_listed(slopes)}. {_REMEDY}"
    )


def _listed(slopes: Float[Tensor, " k"]) -> str:
    return ", ".join(f"{slope:.3g}" for slope in slopes[:_DIRECTIONS].tolist())


def _far(one: Float[Tensor, " k"], other: Float[Tensor, " k"], share: float) -> bool:
    """Whether two lists of slopes differ by more than a share of the larger."""
    return float((one - other).norm()) > share * float(torch.maximum(one.norm(), other.norm()))


_REMEDY = (
    "Quantised layers often let no gradient through, nor does what was detached or computed in "
    "torch.inference_mode(): load the model without quantisation, take such parts out, or use a method that hides "
    "parts (Occlusion, KernelShap, Lime, Sobol, Rise)."
)


def gradient_of(output: Tensor, leaf: Tensor, keep_graph: bool, seed: Tensor | None = None) -> Tensor:
    """The gradient of an output for a leaf.

    Raises:
        ModelError: if no gradient connects them.
        UnsupportedError: if the backward pass fails.
    """
    try:
        (found,) = torch.autograd.grad(output, leaf, seed, retain_graph=keep_graph, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # Reentrant checkpoints, operators without a backward pass, results changed in place.
        raise UnsupportedError(f"PyTorch cannot differentiate this model ({error}). {_REMEDY}") from error
    if found is None:
        raise not_differentiable()
    return found


def with_gradients(run: Callable[[], Found]) -> Found:
    """Run a model with gradients.

    Raises:
        UnsupportedError: if it runs only without.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # An error that comes without gradients too is the model's own. Modes that keep gradients on are not asked here.
        with torch.inference_mode():
            run()
        raise UnsupportedError(f"This model runs only without gradients ({error}). {_REMEDY}") from error


def not_differentiable() -> ModelError:
    """The error for a score that no gradient connects with the input."""
    return ModelError(f"The score does not depend on the input in a way that PyTorch can differentiate. {_REMEDY}")
