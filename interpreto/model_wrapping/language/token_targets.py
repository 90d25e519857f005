"""Tokens of a continuation as targets: one by one, by unit, or all as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpreto.model_wrapping.language.prefix_cache import PrefixCache
from interpreto.model_wrapping.targets import Contrast, TargetFunction, continuation_of, score_of
from interpreto.typing import Scores


@dataclass(frozen=True, eq=False)
class TokenTargets:
    """The tokens, or functions of the outputs, that are predicted at some positions of a text.

    Attributes:
        tokens: Token ids, contrasts of ids, or functions of the outputs at a position.
        positions: The position of each token; it is predicted from the outputs at the position before.
        target_of_token: The target to which each token belongs; a target's score is the sum over its tokens.
        names: Names of the targets.
        is_sequence: Whether all tokens are one target, whatever the units.
        prefix_cache: The model's state for the unperturbed text; None before it has run.
    """

    tokens: tuple[int | Contrast | TargetFunction, ...]
    positions: Int[Tensor, " m"]
    target_of_token: Int[Tensor, " m"]
    names: tuple[str, ...]
    is_sequence: bool = False
    prefix_cache: PrefixCache | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def values(self) -> tuple[Any, ...]:
        """The token of each target, or a tuple if it has several."""
        tokens_of_targets = [
            tuple(self.tokens[i] for i in (self.target_of_token == target).nonzero()[:, 0])
            for target in range(len(self))
        ]
        return tuple(tokens[0] if len(tokens) == 1 else tokens for tokens in tokens_of_targets)

    @property
    def spec(self) -> Any:
        """All tokens, as one continuation."""
        return continuation_of(self.tokens)

    @property
    def causal_limit(self) -> Int[Tensor, " t"]:
        """A position can influence all tokens after it, so the last token of a target is its limit."""
        return torch.stack([self.positions[self.target_of_token == target].max() for target in range(len(self))])

    def own_positions(self, length: int) -> Bool[Tensor, "t l"]:
        """The positions of a text of this length that are part of each target."""
        out = torch.zeros(len(self), length, dtype=torch.bool)
        # A function of the next output is predicted at a position after the end of the text.
        is_inside = self.positions < length
        out[self.target_of_token[is_inside], self.positions[is_inside]] = True
        return out

    @cached_property
    def query_positions(self) -> Int[Tensor, " q"]:
        """The positions whose outputs are used, sorted and without duplicates."""
        return (self.positions - 1).unique()

    @cached_property
    def target_uses_position(self) -> Bool[Tensor, "t q"]:
        """Which of the query positions each target uses."""
        out = torch.zeros(len(self), len(self.query_positions), dtype=torch.bool)
        out[self.target_of_token, torch.searchsorted(self.query_positions, self.positions - 1)] = True
        return out

    def token_scores(self, outputs: Float[Tensor, "p q k"], at: Int[Tensor, " q"]) -> Float[Tensor, "p _m"]:
        """Scores of the tokens that are predicted from the positions `at`, in the order of the tokens."""
        columns = torch.searchsorted(at, self.positions - 1).clamp(max=len(at) - 1)
        is_requested = at[columns] == self.positions - 1
        chosen = [(token, int(c)) for token, c, t in zip(self.tokens, columns, is_requested, strict=True) if t]
        ids = [token for token, _ in chosen if isinstance(token, int)]
        # Plain tokens are indexed in one step; contrasts and functions are scored one by one.
        if len(ids) == len(chosen):
            return outputs[:, [column for _, column in chosen], ids]
        return torch.stack([score_of(token, outputs[:, column]) for token, column in chosen], dim=1)

    def summed(self, each: Float[Tensor, "p m"]) -> Scores:
        """Scores of targets from those of their tokens."""
        return each.new_zeros(len(each), len(self)).index_add(1, self.target_of_token.to(each.device), each)

    def select(self, outputs: Float[Tensor, "p q k"]) -> Scores:
        """Scores of targets from outputs at the query positions."""
        return self.summed(self.token_scores(outputs, self.query_positions))

    def part(self, start: int, stop: int) -> "TokenTargets":
        """Some of the targets."""
        if start == 0 and stop >= len(self):
            return self
        is_selected = (self.target_of_token >= start) & (self.target_of_token < stop)
        tokens = tuple(token for token, keep in zip(self.tokens, is_selected.tolist(), strict=True) if keep)
        prefix_cache = None if self.prefix_cache is None else self.prefix_cache.select_tokens(is_selected)
        return TokenTargets(
            tokens,
            self.positions[is_selected],
            self.target_of_token[is_selected] - start,
            self.names[start:stop],
            self.is_sequence,
            prefix_cache,
        )

    def without_cache(self) -> "TokenTargets":
        """The same targets without keys and values."""
        return replace(self, prefix_cache=None)

    def by_unit(self, index: Int[Tensor, " l"], labels: Sequence[str]) -> "TokenTargets":
        """One target per unit of the continuation; tokens after the text, or in no unit, stay targets of their own."""
        if self.is_sequence or int(self.positions.max()) >= len(index):
            return self
        units = index[self.positions].tolist()
        keys = [("unit", unit) if unit >= 0 else ("token", place) for place, unit in enumerate(units)]
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        target_of_token = torch.tensor([order[key] for key in keys])
        names = []
        for target, (kind, number) in enumerate(order):
            own_names = [self.names[i] for i in (target_of_token == target).nonzero()[:, 0].tolist()]
            # A unit of which only some tokens are explained, or which contains contrasts, is named by its tokens.
            is_complete = kind == "unit" and (index == number).sum() == len(own_names)
            are_ids = all(isinstance(self.tokens[i], int) for i in (target_of_token == target).nonzero()[:, 0].tolist())
            names.append(labels[number] if is_complete and are_ids else "".join(own_names))
        return replace(self, target_of_token=target_of_token, names=tuple(names))
