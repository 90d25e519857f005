"""Granularities: which tokens and pixels make up a unit, and how scores of positions become those of units."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreto import Granularity, Occlusion, Saliency
from interpreto.attributions.granularity import Grid, Patches, UnitReduction
from interpreto.attributions.granularity.segmentation import clauses, sentences, words
from interpreto.attributions.granularity.units import ImageUnits, TextUnits, resized
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import ImageSample
from tests.models import TEXT_MODELS, some_images, text_model


def cut(split, text):
    starts = split(text)
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def test_words():
    assert cut(words, "Don't pay 3.5 dollars, state-of-the-art!") == [
        "Don't",
        "pay",
        "3.5",
        "dollars",
        ",",
        "state-of-the-art",
        "!",
    ]
    assert cut(words, "日本 is far...") == ["日本", "is", "far", "..."]
    assert cut(words, "हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("") == []


def test_sentences_and_their_parts():
    text = 'Dr. Smith paid 3.5 dollars, or so. "Really?" he asked; yes!\nA new line'
    assert cut(sentences, text) == ["Dr. Smith paid 3.5 dollars, or so.", '"Really?" he asked; yes!', "A new line"]
    assert cut(clauses, text) == [
        "Dr. Smith paid 3.5 dollars,", "or so.", '"Really?" he asked;', "yes!", "A new line",
    ]  # fmt: skip
    assert cut(sentences, "好。很好！") == ["好。", "很好！"]


TEXT = "A good film, isn't it? Yes: naïve 🙂 and state-of-the-art.  "


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("granularity", ["token", "word", "part-sentence", "sentence"])
def test_elements_give_back_the_text(name, granularity):
    model, tokenizer = text_model(name)
    (output,) = Occlusion(model, tokenizer, granularity=granularity)(TEXT)
    assert "".join(output.elements) == TEXT
    if granularity == "word":
        assert [piece.strip() for piece in output.elements][:8] == ["A", "good", "film", ",", "isn't", "it", "?", "Yes"]
    if granularity == "sentence":
        assert len(output.elements) == 2


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=14))
def test_any_text_is_given_back(text):
    """Also for tokens outside the vocabulary; a text of white space alone is refused."""
    model, tokenizer = text_model("roberta")
    for granularity in ("word", "sentence"):
        wrapped = Saliency(model, tokenizer, granularity=granularity).setup
        if not text.strip():
            continue
        sample = wrapped.wrapper.inputs.prepare_one(text)
        assert "".join(wrapped.granularity.labels(sample)) == text
        units = wrapped.granularity.units(sample)
        inside = units.index[sample.text_index >= 0]
        assert (inside.diff() >= 0).all()
        assert inside.unique().tolist() == list(range(units.shape[0]))


def test_all_tokens_have_the_special_ones():
    model, tokenizer = text_model("bert")
    (output,) = Occlusion(model, tokenizer, granularity=Granularity.ALL_TOKENS)("a film")
    assert output.elements == ["[CLS]", "a", " film", "[SEP]"]
    (pair,) = Occlusion(model, tokenizer, granularity="ALL_TOKENS")([("a film", "it")])
    assert pair.elements == ["[CLS]", "a", " film", "[SEP]", "it", "[SEP]"]


def test_pooling():
    units = TextUnits(torch.tensor([-1, 0, 0, 1, 1, 1, -1]), (2,))
    scores = torch.tensor([[9.0, 1, -3, 2, 4, -1, 9]])
    expected = {
        "mean": [-1, 5 / 3], "sum": [-2, 5], "max": [1, 4], "min": [-3, -1], "signed_max": [-3, 4], "first": [1, 2],
        "last": [-3, -1],
    }  # fmt: skip
    for how, values in expected.items():
        assert torch.allclose(units.to_units(scores, UnitReduction(pooling=how)), torch.tensor([values]).float())
    cells = torch.tensor([[1.0, 0.5]])
    assert units.to_positions(cells).tolist() == [[0, 1, 1, 0.5, 0.5, 0.5, 0]]


def sample(height, width, patch=None):
    picture = some_images()[0]
    return ImageSample(
        Rows({"pixel_values": torch.zeros(1, 3, height, width)}),
        picture,
        (height, width),
        (0.0, 0.0, 64.0, 64.0),
        patch,
        (torch.zeros(3), torch.ones(3)),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_grids_cover_the_image_once(height, width, data):
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    grid = Grid(rows, columns)
    units = grid.units(sample(height, width))
    counts = torch.bincount(units.index.flatten(), minlength=rows * columns)
    assert counts.min() > 0
    assert counts.sum() == height * width
    boxes = grid.labels(sample(height, width))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * height * width / 64**2
    assert torch.allclose(areas, counts.float(), atol=1e-2)


def test_pixels_beyond_the_last_patch_belong_to_none():
    units = Patches(4).units(sample(10, 9))
    assert units.shape == (2, 2)
    assert (units.index[8:] == -1).all()
    assert (units.index[:, 8] == -1).all()


def test_resizing_keeps_level_or_total():
    scores = torch.rand(2, 12, 8)
    units = ImageUnits(Grid(3, 4).units(sample(12, 8)).index, (3, 4))
    assert torch.allclose(
        units.to_units(scores, UnitReduction(resize="sum")).sum((1, 2)), scores.sum((1, 2)), atol=1e-4
    )
    assert torch.allclose(
        units.to_units(scores, UnitReduction(resize="area")).mean((1, 2)), scores.mean((1, 2)), atol=1e-5
    )
    for how in ("bilinear", "bicubic", "nearest"):
        assert units.to_units(scores, UnitReduction(resize=how)).shape == (2, 3, 4)
    assert torch.allclose(resized(scores, (24, 16), "sum").sum((1, 2)), scores.sum((1, 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("extent", "cut"), [((8, 12), Patches((2, 3))), ((9, 13), Patches((2, 3))), ((8, 12), Grid(4, 6))]
)
def test_tiles_are_found_by_reshaping_as_by_their_index(extent, cut):
    """The fast path for tiles against the general one for any units."""
    units = cut.units(sample(*extent))
    assert units.tile is not None
    plain = ImageUnits(units.index, units.shape)
    cells, scores = torch.rand(5, *units.shape), torch.randn(3, *extent)
    assert torch.equal(units.to_positions(cells), plain.to_positions(cells))
    pixels = torch.rand(5, *extent)
    thin = pixels.reshape(5, *units.view_shape) * units.to_positions_compact(cells)
    assert torch.equal(thin.reshape(pixels.shape), pixels * plain.to_positions(cells))
    assert torch.equal(plain.to_positions_compact(cells), plain.to_positions(cells))
    assert plain.view_shape == extent
    for how in ("mean", "sum", "max", "signed_max", "first"):
        assert torch.allclose(units.pool(scores, how), plain.pool(scores, how), atol=1e-5)
    assert Grid(3, 5).units(sample(8, 12)).tile is None
