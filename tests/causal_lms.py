"""Tiny seeded causal language models of many architectures, and a slow reference for scores of continuations."""

from typing import Any

import torch
import transformers as hf

from tests.models import tokenizer

_WIDE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "initializer_range": 0.4,
}  # fmt: skip
_GROUPED = {**_WIDE, "num_key_value_heads": 1, "head_dim": 8}

CAUSAL_LMS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "gpt2": ("gpt2", hf.GPT2LMHeadModel, hf.GPT2Config, {
        "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.4,
    }),
    "llama": ("llama", hf.LlamaForCausalLM, hf.LlamaConfig, _GROUPED),
    "mistral": ("llama", hf.MistralForCausalLM, hf.MistralConfig, {**_GROUPED, "sliding_window": 4}),
    "qwen3": ("gpt2", hf.Qwen3ForCausalLM, hf.Qwen3Config, _GROUPED),
    "gemma3": ("llama", hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, {
        **_GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
    }),
    "phi": ("gpt2", hf.PhiForCausalLM, hf.PhiConfig, _WIDE),
    "falcon": ("gpt2", hf.FalconForCausalLM, hf.FalconConfig, {**_WIDE, "alibi": False}),
    "bloom": ("gpt2", hf.BloomForCausalLM, hf.BloomConfig, {
        "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.4,
    }),
    "opt": ("gpt2", hf.OPTForCausalLM, hf.OPTConfig, {
        **_WIDE, "ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.4,
    }),
    "gpt-neox": ("gpt2", hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, _WIDE),
    "mixtral": ("llama", hf.MixtralForCausalLM, hf.MixtralConfig, {
        **_GROUPED, "num_local_experts": 2, "sliding_window": 4,
    }),
}  # fmt: skip


def causal_lm(name: str, **changes: Any) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    kind, model, config, options = CAUSAL_LMS[name]
    words = tokenizer(kind)
    torch.manual_seed(0)
    ids = {f"{role}_token_id": getattr(words, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    return model(config(**{"vocab_size": len(words), **ids, **options, **changes})).eval(), words


def slow_scores(model: Any, ids: list[int], places: list[int]) -> list[float]:
    """The log-probability of the token at each position of one text, without cache, mask or batch."""
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return [float(outputs[place - 1, ids[place]]) for place in places]
