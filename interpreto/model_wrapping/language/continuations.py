"""The continuation of a prompt: passed by the user, or generated."""

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
from interpreto.model_wrapping.targets import Contrast, TargetFunction
from interpreto.type_guards import are_all, is_integer, is_list

_CONTEXT = 8
"""Number of previous tokens that are decoded with a continuation, to keep its leading space."""

_DEFAULT_NEW_TOKENS = 20
"""Number of tokens to generate if neither the model nor the user sets it."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE")
"""First words of the Unicode names of letters in scripts without spaces between words."""

_PREFIXES = ("", "\n", "=", "a")
"""Prefixes with which a continuation is tokenized, for tokenizers that add a space to the start of a text."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """Tokens after a prompt, and what is explained about them.

    Attributes:
        ids: The tokens.
        text: Their text.
        spans: Start and end of each token in this text.
        requested: The target at each position from the end of the prompt on: an id, a contrast or a function; None for
            positions that are not explained.
    """

    ids: Int[Tensor, " m"]
    text: str
    spans: Int[Tensor, "m 2"]
    requested: tuple[int | Contrast | TargetFunction | None, ...]


def check(spec: object, text_model: TextModel) -> None:
    """Check that a value can be a target of a language model.

    Raises:
        TargetError: if it is of an unsupported type, empty, or a contrast of different lengths.
    """
    if spec is None or callable(spec) or isinstance(spec, slice):
        return
    if isinstance(spec, tuple) and spec and all(map(callable, spec)):
        return
    _from_user(spec, text_model, [])


def of(spec: Any, text_model: TextModel, prompt: TextSample) -> Continuation | None:
    """The continuation that the user's target specifies; None if the model is to generate it.

    Raises:
        TargetError: as for `check`.
    """
    if spec is None or isinstance(spec, slice):
        return None
    functions = spec if isinstance(spec, tuple) else (spec,)
    if functions and all(map(callable, functions)):
        no_ids = torch.zeros(0, dtype=torch.long)
        return Continuation(no_ids, "", torch.zeros(0, 2, dtype=torch.long), functions)
    return _from_user(spec, text_model, prompt.rows.fields["input_ids"][0].tolist())


def warn_of_seam(spec: object, prompt: TextSample) -> None:
    """Warn if a string continues the last word of the prompt, or doubles the space between them."""
    if int(prompt.text_index[-1]) < 0:
        # The prompt ends in a token of the chat template, after which a word may begin.
        return
    texts = (spec.fact, spec.foil) if isinstance(spec, Contrast) else (spec,)
    before = prompt.texts[-1]
    for string in texts:
        if not isinstance(string, str) or not string or not before:
            continue
        if _spaced(string[0]) and not (before[-1].isspace() or _opens_word(before[-1])):
            problem, fix = (
                "begins with a letter and the prompt does not end in white space",
                f"targets={' ' + string!r}",
            )
        elif before[-1] == string[0] == " ":
            problem, fix = "begins with a space and the prompt ends in one", f"targets={string.lstrip(' ')!r}"
        else:
            continue
        warnings.warn(
            f"The target {string[:40]!r} {problem}, so that together they read "
            f"{(before + string)[-len(string) - 12 :][:52]!r}: no space is added or removed. If a new word is meant, "
            f"pass {fix}; token ids do not cause this warning.",
            stacklevel=2,
        )


def _spaced(letter: str) -> bool:
    """Whether a letter belongs to a script with spaces between words."""
    return letter.isalpha() and unicodedata.name(letter, "").split(" ")[0] not in _UNSPACED


def _opens_word(letter: str) -> bool:
    """Whether a word may begin right after a character: an opening bracket, a quote, a dash or a symbol."""
    return unicodedata.category(letter) in ("Ps", "Pi", "Pd", "Pc") or letter in "\"'/@#$\\"


def generated(
    model: Any, text_model: TextModel, prompt: TextSample, options: Mapping[str, Any], span: slice | None, seed: int
) -> Continuation:
    """Generate a continuation, with the model's own generation config.

    Raises:
        InputError: if nothing is generated.
        TargetError: if the span contains no generated token.
    """
    ids = prompt.rows.fields["input_ids"].to(text_model.device)
    arguments = dict(options)
    config = arguments.get("generation_config", model.generation_config)
    pad = (config.pad_token_id, config.eos_token_id, 0)
    # generate() warns if there is no padding token, although a single prompt needs none. A model may have several end
    # tokens.
    arguments.setdefault("pad_token_id", next(p[0] if isinstance(p, list) else p for p in pad if p is not None))
    if arguments.get("num_return_sequences", 1) != 1:
        raise OptionError("num_return_sequences must be 1: one continuation of a prompt is explained at a time.")
    if "stop_strings" in arguments:
        # generate() compares stop strings with decoded text.
        arguments.setdefault("tokenizer", text_model.tokenizer)
    _make_room(arguments, config, ids.shape[1], text_model.limit)
    try:
        with OwnGenerator(seed):
            mask = prompt.rows.fields["attention_mask"].to(text_model.device)
            out = model.generate(ids, attention_mask=mask, **arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Without options of the user the error is that of the model.
        if not options:
            raise
        raise OptionError(f"generate() does not take generation_kwargs={dict(options)}: {error}") from error
    # With return_dict_in_generate=True, generate() returns an output object instead of a tensor.
    new_ids = getattr(out, "sequences", out)[0, ids.shape[1] :].cpu()
    # End tokens are not part of the explained text.
    is_special = torch.isin(new_ids, torch.tensor(text_model.tokenizer.all_special_ids, dtype=new_ids.dtype))
    new_ids = new_ids[: int((~is_special).nonzero().max()) + 1] if (~is_special).any() else new_ids[:0]
    if not len(new_ids):
        raise InputError("The model generates only the end of the text for this prompt; pass a continuation.")
    decoded = _decoded(text_model, prompt.rows.fields["input_ids"][0].tolist(), new_ids.tolist())
    explained = set(range(len(new_ids))[span or slice(None)])
    if not explained:
        raise TargetError(f"targets={span} selects none of the {len(new_ids)} generated tokens.")
    return Continuation(new_ids, *decoded, tuple(t if i in explained else None for i, t in enumerate(new_ids.tolist())))


def _make_room(given: dict[str, Any], config: Any, length: int, limit: int) -> None:
    """Set the number of tokens to generate, if the user has not, to at most what the model can still read.

    Raises:
        InputError: if prompt and continuation exceed the model's limit.
        OptionError: if max_new_tokens is not an integer.
    """
    room = limit - length
    requested = given.get("max_new_tokens")
    if requested is not None and (not is_integer(requested)):
        raise OptionError(f"max_new_tokens={requested!r} of generation_kwargs= must be a whole number.")
    if room < 1 or (requested is not None and requested > room):
        raise InputError(
            f"The prompt has {length} tokens and the model reads at most {limit}: there is no room for "
            f"{requested or 'any'} new tokens; shorten the prompt{'' if room < 1 else ', or generate fewer'}."
        )
    if requested is None and "max_length" not in given:
        # max_length of a config includes the prompt, max_new_tokens does not.
        default = config.max_new_tokens or (
            _DEFAULT_NEW_TOKENS if config.max_length is None else config.max_length - length
        )
        given["max_new_tokens"] = max(1, min(default, room))


def _from_user(spec: object, text_model: TextModel, before: Sequence[int]) -> Continuation:
    if not isinstance(spec, Contrast):
        ids, decoded, spans = _tokens(spec, text_model, before)
        return Continuation(torch.tensor(ids), decoded, spans, tuple(ids))
    ids, decoded, spans = _tokens(spec.fact, text_model, before)
    foil_ids, _, _ = _tokens(spec.foil, text_model, before)
    if len(ids) != len(foil_ids):
        fact_names, foil_names = (text_model.tokenizer.convert_ids_to_tokens(tokens) for tokens in (ids, foil_ids))
        raise TargetError(
            f"Contrast({spec.fact!r}, {spec.foil!r}) compares {len(ids)} tokens with {len(foil_ids)}: {fact_names} and "
            f"{foil_names}. Both must have the same number of tokens; pass the ids of those to compare."
        )
    return Continuation(torch.tensor(ids), decoded, spans, tuple(map(Contrast, ids, foil_ids)))


def _tokens(spec: object, text_model: TextModel, before: Sequence[int]) -> tuple[list[int], str, Int[Tensor, "m 2"]]:
    if isinstance(spec, str):
        return _encoded(spec, text_model, before)
    spec = spec.tolist() if isinstance(spec, Tensor | np.ndarray | np.generic) else spec
    ids = [spec] if is_integer(spec) else spec
    if not is_list(ids) or not are_all(int, ids):
        raise TargetError(
            f"{spec!r} is not a target of a language model; pass None (its own generation), a slice of it, one "
            "continuation as a string or token ids, Contrast(a, b), or a function of the next outputs."
        )
    if not ids:
        raise TargetError("The continuation has no tokens: there is nothing to explain.")
    try:
        text_model.check_ids(ids)
    except InputError as error:
        raise TargetError(f"The continuation is invalid. {error}") from None
    return list(ids), *_decoded(text_model, before, list(ids))


def _encoded(text: str, text_model: TextModel, before: Sequence[int]) -> tuple[list[int], str, Int[Tensor, "m 2"]]:
    """The tokens of a continuation, as they would follow other text.

    A tokenizer may add a space to the start of its text (Llama, T5), so the continuation is tokenized after several
    prefixes, and the first tokens that decode to it are used.
    """
    tokenizer = text_model.tokenizer
    check_characters(text)
    if not tokenizer.is_fast:
        ids = text_model.tokenize(text)
        if not ids:
            raise TargetError(f"The continuation {text!r} has no tokens: there is nothing to explain.")
        return ids, *_decoded(text_model, before, ids)
    first_candidate = None
    for prefix in _PREFIXES:
        encoding = tokenized(
            tokenizer, prefix + text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, spans = encoding["input_ids"], torch.tensor(encoding["offset_mapping"]).reshape(-1, 2) - len(prefix)
        after_prefix = (spans[:, 1] > 0).nonzero()[:, 0].tolist()
        if not after_prefix:
            raise TargetError(f"The continuation {text!r} has no tokens: there is nothing to explain.")
        # A token spans prefix and continuation.
        if int(spans[after_prefix[0], 0]) < 0:
            continue
        tokens = ids[after_prefix[0] :]
        candidate = tokens, text, spans[after_prefix[0] :].clamp(min=0)
        if _decoded(text_model, before, tokens)[0] == text:
            return candidate
        first_candidate = first_candidate or candidate
    # A tokenizer that normalizes its text, to lower case for example, never decodes to it exactly.
    assert first_candidate is not None
    return first_candidate


def _decoded(text_model: TextModel, before: Sequence[int], ids: list[int]) -> tuple[str, Int[Tensor, "m 2"]]:
    """The text of tokens that follow other tokens, and the span of each in it."""
    decode = partial(text_model.tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    context = list(before[-_CONTEXT:])
    context_text = decode(context) if context else ""
    full_text = decode([*context, *ids])
    if not full_text.startswith(context_text):
        # The prompt ends within a character, so its last tokens decode differently alone.
        context, context_text, full_text = [], "", decode(ids)
    # A token that ends within a character gets the text up to this character; the last token gets the rest.
    ends = [len(decode([*context, *ids[:count]]).rstrip("\ufffd")) - len(context_text) for count in range(1, len(ids))]
    ends = torch.tensor([0, *(max(end, 0) for end in ends), len(full_text) - len(context_text)]).cummax(0).values
    return full_text[len(context_text) :], torch.stack([ends[:-1], ends[1:]], dim=1).clamp(
        max=len(full_text) - len(context_text)
    )
