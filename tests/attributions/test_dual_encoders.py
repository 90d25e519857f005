"""Dual encoders (CLIP and similar): all methods, all kinds of targets, and bad input."""

import copy

import numpy as np
import open_clip
import pytest
import torch
import transformers as hf
from torch.nn import functional

from interpreto import (
    IMAGES_ONLY,
    INTERNALS,
    METHODS,
    AttributionOutput,
    Contrast,
    Deletion,
    GradCam,
    GradEclip,
    IntegratedGradients,
    LeGrad,
    Occlusion,
    compare,
    list_pretrained,
    zoo,
)
from interpreto.errors import InputError, ModelError, OptionError, TargetError, UnsupportedError
from interpreto.loading import load
from tests.dual_encoders import DUAL_ENCODERS, PROMPTS, dual_encoder_model, encoded
from tests.models import image_model, light, some_images

ALL = {method.__name__: method for method in METHODS}


FEW = ("Occlusion", "Saliency", *(method.__name__ for method in INTERNALS))
"""The methods for models that are similar to those on which every method is tested."""
IMAGES = [(name, method) for name in DUAL_ENCODERS for method in (ALL if name in ("clip", "open-coca") else FEW)]


@pytest.mark.filterwarnings("ignore:n_samples=40 is fewer than two per unit")
@pytest.mark.parametrize(("name", "method"), IMAGES)
def test_all_methods_explain_images(name, method):
    model, processor = dual_encoder_model(name)
    outputs = light(ALL[method])(model, processor)(some_images(), PROMPTS)
    for output in outputs:
        assert output.attributions.shape[0] == len(PROMPTS)
        assert output.target_names == PROMPTS
        assert output.attributions.isfinite().all()
    found = [bool(output.attributions.any()) for output in outputs]
    # Grad-CAM is 0 where all weighted sums are negative, as they may be for an image and a random model.
    assert any(found) if method == "GradCam" else all(found)


@pytest.mark.parametrize(("name", "method"), [pair for pair in IMAGES if ALL[pair[1]] not in IMAGES_ONLY])
def test_all_methods_explain_texts(name, method):
    model, processor = dual_encoder_model(name)
    pictures = tuple(some_images())
    for output in light(ALL[method])(model, processor, modality="text")(list(PROMPTS), pictures):
        assert "".join(output.elements).strip() in PROMPTS
        assert len(output.attributions) == len(pictures)
        assert output.attributions.isfinite().all()


@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_scores_are_the_models_own_logits(name):
    model, processor = dual_encoder_model(name)
    transform, tokenizer = processor
    pictures = some_images()
    with torch.no_grad():
        if name.startswith("open"):
            pixels = torch.stack([transform(picture) for picture in pictures])
            image = functional.normalize(model.encode_image(pixels), dim=-1)
            text = functional.normalize(model.encode_text(tokenizer(list(PROMPTS))), dim=-1)
            bias = 0.0 if getattr(model, "logit_bias", None) is None else model.logit_bias
            expected = model.logit_scale.exp() * image @ text.T + bias
        else:
            pixels = transform(images=pictures, return_tensors="pt")
            full = {"padding": "max_length", "max_length": 24} if "siglip" in name else {"padding": True}
            tokens = dict(tokenizer(list(PROMPTS), return_tensors="pt", **full))
            if "siglip" in name:
                tokens.pop("attention_mask")
            expected = model(**pixels, **tokens).logits_per_image
    outputs = Occlusion(model, processor)(pictures, PROMPTS)
    assert torch.allclose(torch.stack([output.scores for output in outputs]), expected, atol=1e-4)
    others = Occlusion(model, processor, modality="text")(list(PROMPTS), tuple(pictures))
    assert torch.allclose(torch.stack([output.scores for output in others]), expected.T, atol=1e-4)


@pytest.fixture
def clip():
    return dual_encoder_model("clip")


