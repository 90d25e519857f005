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
_NEARBY = 0.1
"""How far from the input the gradient is looked at once more, as a share of the input's length."""
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
            UnsupportedError: if the score changes otherwise than the gradient says along random directions, at the
                input and at a point nearby.
        """
        # Nothing is a share of an input that is zero, as baselines are: the next one tells.
        if targets in self.done or len(self.done) >= _TARGETS or not x.any():
            return
        self.done.add(targets)
        steps = _Steps(scores, x)
        for target, gradient in enumerate(gradients[0]):
            error = steps.compare(gradient, target)
            # Pixels of one colour tie under max pooling, and PyTorch follows one of them: there the score has a kink
            # and changes otherwise than any gradient says. At a point nearby it has none.
            if error is not None and steps.nearby().compare_own(target) is not None:
                raise error


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
        self._nearby: _Steps | None = None

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

    def compare(self, gradient: Float[Tensor, "..."], target: int) -> UnsupportedError | None:
        """The error for a gradient that is not that of the score."""
        slopes = torch.einsum("k...,...->k", self.directions.double(), gradient.to(self.x).double()).cpu()
        long, short = (self.changes(step, target, _DIRECTIONS) for step in _STEPS)
        if long is None or short is None:
            return None
        measured = long / self.length(_STEPS[0]), short / self.length(_STEPS[1])
        if not _far(*measured, _AGREEMENT):
            few = slopes[:_DIRECTIONS]
            return _wrong_gradient(measured[1], few) if _far(measured[1], few, _MISSED) else None
        # Where the steps disagree the score is too steep to be measured, or its layers round, as quantised ones do:
        # then slopes do not settle however short the steps are.
        tiny = self.changes(_TINY_STEP, target, _DIRECTIONS)
        if tiny is None or not _far(tiny / self.length(_TINY_STEP), measured[1], _MISSED):
            return None
        # Steps that are long enough rise above the noise; the gradient may be as far from them as they are from each
        # other.
        for pair in pairwise(_LONGER_STEPS):
            near, far = (self.changes(step, target, _MORE_DIRECTIONS) for step in pair)
            if near is None or far is None or _root_mean_square(near) <= _CLEAR * _root_mean_square(short):
                continue
            measured = near / self.length(pair[0]), far / self.length(pair[1])
            apart = _CLEAR * float((measured[0] - measured[1]).norm())
            missed = all(float((one - slopes).norm()) > apart and _far(one, slopes, _MISSED) for one in measured)
            return _wrong_gradient(measured[0], slopes) if missed else None
        return None

    def nearby(self) -> "_Steps":
        """Steps from a random point near the input."""
        if self._nearby is None:
            noise = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(1)).to(self.x)
            self._nearby = _Steps(self.scores, self.x + self.length(_NEARBY) * noise / noise.norm())
        return self._nearby

    def compare_own(self, target: int) -> UnsupportedError | None:
        """The error for the gradient that the model has at this very input."""
        leaf = self.x.detach().clone().requires_grad_()
        with torch.enable_grad():
            gradient = gradient_of(self.scores(leaf)[0, target], leaf, keep_graph=False)
        return self.compare(gradient[0], target)


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
    except (RuntimeError, AssertionError) as error:
        # Reentrant checkpoints, operators without a backward pass, results changed in place, a model's own functions.
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
    except (RuntimeError, AssertionError) as error:
        # An error that comes without gradients too is the model's own. Modes that keep gradients on are not asked here.
        with torch.inference_mode():
            run()
        raise UnsupportedError(f"This model runs only without gradients ({error}). {_REMEDY}") from error


def not_differentiable() -> ModelError:
    """The error for a score that no gradient connects with the input."""
    return ModelError(f"The score does not depend on the input in a way that PyTorch can differentiate. {_REMEDY}")
