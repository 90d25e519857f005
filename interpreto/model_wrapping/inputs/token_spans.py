"""Where tokens lie in a text: told by the tokenizer, or found out from the text that the tokens give back."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.inputs.tokenizing import tokenized

_CONTEXT = 8
"""Tokens before a token that are decoded with it, so that a leading space is not lost."""
_INCOMPLETE = "\ufffd"


def are_possible(spans: Int[Tensor, "l 2"], sequence: Int[Tensor, " l"], texts: Sequence[str]) -> bool:
    """Whether a tokenizer's answer can be true: tokens in the order of the text, within it, not all of them empty."""
    for number, text in enumerate(texts):
        own = spans[sequence == number]
        if not len(own):
            continue
        begin, end = own[:, 0], own[:, 1]
        ordered = (begin <= end).all() and (begin.diff() >= 0).all() and (end.diff() >= 0).all()
        if not ordered or int(begin.min()) < 0 or int(end.max()) > len(text) or not (end > begin).any():
            return False
        # Tokens that share one character begin together, and so do a mark for a space and the word behind it.
        if len(own) > 2 and (begin == begin[0]).all() and int(end.max() - begin[0]) > 1:
            return False
    return True


def find(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """Where tokens lie in their text, for those of whom the tokenizer does not say so; None rather than a guess."""
    if not ids:
        return torch.zeros(0, 2, dtype=torch.long)
    for found in (_told(tokenizer, ids, text), _aligned(tokenizer, ids, text), _decoded(tokenizer, ids, text)):
        if found is not None:
            return found
    return None


def _told(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """What a fast tokenizer says where it makes the same tokens of the text."""
    if not tokenizer.is_fast:
        return None
    encoding = tokenized(tokenizer, text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = torch.tensor(encoding["offset_mapping"], dtype=torch.long).reshape(-1, 2)
    same = list(encoding["input_ids"]) == list(ids)
    return spans if same and are_possible(spans, torch.zeros(len(ids), dtype=torch.long), [text]) else None


def _aligned(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """Each token is looked for behind the one before; nothing but white space may lie between two of them."""
    spans, reached = torch.zeros(len(ids), 2, dtype=torch.long), 0
    lowered = text.lower()
    if len(lowered) != len(text):
        return None
    for position, token in enumerate(ids):
        wanted = tokenizer.decode([token], clean_up_tokenization_spaces=False).strip().removeprefix("##").lower()
        if not wanted:
            # A token of white space alone goes with the word behind it.
            space = len(text) - len(text[reached:].lstrip()) - reached
            spans[position] = torch.tensor([reached, reached + space])
            continue
        start = lowered.find(wanted, reached)
        if start < 0 or text[reached:start].strip():
            return None
        reached = start + len(wanted)
        spans[position] = torch.tensor([start, reached])
    return spans


def _decoded(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """The ends of what the first tokens give back, for tokens that are bytes: a character ends with its last one."""

    def decode(some: Sequence[int]) -> str:
        return tokenizer.decode(list(some), clean_up_tokenization_spaces=False)

    if decode(ids) != text:
        return None
    ends, known, reached = [0], 0, 0
    for count in range(1, len(ids) + 1):
        start = max(0, known - _CONTEXT)
        piece = decode(ids[start:count])
        end = reached + len(piece.rstrip(_INCOMPLETE)) - len(decode(ids[start:known]))
        ends.append(max(ends[-1], min(end, len(text))))
        if not piece.endswith(_INCOMPLETE):
            known, reached = count, end
    ends[-1] = len(text)
    found = torch.tensor(ends)
    return torch.stack([found[:-1], found[1:]], dim=1)
