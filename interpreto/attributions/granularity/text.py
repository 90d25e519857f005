"""Units of a text: tokens, words, parts of sentences, sentences."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

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
        return _cut_up(self.name, self.split, sample)

    def labels(self, sample: TextSample) -> list[str]:
        """The units as pieces of the text."""
        return pieces(sample, self.units(sample))


@lru_cache(maxsize=256)
def _cut_up(name: str, split: Split, sample: TextSample) -> TextUnits:
    """The units of a sample; they are asked for again for their labels."""
    if sample.spans is None:
        raise InputError(
            f"granularity='{name}' needs to know where tokens lie in the text, which this tokenizer does not "
            "tell and which could not be found out; use a fast tokenizer, or granularity='token'."
        )
    index = torch.full_like(sample.sequence, -1)
    offset = 0
    for number, text in enumerate(sample.texts):
        starts = torch.tensor(_cut(split, text) or (0,))
        here = sample.sequence == number
        letters = _first_letters(text, sample.spans[here])
        index[here] = offset + (torch.searchsorted(starts, letters, right=True) - 1).clamp(min=0)
        offset += len(starts)
    return numbered(index)


@lru_cache(maxsize=256)
def _cut(split: Split, text: str) -> tuple[int, ...]:
    """Where units begin; methods that are compared cut the same text."""
    return tuple(split(text))


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
    index, sequence, ends = units.index.tolist(), sample.sequence.tolist(), sample.spans[:, 1].tolist()
    members: list[list[int]] = [[] for _ in range(units.shape[0])]
    # Up to where each text is taken by tokens before this one: by units, or by tokens of the text in no unit.
    reached, loose = [0] * len(sample.texts), [0] * len(sample.texts)
    begins = {}
    for position, unit in enumerate(index):
        if unit >= 0:
            if not members[unit]:
                begins[unit] = loose[sequence[position]]
            members[unit].append(position)
        elif sequence[position] >= 0:
            loose[sequence[position]] = ends[position]
    last = {sequence[positions[0]]: number for number, positions in enumerate(members)}
    whole = _reads_to_the_end(sample)
    out = []
    for number, positions in enumerate(members):
        text = sequence[positions[0]]
        if text < 0:
            out.append(sample.tokens[positions[0]])
            continue
        end = max(reached[text], *(ends[position] for position in positions))
        if number == last[text] and whole[text] and loose[text] < end:
            end = len(sample.texts[text])
        out.append(sample.texts[text][max(reached[text], begins[number]) : end])
        reached[text] = end
    return out


def _reads_to_the_end(sample: TextSample) -> list[bool]:
    """Whether nothing but white space follows the last token of each text (it does where a text was cut)."""
    assert sample.spans is not None
    ends = [
        int(sample.spans[sample.sequence == text, 1].max()) if (sample.sequence == text).any() else 0
        for text in range(len(sample.texts))
    ]
    return [not text[end:].strip() for text, end in zip(sample.texts, ends, strict=True)]


def words(text: str) -> list[int]:
    """Where words begin. Punctuation is a unit of its own, but not inside a word (don't, state-of-the-art, 3.5).

    Characters of scripts without spaces (Chinese, Japanese, Thai and their kin) stand alone.
    """
    kinds = [_kind(text, place) for place in range(len(text))]
    return [
        place
        for place, kind in enumerate(kinds)
        if kind != "space" and (place == 0 or kind == "alone" or kind != kinds[place - 1])
    ]


def _kind(text: str, place: int) -> str:
    letter = text[place]
    if letter.isspace():
        return "space"
    before, behind = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    if letter in "-'’.," and before.isalnum() and behind.isalnum():
        joined = letter in "-'’" or (before.isdigit() and behind.isdigit())
        return "word" if joined else "mark"
    if _UNSPACED.match(letter):
        return "alone"
    return "mark" if unicodedata.category(letter)[0] in "PS" else "word"


_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u1780-\u17ff]")
_ABBREVIATIONS = re.compile(r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|cf|Fig|No|Vol))\.$")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n+")
_PART_END = re.compile(r"[,;:](?=\s)|[，；：、]|\s[-–—]+(?=\s)|—")


def sentences(text: str) -> list[int]:
    """Where sentences begin: behind a full stop and its kin before white space, or at a new line."""
    ends = (end for end in _SENTENCE_END.finditer(text) if not _ABBREVIATIONS.search(text[: end.end()]))
    return _starts(text, (end.end() for end in ends))


def parts(text: str) -> list[int]:
    """Where parts of sentences begin: sentences, cut at commas, semicolons, colons and dashes too."""
    ends = [end.end() for end in _PART_END.finditer(text)]
    return _starts(text, sorted({*sentences(text), *ends}))


def _starts(text: str, ends: Iterable[int]) -> list[int]:
    """The first letter of the text and of what follows each end."""
    found = []
    for end in [0, *ends]:
        rest = text[end:].lstrip()
        if rest:
            found.append(len(text) - len(rest))
    return sorted(set(found))


def natural(sample: TextSample) -> Spans:
    """Words."""
    return Spans("word", words)
