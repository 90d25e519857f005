"""The task is detected from the class of the model, through any wrapper."""

import pytest
import torch
from torch import nn

from interpreto import InterpretoError, Occlusion, Saliency
from interpreto.loading import load
from interpreto.model_wrapping.tasks.detection import find_task
from tests.models import IMAGE_MODELS, TEXT_MODELS, TEXTS, image_model, text_model


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_classifiers(name):
    assert find_task(text_model(name)[0]) == "text-classification"


@pytest.mark.parametrize("name", [name for name in IMAGE_MODELS if not name.startswith(("timm", "torchvision"))])
def test_image_classifiers(name):
    assert find_task(image_model(name)[0]) == "image-classification"


def test_a_class_derived_from_a_known_one():
    model, _ = text_model("bert")
    derived = type("Mine", (type(model),), {})
    assert find_task(derived(model.config)) == "text-classification"


def test_a_compiled_model():
    model, tokenizer = text_model("bert")
    compiled = torch.compile(model, backend="eager")
    plain = Occlusion(model, tokenizer)(TEXTS[0], targets=0)[0]
    assert torch.equal(Occlusion(compiled, tokenizer)(TEXTS[0], targets=0)[0].attributions, plain.attributions)


class Peft(nn.Module):
    """The interface of a model wrapped by PEFT."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_base_model(self):
        return self.inner

    def forward(self, **inputs):
        return self.inner(**inputs)


def test_a_peft_model():
    model, tokenizer = text_model("bert")
    for method in (Occlusion, Saliency):
        plain = method(model, tokenizer)(TEXTS[0], targets=0)[0]
        assert torch.equal(method(Peft(model), tokenizer)(TEXTS[0], targets=0)[0].attributions, plain.attributions)


def test_models_are_loaded_from_a_folder(tmp_path):
    for name, (model, processor) in {"bert": text_model("bert"), "vit": image_model("vit")}.items():
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
        loaded, processed = load(str(tmp_path / name))
        assert type(loaded) is type(model)
        assert type(processed).__name__ == type(processor).__name__ or name == "bert"
        assert not loaded.training


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(InterpretoError, match=r"There is no folder with a model named"):
        load(str(tmp_path))
    text_model("bert")[0].save_pretrained(tmp_path / "bare")
    with pytest.raises(InterpretoError, match=r"Cannot load .*bare': it has no tokenizer files, only 5 special"):
        load(str(tmp_path / "bare"))
    image_model("vit")[0].save_pretrained(tmp_path / "blind")
    with pytest.raises(InterpretoError, match=r"Cannot load .*blind"):
        load(str(tmp_path / "blind"))
    with pytest.raises(InterpretoError, match=r"The zoo has no model 'shape-vit': did you mean 'shapes-vit'"):
        load("zoo:shape-vit")
