"""Moving a text through the space of its token embeddings."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.base import GradientInput, reduce_axis
from interpreto.attributions.perturbations.modalities.token_ids import default_baseline, token_named
from interpreto.errors import OptionError
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import EMBEDDINGS, TextSample
from interpreto.model_wrapping.tokens import TokenSpace
from interpreto.model_wrapping.wrapper import InferenceWrapper


@final
@dataclass(frozen=True)
class TokenEmbeddings(GradientInput):
    """What the model's embedding module gives for each token, before positions are added."""

    tokens: TokenSpace
    field = EMBEDDINGS
    axes = (0,)

    @staticmethod
    def create(wrapper: InferenceWrapper) -> "TokenEmbeddings":
        """The token embeddings of a model."""
        return TokenEmbeddings(wrapper.require_tokens)

    def read(self, sample: TextSample) -> Float[Tensor, "l d"]:
        given = sample.rows.fields.get(EMBEDDINGS)
        return self.tokens.embed(sample.rows.fields["input_ids"][0]) if given is None else given[0]

    def baselines(self, sample: TextSample, units: Units, spec: Any, rng: torch.Generator) -> Float[Tensor, "b l d"]:
        tensor = self.read(sample)
        several = spec if isinstance(spec, list | tuple) else [spec]
        if not several:
            raise OptionError("baseline=[] names no baseline.")
        ends = torch.stack([self._end(one, tensor) for one in several])
        return torch.where(units.assigned.to(tensor.device)[:, None], ends, tensor)

    def write(self, sample: TextSample, units: Units, tensors: Float[Tensor, "p l d"]) -> Rows:
        movable = units.assigned.to(tensors.device)[:, None]
        # The user's model, of which embeddings are read, may be elsewhere than the copy that runs.
        own = self.read(sample).to(tensors.device)
        return sample.rows.expand(len(tensors), **{EMBEDDINGS: torch.where(movable, tensors, own)})

    def reduce(self, scores: Float[Tensor, "t l d"], reduction: str) -> Float[Tensor, "t l"]:
        return reduce_axis(scores, -1, reduction)

    def describe(self, spec: Any) -> str:
        return ", ".join(self.describe(one) for one in spec) if isinstance(spec, list | tuple) else self._name(spec)

    def _name(self, spec: Any) -> str:
        if isinstance(spec, Tensor | np.ndarray):
            return f"tensor {tuple(spec.shape)}"
        named = self._token(spec)
        return "zeros" if named == "zeros" else token_named(self.tokens, named, "baseline").name

    def _token(self, spec: Any) -> Any:
        """The mask token, else a space; where there is neither, the path starts at zero."""
        return default_baseline(self.tokens) if spec is None else spec

    def _end(self, spec: Any, tensor: Float[Tensor, "l d"]) -> Float[Tensor, "l d"]:
        if isinstance(spec, Tensor | np.ndarray):
            spec = torch.as_tensor(spec)
            if spec.shape not in (tensor.shape, tensor.shape[-1:]):
                raise OptionError(
                    f"A baseline for this text has the shape {tuple(tensor.shape)} or {tuple(tensor.shape[-1:])}; "
                    f"got {tuple(spec.shape)}."
                )
            return spec.to(tensor).expand_as(tensor)
        named = self._token(spec)
        if named == "zeros":
            return torch.zeros_like(tensor)
        # Only the embedding is borrowed: the ids stay, so that even the padding token is not read as padding.
        token = token_named(self.tokens, named, "baseline").token
        return self.tokens.embed(torch.tensor(token)).expand_as(tensor)
