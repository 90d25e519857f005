"""From a user's texts to prepared samples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs import token_spans
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import TextSample, Truncation
from interpreto.typing import BYTES

Raw = str | tuple[str, str] | Mapping[str, Any]


_FIELDS = ("input_ids", "attention_mask", "token_type_ids")
_FIELD_NAMES = {"attention_mask": "attention mask", "token_type_ids": "list of token types"}
"""Fields in messages."""


def is_one_text(inputs: Any) -> bool:
    """Whether the user gave one text rather than several.

    Raises:
        InputError: if it can be read in both ways.
    """
    if isinstance(inputs, tuple):
        raise _tuple_of_texts(inputs)
    if isinstance(inputs, Mapping):
        return "input_ids" not in inputs or _is_flat(inputs["input_ids"]) or len(inputs["input_ids"]) == 1
    return isinstance(inputs, str)


def _tuple_of_texts(inputs: tuple[Any, ...]) -> InputError:
    shown = ", ".join(repr(item[:20] if isinstance(item, str) else item)[:40] for item in inputs[:3])
    pair = f"a pair is [({shown})] or {{'text': ..., 'text_pair': ...}}, and " if len(inputs) == 2 else ""
    return InputError(
        f"A tuple of {len(inputs)} can be one sample or {len(inputs)}: {pair}several texts are a list, [{shown}]."
    )


def _is_flat(ids: Any) -> bool:
    """Whether token ids are those of one text.

    Raises:
        InputError: if they are no list of numbers, and no list of such lists.
    """
    if isinstance(ids, Tensor | np.ndarray):
        if ids.ndim not in (1, 2):
            raise InputError(f"Input ids have one axis, or two for several texts; these have {ids.ndim}.")
        return ids.ndim == 1
    if not isinstance(ids, Sequence) or isinstance(ids, str):
        raise InputError(f"Input ids must be a list, a tensor or an array; got {type(ids).__name__}.")
    return bool(ids) and isinstance(ids[0], Integral)


def split_texts(inputs: Any) -> Iterator[Raw]:
    """The texts one by one.

    Raises:
        InputError: if something in there is no text, pair of texts or tokenised mapping.
    """
    if isinstance(inputs, Mapping) and "text" in inputs and "input_ids" not in inputs:
        yield _of_named(inputs)
    elif isinstance(inputs, Mapping):
        yield from _split_mapping(inputs)
    elif isinstance(inputs, str) or _is_pair(inputs):
        yield inputs
    elif isinstance(inputs, Iterable) and not isinstance(inputs, BYTES):
        for item in inputs:
            if not (isinstance(item, str | Mapping) or _is_pair(item)):
                raise _no_text(item)
            yield from split_texts(item)
    else:
        raise _no_text(inputs)


def _of_named(inputs: Mapping[str, Any]) -> Raw:
    """A text, or a pair of texts, by the names of datasets and pipelines; what else is in there is left."""
    known = {name: inputs[name] for name in ("text", "text_pair") if inputs.get(name) is not None}
    if "text" not in known or not all(isinstance(part, str) for part in known.values()):
        found = ", ".join(
            f"{name!r} ({type(inputs[name]).__name__})" for name in ("text", "text_pair") if name in inputs
        )
        raise InputError(f"'text' and 'text_pair' of a mapping must be strings; this one has {found}.")
    return (known["text"], known["text_pair"]) if "text_pair" in known else known["text"]


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)


def _no_text(item: Any) -> InputError:
    return InputError(
        f"Expected a text, got {type(item).__name__}; give a string, a tuple of two strings in a list (a pair), "
        "{'text': ..., 'text_pair': ...}, a tokenised mapping with 'input_ids', or a list of these."
    )


def _split_mapping(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Tensor]]:
    if "input_ids" not in inputs:
        raise InputError(f"A tokenised mapping needs 'input_ids'; it has {', '.join(map(repr, inputs))}.")
    given = {name: inputs[name] for name in _FIELDS if name in inputs}
    # Whether a model would read the others is not known here.
    others = {name: value for name, value in inputs.items() if name not in _FIELDS and value is not None}
    rows = [given] if _is_flat(given["input_ids"]) else _rows_of(given)
    for row in rows:
        # Copied, so that what the user does to the tensors later does not matter.
        yield {**{name: _whole_numbers(name, value) for name, value in row.items()}, **others}


def _rows_of(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of each of several tokenised texts."""
    count = len(given["input_ids"])
    for name, values in given.items():
        found = len(values) if isinstance(values, Sized) else 0
        if found != count:
            raise InputError(f"There are input ids of {count} texts, and {name!r} for {found}: give one row per text.")
    return [{name: values[row] for name, values in given.items()} for row in range(count)]


