"""What follows a prompt: said by the user, or generated."""

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.errors import InputError, OptionError, TargetError
from interpreto.model_wrapping.execution.randomness import OwnGenerator
from interpreto.model_wrapping.inputs.text_checks import check_characters
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.targets import Contrast, Score

_CONTEXT = 8
"""Tokens before a continuation that are decoded with it, so that a leading space is not lost."""

_NEW = 20
"""Tokens to generate where neither the model nor the user says how many."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE")
"""How the Unicode names of letters begin whose scripts put no space between words."""

_LEADS = ("", "\n", "=", "a")
"""What may stand before a continuation while it is tokenised, for tokenizers that put a space before their texts."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """Tokens behind a prompt, and what is asked about them.

    Attributes:
        ids: The tokens.
        said: Their text.
        spans: Where each token lies in it.
        asked: What is explained at each place from the end of the prompt on: ids, contrasts, functions; None for
            places about which nothing is asked.
    """

    ids: Int[Tensor, " m"]
    said: str
    spans: Int[Tensor, "m 2"]
    asked: tuple[int | Contrast | Score | None, ...]


def check(spec: Any, text: TextModel) -> None:
    """Refuse what cannot be a target of a language model.

    Raises:
        TargetError: if it is of no known kind, empty, or a contrast of different lengths.
    """
    if spec is None or callable(spec) or isinstance(spec, slice):
        return
    if isinstance(spec, tuple) and spec and all(map(callable, spec)):
        return
    _said(spec, text, [])


def of(spec: Any, text: TextModel, prompt: TextSample) -> Continuation | None:
    """What the user's target says of what follows a prompt; None where the model is to generate.

    Raises:
        TargetError: as for `check`.
    """
    if spec is None or isinstance(spec, slice):
        return None
    functions = spec if isinstance(spec, tuple) else (spec,)
    if functions and all(map(callable, functions)):
        nothing = torch.zeros(0, dtype=torch.long)
        return Continuation(nothing, "", torch.zeros(0, 2, dtype=torch.long), functions)
    return _said(spec, text, prompt.rows.fields["input_ids"][0].tolist())


def warn_of_seam(spec: Any, prompt: TextSample) -> None:
    """Warn where a continuation given as text begins where no word can: right behind a word of the prompt."""
    if int(prompt.sequence[-1]) < 0:
        # The prompt ends in a token of the template, behind which a word may begin.
        return
    given = (spec.fact, spec.foil) if isinstance(spec, Contrast) else (spec,)
    end = prompt.texts[-1]
    for said in given:
        if not isinstance(said, str) or not said or not end:
            continue
        if _spaced(said[0]) and not (end[-1].isspace() or _opens(end[-1])):
            what, cure = "begins with a letter and the prompt does not end in white space", f"targets={' ' + said!r}"
        elif end[-1] == said[0] == " ":
            what, cure = "begins with a space and the prompt ends in one", f"targets={said.lstrip(' ')!r}"
        else:
            continue
        warnings.warn(
            f"The target {said[:40]!r} {what}, so that together they read {(end + said)[-len(said) - 12 :][:52]!r}: no "
            f"space is added or taken away. If a word of its own is meant, pass {cure}; token ids are never warned of.",
            stacklevel=2,
        )


def _spaced(letter: str) -> bool:
    """Whether it is a letter of a script that puts spaces between words."""
    return letter.isalpha() and unicodedata.name(letter, "").split(" ")[0] not in _UNSPACED


def _opens(letter: str) -> bool:
    """Whether a word may begin right behind it: an opening bracket, a quote, a dash or a symbol."""
    return unicodedata.category(letter) in ("Ps", "Pi", "Pd", "Pc") or letter in "\"'/@#$\\"


def generated(
    model: Any, text: TextModel, prompt: TextSample, options: Mapping[str, Any], span: slice | None, seed: int
) -> Continuation:
    """What the model itself says next, with its own generation config.

    Raises:
        InputError: if it says nothing, or nothing within the span.
    """
    ids = prompt.rows.fields["input_ids"].to(text.device)
    given = dict(options)
    config = given.get("generation_config", model.generation_config)
    pad = (config.pad_token_id, config.eos_token_id, 0)
    given.setdefault("pad_token_id", next(p[0] if isinstance(p, list) else p for p in pad if p is not None))
    if given.get("num_return_sequences", 1) != 1:
        raise OptionError("num_return_sequences is 1 here: one continuation of a prompt is explained at a time.")
    if "stop_strings" in given:
        given.setdefault("tokenizer", text.tokenizer)
    _make_room(given, config, ids.shape[1], text.limit)
    try:
        with OwnGenerator(seed):
            mask = prompt.rows.fields["attention_mask"].to(text.device)
            out = model.generate(ids, attention_mask=mask, **given)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if not options:
            raise
        raise OptionError(f"generate() does not take generation_kwargs={dict(options)}: {error}") from error
    found = getattr(out, "sequences", out)[0, ids.shape[1] :].cpu()
    # What ends the text is no part of it.
    special = torch.isin(found, torch.tensor(text.tokenizer.all_special_ids, dtype=found.dtype))
    found = found[: int((~special).nonzero().max()) + 1] if (~special).any() else found[:0]
    if not len(found):
        raise InputError("The model generates nothing for this prompt but the end of the text; give a continuation.")
    said = _spoken(text, prompt.rows.fields["input_ids"][0].tolist(), found.tolist())
    wanted = set(range(len(found))[span or slice(None)])
    if not wanted:
        raise TargetError(f"targets={span} chooses none of the {len(found)} generated tokens.")
    return Continuation(found, *said, tuple(t if i in wanted else None for i, t in enumerate(found.tolist())))


def _make_room(given: dict[str, Any], config: Any, length: int, limit: int) -> None:
    """Say how many tokens may be generated where the user did not, no more than the model can read.

    Raises:
        InputError: if the prompt leaves no room for them.
    """
    room = limit - length
    wanted = given.get("max_new_tokens")
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int | np.integer)):
        raise OptionError(f"max_new_tokens={wanted!r} of generation_kwargs= must be a whole number.")
    if room < 1 or (wanted is not None and wanted > room):
        raise InputError(
            f"The prompt has {length} tokens and the model reads at most {limit}: there is no room for "
            f"{wanted or 'any'} new tokens; shorten the prompt{'' if room < 1 else ', or generate fewer'}."
        )
    if wanted is None and "max_length" not in given:
        usual = config.max_new_tokens or (_NEW if config.max_length is None else config.max_length - length)
        given["max_new_tokens"] = max(1, min(usual, room))


def _said(spec: Any, text: TextModel, before: Sequence[int]) -> Continuation:
    if not isinstance(spec, Contrast):
        ids, said, spans = _tokens(spec, text, before)
        return Continuation(torch.tensor(ids), said, spans, tuple(ids))
    ids, said, spans = _tokens(spec.fact, text, before)
    against, _, _ = _tokens(spec.foil, text, before)
    if len(ids) != len(against):
        one, other = (text.tokenizer.convert_ids_to_tokens(tokens) for tokens in (ids, against))
        raise TargetError(
            f"Contrast({spec.fact!r}, {spec.foil!r}) compares {len(ids)} tokens with {len(against)}: {one} and "
            f"{other}. A contrast needs as many of both; give the ids of those to compare."
        )
    return Continuation(torch.tensor(ids), said, spans, tuple(map(Contrast, ids, against)))


def _tokens(spec: Any, text: TextModel, before: Sequence[int]) -> tuple[list[int], str, Int[Tensor, "m 2"]]:
    if isinstance(spec, str):
        return _encoded(spec, text, before)
    spec = spec.tolist() if isinstance(spec, Tensor | np.ndarray | np.generic) else spec
    ids = [spec] if isinstance(spec, int) and not isinstance(spec, bool) else spec
    if not isinstance(ids, tuple | list) or not all(isinstance(token, int) for token in ids):
        raise TargetError(
            f"{spec!r} is no target of a language model; give None (its own generation), a slice of it, one "
            "continuation as a string or token ids, Contrast(a, b), or a function of the next outputs."
        )
    if not ids:
        raise TargetError("The continuation has no tokens: there is nothing to explain.")
    try:
        text.check_ids(ids)
    except InputError as error:
        raise TargetError(f"The continuation cannot be read. {error}") from None
    return list(ids), *_spoken(text, before, list(ids))


def _encoded(said: str, text: TextModel, before: Sequence[int]) -> tuple[list[int], str, Int[Tensor, "m 2"]]:
    """The tokens of a continuation, with nothing added in front."""
    tokenizer = text.tokenizer
    check_characters(said)
    if not tokenizer.is_fast:
        ids = text.tokenize(said)
        if not ids:
            raise TargetError(f"The continuation {said!r} has no tokens: there is nothing to explain.")
        return ids, *_spoken(text, before, ids)
    first = None
    for lead in _LEADS:
        encoding = tokenized(
            tokenizer, lead + said, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, spans = encoding["input_ids"], torch.tensor(encoding["offset_mapping"]).reshape(-1, 2) - len(lead)
        own = (spans[:, 1] > 0).nonzero()[:, 0].tolist()
        if not own:
            raise TargetError(f"The continuation {said!r} has no tokens: there is nothing to explain.")
        if int(spans[own[0], 0]) < 0:
            continue
        tokens = ids[own[0] :]
        found = tokens, said, spans[own[0] :].clamp(min=0)
        if _spoken(text, before, tokens)[0] == said:
            return found
        first = first or found
    # A tokenizer that rewrites its texts (lower case) gives none back as it was.
    assert first is not None
    return first


def _spoken(text: TextModel, before: Sequence[int], ids: list[int]) -> tuple[str, Int[Tensor, "m 2"]]:
    """The text of tokens that follow others, and where each of them lies in it."""
    decode = partial(text.tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    context = list(before[-_CONTEXT:])
    start = decode(context) if context else ""
    whole = decode([*context, *ids])
    if not whole.startswith(start):
        # The prompt ends within a character.
        context, start, whole = [], "", decode(ids)
    # A token that ends within a character is shown with what comes before; the last one takes the rest.
    ends = [len(decode([*context, *ids[:count]]).rstrip("\ufffd")) - len(start) for count in range(1, len(ids))]
    ends = torch.tensor([0, *(max(end, 0) for end in ends), len(whole) - len(start)]).cummax(0).values
    return whole[len(start) :], torch.stack([ends[:-1], ends[1:]], dim=1).clamp(max=len(whole) - len(start))
