"""Hiding parts of a text by exchanging its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, final

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

_ROLES = ("mask", "unk", "space", "pad")
_BY_MASK = ("attention", "attention-sink")
_SINKS = ("space", "unk", "pad")
"""What may take the place of a text's first token, the likeliest first."""


@dataclass(frozen=True)
class Removal:
    """What stands in for a hidden token.

    Attributes:
        token: Another token, or None for nothing: it is hidden from attention.
        name: What the user calls it.
        sink: What stands in for the first token of a text where others are hidden from attention; None if it is
            hidden as they are.
    """

    token: int | None
    name: str
    sink: int | None = None


def removal_of(tokens: TokenSpace, given: Any) -> Removal:
    """The removal operator that a user names; None takes the first that the tokenizer and the model allow.

    Tokens of a language model are hidden from attention where that moves no other, but for the first: every later
    position attends to it, whatever it is (an attention sink, Xiao et al. 2023, arXiv:2309.17453), so that without it
    everything changes. For all other models, in this order: the mask token, the unknown token, a token that is a
    space, the padding token. The padding token is left out where the model reads it: where positions are counted or
    the last token is found by it.

    Args:
        tokens: The tokens of the model.
        given: The option `removal`.

    Raises:
        OptionError: if the tokenizer has no such token or the model cannot take it.
    """
    if given is None and tokens.attention_hides_tokens:
        given = "attention-sink"
    if isinstance(given, str) and given in _BY_MASK:
        if not tokens.takes_attention_mask:
            raise OptionError(f"removal={given!r} needs an attention mask, which this model does not take.")
        return Removal(None, given, _sink(tokens) if given == "attention-sink" else None)
    if given is None:
        known = ((name, _token(tokens, name)) for name in _ROLES)
        allowed = (Removal(t, name) for name, t in known if t is not None and not tokens.reads_as_padding(t))
        return next(allowed, Removal(None, "attention"))
    removal = token_named(tokens, given, "removal")
    if removal.token is not None and tokens.reads_as_padding(removal.token):
        kind = "the padding token" if removal.token not in tokens.ends else "a token that begins or ends texts"
        raise OptionError(
            f"removal={given!r} is {kind}, by which this model counts positions or finds the last token; "
            "replacing words by it would move the others. Use another token or removal='attention'."
        )
    return removal


def token_named(tokens: TokenSpace, given: Any, option: str) -> Removal:
    """The token that a user names by its role, its text or its id.

    A text is taken as it is written (`" the"`) where it is one token, else as the vocabulary spells it (`"Ġthe"`). An
    id is `{"id": 5}`; a bare number is one for a removal, and for a baseline could be meant as a value of embeddings.

    Raises:
        OptionError: if the tokenizer has no such token.
    """
    named = _named(tokens, given, option)
    if named.token is not None:
        try:
            tokens.check_ids([named.token])
        except InputError as error:
            raise OptionError(f"{option}={given!r} cannot stand in for a token. {error}") from None
    return named


def _named(tokens: TokenSpace, given: Any, option: str) -> Removal:
    zeros = ("zeros",) if option == "baseline" else ()
    if isinstance(given, Real) and not isinstance(given, bool) and (zeros or not isinstance(given, Integral)):
        named = "'zeros', " if zeros else ""
        raise OptionError(
            f"{option}={given!r} is a number, which says nothing of a text: give {named}a token as text, or "
            '{"id": 5} for the token of that id.'
        )
    number = given.get("id") if isinstance(given, Mapping) and len(given) == 1 else given
    if isinstance(number, Integral) and not isinstance(number, bool):
        token = int(number)
        if not 0 <= token < len(tokens.tokenizer):
            raise OptionError(f"{option}={given!r} is no token id: the tokenizer has {len(tokens.tokenizer)} tokens.")
        return Removal(token, tokens.tokenizer.convert_ids_to_tokens(token))
    if isinstance(given, Mapping):
        raise OptionError(f'{option}={given!r} must be {{"id": N}} with a whole number N.')
    roles = {name: token for name in _ROLES if (token := _role(tokens, name)) is not None}
    if isinstance(given, str) and given in roles:
        return Removal(roles[given], given)
    if isinstance(given, str) and (token := _written(tokens, given)) is not None:
        return Removal(token, given)
    known = tokens.tokenizer.get_vocab()
    if not isinstance(given, str) or given not in known:
        raise OptionError(
            f"{option}={given!r} is neither one of {', '.join(map(repr, [*roles, *(zeros or _BY_MASK)]))} nor a token "
            f"of this tokenizer: {choices(given, known)}"
        )
    return Removal(known[given], str(given))


