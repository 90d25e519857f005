"""What is found out once about a model by running it: whether padding and gradients mean what they should."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError, UnsupportedError
from interpreto.model_wrapping.conversation import Answer, Ask
from interpreto.model_wrapping.targets import Everything

_TOLERANCE = 1e-4
"""By how much scores of one row may differ between batches; half precision rounds more, and runs lengths apart."""
_DIRECTIONS, _MORE_DIRECTIONS = 3, 12
"""Along how many random directions the score is measured: where it is exact, and where it is noisy."""
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
class PaddingCheck:
    """Keeps rows of different lengths apart where padding changes what a model says of the shorter ones.

    Some models read padding in spite of the attention mask: by convolutions, by pooling, by embeddings of neighbours.

    Attributes:
        invariant: Whether a padded row scores as it does alone; None as long as none was padded.
    """

    invariant: bool | None = None

    def answers(self, asks: Sequence[Ask], run: Callable[[Sequence[Ask]], list[Answer]]) -> list[Answer]:
        """Run asks of one kind, rows of one length at a time where that matters.

        Args:
            asks: What is asked.
            run: Answers asks as one batch.
        """
        lengths = sorted({ask.rows.length for ask in asks if len(ask.rows)})
        if len(lengths) > 1 and self.invariant is None:
            self.invariant = _scores_alike(asks, run)
        if len(lengths) < 2 or self.invariant:
            return run(asks)
        found: dict[int, Answer] = {}
        for length in lengths:
            places = [place for place, ask in enumerate(asks) if ask.rows.length == length]
            found |= dict(zip(places, run([asks[place] for place in places]), strict=True))
        return [found[place] for place in range(len(asks))]


def _scores_alike(asks: Sequence[Ask], run: Callable[[Sequence[Ask]], list[Answer]]) -> bool:
    """Whether the shortest row says the same alone and beside the longest."""
    ranked = sorted((ask.rows for ask in asks if len(ask.rows)), key=lambda rows: rows.length)
    short, long = (Ask(rows.take(slice(1)), Everything()) for rows in (ranked[0], ranked[-1]))
    alone, beside = run([short])[0].scores, run([short, long])[0].scores
    # Outputs that a model masks are infinite in both.
    known = alone.isfinite() & beside.isfinite()
    alone, beside = alone.where(known, 0), beside.where(known, 0)
    return bool((alone - beside).abs().max() <= _TOLERANCE * (1 + alone.abs().max()))


@dataclass
class GradientCheck:
    """Compares a model's gradient with finite differences of its score, once.

    Quantised layers may let no gradient through, so that it is 0 but for what goes past them.

    Attributes:
        done: Whether it was compared.
    """

    done: bool = False

    def check(
        self,
        score: Callable[[Float[Tensor, "p ..."]], Float[Tensor, " p"]],
        x: Float[Tensor, "1 ..."],
        gradient: Float[Tensor, "1 ..."],
    ) -> None:
        """Refuse a gradient that is not that of the score.

        Args:
            score: From inputs `p s` to their scores, `p`.
            x: One input.
            gradient: Of its score.

        Raises:
            UnsupportedError: if the score changes otherwise than the gradient says along random directions.
        """
        if self.done:
            return
        self.done = True
        directions = _directions(x)
        slopes = (directions.double() * gradient.double()).flatten(1).sum(1).cpu()
        few = slice(_DIRECTIONS)
        long, short = (_changes(score, x, directions[few], step) for step in _STEPS)
        if long is None or short is None:
            return
        measured = long / _length(x, _STEPS[0]), short / _length(x, _STEPS[1])
        if not _far(*measured, _AGREEMENT):
            if _far(measured[1], slopes[few], _MISSED):
                raise _wrong_gradient(measured[1], slopes[few])
            return
        # Where the steps disagree the score is too steep to be measured, or its layers round, as quantised ones do:
        # then slopes do not settle however short the steps are.
        tiny = _changes(score, x, directions[few], _TINY_STEP)
        if tiny is not None and _far(tiny / _length(x, _TINY_STEP), measured[1], _MISSED):
            _check_noisy(score, x, directions, slopes, _root_mean_square(short))


def _check_noisy(
    score: Callable[[Float[Tensor, "p ..."]], Float[Tensor, " p"]],
    x: Float[Tensor, "1 ..."],
    directions: Float[Tensor, "k ..."],
    slopes: Float[Tensor, " k"],
    noise: float,
) -> None:
    """Compare the gradient with steps that are long enough to rise above the noise.

    Raises:
        UnsupportedError: if it is further from both than they are from each other.
    """
    for steps in pairwise(_LONGER_STEPS):
        near, far = (_changes(score, x, directions, step) for step in steps)
        if near is None or far is None or _root_mean_square(near) <= _CLEAR * noise:
            continue
        measured = near / _length(x, steps[0]), far / _length(x, steps[1])
        apart = _CLEAR * float((measured[0] - measured[1]).norm())
        if all(float((one - slopes).norm()) > apart and _far(one, slopes, _MISSED) for one in measured):
            raise _wrong_gradient(measured[0], slopes)
        return


def _root_mean_square(values: Float[Tensor, " k"]) -> float:
    return float(values.square().mean().sqrt())


def _directions(x: Float[Tensor, "1 ..."]) -> Float[Tensor, "k ..."]:
    """Random directions of length 1, the same in every run."""
    found = torch.randn(_MORE_DIRECTIONS, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    return found / found.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def _length(x: Float[Tensor, "1 ..."], step: float) -> float:
    return step * float(x.norm())


def _changes(
    score: Callable[[Float[Tensor, "p ..."]], Float[Tensor, " p"]],
    x: Float[Tensor, "1 ..."],
    directions: Float[Tensor, "k ..."],
    step: float,
) -> Float[Tensor, " k"] | None:
    """How much a step along each direction changes the score; None if all changes are lost in rounding."""
    size = _length(x, step)
    with torch.no_grad():
        found = score(torch.cat([x + size * directions, x - size * directions])).double().cpu()
    ahead, behind = found.chunk(2)
    changes = (ahead - behind) / 2
    known = changes.abs() > _ROUNDING * torch.finfo(x.dtype).eps * (1 + found.abs().max())
    return changes if bool(known.any()) else None


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
    """
    (found,) = torch.autograd.grad(output, leaf, seed, retain_graph=keep_graph, allow_unused=True)
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
