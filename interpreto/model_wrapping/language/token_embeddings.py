"""Replacing the output of a model's embedding module, while it is called with token ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.internals import architecture


@contextmanager
def replaced(module: nn.Module, ids: Int[Tensor, "p l"], embeddings: Float[Tensor, "p l d"]) -> Iterator[None]:
    """Make the embedding module return these embeddings, while the model is called with token ids.

    The ids are used elsewhere too: positions are counted and the last token is found by them, which is why
    `inputs_embeds` gives other results. Only calls with exactly these ids are replaced (GPT-2 looks up token types in
    the same table), including calls with transposed ids or with padding after them.

    Raises:
        UnsupportedError: if the model did not look the ids up.
    """
    calls = []

    def substitute(_module: nn.Module, given: tuple[Tensor, ...], output: object) -> Any:
        called_ids, original = given[0], architecture.first_tensor(output)
        assert original is not None
        # Models that keep positions first (XLNet) transpose the ids.
        if called_ids.shape == ids.T.shape != ids.shape and torch.equal(called_ids, ids.T):
            calls.append(True)
            return architecture.replaced(output, original, embeddings.transpose(0, 1).to(original.dtype))
        length = ids.shape[1]
        if called_ids.ndim != 2 or len(called_ids) != len(ids) or not torch.equal(called_ids[:, :length], ids):
            return None
        calls.append(True)
        replacement = embeddings.to(original.dtype)
        if original.shape[1] > length:
            # Models that attend in chunks (Longformer, BigBird, Reformer) pad the ids to a multiple of the chunk.
            replacement = torch.cat([replacement, original[:, length:]], dim=1)
        return architecture.replaced(output, original, replacement)

    handle = module.register_forward_hook(substitute)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise UnsupportedError(
            "This model does not look its tokens up in its table of input embeddings, so there are no gradients for "
            "them; methods that mask parts of the input (Occlusion, Lime, KernelShap, Sobol, Rise) do not need any."
        )
