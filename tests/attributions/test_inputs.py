"""Every form of inputs and targets gives the same numbers as the simplest form."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from interpreto import Contrast, Grid, InputXGradient, IntegratedGradients, Occlusion, Patches, Saliency
from interpreto.errors import InputError, TargetError
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs.image import geometry_of, to_image
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, light, processor, some_images, text_model, tokenizer, transform

BERT, VIT = text_model("bert"), image_model("vit")


def maps(inputs, **options):
    return torch.stack([output.attributions for output in Occlusion(*VIT, **options)(inputs, targets=1)])


def test_images_in_every_form(tmp_path):
    picture = some_images()[0]
    expected = maps(picture)
    array = np.asarray(picture)
    path = tmp_path / "shapes.png"
    picture.save(path)
    forms = [path, str(path), array, array / 255.0, torch.from_numpy(array.copy()).permute(2, 0, 1), [picture]]
    for form in forms:
        assert torch.equal(maps(form), expected)
    # Processors and models round differently for other batch sizes.
    several = np.stack([array, array])
    assert torch.allclose(maps(several), torch.cat([expected, expected]), atol=1e-5)
    encoded = VIT[1](picture, return_tensors="pt")
    assert torch.allclose(maps(encoded), expected, atol=1e-5)
    without = Occlusion(VIT[0])(encoded["pixel_values"][0], targets=1)[0]
    assert torch.allclose(without.attributions[None], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1", "I;16"])
def test_images_of_every_mode_become_rgb(mode):
    picture = some_images()[0]
    grey = Image.fromarray((np.asarray(picture.convert("L")).astype(np.uint16)) * 257)
    given = grey if mode == "I;16" else picture.convert(mode)
    assert to_image(given).mode == "RGB"
    (output,) = Saliency(*VIT)(given)
    assert output.raw_input.mode == "RGB"
    assert output.attributions.isfinite().all()
    if mode == "I;16":
        assert np.abs(np.asarray(to_image(given)).astype(int)[..., 0] - np.asarray(picture.convert("L"))).max() <= 1


def test_transparent_parts_are_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(to_image(clear)).min() == 255


def test_images_are_rotated_by_their_exif_orientation():
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", exif=exif)
    assert to_image(Image.open(buffer)).size == (4, 6)


def test_texts_in_every_form():
    model, words = BERT
    text = TEXTS[1]
    expected = Occlusion(model, words)(text, targets=1)[0]
    for form in ([text], iter([text]), (text for _ in range(1))):
        assert torch.equal(Occlusion(model, words)(form, targets=1)[0].attributions, expected.attributions)
    encoded = words(text)
    given = Occlusion(model, words, granularity="token")(encoded, targets=1)[0]
    plain = Occlusion(model, words, granularity="token")(text, targets=1)[0]
    assert torch.equal(given.attributions, plain.attributions)
    both = Occlusion(model, words, granularity="token")(words(TEXTS, padding=True, return_tensors="pt"))
    assert len(both) == 3


def test_pairs_of_sentences():
    model, words = BERT
    pair = ("a good film.", "we saw it")
    (output,) = Occlusion(model, words)([pair], targets=0)
    assert "".join(output.elements) == "".join(pair)
    assert output.raw_input == pair
    with torch.no_grad():
        expected = model(**words(*pair, return_tensors="pt")).logits[0, 0]
    assert float(output.scores) == pytest.approx(float(expected), abs=1e-5)
    two = Occlusion(model, words)([pair, pair[::-1]], targets=0)
    assert torch.allclose(two[0].attributions, output.attributions, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, None),
        (2, ("LABEL_2",)),
        ("LABEL_1", ("LABEL_1",)),
        ((0, "LABEL_2"), ("LABEL_0", "LABEL_2")),
        ("all", ("LABEL_0", "LABEL_1", "LABEL_2")),
        (Contrast(0, "LABEL_1"), ("LABEL_0 - LABEL_1",)),
        ([0], ("LABEL_0",)),
        ([0, 1], ("LABEL_0", "LABEL_1")),
        (torch.tensor([0, 1]), ("LABEL_0", "LABEL_1")),
        (torch.tensor([[0, 1]]), ("LABEL_0", "LABEL_1")),
        (np.int64(1), ("LABEL_1",)),
    ],
)
def test_targets_of_one_sample(given, names):
    model, words = BERT
    (output,) = Saliency(model, words)(TEXTS[0], targets=given)
    if names is None:
        with torch.no_grad():
            names = (f"LABEL_{int(model(**words(TEXTS[0], return_tensors='pt')).logits.argmax())}",)
    assert output.target_names == names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([0, "LABEL_1", Contrast(1, 2)], [("LABEL_0",), ("LABEL_1",), ("LABEL_1 - LABEL_2",)]),
        ([(0, 1), (2,), None], [("LABEL_0", "LABEL_1"), ("LABEL_2",), None]),
        (torch.tensor([2, 1, 0]), [("LABEL_2",), ("LABEL_1",), ("LABEL_0",)]),
        (torch.tensor([[0, 1], [1, 2], [2, 0]]), [("LABEL_0", "LABEL_1"), ("LABEL_1", "LABEL_2"), ("LABEL_2", "LABEL_0")]),
        ((1, 0), [("LABEL_1", "LABEL_0")] * 3),
    ],
)  # fmt: skip
def test_targets_of_several_samples(given, names):
    for output, expected in zip(Saliency(*BERT)(TEXTS, targets=given), names, strict=True):
        assert expected is None or output.target_names == expected


def test_a_contrast_is_the_difference_of_its_targets():
    both = IntegratedGradients(*BERT)(TEXTS[0], targets=(0, 2, Contrast(0, 2)))[0]
    assert torch.allclose(both.attributions[2], both.attributions[0] - both.attributions[1], atol=1e-5)


def test_a_function_of_the_outputs_is_a_target():
    def margin(logits):
        return logits[:, 0] - logits[:, 2]

    found = Occlusion(*BERT)(TEXTS[0], targets=(Contrast(0, 2), margin))[0]
    assert torch.allclose(found.attributions[0], found.attributions[1])
    assert found.target_names == ("LABEL_0 - LABEL_2", "margin")


@pytest.mark.parametrize("mode", ["softmax", "log_softmax", torch.sigmoid])
def test_inference_mode_says_which_score_is_explained(mode):
    model, words = BERT
    output = Saliency(model, words, inference_mode=mode, granularity="token", reduction="sum")(TEXTS[0], targets=1)[0]
    encoded = words(TEXTS[0], return_tensors="pt")
    table = model.get_input_embeddings()
    embedded = table(encoded["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, attention_mask=encoded["attention_mask"]).logits
    score = (mode(logits) if callable(mode) else getattr(logits, mode)(-1))[0, 1]
    (gradient,) = torch.autograd.grad(score, embedded)
    assert float(output.scores) == pytest.approx(float(score.detach()), abs=1e-5)
    assert torch.allclose(output.attributions[0], gradient[0, 1:-1].sum(-1), atol=1e-5)


class Square(nn.Module):
    """A module without the API of transformers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, pixels):
        return self.head(pixels.square().mean((2, 3)))


