"""Tokenisation: from a text, or from token ids, to a sample with the place of every token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs import token_spans
from interpreto.model_wrapping.inputs.text_checks import check_length, check_text
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import TextSample, Truncation

Raw = str | tuple[str, str] | Mapping[str, Any]
"""One text in the user's form: a text, a pair of texts, or the fields of a tokenised one."""
FIELDS = ("input_ids", "attention_mask", "token_type_ids")
"""Fields of tokenised texts that are read."""
_FIELD_NAMES = {"attention_mask": "attention mask", "token_type_ids": "list of token types"}
"""Their names in error messages."""


def encode(raw: Raw, text: TextModel, padding: Mapping[str, int | float], truncate: bool | None) -> TextSample:
    """Tokenise one text, or take its tokens as they were given; padding is stripped.

    Args:
        raw: The text, pair of texts or tokenised mapping of one row.
        text: The model that is to read it.
        padding: What fills up each field when rows are joined.
        truncate: Whether a longer text is cut; None where it cannot be.

    Raises:
        InputError: if the text is empty or longer than the limit.
    """
    if isinstance(raw, Mapping):
        return _encode_given(raw, text, padding)
    tokenizer = text.tokenizer
    texts = raw if isinstance(raw, tuple) else (raw,)
    check_text(texts)
    whole = _tokens(tokenizer, texts)
    cure = "shorten the prompt" if truncate is None else "pass truncation=True to cut it, or a shorter text"
    if truncate and len(whole.ids) > text.limit:
        read = _tokens(tokenizer, texts, truncation=True, max_length=text.limit)
    else:
        read = whole
    check_length(len(read.ids), text.limit, cure)
    text.check_ids(read.ids.tolist())
    rows = rows_of(read.encoding, read.ids, text.fields, padding)
    text.check_token_types(rows)
    names = tuple(tokenizer.convert_ids_to_tokens(read.ids.tolist()))
    if read is whole:
        return TextSample(rows, texts, raw, *whole.spans(tokenizer, texts), whole.sequence, names)
    side = getattr(tokenizer, "truncation_side", "right")
    spans, truncation, why = _truncated(whole, read, whole.spans(tokenizer, texts), texts, side)
    return TextSample(rows, texts, raw, spans, why, read.sequence, names, truncation=truncation)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """What a tokenizer makes of a text or a pair of texts.

    Attributes:
        encoding: The tokenizer's answer.
        ids: The tokens.
        sequence: Which text each token belongs to; -1 for tokens that were added.
        offsets: Their places in the text, from the tokenizer; None if it does not give them.
    """

    encoding: Any
    ids: Int[Tensor, " l"]
    sequence: Int[Tensor, " l"]
    offsets: Int[Tensor, "l 2"] | None

    def spans(self, tokenizer: Any, texts: Sequence[str]) -> tuple[Int[Tensor, "l 2"] | None, str]:
        """Where the tokens lie, or None and why it cannot be known."""
        if self.offsets is not None and token_spans.are_possible(self.offsets, self.sequence, texts):
            return self.offsets, ""
        found = _found_spans(tokenizer, self.ids, self.sequence, texts)
        if found is not None:
            return found, ""
        name = type(tokenizer).__name__
        if self.offsets is None:
            return None, f"{name} does not tell, and it could not be found out"
        return None, f"the offsets that {name} gives cannot be true, and where they lie could not be found out"


def _tokens(tokenizer: Any, texts: Sequence[str], **options: Any) -> _Tokens:
    if tokenizer.is_fast:
        options["return_offsets_mapping"] = True
    # Length is checked with a better message than the tokenizer's warning.
    encoding: Any = tokenized(
        tokenizer, *texts, verbose=False, return_special_tokens_mask=True, **({"truncation": False} | options)
    )
    ids = torch.tensor(encoding["input_ids"])
    added = torch.tensor(encoding["special_tokens_mask"]).bool() | special_tokens(tokenizer, ids)
    if not tokenizer.is_fast:
        return _Tokens(encoding, ids, _sequence_of(added).clamp(max=len(texts) - 1), None)
    offsets = torch.tensor(encoding["offset_mapping"], dtype=torch.long).reshape(-1, 2)
    sequence = torch.tensor([-1 if s is None else s for s in encoding.sequence_ids(0)])
    return _Tokens(encoding, ids, torch.where(added, -1, sequence), offsets)


def _truncated(
    whole: _Tokens, read: _Tokens, found: tuple[Int[Tensor, "l 2"] | None, str], texts: Sequence[str], side: str
) -> tuple[Int[Tensor, "k 2"] | None, Truncation, str]:
    """Where the tokens that are left lie, and what is left of each text."""
    known, why = found
    spans, stretches = torch.zeros(len(read.ids), 2, dtype=torch.long), []
    for number, written in enumerate(texts):
        own = read.sequence == number
        count, total = int(own.sum()), int((whole.sequence == number).sum())
        if known is None or not count:
            stretches.append((0, len(written) if count == total else 0))
            continue
        all_spans = known[whole.sequence == number]
        spans[own] = all_spans[total - count :] if side == "left" else all_spans[:count]
        begin, end = int(spans[own][0, 0]), int(spans[own][-1, 1])
        complete_left, complete_right = side != "left" or count == total, side == "left" or count == total
        stretches.append((0 if complete_left else begin, len(written) if complete_right else end))
    kept, total = (int((tokens.sequence >= 0).sum()) for tokens in (read, whole))
    return (None if known is None else spans), Truncation(kept, total, side, tuple(stretches)), why


