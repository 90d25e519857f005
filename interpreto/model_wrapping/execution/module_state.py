"""The Python state of a model's modules: whether it has changed, and how to put it back."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace
from typing import Any, final

from torch import nn
from transformers import GenerationConfig, PreTrainedConfig

_SIMPLE = (bool, int, float, complex, str, bytes, tuple)
"""Types whose values are compared by value: a number that is assigned again is another object."""
_CONTAINERS = (dict, OrderedDict, list, set)
"""Types of containers whose contents are compared; others are taken as a whole."""
_ABSENT = object()


@final
@dataclass(frozen=True, eq=False)
class ModuleState:
    """Attributes, submodules, hooks and configs of all modules of a model at one moment.

    Attributes:
        modules: All modules.
        attributes: Of each module, its attributes.
        containers: Dictionaries, lists and sets among the attributes and within one another, with what they contain:
            parameters, buffers, submodules and hooks are kept in such.
        configs: Configs of transformers, dataclasses and namespaces among these, with their own attributes.
        training: Of each module, whether it is in training mode; TorchScript keeps that elsewhere.
    """

    modules: tuple[nn.Module, ...]
    attributes: tuple[dict[str, Any], ...]
    containers: tuple[tuple[Any, Any], ...]
    configs: tuple[tuple[Any, dict[str, Any]], ...]
    training: tuple[bool, ...]

    @staticmethod
    def of(model: nn.Module) -> "ModuleState":
        """The state of a model now."""
        modules = tuple(model.modules())
        attributes = tuple(dict(module.__dict__) for module in modules)
        values = _holders(value for own in attributes for value in own.values())
        return ModuleState(
            modules,
            attributes,
            tuple((value, value.copy()) for value in values if type(value) in _CONTAINERS),
            tuple((value, dict(value.__dict__)) for value in values if type(value) not in _CONTAINERS),
            tuple(module.training for module in modules),
        )

    def is_current(self, model: nn.Module) -> bool:
        """Whether a model, whose state this is, is still in it."""
        # One loop without calls: it runs over thousands of attributes before every call of an explainer.
        modules = tuple(model.modules())
        if len(modules) != len(self.modules):
            return False
        for now, before in self._namespaces(modules):
            if len(now) != len(before):
                return False
            for key, value in before.items():
                found = now.get(key, _ABSENT)
                if found is not value and not (
                    type(found) is type(value) and isinstance(value, _SIMPLE) and found == value
                ):
                    return False
        return all(_equal(now, before) for now, before in self._collections())

    def restore(self) -> None:
        """Put the model back into this state, and touch nothing that is in it already."""
        for now, before in self._namespaces(self.modules):
            for key in [key for key in list(now) if key not in before]:
                del now[key]
            for key, value in before.items():
                if now.get(key, _ABSENT) is not value:
                    now[key] = value
        for now, before in self._collections():
            if not _equal(now, before):
                now.clear()
                now.extend(before) if isinstance(now, list) else now.update(before)
        for module, training in zip(self.modules, self.training, strict=True):
            if module.training != training:
                module.training = training

    def _namespaces(self, modules: tuple[nn.Module, ...]) -> list[tuple[Any, dict[Any, Any]]]:
        """Every dictionary of the modules now and as it was: attributes, configs, and dictionaries among them."""
        found: list[tuple[Any, dict[Any, Any]]] = [
            (module.__dict__, own) for module, own in zip(modules, self.attributes, strict=True)
        ]
        found += [(config.__dict__, own) for config, own in self.configs]
        return found + [pair for pair in self.containers if isinstance(pair[1], dict)]

    def _collections(self) -> list[tuple[Any, Any]]:
        """Every list and set now and as it was, but for those that were and are empty."""
        return [pair for pair in self.containers if not isinstance(pair[1], dict) and any(pair)]


def _holders(values: Iterable[Any]) -> list[Any]:
    """Containers and configs among values, and within one another."""
    found: dict[int, Any] = {}
    left = list(values)
    while left:
        value = left.pop()
        if id(value) in found:
            continue
        if type(value) in _CONTAINERS:
            left.extend(value.values() if isinstance(value, dict) else value)
        elif _is_config(value):
            left.extend(value.__dict__.values())
        else:
            continue
        found[id(value)] = value
    return list(found.values())


def _is_config(value: Any) -> bool:
    """Whether it is an object that holds nothing but settings."""
    if isinstance(value, PreTrainedConfig | GenerationConfig | SimpleNamespace):
        return True
    return is_dataclass(value) and not isinstance(value, type | nn.Module) and "__dict__" in dir(value)


def _equal(now: Any, before: Any) -> bool:
    """Whether two lists or sets have the same entries: tensors are compared by identity."""
    if isinstance(now, set):
        return now == before
    return len(now) == len(before) and all(
        one is other or (type(one) is type(other) and isinstance(one, _SIMPLE) and one == other)
        for one, other in zip(now, before, strict=True)
    )
