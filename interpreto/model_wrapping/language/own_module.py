"""What a text model of transformers says of itself, found out for modules that are none."""

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def text_config(model: nn.Module) -> Any:
    """The config of a model's text part.

    A module that has none takes that of the transformers model inside of it, or an empty one.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        body = _body(model)
        config = PreTrainedConfig() if body is None else body.config
    return config.get_text_config()


def token_table(model: nn.Module, size: int) -> nn.Module | None:
    """The module that looks tokens up, None where there is none.

    A module that does not name it is searched for the transformers model inside of it, or for a table of embeddings
    with a row for every token.

    Args:
        model: A text model.
        size: How many tokens there are.
    """
    named = model if isinstance(model, PreTrainedModel) else _body(model)
    if named is not None:
        try:
            table = named.get_input_embeddings()
        except NotImplementedError:
            return None
        # Perceiver names its latents.
        if isinstance(table, nn.Module):
            return table
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return next((table for table in tables if table.num_embeddings >= size), None)


def _body(model: nn.Module) -> PreTrainedModel | None:
    """The first transformers model inside of a module."""
    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
