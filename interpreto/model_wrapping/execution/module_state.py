"""The Python state of a model's modules: detecting changes, and restoring it."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from itertools import chain
from operator import is_
from types import SimpleNamespace
from typing import Any, final

from torch import nn
from transformers import GenerationConfig, PreTrainedConfig

_SIMPLE = (bool, int, float, complex, str, bytes, tuple)
"""Types that are compared by value: an equal number that is assigned again may be another object."""
_DICTIONARIES = (dict, OrderedDict)
_COLLECTIONS = (list, set)
_CONTAINERS = (*_DICTIONARIES, *_COLLECTIONS)
"""Types of containers whose contents are compared; other objects, and subclasses, are compared by identity."""
_ABSENT = object()


@final
@dataclass(frozen=True, eq=False)
class ModuleState:
    """Attributes, submodules, hooks and configs of all modules of a model at one moment.

    Attributes:
        modules: All modules.
        attributes: The attributes of each module.
        dictionaries: Dictionaries among the attributes and inside one another, with their contents: they store
            parameters, buffers, submodules and hooks.
        collections: Lists and sets, likewise.
        configs: Configs of transformers, dataclasses and namespaces among these, with their attributes.
        training: Whether each module is in training mode; TorchScript does not store this in `__dict__`.
    """

    modules: tuple[nn.Module, ...]
    attributes: tuple[dict[str, Any], ...]
    dictionaries: tuple[tuple[Any, Any], ...]
    collections: tuple[tuple[Any, Any], ...]
    configs: tuple[tuple[Any, dict[str, Any]], ...]
    training: tuple[bool, ...]

    @staticmethod
    def of(model: nn.Module) -> "ModuleState":
        """The current state of a model."""
        modules = tuple(model.modules())
        attributes = tuple(dict(module.__dict__) for module in modules)
        values = _holders(value for module_attributes in attributes for value in module_attributes.values())
        return ModuleState(
            modules,
            attributes,
            tuple((value, value.copy()) for value in values if type(value) in _DICTIONARIES),
            tuple((value, value.copy()) for value in values if type(value) in _COLLECTIONS),
            tuple((value, dict(value.__dict__)) for value in values if type(value) not in _CONTAINERS),
            tuple(module.training for module in modules),
        )

    def is_current(self, model: nn.Module) -> bool:
        """Whether a model is still in the state that was taken of it."""
        modules = tuple(model.modules())
        return (
            len(modules) == len(self.modules)
            and all(_same_attributes(now, before) for now, before in self._changed(modules))
            and all(_equal(now, before) for now, before in self.collections)
        )

    def restore(self) -> None:
        """Restore the state, without touching what has not changed."""
        for now, before in self._changed(self.modules):
            for key in [key for key in list(now) if key not in before]:
                del now[key]
            for key, value in before.items():
                if now.get(key, _ABSENT) is not value:
                    now[key] = value
        for now, before in self.collections:
            if not _equal(now, before):
                # In place, because other objects may refer to the same list or set.
                now.clear()
                now.extend(before) if isinstance(now, list) else now.update(before)
        for module, training in zip(self.modules, self.training, strict=True):
            if module.training != training:
                module.training = training

    def _changed(self, modules: tuple[nn.Module, ...]) -> list[tuple[Any, dict[Any, Any]]]:
        """Dictionaries that may have changed, as they are and as they were: attributes, configs, dictionaries in them.

        Identical keys and values are compared by functions in C, because a model has thousands, and this runs before
        every call.
        """
        current = chain(
            (module.__dict__ for module in modules),
            (config.__dict__ for config, _ in self.configs),
            (dictionary for dictionary, _ in self.dictionaries),
        )
        return [
            (now, before)
            for now, (before, contents) in zip(current, self._before, strict=True)
            # Keys and values are copied first, because another thread may change the user's model meanwhile.
            if (now or before) and not (len(now) == len(before) and all(map(is_, [*now, *now.values()], contents)))
        ]

    @cached_property
    def _before(self) -> list[tuple[dict[Any, Any], list[Any]]]:
        """Attributes, configs and dictionaries as they were, each with a list of its keys and values."""
        dictionaries = (*self.attributes, *(before for _, before in (*self.configs, *self.dictionaries)))
        return [(before, [*before, *before.values()]) for before in dictionaries]


def _holders(values: Iterable[Any]) -> list[Any]:
    """Containers and configs among values, and inside one another."""
    holders: dict[int, Any] = {}
    pending = list(values)
    while pending:
        value = pending.pop()
        # Containers may refer to each other in cycles.
        if id(value) in holders:
            continue
        if type(value) in _DICTIONARIES:
            pending.extend(value.values())
        elif type(value) in _COLLECTIONS:
            pending.extend(value)
        elif _is_config(value):
            pending.extend(value.__dict__.values())
        else:
            continue
        holders[id(value)] = value
    return list(holders.values())


def _is_config(value: object) -> bool:
    """Whether an object contains only settings."""
    if isinstance(value, PreTrainedConfig | GenerationConfig | SimpleNamespace):
        return True
    return is_dataclass(value) and not isinstance(value, type | nn.Module) and "__dict__" in dir(value)


def _same_attributes(now: dict[object, object], before: dict[object, object]) -> bool:
    """Whether two dictionaries have the same keys and values; values other than `_SIMPLE` are compared by identity."""
    return now.keys() == before.keys() and all(_same(now.get(key, _ABSENT), value) for key, value in before.items())


def _same(now: object, before: object) -> bool:
    return now is before or (type(now) is type(before) and isinstance(before, _SIMPLE) and now == before)


def _equal(now: Any, before: Any) -> bool:
    """Whether two lists or sets have the same entries; tensors are compared by identity."""
    if isinstance(now, set) or not (now or before):
        return now == before
    return len(now) == len(before) and all(map(_same, now, before))
