"""Generated tokens as targets: one by one, by unit, or all as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.model_wrapping.language.prefix_cache import PrefixCache
from interpreto.model_wrapping.targets import Contrast, Score, continuation_of, score_of
from interpreto.typing import Scores


@dataclass(frozen=True, eq=False)
class TokenTargets:
    """What is predicted at some positions of a text.

    Attributes:
        tokens: What is predicted: token ids, contrasts of ids, or functions of the outputs at a position.
        positions: At which position each of them stands, or would stand; it is predicted from the position before.
        target_of_token: Which target each of them belongs to; a target's score is the sum of those of its tokens.
        names: What to call the targets.
        is_sequence: Whether all tokens are one target, whatever the units.
        unchanged: What the model has computed of the unchanged text, None before it has.
    """

    tokens: tuple[int | Contrast | Score, ...]
    positions: Int[Tensor, " m"]
    target_of_token: Int[Tensor, " m"]
    names: tuple[str, ...]
    is_sequence: bool = False
    prefix_cache: PrefixCache | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def values(self) -> tuple[Any, ...]:
        """The target itself where it is one token, else all of its tokens."""
        own = [
            tuple(self.tokens[i] for i in (self.target_of_token == target).nonzero()[:, 0])
            for target in range(len(self))
        ]
        return tuple(tokens[0] if len(tokens) == 1 else tokens for tokens in own)

    @property
    def spec(self) -> Any:
        """All tokens, as one continuation."""
        return continuation_of(self.tokens)

    @property
    def causal_limit(self) -> Int[Tensor, " t"]:
        """A position has a say in all that is predicted behind it."""
        return torch.stack([self.positions[self.target_of_token == target].max() for target in range(len(self))])

    def own_positions(self, length: int) -> Bool[Tensor, "t l"]:
        """Which positions of a text of this length are part of each target."""
        out = torch.zeros(len(self), length, dtype=torch.bool)
        inside = self.positions < length
        out[self.target_of_token[inside], self.positions[inside]] = True
        return out

    @cached_property
    def query_positions(self) -> Int[Tensor, " q"]:
        """The positions whose outputs are needed, each once, in order."""
        return (self.positions - 1).unique()

    @cached_property
    def target_uses_position(self) -> Bool[Tensor, "t q"]:
        """Which of the positions `at` each target rests on."""
        out = torch.zeros(len(self), len(self.query_positions), dtype=torch.bool)
        out[self.target_of_token, torch.searchsorted(self.query_positions, self.positions - 1)] = True
        return out

    def token_scores(self, outputs: Float[Tensor, "p q k"], at: Int[Tensor, " q"]) -> Float[Tensor, "p _m"]:
        """Scores of the tokens that are predicted from the positions `at`, in the order of the tokens."""
        columns = torch.searchsorted(at, self.positions - 1).clamp(max=len(at) - 1)
        there = at[columns] == self.positions - 1
        chosen = [(token, int(c)) for token, c, t in zip(self.tokens, columns, there, strict=True) if t]
        ids = [token for token, _ in chosen if isinstance(token, int)]
        if len(ids) == len(chosen):
            return outputs[:, [column for _, column in chosen], ids]
        return torch.stack([score_of(token, outputs[:, column]) for token, column in chosen], dim=1)

    def summed(self, each: Float[Tensor, "p m"]) -> Scores:
        """Scores of targets from those of tokens."""
        return each.new_zeros(len(each), len(self)).index_add(1, self.target_of_token.to(each.device), each)

    def select(self, outputs: Float[Tensor, "p q k"]) -> Scores:
        """Targeted scores from outputs at the positions `at`."""
        return self.summed(self.token_scores(outputs, self.query_positions))

    def part(self, start: int, stop: int) -> "TokenTargets":
        """Some of the targets."""
        if start == 0 and stop >= len(self):
            return self
        kept = (self.target_of_token >= start) & (self.target_of_token < stop)
        tokens = tuple(token for token, keep in zip(self.tokens, kept.tolist(), strict=True) if keep)
        unchanged = None if self.prefix_cache is None else self.prefix_cache.of_tokens(kept)
        return TokenTargets(
            tokens,
            self.positions[kept],
            self.target_of_token[kept] - start,
            self.names[start:stop],
            self.is_sequence,
            unchanged,
        )

    def without_cache(self) -> "TokenTargets":
        """The same without keys and values."""
        return replace(self, prefix_cache=None)

    def by_unit(self, index: Int[Tensor, " l"], labels: Sequence[str]) -> "TokenTargets":
        """One target per unit of the generated text; tokens behind its end, or in no unit, stay as they are."""
        if self.is_sequence or int(self.positions.max()) >= len(index):
            return self
        units = index[self.positions].tolist()
        keys = [("unit", unit) if unit >= 0 else ("token", place) for place, unit in enumerate(units)]
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        target_of_token = torch.tensor([order[key] for key in keys])
        names = []
        for target, (kind, number) in enumerate(order):
            own = [self.names[i] for i in (target_of_token == target).nonzero()[:, 0].tolist()]
            whole = kind == "unit" and (index == number).sum() == len(own)
            plain = all(isinstance(self.tokens[i], int) for i in (target_of_token == target).nonzero()[:, 0].tolist())
            names.append(labels[number] if whole and plain else "".join(own))
        return replace(self, target_of_token=target_of_token, names=tuple(names))
