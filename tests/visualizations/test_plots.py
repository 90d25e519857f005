"""Figures and HTML pages, without a display; hostile texts are escaped."""

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from interpreto import (
    XRAI,
    AttributionOutput,
    Contrast,
    Grid,
    InterpretoError,
    KernelShap,
    Occlusion,
    Rise,
    Saliency,
    diverging,
    grayscale,
    plot_attributions,
    plot_top,
    zoo,
)
from interpreto.errors import OptionError
from tests.models import image_model, light, some_images, text_model

HOSTILE = "</p><script>alert('x')</script> \"quoted\" & $x_1$ שלום 🙂\nnew line"


@pytest.fixture(scope="module")
def texts():
    model, tokenizer = text_model("bert")
    inputs, targets = ["a good film", HOSTILE], (0, Contrast(1, 2))
    return {m.__name__: light(m)(model, tokenizer)(inputs, targets=targets) for m in (Rise, Saliency)}


@pytest.fixture(scope="module")
def images():
    model, processor = image_model("vit")
    return {m.__name__: light(m)(model, processor)(some_images()[:2], targets=(0, 1)) for m in (KernelShap, Saliency)}


class Page(HTMLParser):
    """Collects the tags, links and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.tips = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.tips += [value for name, value in attributes if name == "title"]

    def handle_data(self, data):
        self.text += data


def test_texts_become_a_page_that_needs_nothing(texts):
    page = plot_attributions(texts)
    seen = Page(page)
    assert "script" not in seen.tags
    assert not re.search(r"https?://", page)
    assert seen.text.count("a good film") == 4
    assert HOSTILE in seen.text
    assert any(re.fullmatch(r"good: [+-][\d.e-]+ ± [\d.e-]+", tip) for tip in seen.tips)
    assert seen.tags.count("table") == 4
    assert page._repr_html_() == page


# Before 3.11 matplotlib draws Hebrew from left to right, and warns.
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font", "ignore:Matplotlib currently does not support")
@pytest.mark.parametrize("suffix", ["html", "png", "pdf", "svg"])
def test_texts_are_written_in_every_format(texts, suffix, tmp_path):
    path = tmp_path / "new" / f"why.{suffix}"
    content = plot_attributions(texts, path)
    assert path.stat().st_size > 1000
    assert isinstance(content, str if suffix == "html" else Figure)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["html", "png", "pdf"])
def test_images_are_written_in_every_format(images, suffix, tmp_path):
    plot_attributions(images, tmp_path / f"why.{suffix}")
    assert (tmp_path / f"why.{suffix}").stat().st_size > 1000


def test_every_map_has_a_colour_bar_of_its_own_scores(images):
    figure = plot_attributions(images)
    maps = [axes for axes in figure.axes if len(axes.images) == 2]
    # Two samples and two targets in four rows, two methods in each.
    assert len(maps) == 8
    for axes in maps:
        norm = axes.images[1].norm
        scores = axes.images[1].get_array()
        if axes.get_title() == "Saliency":
            assert norm.vmin == 0
        else:
            assert norm.vmin == -norm.vmax
        # The colour scale ends at the 99th percentile of the magnitudes; for up to 100 units, at the maximum.
        assert norm.vmax == pytest.approx(np.percentile(np.abs(scores.data), 99, method="higher"))
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_lone_result_and_a_list(images):
    assert isinstance(images["Saliency"][0].plot(), Figure)
    assert isinstance(plot_attributions(images["Saliency"]), Figure)


def test_many_methods_go_over_several_lines():
    model, processor = image_model("vit")
    (output,) = Saliency(model, processor)(some_images()[0])
    figure = plot_attributions({f"method {number}": output for number in range(9)})
    assert len({round(axes.get_position().y0, 2) for axes in figure.axes if axes.images}) >= 2


@pytest.mark.parametrize(("count", "lines"), [(1, [2]), (3, [4]), (4, [3, 2]), (8, [3, 3, 3]), (12, [4, 3, 3, 3])])
def test_no_image_is_alone_in_a_row(count, lines):
    model, processor = image_model("vit")
    (output,) = Saliency(model, processor)(some_images()[0])
    figure = plot_attributions({f"method {number}": output for number in range(count)})
    tops = [round(axes.get_subplotspec().rowspan.start) for axes in figure.axes if axes.images]
    assert [tops.count(line) for line in sorted(set(tops))] == lines


def with_scores(scores, signed):
    model, processor = image_model("vit")
    (output,) = Occlusion(model, processor, granularity=Grid(16, 16))(some_images()[0], 0)
    info = {**output.info, "signed": signed}
    return dataclasses.replace(output, attributions=torch.as_tensor(scores).float().reshape(1, 16, 16), info=info)


@pytest.mark.parametrize("signed", [True, False])
def test_the_overlay_is_as_opaque_as_the_score_is_large(signed):
    scores = np.zeros(256)
    scores[:4] = [1.0, 0.5, -1.0 if signed else 0.25, 0.0]
    figure = plot_attributions(with_scores(scores, signed), clip_percentile=100)
    axes = [axes for axes in figure.axes if axes.images][1]
    photo, drawn = axes.images
    assert np.array_equal(np.asarray(photo.get_array())[..., :3], np.asarray(some_images()[0]))
    colours = drawn.to_rgba(drawn.get_array())[0]
    assert colours[0, 3] == 1
    assert colours[1, 3] == pytest.approx(0.5, abs=0.01)
    assert colours[2, 3] == pytest.approx(1.0 if signed else 0.25, abs=0.01)
    assert colours[3, 3] == pytest.approx(0, abs=0.01)
    # The colour bar has the colour map of the heatmap.
    assert drawn.colorbar.cmap == drawn.cmap


@pytest.mark.parametrize(("signed", "scale"), [(True, (-1, 1)), (False, (0, 1))])
def test_the_method_decides_on_signs_and_not_its_scores(signed, scale):
    figure = plot_attributions(with_scores(np.ones(256), signed))
    norm = next(axes for axes in figure.axes if len(axes.images) == 2).images[1].norm
    assert (norm.vmin, norm.vmax) == scale
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("raises the score of" in text for text in legend) == signed


def test_a_few_high_scores_do_not_hide_the_rest():
    scores = np.ones(256)
    scores[0] = 1000
    for percentile, limit, extend in ((99, 1.0, "max"), (100, 1000.0, "neither")):
        figure = plot_attributions(with_scores(scores, True), clip_percentile=percentile)
        drawn = next(axes for axes in figure.axes if len(axes.images) == 2).images[1]
        assert drawn.norm.vmax == limit
        assert drawn.colorbar.extend == extend
    for wrong in (0, 101, float("nan")):
        with pytest.raises(OptionError, match="clip_percentile="):
            plot_attributions(with_scores(scores, True), clip_percentile=wrong)


def test_titles_say_class_probability_and_logit():
    model, processor = image_model("vit")
    (output,) = Saliency(model, processor)(some_images()[0], 1)
    with torch.no_grad():
        logits = model(**processor(some_images()[0], return_tensors="pt")).logits[0]
    title = f"{output.target_names[0]} (p = {float(logits.softmax(-1)[1]):.2g}, logit {float(logits[1]):.3g})"
    figure = plot_attributions(output)
    assert figure.axes[0].get_title().replace("\n", " ") == title


def test_what_does_not_go_together(images, texts, tmp_path):
    with pytest.raises(InterpretoError, match="texts and of images do not go into one figure"):
        plot_attributions({"one": texts["Saliency"], "other": images["Saliency"]})
    with pytest.raises(InterpretoError, match="same number of results; got 'one': 2, 'other': 1"):
        plot_attributions({"one": images["Saliency"], "other": images["Saliency"][:1]})
    other = Occlusion(*image_model("vit"))(some_images()[0], targets=2)
    with pytest.raises(InterpretoError, match="different targets of a sample"):
        plot_attributions({"one": images["Saliency"][0], "other": other})
    with pytest.raises(InterpretoError, match=r"Cannot write 'why.xyz'"):
        plot_attributions(images, tmp_path / "why.xyz")
    assert not list(tmp_path.iterdir())


def test_maps_are_drawn_on_the_crop_that_the_model_reads():
    """A centre crop leaves the sides of a wide image uncoloured."""
    import torch
    from torchvision.transforms import v2

    crop = v2.Compose([v2.Resize(32), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    (output,) = Occlusion(image_model("vit")[0], crop)(Image.new("RGB", (96, 48), "red"))
    heat = output.heatmap(interpolation="nearest")
    assert heat.shape == (1, 48, 96)
    assert not heat[:, :, :22].any()
    assert not heat[:, :, 74:].any()
    assert heat[:, :, 30:66].any()


def test_importing_brings_no_window_and_no_notebook():
    code = "import sys, interpreto; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "interpreto" in loaded
    assert "IPython" not in loaded
    assert "matplotlib.pyplot" not in loaded
    assert not [name for name in loaded if name.startswith("matplotlib.backends.backend_") and "agg" not in name]


# Single maps


def test_grayscale_and_diverging():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 20, 30))
    for one, grey, signed in zip(scores, grayscale(scores), diverging(torch.from_numpy(scores)), strict=True):
        size = np.abs(one)
        high = np.percentile(size, 99)
        assert np.allclose(grey, np.clip((size - size.min()) / (high - size.min()), 0, 1), atol=1e-6)
        assert np.allclose(signed, np.clip(one / high, -1, 1), atol=1e-6)
    assert torch.equal(grayscale(np.zeros((3, 4))), torch.zeros(3, 4))
    assert torch.equal(diverging(np.zeros((3, 4))), torch.zeros(3, 4))
    assert float(diverging(scores[0], percentile=50.0).abs().mean()) > float(diverging(scores[0]).abs().mean())
    for function in (grayscale, diverging):
        with pytest.raises(InterpretoError, match="percentile=0"):
            function(scores, percentile=0.0)
        with pytest.raises(InterpretoError, match="h w"):
            function(scores[0, 0])


def test_the_top_of_an_image_consists_of_full_segments():
    model, processor = zoo.load("shapes-vit")
    (output,) = XRAI(model, processor)(zoo.samples("shapes-vit", 1)[0].input, targets=(0, 1))
    for percent in (1.0, 10.0, 50.0, 100.0):
        masks = output.top_mask(percent)
        for mask, ranks in zip(masks, output.segments, strict=True):
            # The image has the size that the model reads.
            shown = ranks[mask].unique()
            assert torch.equal(shown, torch.arange(1, len(shown) + 1))
            assert torch.equal(mask, ranks <= len(shown))
            assert float(mask.float().mean()) <= percent / 100 or len(shown) == 1
    assert output.top_mask(100.0).all()
    with pytest.raises(InterpretoError, match="percent=0"):
        output.top_mask(0.0)


def test_the_top_of_other_maps_consists_of_pixels(tmp_path):
    model, processor = zoo.load("shapes-vit")
    outputs = Saliency(model, processor)([example.input for example in zoo.samples("shapes-vit", 2)])
    mask = outputs[0].top_mask(20.0)
    assert float(mask.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert outputs[0].heatmap()[mask].min() >= outputs[0].heatmap()[~mask].max()
    figure = plot_top(outputs, percents=(10.0, 30.0), save_path=tmp_path / "top.png")
    assert (tmp_path / "top.png").stat().st_size > 10_000
    assert len(figure.axes) == 6
    with pytest.raises(InterpretoError, match="percents"):
        plot_top(outputs, percents=())


def test_the_top_of_a_map_with_few_scores_is_those():
    model, processor = zoo.load("shapes-vit")
    (output,) = Saliency(model, processor, granularity="pixel")(zoo.samples("shapes-vit", 1)[0].input)
    sparse = torch.zeros_like(output.attributions)
    sparse[0, :2, :5] = 1.0
    few = AttributionOutput(**{**vars(output), "attributions": sparse})
    assert int(few.top_mask(30.0).sum()) == 10
    constant = AttributionOutput(**{**vars(output), "attributions": torch.ones_like(sparse)})
    assert not constant.top_mask(30.0).any()
    assert constant.top_mask(100.0).all()
