"""The arguments of a model's forward, under all names that they have had, wherever they are declared.

Libraries rename arguments and move them from a head to the body of a model, to which the head passes them as
`**kwargs`.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch

_NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
CACHE_NAMES = ("cache", "past_key_values")
"""The names of the key/value cache in transformers: since 5.24, and before."""


@final
@dataclass(frozen=True)
class ForwardArguments:
    """The keyword arguments of a forward.

    Attributes:
        names: All declared arguments, of the forward itself and of those to which it passes `**kwargs`.
        caches: The names under which a cache may be accepted, the most likely first.
        takes_any: Whether the forward accepts arguments of any name.
    """

    names: frozenset[str]
    caches: tuple[str, ...]
    takes_any: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @staticmethod
    def of(model: object) -> "ForwardArguments":
        """The arguments of a model's forward."""
        signatures = list(_signatures(model))
        declared = frozenset(
            name
            for signature in signatures
            for name, parameter in signature.parameters.items()
            if parameter.kind not in _OPEN
        )
        # The outermost first, because it may pass its argument on under another name.
        cache_names = [name for signature in signatures for name in _caches(signature)]
        fallbacks = CACHE_NAMES if _takes_any(signatures[0]) else ()
        return ForwardArguments(declared, tuple(dict.fromkeys([*cache_names, *fallbacks])), _takes_any(signatures[0]))


def _caches(signature: inspect.Signature) -> list[str]:
    """Parameters that accept a cache: by their name, or by the name of their type."""
    by_name = [name for name in CACHE_NAMES if name in signature.parameters]
    return by_name + [name for name, parameter in signature.parameters.items() if "Cache" in str(parameter.annotation)]


def _signatures(model: Any) -> Iterator[inspect.Signature]:
    """The signatures of a model's forward and, as long as `**kwargs` are passed on, of those behind it."""
    if isinstance(model, torch.jit.ScriptModule):
        # The first argument of a TorchScript schema is the module.
        names = [argument.name for argument in model.forward.schema.arguments[1:]]
        yield inspect.Signature([inspect.Parameter(name, _NAMED) for name in names])
        return
    first = inspect.signature(model.forward)
    yield first
    if not _takes_any(first):
        return
    for kind in type(model).__mro__[1:]:
        if "forward" in vars(kind):
            # The first parameter of an unbound method is the model.
            inherited = inspect.signature(vars(kind)["forward"])
            yield inherited.replace(parameters=list(inherited.parameters.values())[1:])
            if not _takes_any(inherited):
                break
    # Heads of transformers pass `**kwargs` to their body.
    body = getattr(model, "base_model", model)
    if body is not model and getattr(body, "forward", None) is not None:
        yield from _signatures(body)


def _takes_any(signature: inspect.Signature) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
