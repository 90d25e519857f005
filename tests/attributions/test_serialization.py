"""Saved results: round trip, size on disk, damage."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from interpreto import (
    AttributionOutput,
    Contrast,
    IntegratedGradients,
    InterpretoError,
    KernelShap,
    Saliency,
    plot_attributions,
    plot_top,
)
from tests.models import light, some_images, text_model


@pytest.fixture
def result(setting):
    model, processor, inputs = setting
    return light(KernelShap)(model, processor)(inputs[1], targets=(Contrast(0, 1), 2))[0]


def assert_same(one, other):
    for name in ("attributions", "scores", "standard_errors", "completeness_gap"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name in ("targets", "target_names", "task", "modality", "granularity", "n_evaluations", "info"):
        assert getattr(one, name) == getattr(other, name)
    if one.modality == "text":
        assert one.elements == other.elements
        assert one.raw_input == other.raw_input
    else:
        assert torch.equal(one.elements, other.elements)
        assert np.array_equal(np.asarray(one.raw_input), np.asarray(other.raw_input))


def test_save_and_load_is_a_round_trip(result, tmp_path):
    result.save(tmp_path / "result")
    assert_same(AttributionOutput.load(tmp_path / "result"), result)
    result.save(tmp_path / "result")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_pair_and_missing_parts_survive(tmp_path):
    (output,) = Saliency(*text_model("bert"))([("a film", "it was good")])
    loaded = AttributionOutput.load(output.save(tmp_path / "pair"))
    assert loaded.raw_input == ("a film", "it was good")
    assert loaded.standard_errors is None
    assert loaded.completeness_gap is None


def size(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_results_are_small(shapes, reviews, tmp_path):
    model, tokenizer = reviews
    text = "the film was good and " * 15
    (output,) = light(KernelShap)(model, tokenizer, n_samples=250, truncation=True)(text)
    assert sum(size(output.save(tmp_path / "text")).values()) < 10_000
    model, processor = shapes
    (output,) = IntegratedGradients(model, processor, granularity="pixel")(Image.new("RGB", (640, 480)))
    sizes = size(output.save(tmp_path / "image"))
    maps = output.attributions.numel() * 4
    assert sum(sizes.values()) - sizes["image.png"] - maps < 8_000


def test_damage_is_reported(result, tmp_path):
    folder = result.save(tmp_path / "result")
    for name in ("output.json", "maps.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InterpretoError, match="result' is damaged or truncated and cannot be read"):
            AttributionOutput.load(folder)
        (folder / name).unlink()
        with pytest.raises(InterpretoError, match=f"is not a saved result: {name} is missing"):
            AttributionOutput.load(folder)
        (folder / name).write_bytes(whole)
    words = json.loads((folder / "output.json").read_text())
    (folder / "output.json").write_text(json.dumps(words | {"version": 99}))
    with pytest.raises(InterpretoError, match="written by a newer interpreto \\(format 99, this one reads format 2\\)"):
        AttributionOutput.load(folder)


def test_a_failed_save_leaves_the_old_result(result, tmp_path, monkeypatch):
    folder = result.save(tmp_path / "result")
    before = size(folder)
    monkeypatch.setattr("interpreto.attributions.serialization.save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result.save(folder)
    assert size(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_other_folders_are_not_overwritten(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InterpretoError, match="exists and is not a saved result"):
        result.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


NO_NAMES = [5, True, [], b"a.png", "", "a\0b.png", "\ud800.png", "x" * 300 + ".png", "plain/a.png"]


@pytest.mark.parametrize("name", [None, *NO_NAMES])
@pytest.mark.parametrize("entry", ["save", "load"])
def test_impossible_names_of_results_are_refused(result, tmp_path, monkeypatch, entry, name):
    monkeypatch.chdir(tmp_path)
    Path("plain").touch()
    with pytest.raises(InterpretoError, match=r"must be a path|cannot be"):
        AttributionOutput.load(name) if entry == "load" else result.save(name)


@pytest.mark.parametrize("name", [*NO_NAMES, ".", "folder", "folder/"])
@pytest.mark.parametrize("draw", [plot_attributions, partial(plot_top, percents=(10.0,))])
def test_impossible_names_of_figures_are_refused(shapes, tmp_path, monkeypatch, draw, name):
    monkeypatch.chdir(tmp_path)
    Path("plain").touch()
    Path("folder").mkdir()
    output = Saliency(*shapes)(some_images()[0])
    with pytest.raises(InterpretoError, match=r"must be a path|cannot be|is a file|is a folder"):
        draw(output, save_path=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "plain"]


def test_a_result_holds_nothing_large(setting):
    """A result keeps no embeddings, pixel tensors or autograd graphs."""
    model, processor, inputs = setting
    (output,) = light(IntegratedGradients)(model, processor)(inputs[0])
    tensors = [value for value in vars(output).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 5_000
    assert not any(tensor.requires_grad for tensor in tensors)
