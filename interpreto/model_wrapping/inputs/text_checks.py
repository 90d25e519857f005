"""Checks of texts before they are sent to a model."""

from collections.abc import Sequence

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.sample import TextSample


def check_text(texts: Sequence[str]) -> None:
    """Check that texts are not empty, and are valid Unicode.

    Raises:
        InputError: if they are empty, or contain half of a surrogate pair.
    """
    if not any(part.strip() for part in texts):
        shown = texts[0] if len(texts) == 1 else tuple(texts)
        raise InputError(f"The text {shown!r} is empty: there is nothing to explain.")
    for text in texts:
        check_characters(text)


def check_characters(written: str) -> None:
    """Check that a text is valid Unicode; a fast tokenizer fails on anything else.

    Raises:
        InputError: if it contains half of a surrogate pair.
    """
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text contains {written[error.start]!r} at {error.start}, one half of a surrogate pair, which is not "
            "a character: decode it with errors='replace', or repair its source."
        ) from error


def check_ends(sample: TextSample, text: TextModel) -> None:
    """Check that a text has only the end tokens that the tokenizer adds, for a model that searches for one.

    Raises:
        InputError: if it has more.
    """
    # A text of one letter has exactly the end tokens that the tokenizer adds.
    reference_ids = tokenized(text.tokenizer, *["a"] * len(sample.texts))["input_ids"]
    ids = sample.rows.fields["input_ids"][0].tolist()
    n_expected, n_ends = (sum(token in text.ends for token in token_ids) for token_ids in (reference_ids, ids))
    if n_ends > n_expected:
        shown = ", ".join(repr(text.tokenizer.convert_ids_to_tokens(token)) for token in sorted(text.ends))
        raise InputError(
            f"The text contains {shown}, which marks the position that the model reads: {n_ends} times instead of "
            f"{n_expected}, so that the model would read another position. Remove it from the text."
        )


def check_length(length: int, limit: int, cure: str) -> None:
    """Check that a text fits the model.

    Raises:
        InputError: if it is too long; `cure` tells the user what to do.
    """
    if length > limit:
        raise InputError(f"The text has {length} tokens but the model reads at most {limit}: {cure}.")