def test_a_plain_module_from_pixels_to_logits():
    torch.manual_seed(0)
    method = Occlusion(Square(), transform(28), task="image-classification", patch_size=7)
    (output,) = method(some_images()[1])
    assert output.attributions.shape == (1, 4, 4)
    assert output.target_names[0] in "0123"


def test_bf16_models_and_autocast_run():
    import copy

    model, vision = VIT
    exact = InputXGradient(model, vision)(some_images()[0], targets=1)[0]
    rough = InputXGradient(model, vision, autocast=torch.bfloat16)(some_images()[0], targets=1)[0]
    half = InputXGradient(copy.deepcopy(model).bfloat16(), vision)(some_images()[0], targets=1)[0]
    for other in (rough, half):
        assert other.attributions.dtype == torch.float32
        both = torch.stack([other.attributions.flatten(), exact.attributions.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.95
    assert rough.info["dtype"] == half.info["dtype"] == "bfloat16"


def test_non_square_grids():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = torch.rand(3, 24, 40)
    options = {"task": "image-classification"}
    assert Occlusion(model, **options, patch_size=8)(pixels)[0].attributions.shape == (1, 3, 5)
    assert Occlusion(model, **options, granularity=Grid(2, 7))(pixels)[0].attributions.shape == (1, 2, 7)
    output = Occlusion(model, **options, granularity=Patches((7, 11)))(pixels)[0]
    assert output.attributions.shape == (1, 3, 3)
    assert output.elements[-1].tolist() == [22, 14, 33, 21]


@pytest.mark.parametrize("size", [(64, 64), (200, 100), (90, 301), (1000, 700)])
def test_the_crop_box_is_found(size):
    """Resize and centre crop of torchvision: the crop box in the image is known."""
    from torchvision.transforms import v2

    whole = geometry_of(transform(32), size).crop_box
    assert whole == (0, 0, *size)
    crop = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    short = min(size)
    side = short * 32 / 36
    expected = ((size[0] - side) / 2, (size[1] - side) / 2, (size[0] + side) / 2, (size[1] + side) / 2)
    assert np.allclose(geometry_of(crop, size).crop_box, expected, atol=0.02 * max(size))


def test_boxes_are_in_pixels_of_the_raw_image():
    wide = some_images()[0].resize((300, 150))
    (output,) = light(Occlusion)(VIT[0], processor(32))(wide)
    assert output.elements[0].tolist() == [0, 0, 75, 37.5]
    assert output.heatmap().shape == (1, 150, 300)
    assert output.heatmap(size=(20, 10), interpolation="nearest").shape == (1, 20, 10)


def test_slow_tokenizers_are_aligned_or_refused():
    from tests.model_wrapping.slow_tokenizer import Letters

    model, _ = text_model("bert")
    fast = tokenizer("bert")
    slow = Letters(fast.get_vocab())
    text = "the plot was not good."
    (output,) = Occlusion(model, slow)(text)
    assert output.elements == ["the", " plot", " was", " not", " good", "."]
    rewriting = Letters(fast.get_vocab(), swap={"plot": "story"})
    with pytest.raises(Exception, match="granularity='word' needs the character offsets of the tokens"):
        Occlusion(model, rewriting)(text)
    assert len(Occlusion(model, rewriting, granularity="token")(text)[0].elements) == 6


def test_streams_take_targets_as_calls_do():
    explain = Saliency(*BERT)
    for targets in (torch.tensor([0, 1, 2]), np.array([2, 1, 0]), [0, (1, 2), None], (0, 1), "all"):
        found = list(explain.stream(iter(TEXTS), targets=targets))
        for one, other in zip(found, explain(TEXTS, targets=targets), strict=True):
            assert one.target_names == other.target_names
    assert next(explain.stream(TEXTS[0], targets=[0, 1])).target_names == ("LABEL_0", "LABEL_1")


def test_images_of_different_sizes_share_a_call():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = [torch.rand(3, 16, 16), torch.rand(3, 20, 16), torch.rand(3, 16, 16)]
    for method in (light(Occlusion), light(IntegratedGradients)):
        explain = method(model, task="image-classification", patch_size=4)
        together = explain(pixels, targets=0)
        for one, image in zip(together, pixels, strict=True):
            assert torch.allclose(one.attributions, explain(image, targets=0)[0].attributions, atol=1e-6)


def test_tensors_of_every_kind_are_taken():
    picture = some_images()[0]
    expected = maps(picture)
    tensor = (torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255).requires_grad_()
    assert torch.allclose(maps(tensor), expected, atol=1e-5)
    encoded = VIT[1]([picture, picture], return_tensors="pt")["pixel_values"]
    assert torch.allclose(maps({"pixel_values": list(encoded)}), torch.cat([expected, expected]), atol=1e-5)
    rough = Occlusion(VIT[0])(encoded[0].bfloat16().requires_grad_(), targets=1)[0]
    assert torch.allclose(rough.attributions, expected[0], atol=0.05)


def test_arrays_with_alpha_are_on_white_as_images_are():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert np.asarray(to_image(clear)).min() == 255


def test_tokenised_texts_keep_unknown_words_and_pairs():
    model, words = BERT
    text = "the plot \u4e00 was [MASK] good"
    plain = Occlusion(model, words, granularity="token")(text, targets=0)[0]
    given = Occlusion(model, words, granularity="token")(words(text), targets=0)[0]
    assert torch.equal(plain.attributions, given.attributions)
    pair = ("a good film.", "we saw it")
    plain = Occlusion(model, words, granularity="sentence")([pair], targets=0)[0]
    given = Occlusion(model, words, granularity="sentence")(words(*pair), targets=0)[0]
    assert torch.equal(plain.attributions, given.attributions)
    assert given.raw_input == pair


def test_rows_of_a_dataset_are_taken():
    model, words = BERT
    expected = Occlusion(model, words, granularity="token")(TEXTS[0], targets=0)[0]
    row = {"text": TEXTS[0], "label": 1, **words(TEXTS[0])}
    assert torch.equal(
        Occlusion(model, words, granularity="token")(row, targets=0)[0].attributions, expected.attributions
    )
    assert len(Occlusion(model, words, granularity="token")(words(TEXTS))) == 3


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (0, -50, 200, 150)), ((100, 240), (-70, 0, 170, 240))])
def test_padding_of_the_processor_is_outside_the_image(size, expected):
    from torchvision.transforms import v2

    def letterbox(picture):
        side = max(picture.size)
        across, down = (side - picture.width) // 2, (side - picture.height) // 2
        padded = v2.functional.pad(picture, [across, down, across, down])
        return transform(48)(padded)

    assert np.allclose(geometry_of(letterbox, size).crop_box, expected, atol=3)