def _whole_numbers(name: str, given: Any) -> Int[Tensor, " l"]:
    """A field of one tokenised text."""
    try:
        numbers = torch.as_tensor(given).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name!r} of a tokenised text must be whole numbers: {error}.") from error
    if numbers.ndim != 1 or numbers.is_floating_point() or numbers.is_complex():
        raise InputError(
            f"{name!r} of a tokenised text must be a list of whole numbers; got {numbers.dtype} of the shape "
            f"{tuple(numbers.shape)}."
        )
    return numbers.long()


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
    check_ids(read.ids.tolist(), text)
    rows = rows_of(read.encoding, read.ids, text.fields, padding)
    check_types(rows, text)
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
        told: Where they lie, as the tokenizer says; None where it does not.
    """

    encoding: Any
    ids: Int[Tensor, " l"]
    sequence: Int[Tensor, " l"]
    told: Int[Tensor, "l 2"] | None

    def spans(self, tokenizer: Any, texts: Sequence[str]) -> tuple[Int[Tensor, "l 2"] | None, str]:
        """Where the tokens lie, or None and why it cannot be known."""
        if self.told is not None and token_spans.are_possible(self.told, self.sequence, texts):
            return self.told, ""
        found = _found_spans(tokenizer, self.ids, self.sequence, texts)
        if found is not None:
            return found, ""
        name = type(tokenizer).__name__
        if self.told is None:
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
    added = torch.tensor(encoding["special_tokens_mask"]).bool() | special(tokenizer, ids)
    if not tokenizer.is_fast:
        return _Tokens(encoding, ids, _sequence_of(added).clamp(max=len(texts) - 1), None)
    told = torch.tensor(encoding["offset_mapping"], dtype=torch.long).reshape(-1, 2)
    sequence = torch.tensor([-1 if s is None else s for s in encoding.sequence_ids(0)])
    return _Tokens(encoding, ids, torch.where(added, -1, sequence), told)


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


def check_text(texts: Sequence[str]) -> None:
    """Refuse texts that are empty, or hold half of a surrogate pair.

    Raises:
        InputError: if they are.
    """
    if not any(part.strip() for part in texts):
        whole = texts[0] if len(texts) == 1 else tuple(texts)
        raise InputError(f"The text {whole!r} is empty: there is nothing to explain.")
    for written in texts:
        check_characters(written)


def check_characters(written: str) -> None:
    """Refuse a text that holds half of a surrogate pair.

    Raises:
        InputError: if it does.
    """
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text holds {written[error.start]!r} at {error.start}, one half of a surrogate pair, which is no "
            "character: decode it with errors='replace', or repair its source."
        ) from error


def _encode_given(given: Mapping[str, Any], text: TextModel, padding: Mapping[str, int | float]) -> TextSample:
    tokenizer = text.tokenizer
    unread = [name for name in given if name not in (*_FIELDS, "labels") and name in text.parameters]
    if unread:
        raise InputError(
            f"The model would read {unread[0]!r} of this tokenised text, and here only {', '.join(_FIELDS)} are read: "
            "leave it out, or explain a function of texts (from_callables)."
        )
    given = {name: values for name, values in given.items() if name in _FIELDS}
    check_ids(given["input_ids"].tolist(), text)
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
    check_types(rows, text)
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
    return mask & special(tokenizer, ids)


def special(tokenizer: Any, ids: Int[Tensor, "*l"]) -> Bool[Tensor, "*l"]:
    """Which tokens are none of a text's own; unknown and masked words are words of the text."""
    around = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad")}
    words = {tokenizer.unk_token_id, tokenizer.mask_token_id} - around
    return torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - words), dtype=torch.long))