def default_baseline(tokens: TokenSpace) -> str:
    """What a path starts from where the user does not say."""
    return next((name for name in ("mask", "space") if _token(tokens, name) is not None), "zeros")


def _sink(tokens: TokenSpace) -> int | None:
    """What stands in for the first token of a text; None where the tokenizer has nothing that could."""
    return next((token for name in _SINKS if (token := _token(tokens, name)) is not None), None)


def _token(tokens: TokenSpace, name: str) -> int | None:
    """The token of a role, None where the tokenizer has none, or one that the model has no embedding of."""
    token = _role(tokens, name)
    return token if token is None or tokens.vocabulary_size is None or token < tokens.vocabulary_size else None


def _role(tokens: TokenSpace, name: str) -> int | None:
    if name != "space":
        return getattr(tokens.tokenizer, f"{name}_token_id", None)
    ids = tokens.tokenize(" ")
    return ids[0] if len(ids) == 1 and not tokens.tokenizer.decode(ids).strip() else None


def _written(tokens: TokenSpace, given: str) -> int | None:
    """The token that a text is, as a person writes it; None if it is not one token."""
    unknown, unknown_text = tokens.tokenizer.unk_token_id, tokens.tokenizer.unk_token
    # A tokenizer that puts a space before every text makes a second space a token of its own.
    for text in (given, given.removeprefix(" ")):
        ids = tokens.tokenize(text)
        if len(ids) == 1 and (ids[0] != unknown or text == unknown_text):
            return ids[0]
    return None


@final
@dataclass(frozen=True)
class TokenIds(Masker):
    """Tokens of hidden units are replaced; the length of the text stays as it is."""

    removal: Removal
    tokens: TokenSpace
    n_prefetched_batches = 64

    @staticmethod
    def create(wrapper: InferenceWrapper, removal: Any) -> "TokenIds":
        """The masker of a model, with the option `removal`."""
        tokens = wrapper.require_tokens
        return TokenIds(removal_of(tokens, removal), tokens)

    def fully_masked(self, sample: TextSample, rng: torch.Generator) -> Rows:
        ids, mask = (sample.rows.fields[name] for name in ("input_ids", "attention_mask"))
        removal = self.removal
        if removal.token is not None:
            return sample.rows.replace(input_ids=torch.full_like(ids, removal.token))
        mask = torch.zeros_like(mask)
        if removal.sink is not None:
            ids = ids.clone()
            ids[:, 0], mask[:, 0] = removal.sink, 1
        return sample.rows.replace(input_ids=ids, attention_mask=mask)

    def mask(self, sample: TextSample, fully_masked: Rows, units: Units, cells: Float[Tensor, "p g"]) -> MaskedRows:
        cells = cells.round()
        return MaskedRows(self.replaced(sample, fully_masked, units.to_positions(cells).bool()), cells)

    def replaced(self, sample: TextSample, blank: Rows, hidden: Bool[Tensor, "p l"]) -> Rows:
        """One row per mask of positions, 1 = hidden."""
        own = sample.rows.fields
        # What hiding leaves as it is stays a view of one row.
        changed = {name: field for name, field in blank.fields.items() if field is not own[name]}
        fields = {name: torch.where(hidden, field, own[name]) for name, field in changed.items()}
        if EMBEDDINGS in own and "input_ids" in changed:
            # A sample that was moved in the space of its embeddings: what hides a token is read there too.
            given = own[EMBEDDINGS]
            replaced = hidden & blank.fields["attention_mask"].bool()
            stand_in = self.tokens.embed(blank.fields["input_ids"]).to(given)
            fields[EMBEDDINGS] = torch.where(replaced[..., None].to(given.device), stand_in, given)
        return sample.rows.expand(len(hidden), **fields)

    def describe(self) -> str:
        return self.removal.name
