"""Performance information curves (PIC) against the authors' code, and written out by hand."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from saliency.metrics import pic

from interpreto import IntegratedGradients, Occlusion, Pic
from interpreto.attributions.metrics.pic import THRESHOLDS
from interpreto.errors import InputError, OptionError, TargetError
from tests.causal_lms import causal_lm
from tests.models import TEXTS, text_model


def initially_revealed(shape):
    """The random 1 % of the pixels that is revealed initially."""
    caught = torch.zeros(shape).flatten().bool()
    caught[torch.randperm(len(caught), generator=torch.Generator().manual_seed(0))[: len(caught) // 100]] = True
    return caught.reshape(shape).numpy()


@pytest.mark.parametrize("curve", ["sic", "aic"])
def test_curves_are_those_of_the_authors(shapes, pictures, curve, monkeypatch):
    # The authors' code calls functions that NumPy 2 removed.
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    model, processor = shapes
    outputs = IntegratedGradients(model, processor, granularity="pixel", n_steps=8)(pictures)
    measured = Pic(model, processor, granularity="pixel", curve=curve).evaluate(outputs)
    theirs = []
    for output, picture, value in zip(outputs, pictures, measured.values, strict=True):

        def predict(batch, target=output.targets[0]):
            pixels = processor(images=[Image.fromarray(one) for one in batch], return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                logits = model(pixel_values=pixels).logits
            return (logits.softmax(-1)[:, target] if curve == "sic" else (logits.argmax(-1) == target).float()).tolist()

        arguments = np.array(picture), output.attributions[0].numpy(), initially_revealed((64, 64)), predict, THRESHOLDS
        try:
            theirs.append(pic.compute_pic_metric(*arguments))
        except pic.ComputePicMetricError:
            assert value.isnan()
            continue
        assert float(value) == pytest.approx(theirs[-1].auc, abs=1e-6)
    assert theirs
    median = pic.aggregate_individual_pic_results(theirs)
    assert measured.median_curve.area == pytest.approx(median.auc, abs=1e-5)
    assert np.allclose(measured.median_curve.y, median.curve_y, atol=1e-4)


def test_texts_are_revealed_word_by_word():
    """The curve of a text by its definition, one row at a time."""
    model, tokenizer = text_model("bert")
    (output,) = Occlusion(model, tokenizer, granularity="token")(TEXTS[1], targets=1)
    thresholds = (0.2, 0.5)
    metric = Pic(model, tokenizer, thresholds=thresholds, min_score=0.0)
    measured = metric.evaluate(output)
    ids = tokenizer(TEXTS[1])["input_ids"]
    scores = output.attributions[0].numpy()
    masks = [np.zeros(len(scores), bool)]
    masks += [scores >= np.quantile(scores.astype(float), 1 - share) for share in thresholds]
    masks.append(np.ones(len(scores), bool))
    x, y = [], []
    for mask in masks:
        caught = np.array([True, *mask, True])
        shown = [token if there else tokenizer.mask_token_id for token, there in zip(ids, caught, strict=True)]
        with torch.no_grad():
            y.append(float(model(input_ids=torch.tensor([shown])).logits.softmax(-1)[0, 1]))
        names = [t for t, there in zip(tokenizer.convert_ids_to_tokens(ids), caught, strict=True) if there]
        x.append(len(zlib.compress(" ".join(names).encode(), 9)))
    if y[0] >= y[-1]:
        assert measured.values[0].isnan()
        return
    x, y = (np.clip((np.array(v) - v[0]) / (v[-1] - v[0]), 0, 1) for v in (x, y))
    grid = np.linspace(0, 1, 1001)
    expected = np.trapezoid(np.interp(grid, x, np.maximum.accumulate(y)), grid)
    assert float(measured.values[0]) == pytest.approx(expected, abs=1e-5)


def test_generated_texts_have_curves_of_what_they_can_see():
    model, tokenizer = causal_lm("gpt2")
    outputs = Occlusion(model, tokenizer)([TEXTS[0]], targets=" good film")
    measured = Pic(model, tokenizer, min_score=0.0).evaluate(outputs)
    assert measured.values[0].shape == (2,)
    assert measured.n_evaluations > 2


def test_a_constant_map_reveals_everything_at_once(shapes, pictures):
    model, processor = shapes
    (output,) = Occlusion(model, processor)(pictures[:1])
    flat = type(output)(**{**vars(output), "attributions": torch.zeros_like(output.attributions)})
    measured = Pic(model, processor).evaluate(flat)
    # All pixels are revealed at the first threshold, so that all points of the curve but one are equal.
    assert float(measured.values[0]) == pytest.approx(0.5, abs=0.01)


def test_unsure_predictions_have_no_curve(shapes, pictures):
    model, processor = shapes
    outputs = Occlusion(model, processor)(pictures[:1], targets="all")
    measured = Pic(model, processor, min_score=0.5).evaluate(outputs)
    assert int((~measured.values[0].isnan()).sum()) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"curve": "roc"}, "no curve='roc'"),
        ({"thresholds": (0.5, 0.1)}, "ascending"),
        ({"thresholds": (0.5, 1.5)}, "between 0 and 1"),
        ({"thresholds": ()}, "between 0 and 1"),
    ],
)
def test_wrong_options_are_reported(shapes, options, words):
    with pytest.raises(OptionError, match=words):
        Pic(*shapes, **options)


def test_accuracy_needs_a_class(shapes, pictures):
    (output,) = Occlusion(*shapes)(pictures[0], targets=lambda logits: logits[:, 0])
    with pytest.raises(TargetError, match="needs classes as targets"):
        Pic(*shapes, curve="aic", min_score=-1e9).evaluate(output, pictures[0])
    with pytest.raises(OptionError, match="text generation"):
        Pic(*causal_lm("gpt2"), curve="aic")


def test_metrics_without_curves_have_no_median(shapes, pictures):
    outputs = Occlusion(*shapes)(pictures[:1])
    measured = Pic(*shapes).evaluate(outputs)
    with pytest.raises(InputError, match="no median"):
        _ = type(measured)("Entropy", measured.values, None).median_curve