def words(text: TextModel, rows: Rows) -> Bool[Tensor, "p l"]:
    """Which tokens of rows are neither padding nor put around a text by the tokenizer."""
    return ~special(text.tokenizer, rows.fields["input_ids"]) & rows.fields["attention_mask"].bool()


def rows_of(encoding: Mapping[str, Any], ids: Int[Tensor, " l"], fields: Sequence[str], padding) -> Rows:
    """One row of these ids and of what else the tokenizer says of them."""
    tensors = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    for name in fields:
        if name in encoding and name not in tensors:
            tensors[name] = torch.as_tensor(encoding[name])[None]
    return Rows(tensors, dict(padding))


def check_ids(ids: Sequence[int], text: TextModel) -> None:
    """Refuse tokens that the tokenizer does not know, or that the model has no embedding of.

    Raises:
        InputError: if there is one.
    """
    known, size = len(text.tokenizer), text.vocabulary
    largest = max(ids, default=0)
    if size is not None and known > largest >= size:
        token = text.tokenizer.convert_ids_to_tokens(largest)
        raise InputError(
            f"The tokenizer gives the token {token!r} the id {largest}, and the model has embeddings of {size} tokens: "
            "use the tokenizer that belongs to the model, or model.resize_token_embeddings(len(tokenizer)) before you "
            "train it."
        )
    if min(ids, default=0) < 0 or largest >= known:
        wrong = [token for token in ids if not 0 <= token < known]
        raise InputError(f"{wrong[:8]} are no token ids: the tokenizer has {known} tokens, from 0 on.")


def check_types(rows: Rows, text: TextModel) -> None:
    """Refuse token types that the model has no embedding of: some read no pairs.

    Raises:
        InputError: if there is one.
    """
    types, known = rows.fields.get("token_type_ids"), getattr(text.config, "type_vocab_size", None)
    if types is not None and known and int(types.max()) >= known:
        raise InputError(
            f"The tokens have the types 0 to {int(types.max())}, and the model has embeddings of {known}: give "
            "one text rather than a pair."
        )


def check_ends(sample: TextSample, text: TextModel) -> None:
    """Refuse a text with more end tokens than the tokenizer puts around it, where the model reads one of them.

    Raises:
        InputError: if it has.
    """
    plain = tokenized(text.tokenizer, *["a"] * len(sample.texts))["input_ids"]
    ids = sample.rows.fields["input_ids"][0].tolist()
    added, found = (sum(token in text.ends for token in one) for one in (plain, ids))
    if found > added:
        shown = ", ".join(repr(text.tokenizer.convert_ids_to_tokens(token)) for token in sorted(text.ends))
        raise InputError(
            f"The text holds {shown}, by which the model finds the position that it reads: {found} times instead of "
            f"{added}, so that it would be another one. Leave it out of the text."
        )


def check_length(length: int, limit: int, cure: str) -> None:
    """Refuse a text that does not fit the model.

    Raises:
        InputError: if it is too long; `cure` says what to do.
    """
    if length > limit:
        raise InputError(f"The text has {length} tokens but the model reads at most {limit}: {cure}.")


def _sequence_of(added: Bool[Tensor, " l"]) -> Int[Tensor, " l"]:
    """Which text each token belongs to: every run between added tokens is one; -1 for these."""
    begins = ~added & torch.cat([torch.ones(1, dtype=torch.bool), added[:-1]])
    return torch.where(added, -1, begins.long().cumsum(0) - 1)
