"""Images from paths, bytes and files, columns of tables, and tokenized texts: accepted, or refused with one error."""

import copy
import io
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from interpreto import Occlusion, Saliency
from interpreto.errors import InputError, ModelError
from tests.causal_lms import causal_lm
from tests.dual_encoders import dual_encoder_model
from tests.models import TEXTS, image_model, some_images, text_model

# An image that cannot be read keeps its file open until it is garbage-collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BERT, VIT, GPT = text_model("bert"), image_model("vit"), causal_lm("gpt2")
PICTURE, OTHER = some_images()[:2]


def encoded(picture=PICTURE, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def maps(inputs):
    return torch.stack([output.attributions for output in Saliency(*VIT)(inputs, 1)])


def test_bytes_and_open_files_are_images(tmp_path):
    path = tmp_path / "photo:1.png"
    path.write_bytes(encoded())
    expected = maps(PICTURE)
    with path.open("rb") as file:
        forms = [encoded(), bytearray(encoded()), memoryview(encoded()), io.BytesIO(encoded()), file, Image.open(path)]
        for form in [*forms, str(path)]:
            assert torch.equal(maps(form), expected)
            if not isinstance(form, str | Image.Image | bytes | bytearray | memoryview):
                form.seek(0)
        several = maps([encoded(), path, io.BytesIO(encoded(OTHER))])
    assert torch.allclose(several, torch.cat([expected, expected, maps(OTHER)]), atol=1e-5)


def test_images_that_prompts_name_may_be_bytes():
    model, processor = dual_encoder_model("clip")
    explain = Occlusion(model, processor, modality="text")
    assert torch.equal(explain("a film", encoded())[0].attributions, explain("a film", PICTURE)[0].attributions)


def test_columns_of_paths_and_targets(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    OTHER.save(tmp_path / "b.png")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    expected = [output.attributions for output in Saliency(*VIT)(paths, [1, 2])]
    table = pd.DataFrame({"path": paths, "label": [1, 2]}, index=[7, 3])
    for images in (table["path"], np.array(paths), np.array(paths, dtype=object)):
        for targets in (table["label"], pd.Categorical([1, 2]), table["label"].to_numpy(), torch.tensor([1, 2])):
            found = Saliency(*VIT)(images, targets)
            assert all(torch.equal(one.attributions, other) for one, other in zip(found, expected, strict=True))


def test_the_first_of_several_frames_is_explained_with_a_warning(tmp_path):
    path = tmp_path / "pages.tiff"
    # Pillow keeps the options of an earlier format on the image.
    PICTURE.copy().save(path, save_all=True, append_images=[OTHER.copy()])
    with pytest.warns(UserWarning, match="pages.tiff' has 2 frames or pages: only the first one is explained"):
        assert torch.equal(maps(path), maps(PICTURE))
    with pytest.warns(UserWarning, match="in bytes has 2 frames"):
        maps(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = Image.open(path)
        chosen.seek(1)
        assert torch.equal(maps(chosen), maps(OTHER))
        # Cameras store previews after the image.
        PICTURE.copy().save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[OTHER.copy()])
        maps(tmp_path / "camera.jpg")


def test_large_pictures_are_refused_as_pillow_does(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (90, 90)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(
        InputError, match=r"large.png' exceeds Pillow's size limit: Image size \(8100 pixels\).*MAX_IMAGE"
    ):
        maps(path)


def broken_file(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded()[:300])
    return path


def closed_picture(tmp_path):
    PICTURE.save(tmp_path / "closed.png")
    picture = Image.open(tmp_path / "closed.png")
    picture.close()
    return picture


def closed_file(tmp_path):
    file = io.BytesIO(encoded())
    file.close()
    return file


def fifo(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


BROKEN = {
    "opened lazily": (lambda folder: Image.open(broken_file(folder)), "cut.png' cannot be read as an image: image file is truncated"),
    "a file that is cut": (broken_file, "cut.png' cannot be read as an image: image file is truncated"),
    "closed picture": (closed_picture, "closed.png' cannot be read as an image: Operation on closed image"),
    "closed file": (closed_file, "in BytesIO cannot be read as an image: I/O operation on closed file"),
    "no picture": (lambda folder: b"nothing", "in bytes cannot be read as an image: Pillow does not recognize its format"),
    "no bytes": (lambda folder: b"", "in bytes cannot be read as an image"),
    "file of text": (lambda folder: io.StringIO("a"), r"was opened in text mode: open it with open\(path, 'rb'\)"),
    "URL": (lambda folder: "https://example.com/a/cat.jpg", "'https://example.com/a/cat.jpg' is a URL, and nothing is downloaded"),
    "data URL": (lambda folder: "data:image/png;base64,iVBORw0KGgo=", "is a URL"),
    "bucket": (lambda folder: "s3://bucket/cat.jpg", "'s3://bucket/cat.jpg' is a URL"),
    "pipe": (fifo, "pipe' is a pipe or a device, not a file"),
    "device": (lambda folder: "/dev/zero", "'/dev/zero' is a pipe or a device"),
    "folder": (lambda folder: folder, "is a folder: pass a list of the paths of the images in it"),
    "empty path": (lambda folder: "", "The path of an image is empty"),
    "null byte": (lambda folder: "a\0b.png", "cannot be opened: embedded null byte"),
    "long path": (lambda folder: "a" * 5000, "cannot be opened: .*too long"),
    "0-d array": (lambda folder: np.array(3.0), r"A zero-dimensional array, array\(3.\), is not a list of samples"),
    "0-d tensor in a list": (lambda folder: [torch.tensor(3.0)], r"An image array must have the shape H W, H W c or c H W.*got \(\)"),
    "five axes": (lambda folder: np.zeros((1, 1, 3, 4, 4)), "An image array must have the shape"),
    "array of words": (lambda folder: np.array([["a", "b"]]), "An image array must contain numbers; this one contains <U1"),
    "array of objects": (lambda folder: np.array([PICTURE, None], dtype=object), "Expected an image, got NoneType"),
    "complex numbers": (lambda folder: np.zeros((4, 4), complex), "must contain numbers; this one contains complex128"),
    "no tensor": (lambda folder: torch.zeros(3, 4, 4, device="meta"), "on the meta device"),
    "sparse tensor": (lambda folder: torch.zeros(4, 4).to_sparse(), "The tensor is sparse"),
    "number as pixel values": (lambda folder: {"pixel_values": torch.tensor(3.0)}, r"'pixel_values' must be a tensor.*got shape \(\)"),
    "no pixel values": (lambda folder: {"pixel_values": None}, "'pixel_values' must be a tensor or array.*got NoneType"),
    "ragged pixel values": (lambda folder: {"pixel_values": [[[0.0], [0.0, 1.0]]]}, "is a list that cannot be converted to an array of numbers"),
    "other size": (lambda folder: {"pixel_values": torch.zeros(1, 3, 40, 40)}, "expects pixel values 3 x 32 x 32; these are 3 x 40 x 40"),
    "other channels": (lambda folder: {"pixel_values": torch.zeros(1, 32, 32)}, "expects pixel values 3 x 32 x 32; these are 1 x 32 x 32"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_is_told(name, tmp_path):
    make, message = BROKEN[name]
    explain, given = Saliency(*VIT), make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        explain(given)
    if name == "opened lazily":
        given.close()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("timm-vit", (3, 40, 40), "expects pixel values 3 x 32 x 32"),
        ("deit", (3, 40, 32), "expects pixel values 3 x 32 x 32"),
        ("resnet", (5, 32, 32), "expects pixel values 3 x H x W; these are 5 x 32 x 32"),
        ("torchvision-resnet", (1, 32, 32), "expects pixel values 3 x H x W; these are 1 x 32 x 32"),
        ("convnext", (4, 32, 32), "expects pixel values 3 x H x W; these are 4 x 32 x 32"),
    ],
)
def test_pixel_values_that_the_model_cannot_read_are_refused_before_it_runs(name, wrong, message):
    model, _ = image_model(name)
    calls = []
    handle = model.register_forward_pre_hook(lambda module, given: calls.append(1))
    try:
        with pytest.raises(InputError, match=message):
            Saliency(model)(torch.zeros(wrong))
    finally:
        handle.remove()
    assert not calls


def test_pixel_values_in_nested_lists_are_read():
    values = VIT[1](PICTURE, return_tensors="pt")["pixel_values"]
    assert torch.equal(maps({"pixel_values": values[0].tolist()}), maps({"pixel_values": values}))


def noisy(picture):
    values = transforms.functional.to_tensor(picture.resize((32, 32)))
    return values + torch.from_numpy(np.random.default_rng().normal(size=values.shape)).float() * 1e-3


END = [transforms.Resize((32, 32)), transforms.ToTensor()]
DRAWING = {
    "crop": [transforms.RandomResizedCrop(32), transforms.ToTensor()],
    "colours": [transforms.ColorJitter(0.4, 0.4), *END],
    "augmentation": [transforms.RandAugment(), *END],
    "nested": [transforms.Compose([transforms.ColorJitter(0.4)]), *END],
    "seldom": [transforms.RandomApply([transforms.ColorJitter(0.4)], p=0.2), *END],
    "v2": [v2.TrivialAugmentWide(), *END],
    "erasing": [*END, transforms.RandomErasing(p=0.3)],
    "own": [noisy],
}


@pytest.mark.parametrize("name", DRAWING)
def test_transforms_that_draw_at_random_are_refused(name):
    torch.manual_seed(0)
    explain = Saliency(VIT[0], transforms.Compose(DRAWING[name]))
    with pytest.raises(ModelError, match="The transform is random: it returns a different result"):
        explain(PICTURE)


def test_transforms_that_draw_without_effect_are_used():
    plain, drawing = transforms.Compose(END), transforms.Compose([transforms.RandomHorizontalFlip(p=0.0), *END])
    expected = Saliency(VIT[0], plain)(PICTURE, 1)[0].attributions
    assert torch.equal(Saliency(VIT[0], drawing)(PICTURE, 1)[0].attributions, expected)


TOKENISED = {
    "number": ({"input_ids": torch.tensor(3)}, "Input ids must have one axis, or two for several texts; these have 0"),
    "three axes": ({"input_ids": torch.ones(1, 1, 4, dtype=torch.long)}, "these have 3"),
    "words": ({"input_ids": ["a", "b"]}, "'input_ids' of a tokenised text must be integers"),
    "text": ({"input_ids": "a film"}, "must be a list, a tensor or an array; got str"),
    "fractions": ({"input_ids": torch.tensor([[2.0, 5.0, 3.0]])}, "must be a list of integers; got torch.float32"),
    "negative": ({"input_ids": [[2, -5, 3]]}, r"\[-5\] are not token ids: the tokenizer has \d+ tokens"),
    "too large": ({"input_ids": [[2, 5, 99999, 3]]}, r"\[99999\] are not token ids"),
    "short mask": ({"input_ids": [[2, 5, 6, 3]], "attention_mask": [[1, 1, 1]]}, "attention mask has 3 entries, but there are 4"),
    "short types": ({"input_ids": [[2, 5, 6, 3]], "token_type_ids": [[0, 0]]}, "list of token types has 2 entries"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENISED)
def test_what_is_no_tokenised_text_is_told(name):
    given, message = TOKENISED[name]
    with pytest.raises(InputError, match=message):
        Saliency(*BERT)(given)


@pytest.mark.parametrize("ids", [[5, -1], [5, 10**6], torch.tensor([5, 10**6])])
def test_prompts_of_ids_that_are_no_tokens_are_told(ids):
    with pytest.raises(InputError, match="are not token ids"):
        Saliency(*GPT)(ids)


@pytest.mark.parametrize("given", [np.array("a film"), torch.tensor(3)])
def test_arrays_without_axes_are_no_texts(given):
    for explain in (Saliency(*BERT), Saliency(*GPT)):
        with pytest.raises(InputError, match="A zero-dimensional array"):
            explain(given)


def test_arrays_of_texts_are_lists_of_texts():
    for model in (BERT, GPT):
        expected = [output.attributions for output in Occlusion(*model)(TEXTS, 1 if model is BERT else " good")]
        for given in (np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS, index=[4, 9, 1])):
            found = Occlusion(*model)(given, 1 if model is BERT else " good")
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one.attributions.nan_to_num(), other.nan_to_num())


def test_a_byte_level_tokenizer_that_does_not_tell_places_gives_the_same_words():
    model, words = GPT
    silent = copy.deepcopy(words)
    silent.__class__ = type("Silent", (type(words),), {"is_fast": property(lambda self: False)})
    for text in ("the film was good", "naïve café 😀 fine"):
        expected, found = (Occlusion(model, one)(text, " good")[0] for one in (words, silent))
        assert list(found.elements) == list(expected.elements)
        assert torch.allclose(found.attributions.nan_to_num(), expected.attributions.nan_to_num(), atol=1e-5)
