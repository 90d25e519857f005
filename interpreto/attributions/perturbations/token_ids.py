"""Hiding parts of a text by exchanging its tokens."""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.seams import Block, MaskModality
from interpreto.errors import OptionError, choices
from interpreto.model_wrapping.embeddings import EMBEDDINGS
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.text_model import TextModel
from interpreto.model_wrapping.tokenizing import tokenized

NAMES = ("mask", "unk", "space", "pad", "attention")


@dataclass(frozen=True)
class Removal:
    """What stands in for a hidden token: another one, or (None) nothing, hidden from attention."""

    token: int | None
    name: str


def removal_of(text: TextModel, given: Any) -> Removal:
    """The removal operator that a user names; None takes the first that the tokenizer and the model allow.

    In this order: the mask token, the unknown token, a token that is a space, the padding token. The padding token is
    left out where the model reads it: where positions are counted or the last token is found by it.

    Raises:
        OptionError: if the tokenizer has no such token or the model cannot take it.
    """
    if given == "attention":
        if "attention_mask" not in text.parameters:
            raise OptionError("removal='attention' needs an attention mask, which this model does not take.")
        return Removal(None, "attention")
    if given is None:
        known = ((name, _token(text.tokenizer, name)) for name in NAMES[:-1])
        allowed = (Removal(t, name) for name, t in known if t is not None and not text.reads_as_padding(t))
        return next(allowed, Removal(None, "attention"))
    removal = token_named(text, given, "removal")
    if removal.token is not None and text.reads_as_padding(removal.token):
        raise OptionError(
            f"removal={given!r} is the padding token, by which this model counts positions or finds the last token; "
            "replacing words by it would move the others. Use another token or removal='attention'."
        )
    return removal


def token_named(text: TextModel, given: Any, option: str) -> Removal:
    """The token that a user names by its role, its text or its id.

    A text is taken as it is written (`" the"`) where it is one token, else as the vocabulary spells it (`"Ġthe"`).

    Raises:
        OptionError: if the tokenizer has no such token.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(text.tokenizer):
            raise OptionError(f"{option}={given} is no token id: the tokenizer has {len(text.tokenizer)} tokens.")
        return Removal(given, text.tokenizer.convert_ids_to_tokens(given))
    roles = {name: token for name in NAMES[:-1] if (token := _token(text.tokenizer, name)) is not None}
    if given in roles:
        return Removal(roles[given], given)
    if isinstance(given, str) and (token := _written(text.tokenizer, given)) is not None:
        return Removal(token, given)
    known = text.tokenizer.get_vocab()
    if given not in known:
        raise OptionError(
            f"{option}={given!r} is neither one of {', '.join(map(repr, [*roles, 'attention']))} nor a token of this "
            f"tokenizer: {choices(given, known)}"
        )
    return Removal(known[given], str(given))


def _token(tokenizer: Any, name: str) -> int | None:
    if name != "space":
        return getattr(tokenizer, f"{name}_token_id", None)
    ids = tokenized(tokenizer, " ", add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and not tokenizer.decode(ids).strip() else None


def _written(tokenizer: Any, given: str) -> int | None:
    """The one token that a text is, as a person writes it."""
    # Where a tokenizer puts a space before every text, a second one would be a token of its own.
    for text in (given, given.removeprefix(" ")):
        ids = tokenized(tokenizer, text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or text == tokenizer.unk_token):
            return ids[0]
    return None


@final
@dataclass(frozen=True)
class TokenIds(MaskModality):
    """Tokens of hidden units are replaced; the length of the text stays as it is."""

    removal: Removal
    text: TextModel
    ahead = 64

    @staticmethod
    def of(wrapper: Any, removal: Any) -> "TokenIds":
        """The modality for a model and what the user said of removal."""
        return TokenIds(removal_of(wrapper.text, removal), wrapper.text)

    def blank(self, sample: TextSample, rng: torch.Generator) -> Rows:
        name = "attention_mask" if self.removal.token is None else "input_ids"
        return sample.rows.put(**{name: torch.full_like(sample.rows.fields[name], self.removal.token or 0)})

    def hide(self, sample: TextSample, blank: Rows, units: Units, cells: Float[Tensor, "p g"]) -> Block:
        cells = cells.round()
        return Block(self.replaced(sample, blank, units.spread(cells).bool()), cells)

    def replaced(self, sample: TextSample, blank: Rows, hidden: Bool[Tensor, "p l"]) -> Rows:
        """One row per mask of positions, 1 = hidden."""
        name = "attention_mask" if self.removal.token is None else "input_ids"
        fields = {name: torch.where(hidden, blank.fields[name], sample.rows.fields[name])}
        if EMBEDDINGS in sample.rows.fields and self.removal.token is not None:
            # A sample that was moved in the space of its embeddings: what hides a token is read there too.
            stand_in = self.text.embed(torch.tensor(self.removal.token))
            given = sample.rows.fields[EMBEDDINGS]
            fields[EMBEDDINGS] = torch.where(hidden[..., None].to(given.device), stand_in.to(given), given)
        return sample.rows.varied(len(hidden), **fields)

    def describe(self) -> str:
        return self.removal.name
