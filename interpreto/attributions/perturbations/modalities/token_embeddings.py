"""Token embeddings as the input for gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.attributions.granularity import Units
from interpreto.attributions.perturbations.base import GradientInput, reduce_axis
from interpreto.attributions.perturbations.modalities.token_ids import default_baseline, resolve_token
from interpreto.errors import OptionError
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import EMBEDDINGS, TextSample
from interpreto.model_wrapping.tokens import TokenSpace
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.type_guards import is_array, is_list


@final
@dataclass(frozen=True)
class TokenEmbeddings(GradientInput):
    """The output of the model's token embedding module, before position embeddings are added.

    Args:
        tokens: The tokens of the model.
    """

    tokens: TokenSpace
    field = EMBEDDINGS
    axes = (0,)

    @staticmethod
    def create(wrapper: InferenceWrapper) -> "TokenEmbeddings":
        """The token embeddings of a model."""
        return TokenEmbeddings(wrapper.require_tokens)

    def read(self, sample: TextSample) -> Float[Tensor, "l d"]:
        # Noisy copies of a sample already hold embeddings, which differ from those of their ids.
        embeddings = sample.rows.fields.get(EMBEDDINGS)
        return self.tokens.embed(sample.rows.fields["input_ids"][0]) if embeddings is None else embeddings[0]

    def split(self, spec: object) -> Sequence[Any]:
        return spec if is_list(spec) else [spec]

    def baselines(self, sample: TextSample, units: Units, spec: object, rng: torch.Generator) -> Float[Tensor, "b l d"]:
        tensor = self.read(sample)
        values = torch.stack([self._baseline(baseline, tensor) for baseline in self.listed(spec)])
        return torch.where(units.assigned.to(tensor.device)[:, None], values, tensor)

    def write(self, sample: TextSample, units: Units, tensors: Float[Tensor, "p l d"]) -> Rows:
        assigned = units.assigned
        if assigned.all():
            return sample.rows.expand(len(tensors), **{EMBEDDINGS: tensors})
        # Embeddings are read from the user's model, which may be on another device than the working copy that runs.
        original, assigned = self.read(sample).to(tensors.device), assigned.to(tensors.device)
        return sample.rows.expand(len(tensors), **{EMBEDDINGS: torch.where(assigned[:, None], tensors, original)})

    def reduce(self, scores: Float[Tensor, "t l d"], reduction: str) -> Float[Tensor, "t l"]:
        return reduce_axis(scores, -1, reduction)

    def baseline_name(self, baseline: object) -> str:
        if is_array(baseline):
            return f"tensor {tuple(baseline.shape)}"
        resolved_spec = self._spec_or_default(baseline)
        return "zeros" if resolved_spec == "zeros" else resolve_token(self.tokens, resolved_spec, "baseline").name

    def _spec_or_default(self, spec: object) -> Any:
        """The option as the user gave it, or its default: the mask token, else a space, else "zeros"."""
        return default_baseline(self.tokens) if spec is None else spec

    def _baseline(self, spec: object, tensor: Float[Tensor, "l d"]) -> Float[Tensor, "l d"]:
        if is_array(spec):
            spec = torch.as_tensor(spec)
            if spec.shape not in (tensor.shape, tensor.shape[-1:]):
                raise OptionError(
                    f"A baseline for this text has the shape {tuple(tensor.shape)} or {tuple(tensor.shape[-1:])}; "
                    f"got {tuple(spec.shape)}."
                )
            return spec.to(tensor).expand_as(tensor)
        resolved_spec = self._spec_or_default(spec)
        if resolved_spec == "zeros":
            return torch.zeros_like(tensor)
        # Only the embedding is replaced: input ids and attention mask stay as they are, so that the embedding of the
        # padding token is attended to like any other.
        token = resolve_token(self.tokens, resolved_spec, "baseline").token
        return self.tokens.embed(torch.tensor(token)).expand_as(tensor)
