"""Requests for internals of a model, and the captured values that rules receive."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from interpreto.errors import OptionError


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """The attention of one layer for a batch of rows, in float32.

    Attributes:
        attention: The probabilities.
        gradient: The gradient of each row's score with respect to them, 0 where a mask forbids attention; None if no
            gradients were requested.
        query: Queries per head; None, as the fields below, if values were not requested.
        key: Keys per head.
        value: Values per head.
        output: The outputs of the heads, before they are joined.
        output_gradient: The gradient of each row's score with respect to these outputs.
        project: The projection that joins the heads: from `p l h*d` to the width of the hidden states.
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
    """The captured attention of a batch of rows, for one target of each row.

    Attributes:
        layers: The requested blocks, from first to last.
        poolers: Attention pooling after the last block, if there is any: one layer per objective.
        find_reads: Computes `readout_weights`.
        displayable: Which positions can be displayed: patches, and words of the text.
        not_padding: Which positions of each row are not padding to the longest row of the batch.
    """

    layers: tuple[AttentionLayer, ...]
    poolers: tuple[AttentionLayer, ...]
    find_reads: Callable[[], Float[Tensor, "p l"]]
    displayable: Bool[Tensor, "p l"]
    not_padding: Bool[Tensor, "p l"]

    @cached_property
    def readout_weights(self) -> Float[Tensor, "p l"]:
        """The weights with which the output reads the positions after the last block; each row sums to 1.

        They are 1 for a class token or the end of a text, uniform if the model takes the mean over positions, and the
        attention probabilities of a pooler.
        """
        return self.find_reads()


@runtime_checkable
class Rule(Protocol):
    """Computes scores of positions from captured attention; a method is a rule and a request."""

    def __call__(self, captured: CapturedAttention, /) -> Float[Tensor, "p l"]: ...


Readout = Literal["model", "mean"]
_DEFAULT_LAST_BLOCKS = 2
"""Number of blocks that are captured by default."""


class CaptureRequest(ABC):
    """A request for internals of a model, and the rule that computes maps from them."""

    @property
    def changes_outputs(self) -> bool:
        """Whether the captured run does not have the outputs of the model."""
        return False

    @property
    def rectifies(self) -> bool:
        """Whether negative values of a map are set to 0, so that it can be 0 everywhere."""
        return False

    def differentiated(self, targets: object) -> Any:
        """The targets that are differentiated, for the targets that are explained."""
        return targets

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Entries for the `info` of a result."""


@dataclass(frozen=True)
class AttentionRequest(CaptureRequest):
    """A request for the attention of some blocks, and the rule that is applied to it.

    Attributes:
        rule: Computes scores of positions from the captured attention.
        layers: The first block, or a list of blocks; negative numbers count from the end. None requests the last two,
            or all if there are fewer.
        gradients: Whether gradients are captured.
        values: Whether queries, keys, values and outputs are captured.
        per_block_objective: Whether the score is computed from the output of every block, as if it were the last one,
            and differentiated with respect to the attention of this block only.
        readout: With `per_block_objective`, whether the score is read from the positions that the model reads ("model")
            or from the mean over all positions ("mean").
        merge: Whether all heads are computed as one; the scores are then not those of the model.
        objective: Maps the targets of a request to those that are differentiated; None for the targets themselves.
    """

    rule: Rule
    layers: int | Sequence[int] | None = 0
    gradients: bool = True
    values: bool = False
    per_block_objective: bool = False
    readout: Readout = "model"
    merge: bool = False
    objective: Callable[[Any], Any] | None = field(default=None, repr=False)

    @property
    def changes_outputs(self) -> bool:
        """Merged heads change the outputs."""
        return self.merge

    def differentiated(self, targets: object) -> Any:
        return targets if self.objective is None else self.objective(targets)

    def describe(self) -> dict[str, str]:
        # The repr of a function has its address in memory.
        return {"rule": getattr(self.rule, "__name__", None) or repr(self.rule), "layers": repr(self.layers)}

    def chosen(self, count: int) -> tuple[int, ...]:
        """The requested blocks of a model with `count` blocks.

        Raises:
            OptionError: if one of them does not exist.
        """
        if self.layers is None:
            return tuple(range(max(0, count - _DEFAULT_LAST_BLOCKS), count))
        layers = (self.layers,) if isinstance(self.layers, int) else self.layers
        for layer in layers:
            if not -count <= layer < count:
                raise OptionError(
                    f"layers={_shown(self.layers)} is out of range: the model has {count} blocks, 0 to {count - 1} "
                    f"(or {-count} to -1, counted from the end)."
                )
        blocks = sorted({layer % count for layer in layers})
        return tuple(range(blocks[0], count)) if isinstance(self.layers, int) else tuple(blocks)


@dataclass(frozen=True)
class ActivationRequest(CaptureRequest):
    """A request for the activations of a layer, weighted by their gradients.

    Attributes:
        rule: Computes a map `p h w` from activations `p c h w` and their gradients.
        layer: A module or its name; None for the last layer with spatial positions: the last stage of a convolutional
            network, the input of the last block of a transformer.
        kind: The class name of the module, if the user passed a module of the model; `layer` is then its full name.
    """

    rule: Callable[[Float[Tensor, "p c h w"], Float[Tensor, "p c h w"]], Float[Tensor, "p h w"]] = field(repr=False)
    layer: str | nn.Module | None = None
    kind: str = ""

    @property
    def rectifies(self) -> bool:
        """True, as in Grad-CAM."""
        return True

    def describe(self) -> dict[str, str]:
        layer = "the last one with positions" if self.layer is None else self.layer
        return {"rule": self.rule.__name__, "layer": layer if isinstance(layer, str) else type(layer).__name__}

    def named_in(self, model: nn.Module | None) -> "ActivationRequest":
        """A copy that refers to a module of the model by its name, which also exists in a working copy."""
        if not isinstance(self.layer, nn.Module) or model is None:
            return self
        # Modules are compared by identity: a working copy has other modules of the same names.
        name = next((name for name, module in model.named_modules() if module is self.layer), "")
        return replace(self, layer=name, kind=type(self.layer).__name__) if name else self


def _shown(layers: int | Sequence[int]) -> str:
    return str(layers if isinstance(layers, int) else list(layers))