def is_exact_in_bfloat16(values):
    """Whether rounding to bfloat16 changes none of the values."""
    return torch.equal(values, values.bfloat16().float())


def test_autocast_leaves_the_last_layer_exact():
    for (model, processing), sample in ((BERT, TEXTS[0]), (VIT, some_images()[0])):
        (output,) = Occlusion(model, processing, autocast=torch.bfloat16)(sample, targets=[(0, 1)])
        assert not is_exact_in_bfloat16(output.scores)
        fields = dict(processing(sample, return_tensors="pt"))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert is_exact_in_bfloat16(model(**fields).logits.float())


def test_attention_is_exact_on_a_cpu_where_gradients_are_taken():
    query = torch.rand(1, 2, 8, 4)
    with precision(nn.Linear(2, 2), torch.bfloat16, torch.device("cpu")):
        attend = nn.functional.scaled_dot_product_attention
        leaf = query.clone().requires_grad_()
        assert attend(leaf, leaf, leaf).dtype == torch.float32
        assert attend(query, query, query).dtype == torch.bfloat16
        with torch.no_grad():
            assert attend(leaf, leaf, leaf).dtype == torch.bfloat16


def test_images_are_prepared_together_as_alone():
    """Images of several sizes, paths and pixel values in one list."""
    model, processor = image_model("vit")
    wrapper = Occlusion(model, processor).setup.wrapper
    pictures = some_images()
    values = {"pixel_values": torch.rand(3, 32, 32)}
    several = [pictures[0], pictures[0].rotate(90), values, pictures[1], pictures[0]]
    for one, alone in zip(wrapper.inputs.prepare(several), map(wrapper.inputs.prepare_one, several), strict=True):
        assert torch.equal(one.rows.fields["pixel_values"], alone.rows.fields["pixel_values"])
        assert (one.crop_box, one.size, one.raw.size) == (alone.crop_box, alone.size, alone.raw.size)


