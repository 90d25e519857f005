"""A wrapper for a new kind of model is a choice of parts: a LLaVA, explained over its image and over its prompt."""

from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
import transformers as hf
from torch import nn

from interpreto import Grid, IntegratedGradients, Occlusion
from interpreto.attributions.registry import IMAGE_PARTS, REGISTRY, TEXT_PARTS, Registration
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor
from interpreto.model_wrapping.inputs.prompt import PromptReader
from interpreto.model_wrapping.language.causal_lm import CausalLMEngine
from interpreto.model_wrapping.language.continuation_targets import ContinuationResolver
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.wrapper import WrapperParts
from tests.models import processor, some_images, tokenizer

PROMPT, CONTINUATION = "the film is", " very long"
TASK = "image-text-to-text"


@final
@dataclass(frozen=True, eq=False)
class ImagePromptReader(InputReader):
    """Reads pairs of an image and a prompt; the tokens of the image come first."""

    modality: str
    prompts: PromptReader
    images: ImagePreprocessor
    image_tokens: tuple[int, ...]
    ragged = True

    def is_single(self, inputs):
        return isinstance(inputs, tuple)

    def split(self, inputs):
        yield from [inputs] if isinstance(inputs, tuple) else inputs

    @property
    def spatial(self):
        return self.modality == "image"

    def prepare_one(self, raw):
        (image,), text = self.images.prepare([raw[0]]), self.prompts.prepare_one(raw[1])
        n, fields = len(self.image_tokens), text.rows.fields
        ids = torch.cat([torch.tensor([self.image_tokens]), fields["input_ids"]], dim=1)
        mask = nn.functional.pad(fields["attention_mask"], (n, 0), value=1)
        prompt = replace(
            text,
            rows=text.rows.replace(input_ids=ids, attention_mask=mask),
            spans=nn.functional.pad(text.spans, (0, 0, n, 0)),
            # Tokens of the image belong to no text, so that they are not units of it.
            text_index=nn.functional.pad(text.text_index, (n, 0), value=-1),
            tokens=(*["<image>"] * n, *text.tokens),
        )
        rows = prompt.rows.replace(**image.rows.fields)
        return replace(image, rows=rows, prompt=prompt) if self.spatial else replace(prompt, rows=rows)


def image_text_generation(modality):
    def build(model, joint, runtime):
        runtime = replace(runtime, inference_mode=runtime.inference_mode or "log_softmax")
        text = TextModel.of(model, joint, reads_padding=False)
        engine, vision = CausalLMEngine(text, runtime), model.config.vision_config
        images = ImagePreprocessor(joint.image_processor, (vision.patch_size, vision.patch_size))
        tokens = (model.config.image_token_id,) * (vision.image_size // vision.patch_size) ** 2
        reader = ImagePromptReader(modality, PromptReader(text, engine.padding, False), images, tokens)
        resolver = ContinuationResolver(text, engine, runtime)
        return WrapperParts(TASK, reader, resolver, engine, joint, text, runtime=runtime)

    return build


@pytest.fixture
def llava(monkeypatch):
    for modality, parts in (("image", IMAGE_PARTS), ("text", TEXT_PARTS)):
        monkeypatch.setitem(REGISTRY, (TASK, modality), Registration(image_text_generation(modality), *parts))
    torch.manual_seed(0)
    words = tokenizer("llama")
    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    vision = hf.CLIPVisionConfig(**layers, image_size=32, patch_size=8, initializer_range=0.4)
    text = hf.LlamaConfig(**layers, vocab_size=len(words) + 1, initializer_range=0.4, pad_token_id=0)
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=len(words), vision_feature_layer=-1)
    joint = type("Processor", (), {"tokenizer": words, "image_processor": processor(32)})()
    return hf.LlavaForConditionalGeneration(config).eval(), joint


def log_probabilities(model, pixels, ids, n):
    """Of the last n tokens, by one run of the model alone."""
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels).logits[0].log_softmax(-1)
    return torch.stack([logits[position - 1, ids[0, position]] for position in range(ids.shape[1] - n, ids.shape[1])])


def test_generated_tokens_are_explained_over_image_cells_and_over_words(llava):
    model, joint = llava
    pair = (some_images()[0], PROMPT)
    by_cell = Occlusion(model, joint, modality="image", granularity=Grid(2, 2))(pair, CONTINUATION)[0]
    by_word = Occlusion(model, joint, modality="text", removal="unk", granularity="token")(pair, CONTINUATION)[0]
    continuation = joint.tokenizer(CONTINUATION, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[len(joint.tokenizer)] * 16 + joint.tokenizer(PROMPT)["input_ids"] + continuation])
    pixels, n = joint.image_processor(pair[0], return_tensors="pt")["pixel_values"], len(continuation)
    full = log_probabilities(model, pixels, ids, n)
    assert torch.allclose(by_cell.scores, full, atol=1e-4)
    for row, column in ((0, 0), (1, 0)):
        masked = pixels.clone()
        masked[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 0
        drop = full - log_probabilities(model, masked, ids, n)
        assert torch.allclose(by_cell.attributions[:, row, column], drop, atol=1e-4)
    masked_ids = ids.clone()
    # The first unit is the token behind <s>.
    masked_ids[0, 17] = joint.tokenizer.unk_token_id
    drop = full - log_probabilities(model, pixels, masked_ids, n)
    assert torch.allclose(by_word.attributions[:, 0], drop, atol=1e-4)
    for options in ({"modality": "image"}, {"modality": "text", "granularity": "token"}):
        (output,) = IntegratedGradients(model, joint, n_steps=300, baseline="zeros", **options)(pair, CONTINUATION)
        assert (output.completeness_gap.abs() < 0.02 * (1 + full.abs())).all()
