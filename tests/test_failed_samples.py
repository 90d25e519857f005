"""Samples that cannot be explained, in a list with others that can."""

import numpy as np
import pytest
import torch
from PIL import Image

from interpreto import (
    AttributionOutput,
    Completeness,
    Deletion,
    Entropy,
    IntegratedGradients,
    MaxSensitivity,
    Occlusion,
    PointingGame,
    Saliency,
    compare,
    plot_attributions,
)
from interpreto.errors import InputError, OptionError
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, light, some_images, text_model


@pytest.fixture
def pictures(tmp_path):
    """Five image files, of which the third is invalid."""
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        some_images()[number % 3].save(paths[-1])
    paths[2].write_text("no image")
    return paths


def maps(outputs):
    return [output.attributions for output in outputs]


@pytest.mark.parametrize("method", [Occlusion, IntegratedGradients, Saliency])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_failures_are_recorded_and_the_run_continues(pictures, method, batch_size):
    explain = light(method, batch_size=batch_size)(*image_model("vit"))
    good = [path for number, path in enumerate(pictures) if number != 2]
    expected = maps(explain(good, 0))
    for outputs in (
        explain(pictures, 0, on_error="record"),
        list(explain.stream(iter(pictures), 0, on_error="record")),
    ):
        assert [output.error is None for output in outputs] == [True, True, False, True, True]
        assert "2.png' cannot be read as an image" in outputs[2].error
        assert outputs[2].error.startswith("InputError: ")
        assert str(pictures[2]) in str(outputs[2].raw_input)
        found = maps([output for output in outputs if output.error is None])
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("batch_size", [2, 32])
def test_errors_carry_finished_results(pictures, batch_size):
    explain = light(Occlusion, batch_size=batch_size)(*image_model("vit"))
    with pytest.raises(InputError, match=r"2\.png") as caught:
        explain(pictures, 0)
    assert len(caught.value.outputs) == 2
    assert all(isinstance(output, AttributionOutput) for output in caught.value.outputs)
    stream = explain.stream(iter(pictures), 0)
    assert [next(stream).error, next(stream).error] == [None, None]
    with pytest.raises(InputError, match=r"2\.png"):
        next(stream)


def test_every_way_to_fail_is_recorded():
    model, tokenizer = text_model("bert")
    explain = Occlusion(model, tokenizer)
    inputs = ["a good film", "", 7, "the plot", ("a", "b", "c"), "word " * 500]
    outputs = explain(inputs, on_error="record")
    kinds = [None if output.error is None else output.error.partition(":")[0] for output in outputs]
    assert kinds == [None, "InputError", "InputError", None, "InputError", "InputError"]
    with pytest.raises(InputError, match="Expected a text, got int") as caught:
        explain(inputs)
    # All texts are read before any is explained.
    assert caught.value.outputs == []


def test_targets_of_single_samples_fail_alone():
    explain = Occlusion(*text_model("bert"))
    outputs = explain(TEXTS, [0, 99, 1], on_error="record")
    assert [output.error is None for output in outputs] == [True, False, True]
    assert "Target 99 is out of range" in outputs[1].error
    with pytest.raises(ValueError, match="Target 99"):
        explain(TEXTS, 99, on_error="record")


def test_a_sample_on_which_the_model_fails_is_found_among_its_batch():
    class Delicate(torch.nn.Module):
        def forward(self, pixels):
            if (pixels > 2).any():
                raise RuntimeError("too bright")
            return pixels.mean((2, 3))

    images = torch.rand(4, 3, 28, 28)
    images[1] += 2
    explain = Occlusion(Delicate(), task="image-classification")
    outputs = explain(images, 0, on_error="record")
    assert [output.error for output in outputs] == [None, "RuntimeError: too bright", None, None]
    with pytest.raises(RuntimeError, match="too bright") as caught:
        explain(images, 0)
    assert torch.allclose(caught.value.outputs[0].attributions, outputs[0].attributions)
    assert len(caught.value.outputs) == 1


