"""Masking parts of a text by replacing its tokens or hiding them from attention."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.base import MaskedRows, Masker
from interpreto.errors import InputError, OptionError, choices
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import EMBEDDINGS, TextSample
from interpreto.model_wrapping.tokens import TokenSpace
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.type_guards import is_integer, is_real

_ROLES = ("mask", "unk", "space", "pad")
_BY_MASK = ("attention", "attention-sink")
"""Removals by the attention mask rather than by another token."""
_SINKS = ("space", "unk", "pad")
"""Roles of the tokens that may replace the first token of a text, in order of preference."""


@dataclass(frozen=True)
class Removal:
    """What replaces a masked token.

    Attributes:
        token: The id of another token; None if masked tokens are hidden from attention instead.
        name: The name by which the user passes it.
        sink: The token that replaces the first token of a text where the others are hidden from attention; None if
            the first token is hidden like the others.
    """

    token: int | None
    name: str
    sink: int | None = None


def removal_of(tokens: TokenSpace, spec: object) -> Removal:
    """The removal for an option's value; None chooses the first that the tokenizer and the model allow.

    By default tokens of a language model are hidden from attention if that does not shift the positions of others. The
    first token is replaced instead: every later position attends to it, whatever it is (an attention sink, Xiao et al.
    2023, arXiv:2309.17453), so hiding it would change all activations. For all other models the default is the first
    of: the mask token, the unknown token, a token that is a space, the padding token. The padding token is skipped if
    the model uses it to count positions or to find the last token.

    Args:
        tokens: The tokens of the model.
        spec: The option `removal`.

    Raises:
        OptionError: if the tokenizer has no such token or the model cannot use it.
    """
    if spec is None and tokens.attention_hides_tokens:
        spec = "attention-sink"
    if isinstance(spec, str) and spec in _BY_MASK:
        if not tokens.takes_attention_mask:
            raise OptionError(f"removal={spec!r} needs an attention mask, which this model does not take.")
        return Removal(None, spec, _sink(tokens) if spec == "attention-sink" else None)
    if spec is None:
        roles = ((name, _token(tokens, name)) for name in _ROLES)
        allowed = (Removal(t, name) for name, t in roles if t is not None and not tokens.reads_as_padding(t))
        return next(allowed, Removal(None, "attention"))
    removal = resolve_token(tokens, spec, "removal")
    if removal.token is not None and tokens.reads_as_padding(removal.token):
        kind = "the padding token" if removal.token not in tokens.ends else "a token that begins or ends texts"
        raise OptionError(
            f"removal={spec!r} is {kind}, by which this model counts positions or finds the last token; "
            "replacing words by it would shift the positions of other tokens. Use another token or removal='attention'."
        )
    return removal


def resolve_token(tokens: TokenSpace, spec: object, option: str) -> Removal:
    """The token that a user names by its role, its text or its id.

    A text is first tokenised (`" the"`) and must then be one token; otherwise it is looked up in the vocabulary
    (`"Ġthe"`). An id is `{"id": 5}`. A plain integer is also an id for a removal, but not for a baseline, where it
    could be meant as a value of the embeddings.

    Raises:
        OptionError: if the tokenizer has no such token.
    """
    named = _named(tokens, spec, option)
    if named.token is not None:
        try:
            tokens.check_ids([named.token])
        except InputError as error:
            raise OptionError(f"{option}={spec!r} cannot replace a token. {error}") from None
    return named


def _named(tokens: TokenSpace, spec: object, option: str) -> Removal:
    zeros = ("zeros",) if option == "baseline" else ()
    if is_real(spec) and (zeros or not is_integer(spec)):
        zeros_hint = "'zeros', " if zeros else ""
        raise OptionError(
            f"{option}={spec!r} is a number, which is not defined for a text: pass {zeros_hint}a token as text, or "
            '{"id": 5} for the token with that id.'
        )
    # The order of the checks decides ties: an id, then a role, then a text as written, then a vocabulary entry.
    number = spec.get("id") if isinstance(spec, Mapping) and len(spec) == 1 else spec
    if is_integer(number):
        token = int(number)
        if not 0 <= token < len(tokens.tokenizer):
            raise OptionError(f"{option}={spec!r} is not a token id: the tokenizer has {len(tokens.tokenizer)} tokens.")
        return Removal(token, tokens.tokenizer.convert_ids_to_tokens(token))
    if isinstance(spec, Mapping):
        raise OptionError(f'{option}={spec!r} must be {{"id": N}} with a whole number N.')
    if isinstance(spec, str):
        token = _role(tokens, spec) if spec in _ROLES else None
        token = _written(tokens, spec) if token is None else token
        if token is not None:
            return Removal(token, spec)
        if spec in (vocabulary := tokens.tokenizer.get_vocab()):
            return Removal(vocabulary[spec], spec)
    roles = [name for name in _ROLES if _role(tokens, name) is not None]
    raise OptionError(
        f"{option}={spec!r} is neither one of {', '.join(map(repr, [*roles, *(zeros or _BY_MASK)]))} nor a token "
        f"of this tokenizer: {choices(spec, tokens.tokenizer.get_vocab())}"
    )


def default_baseline(tokens: TokenSpace) -> str:
    """The default baseline: the mask token, else a space, else zeros."""
    return next((name for name in ("mask", "space") if _token(tokens, name) is not None), "zeros")


def _sink(tokens: TokenSpace) -> int | None:
    """The token that replaces the first token of a text; None if the tokenizer has none of `_SINKS`."""
    return next((token for name in _SINKS if (token := _token(tokens, name)) is not None), None)


def _token(tokens: TokenSpace, name: str) -> int | None:
    """The token of a role; None if the tokenizer has none or the model has no embedding for it."""
    # Some tokenizers have special tokens that were added without resizing the model's embeddings.
    token = _role(tokens, name)
    return token if token is None or tokens.vocabulary_size is None or token < tokens.vocabulary_size else None


def _role(tokens: TokenSpace, name: str) -> int | None:
    if name != "space":
        return getattr(tokens.tokenizer, f"{name}_token_id", None)
    # A space is a token of its own for byte-level BPE, but WordPiece tokenizers drop it and return no ids.
    ids = tokens.tokenize(" ")
    return ids[0] if len(ids) == 1 and not tokens.tokenizer.decode(ids).strip() else None


def _written(tokens: TokenSpace, spec: str) -> int | None:
    """The token id of a text as it is written; None if the text is not exactly one token."""
    unknown, unknown_text = tokens.tokenizer.unk_token_id, tokens.tokenizer.unk_token
    # A tokenizer that prepends a space to every text (SentencePiece) makes " the" two tokens, and "the" the right one.
    for text in (spec, spec.removeprefix(" ")):
        ids = tokens.tokenize(text)
        if len(ids) == 1 and (ids[0] != unknown or text == unknown_text):
            return ids[0]
    return None


@final
@dataclass(frozen=True)
class TokenIds(Masker):
    """Replaces the tokens of masked units, or hides them from attention; the number of tokens does not change.

    Args:
        removal: What replaces a masked token.
        tokens: The tokens of the model.
    """

    removal: Removal
    tokens: TokenSpace
    # Rows of token ids are small, and rounded masks often repeat, so that large blocks deduplicate well.
    n_prefetched_batches = 64

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: object) -> "TokenIds":
        """The masker of a model, with the option `removal`."""
        tokens = wrapper.require_tokens
        return TokenIds(removal_of(tokens, removal), tokens)

    def fully_masked(self, sample: TextSample, rng: torch.Generator) -> Rows:
        ids, mask = (sample.rows.fields[name] for name in ("input_ids", "attention_mask"))
        removal = self.removal
        if removal.token is not None:
            return sample.rows.replace(input_ids=torch.full_like(ids, removal.token))
        # Masked tokens keep their ids: with attention 0 no other position reads them.
        mask = torch.zeros_like(mask)
        if removal.sink is not None:
            ids = ids.clone()
            ids[:, 0], mask[:, 0] = removal.sink, 1
        return sample.rows.replace(input_ids=ids, attention_mask=mask)

    def mask(self, sample: TextSample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p g"]) -> MaskedRows:
        # A token is masked or not, there is nothing between; 0.5 rounds to 0 (half to even).
        cells = cells.round()
        return MaskedRows(self.replaced(sample, fully_masked, units.to_positions(cells).bool()), cells)

    def replaced(self, sample: TextSample, fully_masked: Rows, masks: Bool[Tensor, "p l"]) -> Rows:
        """One row per mask of positions, 1 = masked.

        Args:
            sample: The sample.
            fully_masked: The fully masked sample, one row.
            masks: The masks.
        """
        original = sample.rows.fields
        # Fields that masking does not change are not copied: `expand` returns views of the one row.
        changed = {name: field for name, field in fully_masked.fields.items() if field is not original[name]}
        fields = {name: torch.where(masks, field, original[name]) for name, field in changed.items()}
        if EMBEDDINGS in original and "input_ids" in changed:
            # The sample was perturbed in embedding space (MaxSensitivity). The model then reads embeddings instead of
            # ids, so the replacing token must be written there too.
            embeddings = original[EMBEDDINGS]
            replaced = masks & fully_masked.fields["attention_mask"].bool()
            replacement = self.tokens.embed(fully_masked.fields["input_ids"]).to(embeddings)
            fields[EMBEDDINGS] = torch.where(replaced[..., None].to(embeddings.device), replacement, embeddings)
        return sample.rows.expand(len(masks), **fields)

    def describe(self) -> str:
        return self.removal.name
