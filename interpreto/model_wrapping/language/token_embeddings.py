"""Token embeddings: read from the model's own module, and replaced there while the ids stay in the call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.internals import architecture as anatomy


@contextmanager
def replaced(module: nn.Module, ids: Int[Tensor, "p l"], embeddings: Float[Tensor, "p l d"]) -> Iterator[None]:
    """Let the embedding module answer with these embeddings while the ids stay in the call.

    The ids are read elsewhere too: positions are counted and the last token is found by them, which is why
    `inputs_embeds` gives other results. Only calls with these very ids are answered (GPT-2 looks up token types in the
    same table), also where the model has transposed them or added padding behind them.

    Raises:
        UnsupportedError: if the model never looked the ids up.
    """
    answered = []

    def substitute(_module: nn.Module, given: tuple[Tensor, ...], output: Any) -> Any:
        asked, found = given[0], anatomy.first_tensor(output)
        assert found is not None
        if asked.shape == ids.T.shape != ids.shape and torch.equal(asked, ids.T):
            answered.append(True)
            return anatomy.replaced(output, found, embeddings.transpose(0, 1).to(found.dtype))
        length = ids.shape[1]
        if asked.ndim != 2 or len(asked) != len(ids) or not torch.equal(asked[:, :length], ids):
            return None
        answered.append(True)
        return anatomy.replaced(output, found, torch.cat([embeddings.to(found.dtype), found[:, length:]], dim=1))

    handle = module.register_forward_hook(substitute)
    try:
        yield
    finally:
        handle.remove()
    if not answered:
        raise UnsupportedError(
            "This model does not look its tokens up in its table of input embeddings, so gradients for them cannot be "
            "had; methods that hide parts (Occlusion, Lime, KernelShap, Sobol, Rise) do without."
        )