def _found_spans(
    tokenizer: Any, ids: Int[Tensor, " l"], sequence: Int[Tensor, " l"], texts: Sequence[str]
) -> Int[Tensor, "l 2"] | None:
    """Where the tokens of several texts lie, each looked for in its own."""
    spans = torch.zeros(len(ids), 2, dtype=torch.long)
    for number, written in enumerate(texts):
        own = sequence == number
        found = token_spans.find(tokenizer, ids[own].tolist(), written)
        if found is None:
            return None
        spans[own] = found
    return spans


def _encode_given(given: Mapping[str, Any], text: TextModel, padding: Mapping[str, int | float]) -> TextSample:
    tokenizer = text.tokenizer
    unread = [name for name in given if name not in (*FIELDS, "labels") and name in text.parameters]
    if unread:
        raise InputError(
            f"The model would read {unread[0]!r} of this tokenised text, and here only {', '.join(FIELDS)} are read: "
            "leave it out, or explain a function of texts (from_callables)."
        )
    given = {name: values for name, values in given.items() if name in FIELDS}
    text.check_ids(given["input_ids"].tolist())
    mask = _mask_of(given, tokenizer)
    real = mask.nonzero()[:, 0]
    if not len(real):
        raise InputError("The tokenised text is empty: its attention mask hides every token.")
    # Padding lies at the ends; a token that is hidden between others keeps its position.
    inside = slice(int(real[0]), int(real[-1]) + 1)
    kept = {name: tensor[inside].tolist() for name, tensor in given.items()}
    ids = torch.tensor(kept["input_ids"], dtype=torch.long)
    check_length(len(ids), text.limit, "tokenise with truncation=True, or give a shorter text")
    sequence = _sequence_of(_added(tokenizer, ids))
    texts = tuple(
        tokenizer.decode(ids[sequence == part].tolist(), clean_up_tokenization_spaces=False)
        for part in range(int(sequence.max()) + 1)
    )
    spans = _found_spans(tokenizer, ids, sequence, texts)
    rows = rows_of(kept, ids, text.fields, padding)
    text.check_token_types(rows)
    rows = rows.replace(attention_mask=mask[None, inside].long())
    raw = (texts[0], texts[1]) if len(texts) == 2 else " ".join(texts)
    why = "" if spans is not None else "where these ids lie in the text that they spell could not be found out"
    return TextSample(rows, texts, raw, spans, why, sequence, tuple(tokenizer.convert_ids_to_tokens(ids.tolist())))


def _mask_of(given: Mapping[str, Any], tokenizer: Any) -> Bool[Tensor, " l"]:
    """Which of the ids that a user gave are read: by their mask, or those within the padding at either end.

    Raises:
        InputError: if the mask has another length, or there is none and it cannot be told what is padding.
    """
    ids = given["input_ids"]
    for name, field in given.items():
        if field.shape != ids.shape:
            raise InputError(
                f"The {_FIELD_NAMES.get(name, name)} has {len(field)} entries and there are {len(ids)} input ids: give "
                "one each."
            )
    if "attention_mask" in given:
        return given["attention_mask"].bool()
    pad = tokenizer.pad_token_id
    if pad is None:
        return torch.ones_like(ids).bool()
    other = (ids != pad).nonzero()[:, 0]
    if not len(other):
        raise InputError("The tokenised text is empty: every id is the padding token.")
    first, last = int(other[0]), int(other[-1])
    around = max(first, len(ids) - 1 - last)
    if pad in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if around > 1:
            token = tokenizer.convert_ids_to_tokens(pad)
            raise InputError(
                f"The ids begin or end with {around} times {token!r}, which this tokenizer uses both for padding and "
                "as a token of texts: give their 'attention_mask', or leave the padding away."
            )
        return torch.ones_like(ids).bool()
    mask = torch.zeros_like(ids).bool()
    mask[first : last + 1] = True
    return mask


def _added(tokenizer: Any, ids: Int[Tensor, " l"]) -> Bool[Tensor, " l"]:
    """Which tokens the tokenizer put around the text."""
    mask = torch.tensor(tokenizer.get_special_tokens_mask(ids.tolist(), already_has_special_tokens=True)).bool()
    return mask & special_tokens(tokenizer, ids)


def special_tokens(tokenizer: Any, ids: Int[Tensor, "*l"]) -> Bool[Tensor, "*l"]:
    """Which tokens are none of a text's own; unknown and masked words are words of the text."""
    around = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad")}
    words = {tokenizer.unk_token_id, tokenizer.mask_token_id} - around
    return torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - words), dtype=torch.long))


def word_tokens(text: TextModel, rows: Rows) -> Bool[Tensor, "p l"]:
    """Which tokens of rows are neither padding nor put around a text by the tokenizer."""
    return ~special_tokens(text.tokenizer, rows.fields["input_ids"]) & rows.fields["attention_mask"].bool()


def rows_of(encoding: Mapping[str, Any], ids: Int[Tensor, " l"], fields: Sequence[str], padding) -> Rows:
    """One row of these ids and of what else the tokenizer says of them."""
    tensors = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    for name in fields:
        if name in encoding and name not in tensors:
            tensors[name] = torch.as_tensor(encoding[name])[None]
    return Rows(tensors, dict(padding))


def _sequence_of(added: Bool[Tensor, " l"]) -> Int[Tensor, " l"]:
    """Which text each token belongs to: every run between added tokens is one; -1 for these."""
    begins = ~added & torch.cat([torch.ones(1, dtype=torch.bool), added[:-1]])
    return torch.where(added, -1, begins.long().cumsum(0) - 1)
