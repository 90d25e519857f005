"""Units of a text: tokens, words, clauses, sentences."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.attributions.granularity.segmentation import character_ends, words
from interpreto.attributions.granularity.units import TextUnits
from interpreto.errors import InputError
from interpreto.model_wrapping.sample import TextSample

Split = Callable[[str], list[int]]
"""From a text to the character offsets at which units begin, in ascending order."""


@final
@dataclass(frozen=True)
class Tokens:
    """Every token is a unit; special tokens that the tokenizer added only if `added`."""

    added: bool = False

    def units(self, sample: TextSample) -> TextUnits:
        """The unit of every position."""
        chosen = torch.ones_like(sample.text_index).bool() if self.added else sample.text_index >= 0
        return numbered(torch.where(chosen, torch.arange(len(chosen)), -1))

    def labels(self, sample: TextSample) -> list[str]:
        """The piece of text of every unit."""
        return pieces(sample, self.units(sample))


@final
@dataclass(frozen=True)
class Spans:
    """Spans of the text between the offsets of `split`; a token belongs to the span of its first character.

    Attributes:
        name: Name of the granularity.
        split: From a text to the starts of its units.
    """

    name: str
    split: Split

    def units(self, sample: TextSample) -> TextUnits:
        """The unit of every position.

        Raises:
            InputError: if the tokenizer does not return the character offsets of its tokens.
        """
        if sample.spans is None:
            raise InputError(
                f"granularity='{self.name}' needs the character offsets of the tokens: {sample.no_spans}; use a fast "
                "tokenizer, or granularity='token'."
            )
        index = torch.full_like(sample.text_index, -1)
        offset = 0
        for number, text in enumerate(sample.texts):
            starts = torch.tensor(self.split(text) or [0])
            in_text = sample.text_index == number
            letters = _first_letters(text, sample.spans[in_text])
            # Tokens before the first start, such as one of white space, belong to the first unit.
            index[in_text] = offset + (torch.searchsorted(starts, letters, right=True) - 1).clamp(min=0)
            offset += len(starts)
        return numbered(index)

    def labels(self, sample: TextSample) -> list[str]:
        """The piece of text of every unit."""
        return pieces(sample, self.units(sample))


def _first_letters(text: str, spans: Int[Tensor, "s 2"]) -> Int[Tensor, " s"]:
    """The offset of each token's first character that is not white space; its end if it has none."""
    offsets = []
    for start, end in spans.tolist():
        piece = text[start:end]
        offsets.append(start + len(piece) - len(piece.lstrip()) if piece.strip() else end)
    return torch.tensor(offsets, dtype=torch.long)


def numbered(index: Int[Tensor, " l"]) -> TextUnits:
    """Renumber the units of an index to 0 ... g - 1 without changing their order; -1 stays.

    Raises:
        InputError: if no position belongs to a unit.
    """
    inside = index >= 0
    if not inside.any():
        raise InputError("The text has no tokens besides special tokens: there is nothing to explain.")
    # Some units can have no token, for example words that were truncated.
    numbers, renumbered = index[inside].unique(return_inverse=True)
    out = torch.full_like(index, -1)
    out[inside] = renumbered
    return TextUnits(out, (len(numbers),))


def pieces(sample: TextSample, units: TextUnits) -> list[str]:
    """The piece of text of every unit. Joined, the pieces are the text that the model read, except tokens in no unit.

    White space belongs to the piece that follows it. Special tokens that the tokenizer added are shown by their names.
    """
    if sample.spans is None:
        # Without offsets only the token strings are known.
        return [
            "".join(token for token, unit in zip(sample.tokens, units.index.tolist(), strict=True) if unit == number)
            for number in range(units.shape[0])
        ]
    # Lists, because indexing a tensor once per position would take longer than running a small model.
    index, text_index = units.index.tolist(), sample.text_index.tolist()
    ends = _ends(sample)
    members: list[list[int]] = [[] for _ in range(units.shape[0])]
    # Per text: the end of the pieces so far, and the end of the last token that belongs to no unit. The text of such
    # tokens is part of no piece.
    reached = [start for start, _ in sample.read]
    unassigned_end = list(reached)
    begins = {}
    for position, unit in enumerate(index):
        if unit >= 0:
            if not members[unit]:
                begins[unit] = unassigned_end[text_index[position]]
            members[unit].append(position)
        elif text_index[position] >= 0:
            unassigned_end[text_index[position]] = ends[position]
    last_unit = {text_index[positions[0]]: number for number, positions in enumerate(members)}
    out = []
    for number, positions in enumerate(members):
        text = text_index[positions[0]]
        if text < 0:
            out.append(sample.tokens[positions[0]])
            continue
        end = max(reached[text], *(ends[position] for position in positions))
        if number == last_unit[text] and unassigned_end[text] < end:
            # White space at the end of the text has no unit after it.
            end = sample.read[text][1]
        out.append(sample.texts[text][max(reached[text], begins[number]) : end])
        reached[text] = end
    return out


def _ends(sample: TextSample) -> list[int]:
    """The end of each token in its text, extended by following characters that the tokenizer dropped.

    A normalizer may drop accents, vowel signs or variation selectors, so that offsets end before them. They belong to
    the character that they modify.
    """
    assert sample.spans is not None
    spans, text_index = sample.spans.tolist(), sample.text_index.tolist()
    characters = [character_ends(text) for text in sample.texts]
    # The start of the next token of the same text, found by going backwards: no token may extend beyond it.
    limits = [end for _, end in sample.read]
    ends = [0] * len(spans)
    for position in reversed(range(len(spans))):
        text, (start, end) = text_index[position], spans[position]
        if text < 0:
            continue
        # The end of the grapheme cluster that the token's last character is part of.
        number = bisect_left(characters[text], end)
        cluster_end = characters[text][number] if number < len(characters[text]) and end > start else end
        ends[position] = max(end, min(cluster_end, limits[text]))
        limits[text] = start
    return ends


def default_segmenter(sample: TextSample, cost_independent_of_units: bool) -> Spans:
    """Words, for every text and cost."""
    return Spans("word", words)
