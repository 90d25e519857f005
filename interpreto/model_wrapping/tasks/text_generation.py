"""Causal language models of transformers."""

from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from interpreto.errors import ModelError
from interpreto.model_wrapping.inputs.prompt import PromptReader
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.language.causal_lm import CausalLMEngine
from interpreto.model_wrapping.language.continuation_targets import ContinuationResolver
from interpreto.model_wrapping.language.prefix_cache import can_crop_cache
from interpreto.model_wrapping.language.text_model import TextModel, adds_tokens
from interpreto.model_wrapping.runtime import Runtime, unwrap_peft
from interpreto.model_wrapping.wrapper import WrapperParts


def text_generation(model: nn.Module, processor: object, runtime: Runtime) -> WrapperParts:
    """The parts for a causal language model, possibly wrapped by torch.compile or PEFT, and its tokenizer."""
    processor = with_own_tokenizer(processor)
    _check(unwrap_peft(model))
    # A logit is defined up to a constant, which every word that is taken away changes.
    runtime = replace(runtime, inference_mode=runtime.inference_mode or "log_softmax")
    text_model = TextModel.of(model, processor, reads_padding=False)
    text_model = replace(text_model, attention_hides_tokens=_attention_hides_tokens(text_model))
    engine = CausalLMEngine(text_model, runtime)
    reader = PromptReader(text_model, engine.padding, runtime.prepend_bos)
    resolver = ContinuationResolver(text_model, engine, runtime)
    return WrapperParts("text-generation", reader, resolver, engine, processor, text_model, runtime=runtime)


def _check(model: nn.Module) -> None:
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"{type(model).__name__} is not a language model of transformers, whose cache and head are needed here. "
            "The next token of any module from ids to logits over the vocabulary can be explained with "
            "task='text-classification'."
        )
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{type(model).__name__} reads its prompt in an encoder; only models that read prompt and continuation as "
            "one text can be explained, not yet those with an encoder and a decoder."
        )
    if model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} has no head over the vocabulary: it is not a language model.")


def _attention_hides_tokens(text_model: TextModel) -> bool:
    # A recurrent state has read what the mask hides; without position ids, positions are counted by the mask.
    named = {"attention_mask", "position_ids"} <= text_model.parameters.names
    return named and can_crop_cache(unwrap_peft(text_model.model)) and not adds_tokens(text_model.model)
