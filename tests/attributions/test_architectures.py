"""Every method on every architecture, with small random weights and without model-specific options."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from interpreto import (
    IMAGES_ONLY,
    INTERNALS,
    METHODS,
    GradCam,
    GradEclip,
    IntegratedGradients,
    KernelShap,
    Occlusion,
    Saliency,
)
from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.wrapper import InferenceWrapper
from tests.models import IMAGE_MODELS, TEXT_MODELS, TEXTS, image_model, light, some_images, text_model

ATTENTION_IN_NO_GRID = {
    "swin": "inside windows|code of its own|on one grid",
    "convnext": "has no attention",
    "resnet": "has no attention",
    "torchvision-resnet": "has no attention",
}


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("method", [method for method in METHODS if method not in IMAGES_ONLY])
def test_text_classifiers(name, method):
    model, tokenizer = text_model(name)
    if method is GradEclip and name == "deberta-v2":
        with pytest.raises(UnsupportedError, match=r"attention code of deberta.encoder.layer.1 exposes only"):
            method(model, tokenizer)(TEXTS)
        return
    for output, text in zip(light(method)(model, tokenizer)(TEXTS, targets="all"), TEXTS, strict=True):
        assert "".join(output.elements) == text
        assert output.attributions.isfinite().all()
        if output.attributions[0].numel() > 2:
            assert output.attributions.abs().max() > 0


@pytest.mark.filterwarnings("ignore:n_samples=40 is fewer than two per unit")
@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_image_classifiers(name, method):
    model, processor = image_model(name)
    task = None if hasattr(model, "config") else "image-classification"
    if method in INTERNALS and method is not GradCam and name in ATTENTION_IN_NO_GRID:
        with pytest.raises(UnsupportedError, match=ATTENTION_IN_NO_GRID[name]):
            method(model, processor, task=task)(some_images())
        return
    for output in light(method)(model, processor, task=task)(some_images(), targets="all"):
        assert output.attributions.isfinite().all()
        assert output.attributions.abs().max() > 0


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_scores_of_texts_in_a_batch_are_those_of_the_model(name):
    """Padding, replaced embeddings and the padding token of decoders do not change the scores."""
    model, tokenizer = text_model(name)
    for method in (light(Occlusion), light(Saliency)):
        for output, text in zip(method(model, tokenizer)(TEXTS, targets="all"), TEXTS, strict=True):
            encoded = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                expected = model(**encoded).logits[0]
            assert torch.allclose(output.scores, expected, atol=1e-5)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_embedding_hook_is_exact(name):
    """Embeddings passed through the hook give the same scores as the ids, with and without padding."""
    from interpreto.attributions.perturbations.modalities.token_embeddings import TokenEmbeddings
    from interpreto.model_wrapping.messages import ModelRequest
    from interpreto.model_wrapping.runtime import Runtime
    from interpreto.model_wrapping.sample import EMBEDDINGS
    from interpreto.model_wrapping.targets import AllOutputs
    from interpreto.model_wrapping.tasks.text_classification import text_classification

    model, tokenizer = text_model(name)
    wrapper = InferenceWrapper.create(text_classification, model, tokenizer, Runtime())
    samples = [wrapper.inputs.prepare_one(text) for text in TEXTS]
    modality = TokenEmbeddings(wrapper.tokens)
    plain = wrapper.engine.respond([ModelRequest(sample.rows, AllOutputs()) for sample in samples])
    rows = [sample.rows.replace(**{EMBEDDINGS: modality.read(sample)[None]}) for sample in samples]
    hooked = wrapper.engine.respond([ModelRequest(one, AllOutputs()) for one in rows])
    for one, other in zip(plain, hooked, strict=True):
        assert torch.equal(one.scores, other.scores)


def test_the_padding_token_is_not_used_for_removal_where_the_model_reads_it():
    model, tokenizer = text_model("roberta")
    with pytest.raises(Exception, match="removal='pad' is the padding token, by which this model counts positions"):
        Occlusion(model, tokenizer, removal="pad")
    assert Occlusion(model, tokenizer)("a good film")[0].info["removal"] == "mask"
    gpt, words = text_model("gpt2")
    assert Occlusion(gpt, words)("a good film")[0].info["removal"] == "unk"
    gpt.config.pad_token_id = words.eos_token_id
    try:
        output = Occlusion(gpt, words)("a good film")[0]
        assert output.info["removal"] in ("space", "attention")
    finally:
        gpt.config.pad_token_id = None


def test_a_swin_is_explained_on_the_patches_of_its_last_stage():
    model, processor = image_model("swin")
    (output,) = light(KernelShap)(model, processor)(some_images()[0])
    assert output.attributions.shape == (1, 4, 4)
    assert output.granularity == "patch"


def test_a_cnn_has_no_patches():
    model, processor = image_model("resnet")
    assert light(Saliency)(model, processor)(some_images()[0])[0].attributions.shape == (1, 32, 32)
    hidden = light(Occlusion)(model, processor)(some_images()[0])[0]
    assert hidden.attributions.shape == (1, 14, 14)
    given = light(Occlusion)(model, processor, patch_size=(8, 16))(some_images()[0])[0]
    assert given.attributions.shape == (1, 4, 2)


def test_token_types_in_the_token_embedding_are_not_replaced():
    """GPT-2 looks up token types in the token embedding; the hook must replace only the lookup of tokens."""
    model, words = text_model("gpt2")
    encoded = {**words(TEXTS[0]), "token_type_ids": [3] * len(words(TEXTS[0])["input_ids"])}
    typed = copy.deepcopy(words)
    typed.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    (found,) = IntegratedGradients(model, typed, granularity="token", n_steps=64)(encoded)
    assert float(found.completeness_gap.abs()) < 1e-3 * max(1, float(found.scores.abs()))


PADDING_READERS = {
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "FNet": {},
    "MobileBert": {"embedding_size": 16, "intra_bottleneck_size": 16},
    "Yoso": {"use_expectation": True},
    "ConvBert": {"embedding_size": 16, "conv_kernel_size": 3},
    "Funnel": {"d_model": 16, "block_sizes": [1, 1], "n_head": 2, "d_head": 8, "d_inner": 24},
    "IBert": {},
    "BigBird": {"attention_type": "original_full"},
    "Nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 3},
}
"""Classifiers, most of which read padding in spite of their attention mask."""


@pytest.mark.parametrize("name", PADDING_READERS)
def test_other_texts_of_a_batch_do_not_change_scores(name):
    import transformers as hf

    words = text_model("bert")[1]
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 70,
    }  # fmt: skip
    general = {"vocab_size": len(words), "initializer_range": 0.3, "pad_token_id": words.pad_token_id}
    own = {} if name in ("XLNet", "Funnel") else sizes
    config = getattr(hf, f"{name}Config")(**general, **own, **PADDING_READERS[name])
    model = getattr(hf, f"{name}ForSequenceClassification")(config).eval()
    if name == "MobileBert":
        # As in trained models.
        model.mobilebert.embeddings.word_embeddings.weight.data[words.pad_token_id] = 1.0
    for method in (Occlusion, Saliency):
        together = method(model, words)(TEXTS, targets=0)
        for one, text in zip(together, TEXTS, strict=True):
            alone = method(model, words)(text, targets=0)[0]
            with torch.no_grad():
                expected = model(**words(text, return_tensors="pt")).logits[0, :1]
            assert torch.allclose(one.scores, expected, atol=1e-4)
            assert torch.allclose(one.attributions, alone.attributions, atol=1e-4)


def test_mobilevit_has_no_patches_and_levit_those_of_its_last_stage():
    mobile = SimpleNamespace(config=SimpleNamespace(model_type="mobilevit", patch_size=2))
    assert patch_size(mobile) is None
    levit = SimpleNamespace(config=SimpleNamespace(model_type="levit", patch_size=16, depths=[4, 4, 4]))
    assert patch_size(levit) == (16, 16)


@pytest.mark.parametrize(
    ("name", "side", "extent"),
    [
        ("pvt_v2_b0", 32, lambda features: features.shape[2]),
        ("vitamin_small_224", 16, lambda features: math.isqrt(features.shape[1])),
        ("swin_tiny_patch4_window7_224", 32, lambda features: features.shape[1]),
    ],
)
def test_patches_of_timm_are_as_far_apart_as_its_last_features(name, side, extent):
    """Overlapping patches are larger than their stride, and an embedding after convolutions counts in feature cells."""
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=3).eval()
    assert patch_size(model) == (side, side)
    with torch.no_grad():
        assert extent(model.forward_features(torch.zeros(1, 3, 224, 224))) == 224 // side
