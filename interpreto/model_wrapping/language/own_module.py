"""The config and the token embeddings of text models, also of modules that contain a transformers model."""

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def text_config(model: nn.Module) -> Any:
    """The config of a model's text part.

    A module without a config has that of the first transformers model in it, or an empty one.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        inner = _inner_model(model)
        # Callers read attributes of the config, which have defaults here.
        config = PreTrainedConfig() if inner is None else inner.config
    return config.get_text_config()


def token_table(model: nn.Module, size: int) -> nn.Module | None:
    """The module that looks up token embeddings; None if there is none.

    In a module that does not name it, it is that of the transformers model inside, or an embedding table with a row for
    every token.

    Args:
        model: A text model.
        size: Number of tokens.
    """
    owner = model if isinstance(model, PreTrainedModel) else _inner_model(model)
    if owner is not None:
        try:
            table = owner.get_input_embeddings()
        except NotImplementedError:
            return None
        # Perceiver returns its latents, which are a parameter rather than a module.
        if isinstance(table, nn.Module):
            return table
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    # Tables may have more rows than the tokenizer has tokens, padded to a multiple of 64 for speed. Smaller tables are
    # of positions or token types.
    return next((table for table in tables if table.num_embeddings >= size), None)


def _inner_model(model: nn.Module) -> PreTrainedModel | None:
    """The first transformers model in a module."""
    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
