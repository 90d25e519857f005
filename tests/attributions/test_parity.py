"""Parity with captum on the same model and input."""

import captum.attr
import pytest
import torch
from torch import nn

from interpreto import InputXGradient, IntegratedGradients, Occlusion, Saliency
from tests.models import image_model, some_images, text_model

TARGET = 2

pytestmark = [  # raised inside captum
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad"),
]


def assert_close(found, expected):
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.fixture
def image():
    model, processor = image_model("vit")
    pixels = processor(some_images()[0], return_tensors="pt")["pixel_values"]
    return model, pixels, lambda values: model(pixel_values=values).logits


def test_gradients_of_pixels(image):
    model, pixels, forward = image
    options = {"granularity": "pixel"}
    found = Saliency(model, None, reduction="abs_sum", **options)(pixels[0], targets=TARGET)[0]
    assert_close(found.attributions, captum.attr.Saliency(forward).attribute(pixels, target=TARGET).sum(1))
    found = InputXGradient(model, None, **options)(pixels[0], targets=TARGET)[0]
    assert_close(found.attributions, captum.attr.InputXGradient(forward).attribute(pixels, target=TARGET).sum(1))


def test_integrated_gradients_of_pixels(image):
    model, pixels, forward = image
    found = IntegratedGradients(model, None, granularity="pixel", n_steps=20)(pixels[0], targets=TARGET)[0]
    reference = captum.attr.IntegratedGradients(forward)
    expected = reference.attribute(pixels, target=TARGET, n_steps=20, method="gausslegendre")
    assert_close(found.attributions, expected.sum(1))


def test_occlusion_of_patches(image):
    model, pixels, forward = image
    found = Occlusion(model, None)(pixels[0], targets=TARGET)[0]
    down, across = torch.arange(32) // 8, torch.arange(32) // 8
    mask = (down[:, None] * 4 + across)[None, None]
    expected = captum.attr.FeatureAblation(forward).attribute(pixels, target=TARGET, feature_mask=mask)
    assert_close(found.attributions[0], expected[0, 0, ::8, ::8])


def test_texts():
    model, tokenizer = text_model("bert")
    text = "a truly charming film"
    encoded = tokenizer(text, return_tensors="pt")
    ids = encoded["input_ids"]
    inside = slice(1, ids.shape[1] - 1)
    embedded = model.get_input_embeddings()(ids).detach()

    def forward(embeddings):
        mask = encoded["attention_mask"].expand(len(embeddings), -1)
        return model(inputs_embeds=embeddings, attention_mask=mask).logits

    options = {"granularity": "token"}
    found = Saliency(model, tokenizer, reduction="abs_sum", **options)(text, targets=TARGET)[0]
    expected = captum.attr.Saliency(forward).attribute(embedded, target=TARGET).sum(-1)
    assert_close(found.attributions[0], expected[0, inside])

    found = IntegratedGradients(model, tokenizer, n_steps=20, **options)(text, targets=TARGET)[0]
    start = embedded.clone()
    start[0, inside] = model.get_input_embeddings()(torch.tensor(tokenizer.mask_token_id)).detach()
    reference = captum.attr.IntegratedGradients(forward)
    expected = reference.attribute(embedded, start, target=TARGET, n_steps=20, method="gausslegendre").sum(-1)
    assert_close(found.attributions[0], expected[0, inside])

    found = Occlusion(model, tokenizer, **options)(text, targets=TARGET)[0]
    by_ids = captum.attr.FeatureAblation(lambda words: model(words, encoded["attention_mask"].expand_as(words)).logits)
    expected = by_ids.attribute(ids, baselines=tokenizer.mask_token_id, target=TARGET)
    assert_close(found.attributions[0], expected[0, inside])


@pytest.mark.parametrize(("window", "stride"), [((5, 5), (3, 3)), ((4, 9), (4, 2)), ((7, 7), (5, 4)), ((6, 3), (6, 3))])
def test_windows_are_those_of_captum(window, stride):
    """Also if the last window extends past the border."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 20 * 23, 3)).eval()
    pixels = torch.rand(3, 20, 23)
    expected = captum.attr.Occlusion(model).attribute(
        pixels[None], sliding_window_shapes=(3, *window), strides=(3, *stride), target=TARGET, baselines=0
    )
    method = Occlusion(model, window=window, stride=stride, task="image-classification", removal=0.0)
    (found,) = method(pixels, targets=TARGET)
    assert torch.allclose(found.attributions[0], expected[0].mean(0), atol=1e-6)


def test_a_window_at_the_border_is_cut():
    """The last of three windows over seven pixels covers one pixel, as in captum."""
    weights = torch.arange(1.0, 8.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 1, bias=False)).eval()
    model[1].weight.data[0] = weights
    pixels = torch.ones(1, 1, 7)
    expected = captum.attr.Occlusion(model).attribute(
        pixels[None], sliding_window_shapes=(1, 1, 3), strides=(1, 1, 3), target=0, baselines=0
    )
    method = Occlusion(model, window=(1, 3), stride=(1, 3), task="image-classification", removal=0.0)
    (found,) = method(pixels, targets=0)
    assert torch.allclose(found.attributions[0], expected[0, 0])
    assert torch.allclose(found.attributions[0, 0], torch.tensor([6.0, 6, 6, 15, 15, 15, 7]))