def test_large_images_are_prepared_one_by_one(monkeypatch):
    model, processor = image_model("vit")
    wrapper = Occlusion(model, processor).setup.wrapper
    counts, inner = [], wrapper.inputs.preprocessor.processor.processor

    def counted(images, return_tensors):
        counts.append(len(images))
        return inner(images=images, return_tensors=return_tensors)

    monkeypatch.setattr(wrapper.inputs.preprocessor.processor, "processor", counted)
    for side, expected in ((30, [5]), (1500, [1, 1, 1]), (1000, [4, 1])):
        pictures = [Image.new("RGB", (side, side))] * sum(expected)
        wrapper.inputs.prepare_one(pictures[0])
        counts.clear()
        wrapper.inputs.prepare(pictures)
        assert counts == expected


def test_black_and_white_are_what_the_processor_makes_of_them():
    model, processor = image_model("vit")
    sample = Occlusion(model, processor).setup.wrapper.inputs.prepare_one(some_images()[0])
    for level, colour in zip(sample.black_white, ("black", "white"), strict=True):
        picture = Image.new("RGB", some_images()[0].size, colour)
        assert torch.allclose(
            processor(images=picture, return_tensors="pt")["pixel_values"][0, :, 5, 5], level, atol=1e-6
        )


def test_samples_that_are_ready_are_taken_as_they_are():
    for pair, raws in ((image_model("vit"), some_images()), (text_model("bert"), TEXTS)):
        method = Occlusion(*pair)
        ready = method.setup.wrapper.inputs.prepare(raws)
        for one, other in zip(method(ready), method(raws), strict=True):
            assert torch.allclose(one.attributions, other.attributions, atol=1e-6)