def test_targets_of_every_kind(clip):
    model, processor = clip
    picture = some_images()[0]
    explain = Occlusion(model, processor)
    both = explain(picture, PROMPTS[:2])[0]
    assert explain(picture, list(PROMPTS[:2]))[0].target_names == PROMPTS[:2]
    contrast = explain(picture, Contrast(*PROMPTS[:2]))[0]
    assert torch.allclose(contrast.attributions[0], both.attributions[0] - both.attributions[1], atol=1e-5)
    assert contrast.target_names == ("a red circle - a small green star",)
    with torch.no_grad():
        tokens = processor[1](list(PROMPTS[:2]), padding=True, return_tensors="pt")
        features = model.get_text_features(**tokens).pooler_output
    for given in (features, features.numpy(), (features[0], features[1])):
        found = explain(picture, given)[0]
        assert torch.allclose(found.attributions, both.attributions, atol=1e-5)
        assert found.target_names[0] == "embedding 0"
    direction = functional.normalize(features, dim=-1)

    def likeness(own):
        return model.logit_scale.detach().exp() * own @ direction[1]

    found = explain(picture, likeness)[0]
    assert torch.allclose(found.attributions[0], both.attributions[1], atol=1e-5)
    per_sample = explain(some_images()[:2], [PROMPTS[0], PROMPTS[1:]])
    assert [output.target_names for output in per_sample] == [PROMPTS[:1], PROMPTS[1:]]


def test_a_softmax_is_taken_over_the_prompts(clip):
    model, processor = clip
    output = Occlusion(model, processor, inference_mode="softmax")(some_images()[0], PROMPTS)[0]
    assert output.scores.sum() == pytest.approx(1.0)
    with pytest.raises(OptionError, match="constant on a model with one output"):
        Occlusion(model, processor, inference_mode="softmax")(some_images()[0], PROMPTS[0])


def test_integrated_gradients_keep_their_sum(clip):
    model, processor = clip
    output = IntegratedGradients(model, processor, n_steps=64)(some_images()[0], PROMPTS)[0]
    assert output.completeness_gap.abs().max() < 0.02 * output.attributions.abs().sum()


def test_prompts_run_once_and_again_after_the_weights_have_changed():
    model, processor = dual_encoder_model("clip")
    model = copy.deepcopy(model)
    explain = Occlusion(model, processor)
    calls = []
    handle = model.text_model.register_forward_hook(lambda *_: calls.append(1))
    # The first run of a tower is a check that compares it with a batch.
    explain(some_images(), ("a warm", "up"))
    calls.clear()
    first = explain(some_images(), PROMPTS)
    assert len(calls) == 1
    handle.remove()
    with torch.no_grad():
        model.text_projection.weight.mul_(-1)
    second = explain(some_images(), PROMPTS)
    assert torch.allclose(first[0].scores, -second[0].scores, atol=1e-4)


def test_bad_targets_are_told_before_the_model_runs(clip):
    model, processor = clip
    picture = some_images()[0]
    ran = []
    handle = model.register_forward_pre_hook(lambda *_: ran.append(1))
    vision = model.vision_model.register_forward_pre_hook(lambda *_: ran.append(1))
    explain = LeGrad(model, processor)
    for targets, message in (
        (None, "pass targets="),
        ("all", "pass targets="),
        ((), "targets is empty"),
        ([], "targets is empty"),
        ("  ", "A prompt is empty"),
        (3, "3 is not a prompt"),
        (" ".join(["red"] * 40), "The prompt 'red red .*' is too long. The text has 42 tokens"),
    ):
        with pytest.raises(TargetError, match=message):
            explain(picture, targets)
    assert not ran
    handle.remove()
    vision.remove()
    with pytest.raises(TargetError, match="have 16 numbers; those passed have 5"):
        explain(picture, torch.rand(2, 5))
    with pytest.raises(TargetError, match="is not an image"):
        LeGrad(model, processor, modality="text")("a red circle", 3)
    with pytest.raises(InputError, match="not a pair"):
        LeGrad(model, processor, modality="text")(("a", "b"), picture)


def test_processors_must_prepare_both():
    model, processor = dual_encoder_model("clip")
    for given in (processor[0], processor[1]):
        with pytest.raises(ModelError, match="needs a processor for both"):
            Occlusion(model, given)
    with pytest.raises(ModelError, match="does not have separate text and image towers"):
        Occlusion(image_model("vit")[0], processor, task="zero-shot-image-classification")


