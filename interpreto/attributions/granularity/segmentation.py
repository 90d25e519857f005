"""Where characters, words, clauses and sentences of a text begin, by ICU and sentencex."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import accumulate

import sentencex
from icu4py.breakers import CharacterBreaker, WordBreaker

_WINDOW = 4096
"""Letters that are cut into sentences at once, at first."""
_LINE = re.compile(r"[^\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_SPACE = re.compile(r"\s")
_CLAUSE_END = re.compile(r"[,;:](?=\s)|[，；：、،؛]|\s[-–—]+(?=\s)|—")

# The three rules in which sentencex, which looks one word ahead, differs from what is read in plain English texts.
_WORD_BEFORE_STOP = re.compile(r"\b(?:no|me|ok)\.(?=\s+[\"'“‘(]*[^\W\d])", re.IGNORECASE)
"""These abbreviate before a number alone ("No. 5"); sentencex has them as abbreviations before "I" and names."""
_STOP_IN_BRACKETS = re.compile(r"[.!?…][\"'”’]?[)\]](?=\s+[\"'“‘(]*[A-Z])")
"""A sentence that stands in brackets of its own."""
_NUMBERED = re.compile(r"(?:\b(?:vol|eqs?|approx|ch|tab|figs?|nos?|nr|pp?)\.|^\s*\(?\d{1,3}\.)\s*$", re.IGNORECASE)
"""What a number follows, or the number of a list's entry: no sentence."""


def words(text: str) -> list[int]:
    """Where words begin, by the word boundaries of Unicode (UAX 29) and ICU's dictionaries.

    Words of scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are found by dictionary. Marks and
    what joins emoji stay with what they follow. Words joined by hyphens are one word (state-of-the-art), and so are
    marks of punctuation side by side.
    """
    pieces = list(WordBreaker(text, "root"))
    starts = list(accumulate(map(len, pieces), initial=0))[:-1]
    fresh = (
        start
        for number, (start, piece) in enumerate(zip(starts, pieces, strict=True))
        if not piece.isspace() and not _goes_on(pieces, number)
    )
    return _first_letters(text, fresh)


def _goes_on(pieces: list[str], number: int) -> bool:
    """Whether a piece goes on with the word of the piece before it."""
    if number == 0:
        return False
    before, piece = pieces[number - 1], pieces[number]
    behind = pieces[number + 1] if number + 1 < len(pieces) else ""
    if _is_punctuation(piece) and _is_punctuation(before):
        return not _is_hyphen_in_word(pieces, number - 1)
    if piece in _HYPHENS:
        return _is_word(before) and _is_word(behind)
    return _is_hyphen_in_word(pieces, number - 1)


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
    """Whether it is a mark or a sign, but no picture: emoji stand alone."""
    category = unicodedata.category(piece[0])
    return category[0] in "PS" and category != "So"


def sentences(text: str) -> list[int]:
    """Where sentences begin; a new line begins one too."""
    return _first_letters(text, _sentence_starts(text))


def clauses(text: str) -> list[int]:
    """Where clauses begin: sentences, divided at commas, semicolons, colons and dashes too."""
    ends = (end.end() for end in _CLAUSE_END.finditer(text))
    return _first_letters(text, sorted({*_sentence_starts(text), *ends}))


def _sentence_starts(text: str) -> list[int]:
    starts = {0}
    for line in _LINE.finditer(text):
        if line.group().isspace():
            continue
        starts.add(line.start())
        # Every space as a plain one: sentencex stops with an error at some others. The length stays.
        written, place = _SPACE.sub(" ", line.group()), line.start()
        before = ""
        for sentence in _segmented(written):
            if not (_NUMBERED.search(before[-16:]) and (sentence[:1].isdigit() or before.strip()[:1].isdigit())):
                starts.add(place)
            place, before = place + len(sentence), sentence
        for rule in (_WORD_BEFORE_STOP, _STOP_IN_BRACKETS):
            starts.update(line.start() + end.end() for end in rule.finditer(written))
    return sorted(starts)


def _segmented(line: str) -> Iterator[str]:
    """The sentences of a line, as sentencex cuts it, some thousand letters at a time.

    It takes a time that grows with the square of the length where letters of several bytes end many sentences.
    """
    start, size = 0, _WINDOW
    while start < len(line):
        found: list[str] = list(sentencex.segment("en", line[start : start + size]))  # type: ignore[attr-defined]  # no stubs
        whole = start + size >= len(line)
        if len(found) == 1 and not whole:
            size *= 2
            continue
        # The last one may go on behind the window.
        kept = found if whole else found[:-1]
        yield from kept
        start, size = start + sum(map(len, kept)), _WINDOW


def _first_letters(text: str, starts: Iterable[int]) -> list[int]:
    """The first letter from each place on that is not white space; of several with the same letter, one."""
    letter = re.compile(r"\S")
    found = (letter.search(text, start) for start in starts)
    return sorted({match.start() for match in found if match is not None})


def character_ends(text: str) -> list[int]:
    """Where the characters that a person sees end: a letter with its marks, an emoji, a flag."""
    if text.isascii():
        return list(range(1, len(text) + 1))
    return list(accumulate(map(len, CharacterBreaker(text, "root"))))
