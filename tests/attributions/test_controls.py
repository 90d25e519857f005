"""Controls (scores that do not use the model) against NumPy derivations."""

import numpy as np
import pytest
import torch

from interpreto import CONTROLS
from interpreto.attributions.methods import CentreGaussian, InputNorm, PositionOnly, RandomScores, TokenFrequency
from interpreto.errors import OptionError, UnsupportedError
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, some_images, text_model


def of_image(control, **options):
    model, processor = image_model("vit")
    return control(model, processor, **options)(some_images()[:2])


def test_random_scores_belong_to_the_sample_not_to_its_place():
    model, tokenizer = text_model("bert")
    first, second = RandomScores(model, tokenizer, granularity="token")([TEXTS[0], TEXTS[1]])
    (alone,) = RandomScores(model, tokenizer, granularity="token")(TEXTS[1])
    assert torch.equal(second.attributions, alone.attributions)
    count = min(first.attributions.shape[1], second.attributions.shape[1])
    assert not torch.allclose(first.attributions[:, :count], second.attributions[:, :count])
    (other,) = RandomScores(model, tokenizer, granularity="token", seed=1)(TEXTS[1])
    assert not torch.allclose(other.attributions, alone.attributions)


def test_position_falls_in_texts_and_rises_towards_what_is_generated():
    model, tokenizer = text_model("bert")
    (output,) = PositionOnly(model, tokenizer)(TEXTS[1])
    assert (output.attributions[0].diff() < 0).all()
    (turned,) = PositionOnly(model, tokenizer, ascending=True)(TEXTS[1])
    assert torch.allclose(turned.attributions, output.attributions.flip(1))
    (said,) = PositionOnly(*causal_lm("gpt2"))(TEXTS[1], targets=" good film")
    scores = said.attributions[0]
    assert (scores[~scores.isnan()].diff() > 0).all()


def test_the_centre_is_the_middle():
    scores = of_image(CentreGaussian)[0].attributions[0]
    h, w = scores.shape
    down, across = np.meshgrid((np.arange(h) + 0.5) / h - 0.5, (np.arange(w) + 0.5) / w - 0.5, indexing="ij")
    assert np.allclose(scores, np.exp(-(down**2 + across**2) / (2 * 0.25**2)), atol=1e-6)


def test_the_norm_is_that_of_what_the_model_reads():
    model, processor = image_model("vit")
    picture = some_images()[0]
    (output,) = InputNorm(model, processor)(picture)
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    h, w = output.attributions.shape[1:]
    norms = pixels.norm(dim=0).reshape(h, pixels.shape[1] // h, w, pixels.shape[2] // w).mean((1, 3))
    assert torch.allclose(output.attributions[0], norms, atol=1e-5)
    model, tokenizer = text_model("bert")
    (output,) = InputNorm(model, tokenizer, granularity="token")(TEXTS[0])
    ids = torch.tensor(tokenizer(TEXTS[0])["input_ids"][1:-1])
    assert torch.allclose(output.attributions[0], model.get_input_embeddings()(ids).norm(dim=-1), atol=1e-5)


def test_frequency_counts_tokens_of_a_corpus():
    model, tokenizer = text_model("bert")
    corpus = ["good good film", "good plot"]
    (output,) = TokenFrequency(model, tokenizer, corpus=corpus, granularity="token")(TEXTS[0])
    counted = [token for text in corpus for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    ids = tokenizer(TEXTS[0])["input_ids"][1:-1]
    total = len(counted) + len(set(counted))
    expected = [np.log(total / (counted.count(token) + 1)) for token in ids]
    assert np.allclose(output.attributions[0], expected, atol=1e-6)


@pytest.mark.parametrize("control", [c for c in CONTROLS if c is not TokenFrequency])
def test_controls_run_the_unchanged_sample_alone(control):
    assert {output.n_evaluations for output in of_image(control)} == {1}


def test_controls_are_refused_for_modalities_without_a_meaning():
    text, image = text_model("bert"), image_model("vit")
    with pytest.raises(UnsupportedError, match="for images; PositionOnly"):
        CentreGaussian(*text)
    with pytest.raises(UnsupportedError, match="no tokens to count"):
        TokenFrequency(*image, corpus=["a"])
    with pytest.raises(OptionError, match="needs corpus="):
        TokenFrequency(*text)
    with pytest.raises(OptionError, match="sigma"):
        CentreGaussian(*image, sigma=0)
