"""The starts of words, clauses and sentences of a text, and the ends of its characters, by ICU and sentencex."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import accumulate

import sentencex
from icu4py.breakers import CharacterBreaker, WordBreaker

_WINDOW = 4096
"""Number of characters that are passed to sentencex at a time, at first."""
_LINE = re.compile(r"[^\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_SPACE = re.compile(r"\s")
_CLAUSE_END = re.compile(r"[,;:](?=\s)|[，；：、،؛]|\s[-–—]+(?=\s)|—")

# Three corrections of sentencex, which looks only one word ahead.
_WORD_BEFORE_STOP = re.compile(r"\b(?:no|me|ok)\.(?=\s+[\"'“‘(]*[^\W\d])", re.IGNORECASE)
"""Words that are abbreviations only before a number ("No. 5"); sentencex also joins them to a following "I" or name."""
_STOP_IN_BRACKETS = re.compile(r"[.!?…][\"'”’]?[)\]](?=\s+[\"'“‘(]*[A-Z])")
"""The end of a sentence in brackets."""
_NUMBERED = re.compile(r"(?:\b(?:vol|eqs?|approx|ch|tab|figs?|nos?|nr|pp?)\.|^\s*\(?\d{1,3}\.)\s*$", re.IGNORECASE)
"""An abbreviation before a number ("Fig. 3"), or the number of a list item: neither ends a sentence."""


def words(text: str) -> list[int]:
    """The starts of words, by the Unicode word boundaries (UAX 29) and ICU's dictionaries.

    Words of scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are found by dictionary. Combining
    marks and emoji joiners stay with the preceding character. Words joined by hyphens (state-of-the-art) are one word,
    and so are adjacent punctuation marks.
    """
    pieces = list(WordBreaker(text, "root"))
    starts = list(accumulate(map(len, pieces), initial=0))[:-1]
    new_words = (
        start
        for number, (start, piece) in enumerate(zip(starts, pieces, strict=True))
        if not piece.isspace() and not _continues_word(pieces, number)
    )
    return _first_non_spaces(text, new_words)


def _continues_word(pieces: list[str], number: int) -> bool:
    """Whether a piece belongs to the same word as the piece before it."""
    if number == 0:
        return False
    before, piece = pieces[number - 1], pieces[number]
    following = pieces[number + 1] if number + 1 < len(pieces) else ""
    # UAX 29 splits at every hyphen and punctuation mark; these rules join the pieces again.
    if _is_punctuation(piece) and _is_punctuation(before):
        return not _is_hyphen_in_word(pieces, number - 1)
    if piece in _HYPHENS:
        return _is_word(before) and _is_word(following)
    return _is_hyphen_in_word(pieces, number - 1)


# Hyphen-minus, hyphen, and non-breaking hyphen. Dashes separate words.
_HYPHENS = ("-", "\u2010", "\u2011")


def _is_hyphen_in_word(pieces: list[str], number: int) -> bool:
    return (
        0 < number < len(pieces) - 1
        and pieces[number] in _HYPHENS
        and _is_word(pieces[number - 1])
        and _is_word(pieces[number + 1])
    )


def _is_word(piece: str) -> bool:
    return any(map(str.isalnum, piece))


def _is_punctuation(piece: str) -> bool:
    """Whether it is punctuation or a symbol; emoji (category So) are words of their own."""
    category = unicodedata.category(piece[0])
    return category[0] in "PS" and category != "So"


def sentences(text: str) -> list[int]:
    """The starts of sentences; a new line also starts one."""
    return _first_non_spaces(text, _sentence_starts(text))


def clauses(text: str) -> list[int]:
    """The starts of clauses: sentences, further divided at commas, semicolons, colons and dashes."""
    ends = (end.end() for end in _CLAUSE_END.finditer(text))
    return _first_non_spaces(text, sorted({*_sentence_starts(text), *ends}))


def _sentence_starts(text: str) -> list[int]:
    starts = {0}
    for line in _LINE.finditer(text):
        if line.group().isspace():
            continue
        starts.add(line.start())
        # sentencex raises an error at some kinds of white space. Replacing each by a plain space keeps all offsets.
        normalized, start = _SPACE.sub(" ", line.group()), line.start()
        before = ""
        for sentence in _segmented(normalized):
            # sentencex splits "Fig." from "3" and "1." from its list item; such a start is left out.
            if not (_NUMBERED.search(before[-16:]) and (sentence[:1].isdigit() or before.strip()[:1].isdigit())):
                starts.add(start)
            start, before = start + len(sentence), sentence
        for rule in (_WORD_BEFORE_STOP, _STOP_IN_BRACKETS):
            starts.update(line.start() + end.end() for end in rule.finditer(normalized))
    return sorted(starts)


def _segmented(line: str) -> Iterator[str]:
    """The sentences of a line by sentencex, in windows of some thousand characters.

    The run time of sentencex grows with the square of the length if many sentences end in multi-byte characters.
    """
    start, size = 0, _WINDOW
    while start < len(line):
        window = line[start : start + size]
        sentences: list[str] = list(sentencex.segment("en", window))  # type: ignore[attr-defined]  # no stubs
        is_last = start + size >= len(line)
        if len(sentences) == 1 and not is_last:
            # No sentence ends in this window: try a larger one.
            size *= 2
            continue
        # The last sentence may continue beyond the window, so the next window begins with it again.
        complete = sentences if is_last else sentences[:-1]
        yield from complete
        start, size = start + sum(map(len, complete)), _WINDOW


def _first_non_spaces(text: str, starts: Iterable[int]) -> list[int]:
    """The first character at or after each start that is not white space, without duplicates."""
    non_space = re.compile(r"\S")
    matches = (non_space.search(text, start) for start in starts)
    return sorted({match.start() for match in matches if match is not None})


def character_ends(text: str) -> list[int]:
    """The ends of user-perceived characters (grapheme clusters): a letter with its marks, an emoji, a flag."""
    if text.isascii():
        return list(range(1, len(text) + 1))
    return list(accumulate(map(len, CharacterBreaker(text, "root"))))