def test_words_are_never_hidden_by_the_token_that_ends_a_text(clip):
    model, processor = clip
    output = Occlusion(model, processor, modality="text")("a red circle", some_images()[0])[0]
    assert output.info["removal"] == "attention"
    with pytest.raises(OptionError, match=r"padding token|last token"):
        Occlusion(model, processor, modality="text", removal="unk")
    other, tools = dual_encoder_model("open-clip")
    assert Occlusion(other, tools, modality="text")("a cat", some_images()[0])[0].info["removal"] == "pad"
    with pytest.raises(OptionError, match="needs an attention mask"):
        Occlusion(other, tools, modality="text", removal="attention")


def test_results_are_saved_and_measured_again(clip, tmp_path):
    model, processor = clip
    output = LeGrad(model, processor)(some_images()[0], PROMPTS[:2])[0]
    output.save(tmp_path / "maps")
    loaded = AttributionOutput.load(tmp_path / "maps")
    assert loaded.targets == PROMPTS[:2]
    found = Deletion(model, processor, n_steps=4).evaluate(loaded)
    assert found.mean == pytest.approx(Deletion(model, processor, n_steps=4).evaluate(output, some_images()[:1]).mean)
    features = LeGrad(model, processor)(some_images()[0], torch.rand(16))[0]
    features.save(tmp_path / "features")
    with pytest.raises(InputError, match="of which only names are saved"):
        Deletion(model, processor).evaluate(AttributionOutput.load(tmp_path / "features"))


def test_methods_are_compared(clip):
    model, processor = clip
    found = compare(
        model, processor, some_images(), methods="le-grad,occlusion", metrics="deletion", targets=[*PROMPTS]
    )
    assert not found.failures
    assert {"LeGrad", "Occlusion"} <= set(found.methods)


@pytest.mark.parametrize("size", [64, (32, 48)])
@pytest.mark.parametrize("name", ["clip", "siglip", "open-clip", "open-siglip"])
def test_images_are_read_at_other_sizes(name, size):
    model, processor = dual_encoder_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = [sorted(module.__dict__) for module in model.modules()]
    height, width = (size, size) if isinstance(size, int) else size
    for method in (LeGrad, GradCam, Occlusion):
        output = method(model, processor, image_size=size)(some_images()[0], PROMPTS[:2])[0]
        assert output.attributions.shape == (2, height // 8, width // 8)
    same = LeGrad(model, processor, image_size=32)(some_images()[0], PROMPTS[0])[0]
    assert torch.equal(same.attributions, LeGrad(model, processor)(some_images()[0], PROMPTS[0])[0].attributions)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [sorted(module.__dict__) for module in model.modules()] == names


@pytest.mark.parametrize("name", ["vit", "torchvision-vit", "timm-vit"])
def test_classifiers_read_other_sizes(name):
    model, processor = image_model(name)
    task = None if getattr(model, "config", None) is not None else "image-classification"
    own = {"processor": processor} if task is None else {"processor": open_clip.image_transform(32, is_train=False)}
    output = LeGrad(model, own["processor"], task=task, image_size=(48, 64))(some_images()[0])[0]
    assert output.attributions.shape == (1, 6, 8)


def test_bad_sizes_are_told(clip):
    model, processor = clip
    with pytest.raises(
        OptionError, match=r"not divisible by the model's patch size, 8 x 8 pixels; the nearest .*\(48, 48\)"
    ):
        LeGrad(model, processor, image_size=50)
    for size in (0, "big", (32, 32, 32)):
        with pytest.raises(OptionError, match="must be a number of pixels"):
            LeGrad(model, processor, image_size=size)
    with pytest.raises(OptionError, match="image_size= cannot change how function"):
        LeGrad(model, (lambda picture: torch.zeros(3, 32, 32), processor[1]), image_size=64)
    with pytest.raises(OptionError, match="needs a transform with a Resize"):
        LeGrad(model, (open_clip.transform.Compose([np.asarray]), processor[1]), image_size=64)


def test_models_load_by_name(tmp_path):
    model, processor = dual_encoder_model("clip")
    model.save_pretrained(tmp_path / "hub")
    hf.CLIPProcessor(*processor).save_pretrained(tmp_path / "hub")
    loaded, tools = load(str(tmp_path / "hub"))
    expected = LeGrad(model, processor)(some_images()[0], PROMPTS[0])[0]
    found = LeGrad(loaded, tools)(some_images()[0], PROMPTS[0])[0]
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)
    with pytest.raises(ModelError, match="Pass weights: open_clip:ViT-B-32:WEIGHTS, with a file or one of openai"):
        load("open_clip:ViT-B-32")
    with pytest.raises(ModelError, match="Cannot load open_clip:ViT-B-33:openai"):
        load("open_clip:ViT-B-33:openai")


