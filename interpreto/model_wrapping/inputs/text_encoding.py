"""Tokenization: from a text or token ids to a sample with the span of every token."""

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
"""One text in the user's form: a text, a pair of texts, or the fields of a tokenized text."""
FIELDS = ("input_ids", "attention_mask", "token_type_ids")
"""The fields of tokenized texts that are used."""
_FIELD_NAMES = {"attention_mask": "attention mask", "token_type_ids": "list of token types"}
"""Names of fields in error messages."""


def encode(raw: Raw, text_model: TextModel, padding: Mapping[str, int | float], truncate: bool | None) -> TextSample:
    """Tokenize one text, or use its token ids as they are; padding is removed.

    Args:
        raw: A text, a pair of texts or the fields of one tokenized text.
        text_model: The model and its tokenizer.
        padding: The value that pads each field when rows are joined.
        truncate: Whether a longer text is truncated; None for models whose texts cannot be.

    Raises:
        InputError: if the text is empty or longer than the limit.
    """
    if isinstance(raw, Mapping):
        return _encode_ids(raw, text_model, padding)
    tokenizer = text_model.tokenizer
    texts = raw if isinstance(raw, tuple) else (raw,)
    check_text(texts)
    # Tokenized in full first: spans of a truncated text are read off those of the full one, and the record says how
    # much is missing.
    full = _tokens(tokenizer, texts)
    cure = "shorten the prompt" if truncate is None else "pass truncation=True to cut it, or a shorter text"
    if truncate and len(full.ids) > text_model.limit:
        tokens = _tokens(tokenizer, texts, truncation=True, max_length=text_model.limit)
    else:
        tokens = full
    check_length(len(tokens.ids), text_model.limit, cure)
    text_model.check_ids(tokens.ids.tolist())
    rows = rows_of(tokens.encoding, tokens.ids, text_model.fields, padding)
    text_model.check_token_types(rows)
    names = tuple(tokenizer.convert_ids_to_tokens(tokens.ids.tolist()))
    if tokens is full:
        return TextSample(rows, texts, raw, *full.spans(tokenizer, texts), full.text_index, names)
    side = getattr(tokenizer, "truncation_side", "right")
    spans, truncation, no_spans = _truncated(full, tokens, full.spans(tokenizer, texts), texts, side)
    return TextSample(rows, texts, raw, spans, no_spans, tokens.text_index, names, truncation=truncation)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The result of tokenizing a text or a pair of texts.

    Attributes:
        encoding: The output of the tokenizer.
        ids: The tokens.
        text_index: The text to which each token belongs; -1 for tokens that the tokenizer added.
        offsets: Start and end of each token in its text, from the tokenizer; None if it does not return them.
    """

    encoding: Any
    ids: Int[Tensor, " l"]
    text_index: Int[Tensor, " l"]
    offsets: Int[Tensor, "l 2"] | None

    def spans(self, tokenizer: object, texts: Sequence[str]) -> tuple[Int[Tensor, "l 2"] | None, str]:
        """Start and end of each token in its text, or None and the reason why they are unknown."""
        if self.offsets is not None and token_spans.are_possible(self.offsets, self.text_index, texts):
            return self.offsets, ""
        spans = _searched_spans(tokenizer, self.ids, self.text_index, texts)
        if spans is not None:
            return spans, ""
        name = type(tokenizer).__name__
        if self.offsets is None:
            return None, f"{name} returns no offsets, and the tokens could not be aligned with the text"
        return None, f"{name} returns impossible offsets, and the tokens could not be aligned with the text"


def _tokens(tokenizer: Any, texts: Sequence[str], **options: Any) -> _Tokens:
    if tokenizer.is_fast:
        options["return_offsets_mapping"] = True
    # verbose=False silences the tokenizer's warning about length, which is checked with a clearer message.
    encoding: Any = tokenized(
        tokenizer, *texts, verbose=False, return_special_tokens_mask=True, **({"truncation": False} | options)
    )
    ids = torch.tensor(encoding["input_ids"])
    # A special token that is part of the text, such as "</s>", is not in this mask, but counts as added too.
    added = torch.tensor(encoding["special_tokens_mask"]).bool() | special_tokens(tokenizer, ids)
    if not tokenizer.is_fast:
        # A slow tokenizer returns no sequence ids: every run between special tokens is taken as a text. A special token
        # inside a text starts another run, hence the clamp.
        return _Tokens(encoding, ids, _text_index_of(added).clamp(max=len(texts) - 1), None)
    offsets = torch.tensor(encoding["offset_mapping"], dtype=torch.long).reshape(-1, 2)
    text_index = torch.tensor([-1 if s is None else s for s in encoding.sequence_ids(0)])
    return _Tokens(encoding, ids, torch.where(added, -1, text_index), offsets)


def _truncated(
    full: _Tokens,
    truncated: _Tokens,
    full_spans_and_reason: tuple[Int[Tensor, "l 2"] | None, str],
    texts: Sequence[str],
    side: str,
) -> tuple[Int[Tensor, "k 2"] | None, Truncation, str]:
    """The spans of the tokens that remain after truncation, what remains of each text, and why spans are unknown."""
    full_spans, no_spans = full_spans_and_reason
    spans, intervals = torch.zeros(len(truncated.ids), 2, dtype=torch.long), []
    for number, written in enumerate(texts):
        is_own = truncated.text_index == number
        count, total = int(is_own.sum()), int((full.text_index == number).sum())
        if full_spans is None or not count:
            intervals.append((0, len(written) if count == total else 0))
            continue
        all_spans = full_spans[full.text_index == number]
        # Truncation removes tokens at one side only, so the rest are the first or the last ones of the full text.
        spans[is_own] = all_spans[total - count :] if side == "left" else all_spans[:count]
        start, end = int(spans[is_own][0, 0]), int(spans[is_own][-1, 1])
        reaches_start, reaches_end = side != "left" or count == total, side == "left" or count == total
        intervals.append((0 if reaches_start else start, len(written) if reaches_end else end))
    n_kept, total = (int((tokens.text_index >= 0).sum()) for tokens in (truncated, full))
    return (None if full_spans is None else spans), Truncation(n_kept, total, side, tuple(intervals)), no_spans


def _searched_spans(
    tokenizer: object, ids: Int[Tensor, " l"], text_index: Int[Tensor, " l"], texts: Sequence[str]
) -> Int[Tensor, "l 2"] | None:
    """The spans of the tokens of several texts, each searched in its own text; None if they cannot be found."""
    spans = torch.zeros(len(ids), 2, dtype=torch.long)
    for number, written in enumerate(texts):
        is_own = text_index == number
        spans_of_text = token_spans.find(tokenizer, ids[is_own].tolist(), written)
        if spans_of_text is None:
            return None
        spans[is_own] = spans_of_text
    return spans


def _encode_ids(fields: Mapping[str, Any], text_model: TextModel, padding: Mapping[str, int | float]) -> TextSample:
    tokenizer = text_model.tokenizer
    # Dropping a field that the model reads would silently change its scores.
    unsupported = [name for name in fields if name not in (*FIELDS, "labels") and name in text_model.parameters]
    if unsupported:
        raise InputError(
            f"The model reads {unsupported[0]!r} of this tokenised text, but only {', '.join(FIELDS)} are supported: "
            "remove it, or explain a function of texts (from_callables)."
        )
    fields = {name: values for name, values in fields.items() if name in FIELDS}
    text_model.check_ids(fields["input_ids"].tolist())
    mask = _mask_of(fields, tokenizer)
    attended = mask.nonzero()[:, 0]
    if not len(attended):
        raise InputError("The tokenised text is empty: its attention mask is 0 for every token.")
    # Padding is at the ends and is removed; a masked token between others keeps its position.
    attended_range = slice(int(attended[0]), int(attended[-1]) + 1)
    fields = {name: tensor[attended_range].tolist() for name, tensor in fields.items()}
    ids = torch.tensor(fields["input_ids"], dtype=torch.long)
    check_length(len(ids), text_model.limit, "tokenise with truncation=True, or pass a shorter text")
    text_index = _text_index_of(_is_added(tokenizer, ids))
    texts = tuple(
        tokenizer.decode(ids[text_index == part].tolist(), clean_up_tokenization_spaces=False)
        for part in range(int(text_index.max()) + 1)
    )
    spans = _searched_spans(tokenizer, ids, text_index, texts)
    rows = rows_of(fields, ids, text_model.fields, padding)
    text_model.check_token_types(rows)
    rows = rows.replace(attention_mask=mask[None, attended_range].long())
    raw = (texts[0], texts[1]) if len(texts) == 2 else " ".join(texts)
    no_spans = "" if spans is not None else "the token ids could not be aligned with the text that they decode to"
    return TextSample(
        rows, texts, raw, spans, no_spans, text_index, tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
    )


def _mask_of(fields: Mapping[str, Any], tokenizer: Any) -> Bool[Tensor, " l"]:
    """The attention mask of token ids of the user: their own, or 1 for all but the padding at either end.

    Raises:
        InputError: if the mask has another length, or there is none and padding cannot be recognized.
    """
    ids = fields["input_ids"]
    for name, field in fields.items():
        if field.shape != ids.shape:
            raise InputError(
                f"The {_FIELD_NAMES.get(name, name)} has {len(field)} entries, but there are {len(ids)} input ids: "
                "pass one entry per id."
            )
    if "attention_mask" in fields:
        return fields["attention_mask"].bool()
    pad = tokenizer.pad_token_id
    if pad is None:
        return torch.ones_like(ids).bool()
    non_padding = (ids != pad).nonzero()[:, 0]
    if not len(non_padding):
        raise InputError("The tokenised text is empty: every id is the padding token.")
    first, last = int(non_padding[0]), int(non_padding[-1])
    n_repeated = max(first, len(ids) - 1 - last)
    # Many users of GPT-2 set its end token as padding. One of them counts as part of the text; several are ambiguous.
    if pad in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if n_repeated > 1:
            token = tokenizer.convert_ids_to_tokens(pad)
            raise InputError(
                f"The ids begin or end with {n_repeated} times {token!r}, which this tokenizer uses both for padding "
                "and as a token of texts: pass an 'attention_mask', or remove the padding."
            )
        return torch.ones_like(ids).bool()
    mask = torch.zeros_like(ids).bool()
    mask[first : last + 1] = True
    return mask


def _is_added(tokenizer: Any, ids: Int[Tensor, " l"]) -> Bool[Tensor, " l"]:
    """Which tokens the tokenizer added around the text."""
    mask = torch.tensor(tokenizer.get_special_tokens_mask(ids.tolist(), already_has_special_tokens=True)).bool()
    return mask & special_tokens(tokenizer, ids)


def special_tokens(tokenizer: Any, ids: Int[Tensor, "*l"]) -> Bool[Tensor, "*l"]:
    """Which tokens are special; the unknown and the mask token count as words of the text."""
    structural = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad")}
    words = {tokenizer.unk_token_id, tokenizer.mask_token_id} - structural
    return torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - words), dtype=torch.long))


def word_tokens(text_model: TextModel, rows: Rows) -> Bool[Tensor, "p l"]:
    """Which tokens of rows are neither padding nor special."""
    return ~special_tokens(text_model.tokenizer, rows.fields["input_ids"]) & rows.fields["attention_mask"].bool()


def rows_of(encoding: Mapping[str, object], ids: Int[Tensor, " l"], fields: Sequence[str], padding) -> Rows:
    """One row of token ids, with those outputs of the tokenizer that the model reads."""
    tensors = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    for name in fields:
        if name in encoding and name not in tensors:
            tensors[name] = torch.as_tensor(encoding[name])[None]
    return Rows(tensors, dict(padding))


def _text_index_of(added: Bool[Tensor, " l"]) -> Int[Tensor, " l"]:
    """The text to which each token belongs: every run between added tokens is one; -1 for added tokens."""
    begins = ~added & torch.cat([torch.ones(1, dtype=torch.bool), added[:-1]])
    return torch.where(added, -1, begins.long().cumsum(0) - 1)
