"""What is found out once about a model by running it: whether padding and gradients mean what they should."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import ModelError, UnsupportedError
from interpreto.model_wrapping.conversation import Answer, Ask
from interpreto.model_wrapping.targets import Everything

_TOLERANCE = 1e-4
"""By how much scores of one row may differ between batches; half precision rounds more, and runs lengths apart."""
_DIRECTIONS = 3
_STEPS = (1e-2, 1e-3)
"""Lengths of the two steps as shares of the input's."""
_AGREEMENT, _MISSED = 0.2, 0.5
"""By which share slopes of both steps may differ to be believed, and by which the gradient differs to be refused."""
_NOISE = 20
"""A change of the score below so many times its rounding error says nothing."""


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
        rng = torch.Generator().manual_seed(0)
        directions = torch.randn(_DIRECTIONS, *x.shape[1:], generator=rng).to(x)
        directions /= directions.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        slopes = (directions.double() * gradient.double()).flatten(1).sum(1).cpu()
        measured = []
        for step in _STEPS:
            size = step * float(x.norm())
            with torch.no_grad():
                found = score(torch.cat([x + size * directions, x - size * directions])).double().cpu()
            ahead, behind = found.chunk(2)
            changes = (ahead - behind) / 2
            if not bool((changes.abs() > _NOISE * torch.finfo(x.dtype).eps * (1 + found.abs().max())).any()):
                return
            measured.append(changes / size)
        # Where the two steps disagree the score is too steep or too noisy to be measured.
        if _far(measured[0], measured[1], _AGREEMENT) or not _far(measured[1], slopes, _MISSED):
            return
        raise UnsupportedError(
            "The gradient of this model is not that of its score: along a random direction the score changes by "
            f"{float(measured[1][0]):.3g} per unit, and the gradient says {float(slopes[0]):.3g}. {_REMEDY}"
        )


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


def not_differentiable() -> ModelError:
    """The error for a score that no gradient connects with the input."""
    return ModelError(f"The score does not depend on the input in a way that PyTorch can differentiate. {_REMEDY}")