def test_errors_of_the_iterator_come_after_the_results_before_them():
    def texts():
        yield from TEXTS
        raise OSError("the connection is gone")

    stream = Occlusion(*text_model("bert")).stream(texts(), 0, on_error="record")
    assert [next(stream).error for _ in TEXTS] == [None] * len(TEXTS)
    with pytest.raises(OSError, match="connection"):
        next(stream)


def test_prompts_fail_alone_too():
    explain = Occlusion(*causal_lm("llama"))
    outputs = explain(["The plot was", "", "A film"], " good", on_error="record")
    assert [output.error is None for output in outputs] == [True, False, True]


@pytest.mark.usefixtures("without_type_checks")
def test_other_values_of_on_error_are_refused():
    explain = Occlusion(*text_model("bert"))
    for act in (explain, explain.explain, lambda *a, **o: list(explain.stream(*a, **o))):
        with pytest.raises(OptionError, match="on_error='ignore' must be 'raise' or 'record'"):
            act(TEXTS, 0, on_error="ignore")
    with pytest.raises(OptionError, match="on_error='ignore'"):
        compare(*text_model("bert"), TEXTS, [Occlusion], on_error="ignore")


def test_recorded_errors_take_no_part_in_figures_and_metrics(pictures, tmp_path):
    model, processor = image_model("vit")
    explain = light(IntegratedGradients)(model, processor)
    outputs = explain(pictures, 0, on_error="record")
    good = [output for output in outputs if output.error is None]
    figure = plot_attributions(outputs)
    assert len(figure.axes) == len(plot_attributions(good).axes)
    with pytest.raises(InputError, match=r"There is no result to plot: InputError: .*cannot be read"):
        plot_attributions(outputs[2])
    with pytest.raises(InputError, match="could not be explained"):
        outputs[2].heatmap()
    masks = [np.ones(output.raw_input.size[::-1], bool) if output.error is None else None for output in outputs]
    for found, wanted in (
        (Entropy().evaluate(outputs), Entropy().evaluate(good)),
        (Completeness().evaluate(outputs), Completeness().evaluate(good)),
        (PointingGame().evaluate(outputs, masks), PointingGame().evaluate(good, [m for m in masks if m is not None])),
        (Deletion(model, processor).evaluate(outputs), Deletion(model, processor).evaluate(good)),
        (
            MaxSensitivity(explain, n_samples=1).evaluate(outputs, pictures),
            MaxSensitivity(explain, n_samples=1).evaluate(good, [p for n, p in enumerate(pictures) if n != 2]),
        ),
    ):
        assert len(found.per_sample) == 5
        assert torch.isnan(found.per_sample[2])
        assert torch.allclose(found.per_sample[[0, 1, 3, 4]], wanted.per_sample, atol=1e-5, equal_nan=True)
        assert found.mean == pytest.approx(wanted.mean, nan_ok=True)
    loaded = AttributionOutput.load(outputs[2].save(tmp_path / "failed"))
    assert loaded.error == outputs[2].error
    assert "failed: InputError" in repr(loaded)


def test_compare_raises_on_request(pictures):
    arguments = {"metrics": [Entropy], "show_progress": False, "batch_size": 4}
    found = compare(*image_model("vit"), pictures, [Occlusion], **arguments)
    assert any("cannot be read" in failure.error for failure in found.failures)
    with pytest.raises(InputError, match=r"2\.png") as caught:
        compare(*image_model("vit"), pictures, [Occlusion], on_error="raise", **arguments)
    assert all(isinstance(output, AttributionOutput) for output in caught.value.outputs)


def test_interrupts_carry_finished_results():
    images, calls = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")], []

    def stop(logits):
        calls.append(len(logits))
        if len(calls) > 30:
            raise KeyboardInterrupt
        return logits

    explain = Occlusion(*image_model("vit"), batch_size=1, inference_mode=stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        explain(images, 0)
    assert len(caught.value.outputs) == 1
