"""Checks of a text before a model reads it."""

from collections.abc import Sequence

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.sample import TextSample


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
