"""Named stretches of a text as units: documents, turns, examples."""

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


@final
class Prompt(str):
    """A text made from a template and values, which knows where each value lies: `Prompt("{context} Q: {q}", ...)`.

    Attributes:
        segments: First and last character of every value, the last one excluded.

    Raises:
        OptionError: if the template is none, or a value is missing or is not in the template.
    """

    __slots__ = ("segments",)
    segments: Mapping[str, tuple[int, int]]

    def __new__(cls, template: str, /, **values: Any) -> "Prompt":
        text, segments = "", {}
        try:
            fields = list(Formatter().parse(template))
        except (ValueError, TypeError) as error:
            raise OptionError(
                f"{template!r} is no template ({error}); write a brace that is part of the text twice: {{{{ or }}}}."
            ) from error
        for literal, name, shape, conversion in fields:
            text += literal
            if name is None:
                continue
            if shape or conversion:
                raise OptionError(f"The template formats {{{name}}}; values go in as they are, so format them before.")
            if name not in values:
                raise OptionError(f"The template names {{{name}}}, which is not among the values {sorted(values)}.")
            if name in segments:
                raise OptionError(f"The template names {{{name}}} twice; a segment lies at one place.")
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
    """Each named stretch of the text is one unit; what lies between them is never hidden.

    What a language model generates is cut into words.

    Args:
        spans: A mapping from names to first and last characters, the last one excluded. None takes the values of a
            `Prompt`, or the messages of a chat.
    """

    spans: Any = field(default=None)

    def __post_init__(self) -> None:
        is_spans = isinstance(self.spans, Mapping) and all(
            isinstance(span, tuple | list) and len(span) == 2 and all(isinstance(place, Integral) for place in span)
            for span in self.spans.values()
        )
        if self.spans is not None and (not is_spans or not self.spans):
            raise OptionError(
                f"Segments({self.spans!r}) must map names to the first and last character, such as "
                "{'system': (0, 120)}."
            )

    def __str__(self) -> str:
        return "segments" if self.spans is None else f"segments {', '.join(map(str, self.spans))}"

    def units(self, sample: TextSample) -> TextUnits:
        """Which positions make up each unit.

        Raises:
            InputError: if spans overlap, lie outside the text, or end inside a token.
        """
        index = self._given(sample)
        behind = torch.arange(len(index)) >= len(index) - sample.generated
        if sample.generated:
            whole = Spans("word", words).units(sample).index
            index = torch.where(behind & (whole >= 0), whole + 1 + int(index.max()), index)
        return numbered(index)

    def labels(self, sample: TextSample) -> list[str]:
        """The units as pieces of the text."""
        return pieces(sample, self.units(sample))

    def _given(self, sample: TextSample) -> Int[Tensor, " l"]:
        prompts = len(sample.texts) - bool(sample.generated)
        whole = sample.texts[0]
        spans = self.spans if self.spans is not None else _known(sample)
        if spans is None:
            raw = sample.raw[0] if isinstance(sample.raw, tuple) else sample.raw
            # A chat of one message has the template around it.
            if prompts < 2 and raw == whole:
                raise InputError(
                    "Segments() takes the values of a Prompt or the messages of a chat; for any other text say where "
                    "they lie: Segments({'system': (0, 120), ...})."
                )
            return torch.where(sample.sequence < prompts, sample.sequence, -1)
        if prompts > 1:
            raise InputError(
                f"This prompt has {prompts} messages or texts, which are its segments: say Segments() without spans."
            )
        if sample.spans is None:
            raise InputError(f"Segments need to know where tokens lie in the text: {sample.no_spans}.")
        _check(spans, whole)
        index = torch.full_like(sample.sequence, -1)
        for number, (name, (start, end)) in enumerate(sorted(spans.items(), key=lambda item: item[1])):
            index[_inside(name, start, end, sample, whole)] = number
        return index


def _known(sample: TextSample) -> Mapping[str, tuple[int, int]] | None:
    """Where the values of a template lie, if the text was made from one."""
    raw = sample.raw[0] if isinstance(sample.raw, tuple) else sample.raw
    return raw.segments if isinstance(raw, Prompt) else None


def _check(spans: Mapping[str, tuple[int, int]], text: str) -> None:
    reached, before = 0, ""
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if not 0 <= start < end <= len(text):
            raise InputError(f"The segment {name!r}, {start} to {end}, does not lie in a text of {len(text)} letters.")
        if start < reached:
            raise InputError(f"The segments {before!r} and {name!r} overlap.")
        reached, before = end, name


def _inside(name: str, start: int, end: int, sample: TextSample, text: str) -> Tensor:
    """The tokens of a segment; white space at either end of a token may stick out."""
    assert sample.spans is not None
    own = sample.sequence == 0
    chosen = own & (sample.spans[:, 0] < end) & (sample.spans[:, 1] > start)
    kept = torch.zeros_like(chosen)
    for position in chosen.nonzero()[:, 0].tolist():
        first, last = sample.spans[position].tolist()
        within = text[max(first, start) : min(last, end)]
        outside = text[first : max(first, start)] + text[min(last, end) : last]
        if not outside.strip():
            kept[position] = True
        elif within.strip():
            token = f"{text[first:last]!r}, {first} to {last}"
            raise InputError(f"The segment {name!r}, {start} to {end}, ends inside the token {token}.")
    if not kept.any():
        raise InputError(f"The segment {name!r}, {start} to {end}, holds no token.")
    return kept