@pytest.mark.parametrize("given", [("a film", "a plot"), ("a", "b", "c"), ()])
def test_a_bare_tuple_of_texts_is_refused_with_both_readings(given):
    with pytest.raises(InputError, match=r"can be one sample or \d: .*several texts are a list"):
        Occlusion(*text_model("bert"))(given)
    assert issubclass(InputError, ValueError)


def test_pairs_of_texts_are_tuples_in_a_list_or_named():
    model, tokenizer = text_model("bert")
    explain = Occlusion(model, tokenizer, granularity="token")
    (listed,) = explain([("good film", "the plot")], targets=0)
    (named,) = explain({"text": "good film", "text_pair": "the plot"}, targets=0)
    (among,) = explain([{"text": "good film", "text_pair": "the plot"}], targets=0)
    (alone,) = explain({"text": "good film"}, targets=0)
    assert torch.equal(listed.attributions, named.attributions)
    assert torch.equal(listed.attributions, among.attributions)
    assert torch.equal(alone.attributions, explain("good film", targets=0)[0].attributions)
    (row,) = explain({"text": "good film", "text_pair": None, "label": 1}, targets=0)
    assert torch.equal(row.attributions, alone.attributions)
    with pytest.raises(InputError, match=r"must be strings; got 'text' \(int\)"):
        explain({"text": 3})
    with pytest.raises(InputError, match="'text_pair' is not supported"):
        Occlusion(*causal_lm("gpt2"))({"text": "good film", "text_pair": "the plot"})


def test_tokens_that_may_be_one_continuation_or_one_for_each_prompt_are_refused():
    model, tokenizer = causal_lm("gpt2")
    explain = Occlusion(model, tokenizer, granularity="token")
    prompts = ["The plot", "a film"]
    with pytest.raises(TargetError, match=r"pass \[\[5, 6\]\] \* 2 for the first, \[\[5\], \[6\]\] for the second"):
        explain(prompts, targets=[5, 6])
    assert [output.targets for output in explain(prompts, targets=[[5, 6]] * 2)] == [(5, 6)] * 2
    assert [output.targets for output in explain(prompts, targets=[[5], [6]])] == [(5,), (6,)]
    # Unlike a class, a token may occur twice in a tuple.
    for entry in ([5, 5], torch.tensor([5, 5]), np.array([5, 5])):
        assert [output.targets for output in explain(prompts, targets=[entry, [6]])] == [(5, 5), (6,)]
    # With one prompt, or another number of tokens, there is only one reading.
    assert explain("The plot", targets=[5, 6])[0].targets == (5, 6)
    assert [output.targets for output in explain(prompts, targets=[5, 6, 7])] == [(5, 6, 7)] * 2