def test_models_known_to_work_are_listed():
    known = list_pretrained()
    assert "openai/clip-vit-base-patch16" in known
    assert any(name.startswith("open_clip:coca_ViT") for name in known)
    assert any("SigLIP" in name for name in known)
    assert not any(name.startswith("open_clip:RN") for name in known)


def test_attention_of_blip_shows_probabilities_alone():
    words = dual_encoder_model("clip")[1][1]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.BlipConfig(
        text_config={**sizes, "vocab_size": len(words), "encoder_hidden_size": 16, "bos_token_id": 0},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    model, processor = hf.BlipModel(config).eval(), dual_encoder_model("clip")[1]
    assert LeGrad(model, processor)(some_images()[0], "a red circle")[0].attributions.isfinite().all()
    with pytest.raises(UnsupportedError, match=r"the attention code of .* exposes only probabilities"):
        GradEclip(model, processor)(some_images()[0], "a red circle")


def test_the_zoos_clip_knows_captions():
    assert zoo.card("shapes-clip")["held_out_accuracy"] >= 0.98
    assert len(zoo.samples("shapes-clip")) == 400
    first, second = zoo.samples("shapes-clip", 2)
    assert first.input is second.input
    assert first.label != second.label
    assert not (first.truth & second.truth).any()


def test_methods_that_look_inside_are_methods():
    assert set(INTERNALS) < set(METHODS)


def test_targets_of_one_name_are_told_apart():
    model, processor = zoo.load("shapes-clip")
    first, second = (zoo.samples("shapes-clip", 3)[number].input for number in (0, 2))
    run = LeGrad(model, processor, modality="text")
    assert run("a red circle", (first, second))[0].target_names == ("the image", "the image (2)")
    assert run("a red circle", Contrast(first, second))[0].target_names == ("the image - the image (2)",)


def test_the_two_parts_of_a_processor_in_the_wrong_order():
    model, processor = dual_encoder_model("open-coca")
    with pytest.raises(ModelError, match="in this order"):
        LeGrad(model, (processor[1], processor[0]))
    training = open_clip.image_transform(32, is_train=True)
    with pytest.raises(ModelError, match="transform is random"):
        LeGrad(model, (training, processor[1]))(some_images()[0], "a film")


@pytest.mark.parametrize("name", ["clip", "siglip", "open-clip", "open-coca"])
def test_tensors_and_embeddings_need_no_processor(name):
    model, processor = dual_encoder_model(name)
    wrapper = Occlusion(model, processor).setup.wrapper
    pixels = wrapper.inputs.prepare_one(some_images()[0]).rows.fields["pixel_values"]
    with torch.no_grad():
        (embedding,) = encoded(wrapper.dual_encoder, ["a film"])
    for method in (Occlusion, LeGrad):
        expected = method(model, processor)(some_images()[0], "a film")[0].attributions
        if name == "siglip" and method is LeGrad:
            with pytest.raises(
                ModelError, match="Prompts need the model's tokenizer, including those that LeGrad adds"
            ):
                method(model)(pixels, embedding)
            continue
        assert torch.allclose(method(model)(pixels, embedding)[0].attributions, expected, atol=1e-5)
    with pytest.raises(ModelError, match="Prompts need the model's tokenizer"):
        Occlusion(model)(pixels, "a film")
    with pytest.raises(ModelError, match="Prompts need the model's tokenizer"):
        Occlusion(model, modality="text")
