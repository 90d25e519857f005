"""Names of transformers, PyTorch and OpenCLIP that the package relies on: a test of each fails when the name disappears.

Capabilities that are detected by behaviour (caches, positions, patches) are tested elsewhere.
"""

import inspect

import pytest
import torch
import transformers as hf
from transformers.models.auto import modeling_auto

from interpreto.model_wrapping.tasks.detection import _MAPPINGS
from tests.causal_lms import causal_lm
from tests.dual_encoders import dual_encoder_model
from tests.models import TEXT_MODELS, image_model, processor, text_model, tokenizer

BERT = text_model("bert")[0]
LLAMA = causal_lm("llama")[0]
VIT = image_model("vit")[0]


def cache():
    made = hf.DynamicCache()
    made.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    return made


def forward_of(model):
    return inspect.signature(model.forward).parameters


NAMES = {
    "config.get_text_config": lambda: LLAMA.config.get_text_config() is not None,
    "config.vocab_size": lambda: LLAMA.config.vocab_size > 0,
    "config.pad_token_id": lambda: hasattr(LLAMA.config, "pad_token_id"),
    "config.is_encoder_decoder": lambda: hf.BartConfig().is_encoder_decoder and not LLAMA.config.is_encoder_decoder,
    "config.max_position_embeddings": lambda: BERT.config.max_position_embeddings == 70,
    "config.rope_parameters": lambda: LLAMA.config.rope_parameters["rope_type"] == "default",
    "config.layer_types": lambda: "sliding_attention" in causal_lm("gemma3")[0].config.layer_types,
    "config.model_type": lambda: BERT.config.model_type == "bert",
    "config.id2label": lambda: list(BERT.config.id2label) == [0, 1, 2],
    "config.name_or_path": lambda: hasattr(BERT.config, "name_or_path"),
    "config.patch_size": lambda: VIT.config.patch_size == 8,
    "config.image_size": lambda: VIT.config.image_size == 32,
    "config.depths": lambda: image_model("swin")[0].config.depths == [1, 1],
    "config.vision_config": lambda: dual_encoder_model("clip")[0].config.vision_config.patch_size == 8,
    "config._attn_implementation_internal": lambda: VIT.config._attn_implementation_internal in ("sdpa", "eager"),
    "model._supports_sdpa": lambda: VIT._supports_sdpa is True,
    "model._is_stateful": lambda: hf.MambaForCausalLM._is_stateful and not LLAMA._is_stateful,
    "model.base_model": lambda: BERT.base_model is BERT.bert,
    "model.get_input_embeddings": lambda: LLAMA.get_input_embeddings() is LLAMA.model.embed_tokens,
    "model.get_output_embeddings": lambda: LLAMA.get_output_embeddings() is LLAMA.lm_head,
    "model.generation_config": lambda: hasattr(LLAMA.generation_config, "eos_token_id"),
    "model.generate": lambda: LLAMA.generate(torch.tensor([[5, 6]]), max_new_tokens=1, pad_token_id=0).shape == (1, 3),
    "model.text_model": lambda: dual_encoder_model("clip")[0].text_model is not None,
    "model.vision_model": lambda: dual_encoder_model("clip")[0].vision_model is not None,
    "model.get_image_features": lambda: callable(dual_encoder_model("clip")[0].get_image_features),
    "model.get_text_features": lambda: callable(dual_encoder_model("clip")[0].get_text_features),
    "model.logit_scale": lambda: dual_encoder_model("clip")[0].logit_scale.ndim == 0,
    "model.logit_bias": lambda: dual_encoder_model("siglip")[0].logit_bias.numel() == 1,
    "output.logits": lambda: BERT(torch.tensor([[5, 6]])).logits.shape == (1, 3),
    "output.pooler_output": lambda: "pooler_output" in BERT.bert(torch.tensor([[5, 6]])),
    "output.sequences": lambda: "sequences" in LLAMA.generate(
        torch.tensor([[5, 6]]), max_new_tokens=1, pad_token_id=0, return_dict_in_generate=True
    ),
    "forward(input_ids, attention_mask)": lambda: {"input_ids", "attention_mask"} <= set(forward_of(BERT)),
    "forward(token_type_ids)": lambda: "token_type_ids" in forward_of(BERT),
    "forward(position_ids)": lambda: "position_ids" in forward_of(LLAMA),
    "forward(use_cache)": lambda: "use_cache" in forward_of(LLAMA),
    "forward(pixel_values)": lambda: "pixel_values" in forward_of(VIT),
    "forward(interpolate_pos_encoding)": lambda: "interpolate_pos_encoding" in forward_of(VIT),
    "get_image_features(interpolate_pos_encoding)": lambda: dual_encoder_model("clip")[0].get_image_features(
        pixel_values=torch.rand(1, 3, 48, 48), interpolate_pos_encoding=True
    ) is not None,
    "cache.layers": lambda: len(cache().layers) == 1,
    "cache.layers[].keys": lambda: cache().layers[0].keys.shape == cache().layers[0].values.shape == (1, 2, 3, 4),
    "cache.get_seq_length": lambda: cache().get_seq_length() == cache().layers[0].get_seq_length() == 3,
    "cache.update": lambda: cache().layers[0].update(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))[0].shape[2] == 4,
    "Cache(layers=)": lambda: hf.Cache(layers=cache().layers).get_seq_length() == 3,
    "layer.lazy_initialization": lambda: callable(hf.cache_utils.DynamicLayer().lazy_initialization),
    "processor.model_input_names": lambda: processor().model_input_names == ["pixel_values"],
    "processor(images, return_tensors, size)": lambda: processor()(
        images=[__import__("PIL.Image").Image.new("RGB", (9, 9))], return_tensors="pt",
        size={"height": 16, "width": 16},
    )["pixel_values"].shape[2:] == (16, 16),
    "processor.do_center_crop, crop_size, size": lambda: (
        hf.CLIPImageProcessor().do_center_crop
        and dict(hf.CLIPImageProcessor().crop_size)["height"] == 224
        and dict(hf.CLIPImageProcessor().size)["shortest_edge"] == 224
    ),
    "tokenizer.is_fast": lambda: tokenizer("bert").is_fast,
    "tokenizer.model_input_names": lambda: "token_type_ids" in tokenizer("bert").model_input_names,
    "tokenizer.model_max_length": lambda: tokenizer("gpt2").model_max_length == 64,
    "tokenizer.mask_token_id, unk_token_id": lambda: tokenizer("bert").mask_token_id != tokenizer("bert").unk_token_id,
    "tokenizer.all_special_ids": lambda: tokenizer("bert").mask_token_id in tokenizer("bert").all_special_ids,
    "tokenizer.pad_token_type_id": lambda: tokenizer("bert").pad_token_type_id == 0,
    "tokenizer.get_special_tokens_mask": lambda: tokenizer("bert").get_special_tokens_mask(
        [tokenizer("bert").cls_token_id], already_has_special_tokens=True
    ) == [1],
    "tokenizer.convert_ids_to_tokens": lambda: tokenizer("bert").convert_ids_to_tokens(
        tokenizer("bert").mask_token_id
    ) == tokenizer("bert").mask_token,
    "tokenizer.decode": lambda: isinstance(
        tokenizer("bert").decode([5], skip_special_tokens=False, clean_up_tokenization_spaces=False), str
    ),
    "tokenizer(return_offsets_mapping, return_special_tokens_mask)": lambda: {
        "offset_mapping", "special_tokens_mask"
    } <= set(tokenizer("bert")("a film", return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)),
    "encoding.sequence_ids": lambda: tokenizer("bert")("a", "b").sequence_ids(0)[0] is None,
    "tokenizer.apply_chat_template": lambda: {
        "tokenize", "add_generation_prompt", "continue_final_message"
    } <= set(inspect.signature(tokenizer("bert").apply_chat_template).parameters),
    "from_pretrained(output_loading_info)": lambda: "output_loading_info" in inspect.getsource(
        hf.PreTrainedModel.from_pretrained
    ),
    "logging.disable_progress_bar": lambda: callable(hf.utils.logging.disable_progress_bar),
    "torch.compile's _orig_mod": lambda: torch.compile(torch.nn.Linear(1, 1), backend="eager")._orig_mod is not None,
    "function modes": lambda: torch.overrides._get_current_function_mode_stack() == [],
    "F.multi_head_attention_forward calls F.scaled_dot_product_attention by its name": lambda: (
        "scaled_dot_product_attention" in torch.nn.functional.multi_head_attention_forward.__code__.co_names
        and "has_torch_function" in torch.nn.functional.multi_head_attention_forward.__code__.co_names
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_exist_and_keep_their_meaning(name):
    assert NAMES[name]()


@pytest.mark.parametrize("mapping", _MAPPINGS.values())
def test_tables_of_classes_by_task(mapping):
    assert getattr(modeling_auto, mapping)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_models_ignore_fields_that_they_do_not_declare(name):
    """Fields that are left out because the forward does not declare them are not read by the model."""
    model, words = text_model(name)
    encoded = words("a good film", return_tensors="pt")
    assert set(encoded) <= set(words.model_input_names)
    assert model(**{key: value for key, value in encoded.items() if key in forward_of(model)}).logits.isfinite().all()