@pytest.mark.parametrize("targets", [[1, 0, 1, 0], [0, 0], torch.tensor([1, 0, 1]), torch.tensor([[1, 0, 1]])])
def test_a_class_named_twice_for_one_sample_is_refused_with_both_readings(targets):
    with pytest.raises(TargetError, match=r"more than once.*pass \(.*multi-hot row"):
        Occlusion(*text_model("bert"))("good film", targets=targets)
    with pytest.raises(TargetError, match="contain class 0 more than once"):
        Occlusion(*text_model("bert"))(["good film"] * 2, targets=[[0, 1, 0], 1])
    # A tuple always means several targets.
    assert len(Occlusion(*text_model("bert"))("good film", targets=(0, 0, 1))[0].targets) == 3


def test_a_column_is_taken_and_its_table_refused():
    frame = pd.DataFrame({"text": ["good film", "bad plot"], "label": [1, 0]})
    explain = Occlusion(*text_model("bert"))
    for method, table in ((explain, frame), (Occlusion(*causal_lm("gpt2")), frame)):
        with pytest.raises(InputError, match=r"columns 'text', 'label' .* such as df\['text'\]"):
            method(table)
        with pytest.raises(InputError, match="columns 'text'"):
            next(method.stream(table))
    by_column = explain(frame["text"], targets=frame["label"])
    by_list = explain(list(frame["text"]), targets=[1, 0])
    for one, other in zip(by_column, by_list, strict=True):
        assert one.targets == other.targets
        assert torch.equal(one.attributions, other.attributions)


@pytest.mark.parametrize("level", [0, 250, 260, 30000, 65535])
def test_images_of_16_bits_are_read_by_their_mode(level):
    expected = round(level / 65535 * 255)
    array = np.full((4, 5), level, dtype=np.uint16)
    for picture in (Image.fromarray(array), Image.fromarray(array.astype(np.int32), "I"), array):
        assert np.unique(np.asarray(to_image(picture))).tolist() == [expected]


def test_images_of_floats_are_not_black():
    picture = Image.fromarray(np.linspace(0, 1.0000002, 20, dtype=np.float32).reshape(4, 5), "F")
    assert np.asarray(to_image(picture)).max() == 255
    assert np.asarray(to_image(np.full((4, 4, 3), 1.0000002, dtype=np.float32))).min() == 255
    with pytest.raises(InputError, match=r"floats in \[0, 1\]"):
        to_image(np.full((4, 4, 3), 1.5))
    with pytest.raises(InputError, match="read as 16 bits"):
        to_image(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32), "I"))


@pytest.mark.parametrize("baseline", [[0.0, 0.5, 1.0], [0, 1], ["zeros", 0.5]])
def test_a_list_is_always_several_baselines(baseline):
    model, processor = image_model("vit")
    picture = some_images()[0]
    run = partial(IntegratedGradients, model, processor, n_steps=4, granularity="pixel")
    (found,) = run(baseline=baseline)(picture, 0)
    each = [run(baseline=one)(picture, 0)[0].attributions for one in baseline]
    assert torch.allclose(found.attributions, torch.stack(each).mean(0), atol=1e-6)


def test_a_tuple_is_one_colour():
    model, processor = image_model("vit")
    (found,) = IntegratedGradients(model, processor, n_steps=4, baseline=(0.0, 0.5, 1.0))(some_images()[0], 0)
    colour = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(3, *found.info["options"].get("size", (32, 32)))
    (expected,) = IntegratedGradients(model, processor, n_steps=4, baseline=colour)(some_images()[0], 0)
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)


def test_a_token_by_its_id():
    model, words = text_model("bert")
    token = words.convert_tokens_to_ids("good")
    for method, option in ((Occlusion, "removal"), (IntegratedGradients, "baseline")):
        (by_id,), (by_name,) = (
            method(model, words, **{option: one})("a bad film", 0) for one in ({"id": token}, "good")
        )
        assert torch.equal(by_id.attributions, by_name.attributions)
