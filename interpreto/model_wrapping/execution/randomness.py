"""Random numbers of a model from our own generators, without reading or advancing PyTorch's global one."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interpreto.typing import TorchFunction

_TAKES_GENERATOR = {
    torch.multinomial, Tensor.multinomial, torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_, torch.normal,
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.poisson, Tensor.normal_, Tensor.uniform_,
    Tensor.exponential_, Tensor.random_, Tensor.geometric_, Tensor.log_normal_, Tensor.cauchy_,
}  # fmt: skip
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
_DROPOUT = {functional.dropout, torch.dropout}
_GLOBAL_ONLY = {
    functional.gumbel_softmax, functional.rrelu, functional.alpha_dropout, functional.feature_alpha_dropout,
    functional.dropout1d, functional.dropout2d, functional.dropout3d,
}  # fmt: skip
"""Functions without a generator argument: they run with the global generator, which is restored right after."""
RANDOM_FUNCTIONS = frozenset({*_TAKES_GENERATOR, *_LIKE, *_DROPOUT, *_GLOBAL_ONLY})


def generator_states() -> tuple[object, ...]:
    """The states of the global generators of PyTorch, Python and NumPy, from which transforms draw."""
    numpy_state = np.random.get_state(legacy=False)["state"]
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        (numpy_state["key"].tobytes(), numpy_state["pos"]),
    )


class OwnGenerator(TorchFunctionMode):
    """A context in which random functions of this thread draw from our own generators, one per device.

    Sampling in `generate` and models that draw in their forward would otherwise advance the global generator, which
    other threads use too.
    """

    def __init__(self, seed: int) -> None:
        TorchFunctionMode.__init__(self)
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    @property
    def used(self) -> bool:
        """Whether any random number was drawn."""
        return bool(self.generators)

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        return self.call(func, args, kwargs or {}) if func in RANDOM_FUNCTIONS else func(*args, **(kwargs or {}))

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call one of `RANDOM_FUNCTIONS` with our own generator."""
        options = dict(kwargs)
        if func in _TAKES_GENERATOR and options.get("generator") is None:
            return func(*args, **options, generator=self._generator(_device(args, options)))
        if func in _LIKE:
            # rand and randn accept a generator in every release of PyTorch, their _like variants do not.
            like = args[0] if args else options.pop("input")
            options = {"dtype": like.dtype, "device": like.device, **options}
            options.pop("memory_format", None)
            return _LIKE[func](like.shape, **options, generator=self._generator(torch.device(options["device"])))
        if func in _DROPOUT:
            return self._dropout(*args, **options)
        if func in _GLOBAL_ONLY:
            device = _device(args, options)
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                # The state for this call is derived from our own generator, so that results depend on its seed only.
                seed = int(torch.randint(2**31, (), generator=self._generator(torch.device("cpu"))))
                torch.default_generator.manual_seed(seed)
                if device.type == "cuda":
                    torch.cuda.manual_seed(seed)
                return func(*args, **options)
        return func(*args, **options)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, train: bool | None = None
    ) -> Tensor:
        values, training = input, training if train is None else train
        if not training or p in (0, 1):
            return functional.dropout(values, p, training, inplace)
        # Dropout takes no generator. Kept values are scaled by 1 / (1 - p), as PyTorch does.
        scaled_mask = torch.empty_like(values).bernoulli_(1 - p, generator=self._generator(values.device)) / (1 - p)
        return values.mul_(scaled_mask) if inplace else values * scaled_mask

    def _generator(self, device: torch.device) -> torch.Generator:
        # A generator belongs to one device.
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


def _device(args: Any, options: dict[str, Any]) -> torch.device:
    if options.get("device") is not None:
        return torch.device(options["device"])
    tensor = next((value for value in (*args, *options.values()) if isinstance(value, Tensor)), None)
    return torch.get_default_device() if tensor is None else tensor.device
