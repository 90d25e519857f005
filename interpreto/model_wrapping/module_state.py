"""The Python state of a model's modules, one level deep: whether it has changed, and how to put it back."""

from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn
from transformers import PreTrainedConfig

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
        containers: Dictionaries, lists and sets among the attributes with what they contain: parameters, buffers,
            submodules and hooks are kept in such.
        configs: Configs of transformers among the attributes, with their own attributes.
        training: Of each module, whether it is in training mode; TorchScript keeps that elsewhere.
    """

    modules: tuple[nn.Module, ...]
    attributes: tuple[dict[str, Any], ...]
    containers: tuple[tuple[Any, Any], ...]
    configs: tuple[tuple[PreTrainedConfig, dict[str, Any]], ...]
    training: tuple[bool, ...]

    @staticmethod
    def of(model: nn.Module) -> "ModuleState":
        """The state of a model now."""
        modules = tuple(model.modules())
        attributes = tuple(dict(module.__dict__) for module in modules)
        values = {id(value): value for own in attributes for value in own.values()}.values()
        configs = (value for value in values if isinstance(value, PreTrainedConfig))
        return ModuleState(
            modules,
            attributes,
            tuple((value, _contents(value)) for value in values if type(value) in _CONTAINERS),
            tuple((config, dict(config.__dict__)) for config in configs),
            tuple(module.training for module in modules),
        )

    def is_current(self, model: nn.Module) -> bool:
        """Whether a model, whose state this is, is still in it."""
        modules = tuple(model.modules())
        return (
            len(modules) == len(self.modules)
            and all(map(_is, modules, self.modules))
            and all(_same(module.__dict__, own) for module, own in zip(modules, self.attributes, strict=True))
            and all(_holds(container, contents) for container, contents in self.containers)
            and all(_same(config.__dict__, own) for config, own in self.configs)
        )

    def restore(self) -> None:
        """Put the model back into this state, and touch nothing that is in it already."""
        for module, own in zip(self.modules, self.attributes, strict=True):
            _put_back(module.__dict__, own)
        for container, contents in self.containers:
            if not _holds(container, contents):
                _refill(container, contents)
        for config, own in self.configs:
            _put_back(config.__dict__, own)
        for module, training in zip(self.modules, self.training, strict=True):
            if module.training != training:
                module.training = training


def _is(one: object, other: object) -> bool:
    return one is other


def _alike(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, _SIMPLE) and one == other)


def _same(now: MutableMapping[str, Any], before: dict[str, Any]) -> bool:
    # A copy, for another thread may be adding attributes.
    found = dict(now)
    return len(found) == len(before) and all(_alike(found.get(key, _ABSENT), value) for key, value in before.items())


def _put_back(now: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    for key in [key for key in dict(now) if key not in before]:
        del now[key]
    for key, value in before.items():
        if now.get(key, _ABSENT) is not value:
            now[key] = value


def _contents(container: Any) -> Any:
    return tuple(container.items()) if isinstance(container, dict) else tuple(container)


def _holds(container: Any, contents: Any) -> bool:
    found = _contents(container)
    if isinstance(container, dict):
        return len(found) == len(contents) and all(
            key == known and _alike(value, own) for (key, value), (known, own) in zip(found, contents, strict=True)
        )
    return len(found) == len(contents) and all(map(_alike, found, contents))


def _refill(container: Any, contents: tuple[Any, ...]) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(contents)
    else:
        container.update(contents)
