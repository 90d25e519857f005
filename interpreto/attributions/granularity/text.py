"""Units of a text: tokens, words, parts of sentences, sentences."""

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
"""From a text to the places where a new unit begins."""


@final
@dataclass(frozen=True)
class Tokens:
    """Every token; those that the tokenizer added only if `added`."""

    added: bool = False

    def units(self, sample: TextSample) -> TextUnits:
        """Which positions make up each unit."""
        chosen = torch.ones_like(sample.sequence).bool() if self.added else sample.sequence >= 0
        return numbered(torch.where(chosen, torch.arange(len(chosen)), -1))

    def labels(self, sample: TextSample) -> list[str]:
        """The units as pieces of the text."""
        return pieces(sample, self.units(sample))


@final
@dataclass(frozen=True)
class Spans:
    """The stretches of text that `split` finds; a token belongs to the one in which its first letter lies."""

    name: str
    split: Split

    def units(self, sample: TextSample) -> TextUnits:
        """Which positions make up each unit.

        Raises:
            InputError: if the tokenizer does not say where its tokens lie in the text.
        """
        if sample.spans is None:
            raise InputError(
                f"granularity='{self.name}' needs to know where tokens lie in the text: {sample.no_spans}; use a fast "
                "tokenizer, or granularity='token'."
            )
        index = torch.full_like(sample.sequence, -1)
        offset = 0
        for number, text in enumerate(sample.texts):
            starts = torch.tensor(self.split(text) or [0])
            here = sample.sequence == number
            letters = _first_letters(text, sample.spans[here])
            index[here] = offset + (torch.searchsorted(starts, letters, right=True) - 1).clamp(min=0)
            offset += len(starts)
        return numbered(index)

    def labels(self, sample: TextSample) -> list[str]:
        """The units as pieces of the text."""
        return pieces(sample, self.units(sample))


def _first_letters(text: str, spans: Int[Tensor, "s 2"]) -> Int[Tensor, " s"]:
    """Where each token's first character lies that is not white space."""
    found = []
    for start, end in spans.tolist():
        piece = text[start:end]
        found.append(start + len(piece) - len(piece.lstrip()) if piece.strip() else end)
    return torch.tensor(found, dtype=torch.long)


def numbered(index: Int[Tensor, " l"]) -> TextUnits:
    """Units 0 to g - 1 in the order of the text, whatever numbers they had; -1 stays."""
    inside = index >= 0
    if not inside.any():
        raise InputError("The text has no token of its own: there is nothing to explain.")
    known, renumbered = index[inside].unique(return_inverse=True)
    out = torch.full_like(index, -1)
    out[inside] = renumbered
    return TextUnits(out, (len(known),))


def pieces(sample: TextSample, units: TextUnits) -> list[str]:
    """The piece of text of every unit; joined they give back all of the text that was read, but for what is in no unit.

    White space goes with the unit behind it. Tokens that the tokenizer added have their own names.
    """
    if sample.spans is None:
        return [
            "".join(token for token, unit in zip(sample.tokens, units.index.tolist(), strict=True) if unit == number)
            for number in range(units.shape[0])
        ]
    # Plain numbers: one look at a tensor per unit would cost more than a small model.
    index, sequence = units.index.tolist(), sample.sequence.tolist()
    ends = _ends(sample)
    members: list[list[int]] = [[] for _ in range(units.shape[0])]
    # Up to where each text is taken by tokens before this one: by units, or by tokens of the text in no unit.
    reached = [start for start, _ in sample.read]
    loose = list(reached)
    begins = {}
    for position, unit in enumerate(index):
        if unit >= 0:
            if not members[unit]:
                begins[unit] = loose[sequence[position]]
            members[unit].append(position)
        elif sequence[position] >= 0:
            loose[sequence[position]] = ends[position]
    last = {sequence[positions[0]]: number for number, positions in enumerate(members)}
    out = []
    for number, positions in enumerate(members):
        text = sequence[positions[0]]
        if text < 0:
            out.append(sample.tokens[positions[0]])
            continue
        end = max(reached[text], *(ends[position] for position in positions))
        if number == last[text] and loose[text] < end:
            end = sample.read[text][1]
        out.append(sample.texts[text][max(reached[text], begins[number]) : end])
        reached[text] = end
    return out


def _ends(sample: TextSample) -> list[int]:
    """Where each token ends in its text, with the marks behind it that the tokenizer dropped.

    A normaliser may drop accents, vowel signs or variation selectors: they are read with what they follow.
    """
    assert sample.spans is not None
    spans, sequence = sample.spans.tolist(), sample.sequence.tolist()
    characters = [character_ends(text) for text in sample.texts]
    # Where the next token of the same text begins.
    limits = [end for _, end in sample.read]
    ends = [0] * len(spans)
    for position in reversed(range(len(spans))):
        text, (start, end) = sequence[position], spans[position]
        if text < 0:
            continue
        place = bisect_left(characters[text], end)
        whole = characters[text][place] if place < len(characters[text]) and end > start else end
        ends[position] = max(end, min(whole, limits[text]))
        limits[text] = start
    return ends


def default_segmenter(sample: TextSample) -> Spans:
    """Words."""
    return Spans("word", words)
