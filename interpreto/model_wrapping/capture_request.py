"""What may be asked of a model's inside, and what is then seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from interpreto.errors import OptionError


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention of a batch of rows, in float32.

    Attributes:
        attention: The probabilities.
        gradient: Of each row's score for them, 0 where a mask forbids; None where no gradients were asked for.
        query: With heads, as all that follows; None where values were not asked for.
        key: Keys.
        value: Values.
        output: What the heads give, before they are joined.
        output_gradient: Of each row's score for that.
        project: What joins the heads: from `p l h*d` to the width of the hidden states.
    """

    attention: Float[Tensor, "p h q k"]
    gradient: Float[Tensor, "p h q k"] | None = None
    query: Float[Tensor, "p h q d"] | None = None
    key: Float[Tensor, "p h k d"] | None = None
    value: Float[Tensor, "p h k e"] | None = None
    output: Float[Tensor, "p h q e"] | None = None
    output_gradient: Float[Tensor, "p h q e"] | None = None
    project: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class CapturedAttention:
    """The inside of a batch of rows, for one target of each.

    Attributes:
        layers: The asked blocks, the first one first.
        poolers: Attention after the last block, where there is one: as many as objectives.
        find_reads: Tells what `reads` is.
        displayable: Which positions can be shown to a person: patches, words of the text.
        not_padding: Which positions are there for this row: all but the padding that longer rows of its batch made.
    """

    layers: tuple[AttentionLayer, ...]
    poolers: tuple[AttentionLayer, ...]
    find_reads: Callable[[], Float[Tensor, "p l"]]
    displayable: Bool[Tensor, "p l"]
    not_padding: Bool[Tensor, "p l"]

    @cached_property
    def readout_weights(self) -> Float[Tensor, "p l"]:
        """With which weights the output reads the positions after the last block; each row sums to 1.

        One position where that is a class token or the end of a text, all alike where a model takes the mean, and the
        attention of the pooler where there is one.
        """
        return self.find_reads()


@runtime_checkable
class Rule(Protocol):
    """From what was seen to scores of positions: what a method is."""

    def __call__(self, captured: CapturedAttention, /) -> Float[Tensor, "p l"]: ...


Readout = Literal["model", "mean"]
_LAST = 2
"""How many blocks are looked at where no layers are named."""


@dataclass(frozen=True)
class AttentionRequest:
    """Attention of some blocks, and what becomes of it.

    Attributes:
        rule: From what was seen to scores of positions.
        layers: From this block on, or these; negative ones count from the end. None takes the last two, as far as
            there are so many.
        gradients: Whether gradients are wanted.
        values: Whether queries, keys, values and outputs are.
        per_block_objective: Whether the score is computed from every block's output, as if it were the last one, and
            is differentiated for the attention of that block alone.
        readout: For `per_block_objective`, whether the score is read from the positions that the model reads ("model"),
            or from the mean over all positions ("mean").
        merge: Whether all heads are computed as one; the scores are then not the model's.
        objective: From the targets of a request to those that are differentiated; None for the targets themselves.
    """

    rule: Rule
    layers: int | Sequence[int] | None = 0
    gradients: bool = True
    values: bool = False
    per_block_objective: bool = False
    readout: Readout = "model"
    merge: bool = False
    objective: Callable[[Any], Any] | None = field(default=None, repr=False)

    def chosen(self, count: int) -> tuple[int, ...]:
        """The asked ones of so many blocks.

        Raises:
            OptionError: if there is no such block.
        """
        if self.layers is None:
            return tuple(range(max(0, count - _LAST), count))
        given = (self.layers,) if isinstance(self.layers, int) else self.layers
        for layer in given:
            if not -count <= layer < count:
                raise OptionError(
                    f"layers={_said(self.layers)} is out of range: the model has {count} blocks, 0 to {count - 1} "
                    f"(or {-count} to -1, counted from the end)."
                )
        inside = sorted({layer % count for layer in given})
        return tuple(range(inside[0], count)) if isinstance(self.layers, int) else tuple(inside)


@dataclass(frozen=True)
class ActivationRequest:
    """The features of a layer, weighted by their gradients.

    Attributes:
        rule: From features `p c h w` and their gradients to a map `p h w`.
        layer: A module or its name; None for the last one with places: the last stage of a network of convolutions,
            what enters the last block of a transformer.
        kind: Where the user gave a module of the model, its class; `layer` is then its full name.
    """

    rule: Callable[[Float[Tensor, "p c h w"], Float[Tensor, "p c h w"]], Float[Tensor, "p h w"]] = field(repr=False)
    layer: str | nn.Module | None = None
    kind: str = ""

    def named_in(self, model: nn.Module | None) -> "ActivationRequest":
        """The same with a module of the model called by its name, by which a copy of the model knows it too."""
        if not isinstance(self.layer, nn.Module) or model is None:
            return self
        name = next((name for name, module in model.named_modules() if module is self.layer), "")
        return replace(self, layer=name, kind=type(self.layer).__name__) if name else self


CaptureRequest = AttentionRequest | ActivationRequest


def _said(layers: int | Sequence[int]) -> str:
    return str(layers if isinstance(layers, int) else list(layers))
