"""Spans of tokens in a text: from the tokenizer, or aligned with the text that the tokens decode to."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.inputs.tokenizing import tokenized

_CONTEXT = 8
"""Number of previous tokens that are decoded with a token, to keep its leading space."""
_INCOMPLETE = "\ufffd"
"""The character that a decoder writes for bytes that do not form a complete character."""


def are_possible(spans: Int[Tensor, "l 2"], text_index: Int[Tensor, " l"], texts: Sequence[str]) -> bool:
    """Whether offsets of a tokenizer are plausible: in the order of the text, within it, and not all empty."""
    for number, text in enumerate(texts):
        of_text = spans[text_index == number]
        if not len(of_text):
            continue
        begin, end = of_text[:, 0], of_text[:, 1]
        ordered = (begin <= end).all() and (begin.diff() >= 0).all() and (end.diff() >= 0).all()
        if not ordered or int(begin.min()) < 0 or int(end.max()) > len(text) or not (end > begin).any():
            return False
        # Tokens that share one character start together, and so do a space marker and the word after it; longer
        # stretches that start together are wrong.
        if len(of_text) > 2 and (begin == begin[0]).all() and int(end.max() - begin[0]) > 1:
            return False
    return True


def find(tokenizer: object, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """The spans of tokens in their text, for a tokenizer that does not return them; None rather than a guess."""
    if not ids:
        return torch.zeros(0, 2, dtype=torch.long)
    for spans in (
        _from_tokenizer(tokenizer, ids, text),
        _aligned(tokenizer, ids, text),
        _decoded(tokenizer, ids, text),
    ):
        if spans is not None:
            return spans
    return None


def _from_tokenizer(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """Offsets of a fast tokenizer, if it encodes the text as the same tokens."""
    if not tokenizer.is_fast:
        return None
    encoding = tokenized(tokenizer, text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = torch.tensor(encoding["offset_mapping"], dtype=torch.long).reshape(-1, 2)
    same = list(encoding["input_ids"]) == list(ids)
    return spans if same and are_possible(spans, torch.zeros(len(ids), dtype=torch.long), [text]) else None


def _aligned(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """Search each token after the previous one, with nothing but white space in between."""
    spans, end = torch.zeros(len(ids), 2, dtype=torch.long), 0
    lowered = text.lower()
    # Lower case may have another length ("\u0130" becomes two characters), which would shift all spans.
    if len(lowered) != len(text):
        return None
    for position, token in enumerate(ids):
        # "##" marks a continuation in WordPiece; lower case, for the tokenizer may be uncased.
        piece = tokenizer.decode([token], clean_up_tokenization_spaces=False).strip().removeprefix("##").lower()
        if not piece:
            # A token of white space only precedes the next word.
            n_spaces = len(text) - len(text[end:].lstrip()) - end
            spans[position] = torch.tensor([end, end + n_spaces])
            continue
        start = lowered.find(piece, end)
        if start < 0 or text[end:start].strip():
            return None
        end = start + len(piece)
        spans[position] = torch.tensor([start, end])
    return spans


def _decoded(tokenizer: Any, ids: Sequence[int], text: str) -> Int[Tensor, "l 2"] | None:
    """For byte-level tokens: decode ever more tokens; a token ends where the decoded text does."""

    def decode(some: Sequence[int]) -> str:
        return tokenizer.decode(list(some), clean_up_tokenization_spaces=False)

    # Decoded prefixes are positions in the text only if the whole decodes to it.
    if decode(ids) != text:
        return None
    ends, n_complete, complete_end = [0], 0, 0
    for count in range(1, len(ids) + 1):
        start = max(0, n_complete - _CONTEXT)
        piece = decode(ids[start:count])
        end = complete_end + len(piece.rstrip(_INCOMPLETE)) - len(decode(ids[start:n_complete]))
        ends.append(max(ends[-1], min(end, len(text))))
        # Only a text that ends in a complete character is a safe start for the next tokens.
        if not piece.endswith(_INCOMPLETE):
            n_complete, complete_end = count, end
    ends[-1] = len(text)
    bounds = torch.tensor(ends)
    return torch.stack([bounds[:-1], bounds[1:]], dim=1)
