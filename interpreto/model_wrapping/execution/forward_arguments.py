"""What a model's forward takes: by all names that a thing has had, wherever they are declared.

Libraries rename arguments and move them from a head to the body of a model, which the head hands on as `**kwargs`.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch

_NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
CACHE_NAMES = ("cache", "past_key_values")
"""What transformers has called the keys and values of earlier positions: since 5.24, and before."""


@final
@dataclass(frozen=True)
class ForwardArguments:
    """Keyword arguments of a forward.

    Attributes:
        names: All that are declared, by the forward itself and by those that it hands `**kwargs` on to.
        caches: Under which names a cache may be taken, the likeliest first.
        takes_any: Whether the forward takes arguments of any name.
    """

    names: frozenset[str]
    caches: tuple[str, ...]
    takes_any: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @staticmethod
    def of(model: Any) -> "ForwardArguments":
        """What the forward of a model takes."""
        signatures = list(_signatures(model))
        declared = frozenset(
            name for one in signatures for name, parameter in one.parameters.items() if parameter.kind not in _OPEN
        )
        # The outermost first, for it may give what it takes another name further in.
        found = [name for one in signatures for name in _caches(one)]
        others = CACHE_NAMES if _takes_any(signatures[0]) else ()
        return ForwardArguments(declared, tuple(dict.fromkeys([*found, *others])), _takes_any(signatures[0]))


def _caches(signature: inspect.Signature) -> list[str]:
    """Parameters that take a cache: by their name or, where that is none that a release has had, by their type."""
    known = [name for name in CACHE_NAMES if name in signature.parameters]
    return known + [name for name, one in signature.parameters.items() if "Cache" in str(one.annotation)]


def _signatures(model: Any) -> Iterator[inspect.Signature]:
    """The signature of a model's forward and, as far as it hands on what it does not know, of what is behind it."""
    if isinstance(model, torch.jit.ScriptModule):
        # The first argument of its schema is the module.
        names = [argument.name for argument in model.forward.schema.arguments[1:]]
        yield inspect.Signature([inspect.Parameter(name, _NAMED) for name in names])
        return
    first = inspect.signature(model.forward)
    yield first
    if not _takes_any(first):
        return
    for kind in type(model).__mro__[1:]:
        if "forward" in vars(kind):
            # The first parameter of a function of a class is the model.
            inherited = inspect.signature(vars(kind)["forward"])
            yield inherited.replace(parameters=list(inherited.parameters.values())[1:])
            if not _takes_any(inherited):
                break
    body = getattr(model, "base_model", model)
    if body is not model and getattr(body, "forward", None) is not None:
        yield from _signatures(body)


def _takes_any(signature: inspect.Signature) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
