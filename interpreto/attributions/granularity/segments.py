"""Named spans of a text as units: documents, turns of a chat, few-shot examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from string import Formatter
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.attributions.granularity.segmentation import words
from interpreto.attributions.granularity.text import Spans, numbered, pieces
from interpreto.attributions.granularity.units import TextUnits
from interpreto.errors import InputError, OptionError
from interpreto.model_wrapping.sample import TextSample
from interpreto.type_guards import are_all, is_list


@final
class Prompt(str):
    """A text made from a template and values that records the span of each value: `Prompt("{context} Q: {q}", ...)`.

    Attributes:
        segments: Start and end (exclusive) of every value, in characters.

    Raises:
        OptionError: if the template is invalid, a value is missing, or a value does not occur in the template.
    """

    __slots__ = ("segments",)
    segments: Mapping[str, tuple[int, int]]

    def __new__(cls, template: str, /, **values: Any) -> "Prompt":
        text, segments = "", {}
        try:
            fields = list(Formatter().parse(template))
        except (ValueError, TypeError) as error:
            raise OptionError(
                f"{template!r} is not a template ({error}); double a brace that is part of the text: {{{{ or }}}}."
            ) from error
        for literal, name, shape, conversion in fields:
            text += literal
            if name is None:
                continue
            if shape or conversion:
                raise OptionError(
                    f"The template formats {{{name}}}; values are inserted as they are, so format them before."
                )
            if name not in values:
                raise OptionError(f"The template names {{{name}}}, which is not among the values {sorted(values)}.")
            if name in segments:
                raise OptionError(f"The template names {{{name}}} twice; a segment has one position.")
            if not isinstance(values[name], str):
                raise OptionError(f"The value of {{{name}}} must be a string, not {type(values[name]).__name__}.")
            segments[name] = (len(text), len(text) + len(values[name]))
            text += values[name]
        if unused := sorted(set(values) - set(segments)):
            raise OptionError(f"The values {unused} are not in the template {template!r}.")
        prompt = str.__new__(cls, text)
        prompt.segments = segments
        return prompt


@final
@dataclass(frozen=True)
class Segments:
    """Each named span of the text is one unit; text between them belongs to no unit and is never masked.

    The units of a generated continuation are its words.

    Args:
        spans: A mapping from names to start and end (exclusive), in characters. None takes the values of a `Prompt`, or
            the messages of a chat.
    """

    spans: Any = field(default=None)

    def __post_init__(self) -> None:
        is_spans = isinstance(self.spans, Mapping) and all(
            is_list(span) and len(span) == 2 and are_all(Integral, span) for span in self.spans.values()
        )
        if self.spans is not None and (not is_spans or not self.spans):
            raise OptionError(
                f"Segments({self.spans!r}) must map names to start and end in characters, such as "
                "{'system': (0, 120)}."
            )

    def __str__(self) -> str:
        return "segments" if self.spans is None else f"segments {', '.join(map(str, self.spans))}"

    def units(self, sample: TextSample) -> TextUnits:
        """The segment of every position.

        Raises:
            InputError: if spans overlap, are outside the text, or end inside a token.
        """
        index = self._prompt_index(sample)
        is_generated = torch.arange(len(index)) >= len(index) - sample.generated
        if sample.generated:
            # Numbered after the segments; `numbered` closes the gaps.
            word_index = Spans("word", words).units(sample).index
            index = torch.where(is_generated & (word_index >= 0), word_index + 1 + int(index.max()), index)
        return numbered(index)

    def labels(self, sample: TextSample) -> list[str]:
        """The piece of text of every unit."""
        return pieces(sample, self.units(sample))

    def _prompt_index(self, sample: TextSample) -> Int[Tensor, " l"]:
        """The segment of every position of the prompt, -1 for all others."""
        # The continuation is the last of the texts.
        prompts = len(sample.texts) - bool(sample.generated)
        text = sample.texts[0]
        spans = self.spans if self.spans is not None else _prompt_spans(sample)
        if spans is None:
            raw = sample.raw[0] if isinstance(sample.raw, tuple) else sample.raw
            # With one text and no Prompt this is a plain text, unless it is a chat of a single message: its raw text is
            # the rendered chat template, which differs from the message.
            if prompts < 2 and raw == text:
                raise InputError(
                    "Segments() takes the values of a Prompt or the messages of a chat; for any other text pass the "
                    "spans: Segments({'system': (0, 120), ...})."
                )
            return torch.where(sample.text_index < prompts, sample.text_index, -1)
        if prompts > 1:
            raise InputError(
                f"This prompt has {prompts} messages or texts, which are its segments: use Segments() without spans."
            )
        if sample.spans is None:
            raise InputError(f"Segments need the character offsets of the tokens: {sample.no_spans}.")
        _check(spans, text)
        index = torch.full_like(sample.text_index, -1)
        for number, (name, (start, end)) in enumerate(sorted(spans.items(), key=lambda item: item[1])):
            index[_inside(name, start, end, sample, text)] = number
        return index


def _prompt_spans(sample: TextSample) -> Mapping[str, tuple[int, int]] | None:
    """The spans of the values if the text is a `Prompt`, else None."""
    raw = sample.raw[0] if isinstance(sample.raw, tuple) else sample.raw
    return raw.segments if isinstance(raw, Prompt) else None


def _check(spans: Mapping[str, tuple[int, int]], text: str) -> None:
    """Check that spans are inside the text and do not overlap.

    Raises:
        InputError: if they are not.
    """
    previous_end, previous = 0, ""
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"The segment {name!r}, {start} to {end}, is not inside the text of {len(text)} characters."
            )
        if start < previous_end:
            raise InputError(f"The segments {previous!r} and {name!r} overlap.")
        previous_end, previous = end, name


def _inside(name: str, start: int, end: int, sample: TextSample, text: str) -> Tensor:
    """The tokens of a segment, as a mask of positions.

    Raises:
        InputError: if the segment ends inside a token, or contains no token.
    """
    assert sample.spans is not None
    in_prompt = sample.text_index == 0
    chosen = in_prompt & (sample.spans[:, 0] < end) & (sample.spans[:, 1] > start)
    kept = torch.zeros_like(chosen)
    for position in chosen.nonzero()[:, 0].tolist():
        first, last = sample.spans[position].tolist()
        # Many tokens include the space before a word (" the"), so white space may extend beyond the segment. Letters
        # may not: they would be masked with it.
        within = text[max(first, start) : min(last, end)]
        outside = text[first : max(first, start)] + text[min(last, end) : last]
        if not outside.strip():
            kept[position] = True
        elif within.strip():
            token = f"{text[first:last]!r}, {first} to {last}"
            raise InputError(f"The segment {name!r}, {start} to {end}, ends inside the token {token}.")
    if not kept.any():
        raise InputError(f"The segment {name!r}, {start} to {end}, contains no token.")
    return kept
