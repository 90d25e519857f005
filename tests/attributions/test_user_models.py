"""Wrapped, custom and unusual models give the same numbers as the plain model, or raise an `InterpretoError`."""

import copy
import warnings

import accelerate
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from transformers import ViTForImageClassification

from interpreto import (
    AGCam,
    AttentionRollout,
    Contrast,
    GenericAttention,
    GradCam,
    GradEclip,
    Grid,
    GuidedBackprop,
    IntegratedGradients,
    KernelShap,
    LeGrad,
    Lime,
    Occlusion,
    RawAttention,
    Saliency,
    compare,
    from_callables,
)
from interpreto.errors import (
    BatchWarning,
    InputError,
    ModelError,
    OptionError,
    StochasticModelWarning,
    TargetError,
    UnsupportedError,
)
from tests.attributions.test_bad_input import _bart
from tests.causal_lms import causal_lm
from tests.dual_encoders import dual_encoder_model
from tests.models import TEXTS, image_model, light, some_images, text_model, tokenizer

PICTURE = some_images()[0]
TEXT_METHODS = (Saliency, Occlusion, IntegratedGradients, GenericAttention)
IMAGE_METHODS = (Saliency, LeGrad, Occlusion, GradCam, AGCam, GradEclip, AttentionRollout)
OF_TASK = {
    "text": (*text_model("bert"), (TEXTS[0],), TEXT_METHODS),
    "image": (*image_model("vit"), (PICTURE,), IMAGE_METHODS),
    "generation": (*causal_lm("gpt2"), ("the film was", " good"), (Saliency, Occlusion)),
}


def scores(model, kind, count=None, **options):
    """The attributions of some methods on a model that is equivalent to the plain one."""
    _, processor, inputs, methods = OF_TASK[kind]
    small = {"patch_size": 8} if kind == "image" else {}
    made = [method(model, processor, **small, **options) for method in methods[:count]]
    return [explain(*inputs)[0].attributions.nan_to_num() for explain in made]


def assert_agree(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def copied(kind):
    return copy.deepcopy(OF_TASK[kind][0])


def made_in_inference_mode(kind):
    model = OF_TASK[kind][0]
    with torch.inference_mode():
        fresh = type(model)(model.config).eval()
        fresh.load_state_dict(model.state_dict())
    return fresh


def compiled_in_place(kind):
    model = copied(kind)
    model.compile(backend="eager")
    return model


def with_compiled_part(kind):
    model = copied(kind)
    name = {"text": "bert", "image": "vit", "generation": "transformer"}[kind]
    setattr(model, name, torch.compile(getattr(model, name), backend="eager"))
    return model


def returning_tuples(kind):
    model = copied(kind)
    model.config.return_dict = False
    return model


def offloaded(kind, tmp_path):
    model = copied(kind)
    if kind == "text":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    return model


SHELLS = {
    "compiled in place": compiled_in_place,
    "with a compiled part": with_compiled_part,
    "data parallel": lambda kind: nn.DataParallel(copied(kind)),
    "compiled data parallel": lambda kind: torch.compile(nn.DataParallel(copied(kind)), backend="eager"),
    "returning tuples": returning_tuples,
    "made in inference mode": made_in_inference_mode,
    "in training mode": lambda kind: copied(kind).train(),
}


# torch.compile cannot trace the checks of annotations, and reads gradients of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", OF_TASK)
@pytest.mark.parametrize("shell", SHELLS)
def test_wrapped_models_give_the_same_results(shell, kind):
    # Every method makes torch.compile trace the model again.
    count = 3 if "compiled" in shell else None
    assert_agree(scores(SHELLS[shell](kind), kind, count), scores(OF_TASK[kind][0], kind, count))


@pytest.mark.parametrize("kind", OF_TASK)
def test_offloaded_models_give_the_same(kind, tmp_path):
    assert_agree(scores(offloaded(kind, tmp_path), kind), scores(OF_TASK[kind][0], kind))


def test_encoders_may_return_tuples():
    model, processor = dual_encoder_model("clip")
    plain = copy.deepcopy(model)
    plain.config.return_dict = False
    for method in (Saliency, Occlusion):
        expected = method(model, processor)(PICTURE, "a film")[0].attributions
        assert torch.allclose(method(plain, processor)(PICTURE, "a film")[0].attributions, expected, atol=1e-5)


def test_values_of_weights_made_in_inference_mode_are_the_users_own():
    model = made_in_inference_mode("image")
    explain = Saliency(model, OF_TASK["image"][1], patch_size=8)
    before = explain(PICTURE, 0)[0].attributions
    with torch.inference_mode():
        model.classifier.weight.mul_(2)
    assert torch.allclose(explain(PICTURE, 0)[0].attributions, 2 * before, atol=1e-4)


def test_buffers_made_in_inference_mode_are_the_users_own():
    with torch.inference_mode():
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 32 * 32, 3)).eval()
    explain = Occlusion(model, task="image-classification", patch_size=16)
    pixels = torch.rand(3, 32, 32)
    explain(pixels, 0)
    with torch.inference_mode():
        model[0].running_mean += 1
        expected = model(pixels[None])[0, 0]
    assert torch.allclose(explain(pixels, 0)[0].scores, expected, atol=1e-5)


class Backbone(nn.Module):
    """A ViT whose features are computed inside a context manager."""

    def __init__(self, context):
        super().__init__()
        model = OF_TASK["image"][0]
        self.body, self.head, self.context = model.vit, model.classifier, context

    def forward(self, pixels):
        with self.context():
            features = self.body(pixels)[0][:, 0]
        return self.head(features.clone())


class Decorated(Backbone):
    @torch.no_grad()
    def features(self, pixels):
        return self.body(pixels)[0][:, 0]

    def forward(self, pixels):
        return self.head(self.features(pixels))


class HalfFrozen(Backbone):
    """One of two branches is computed without gradients."""

    def forward(self, pixels):
        with torch.no_grad():
            frozen = self.body(pixels)[0][:, 0]
        return (self.head(frozen) + self.head(self.body(pixels)[0][:, 0])) / 2


@pytest.mark.parametrize("model", [Backbone(torch.no_grad), Decorated(None)], ids=["context", "decorator"])
def test_gradients_pass_backbones_that_are_not_trained(model):
    expected = scores(OF_TASK["image"][0], "image")
    assert_agree(scores(model.eval(), "image", task="image-classification"), expected)
    with torch.no_grad():
        assert_agree(scores(model.eval(), "image", task="image-classification")[:1], expected[:1])


def test_gradients_are_those_of_all_branches():
    for method in (Saliency, IntegratedGradients):
        (expected,) = method(*OF_TASK["image"][:2], patch_size=8)(PICTURE, 0)
        (found,) = method(HalfFrozen(None).eval(), OF_TASK["image"][1], task="image-classification", patch_size=8)(
            PICTURE, 0
        )
        assert torch.allclose(found.attributions, expected.attributions, atol=1e-4)


def test_models_that_block_gradients_are_reported():
    with pytest.raises(ModelError, match=r"torch.inference_mode\(\).*Occlusion"):
        Saliency(Backbone(torch.inference_mode).eval(), OF_TASK["image"][1], task="image-classification")(PICTURE)


class OwnText(nn.Module):
    def __init__(self):
        super().__init__()
        model = OF_TASK["text"][0]
        self.body, self.head = model.bert, model.classifier


class ByName(OwnText):
    def forward(self, input_ids, attention_mask=None):
        return self.head(self.body(input_ids, attention_mask=attention_mask)[1])


class ByPlace(OwnText):
    def forward(self, tokens, token_type_ids=None):
        return {"logits": self.head(self.body(tokens, token_type_ids=token_type_ids)[1])}


class ByAnyName(OwnText):
    def forward(self, **fields):
        return (self.head(self.body(**fields)[1]),)


@pytest.mark.parametrize(("own", "options"), [(ByName, {}), (ByPlace, {}), (ByAnyName, {"model_output": 0})])
def test_own_modules_read_texts(own, options):
    assert_agree(
        scores(own().eval(), "text", task="text-classification", **options), scores(OF_TASK["text"][0], "text")
    )


class InPlaceText(nn.Module):
    """Changes its mask and its embeddings, in place or out of place."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.table, self.head = nn.Embedding(len(OF_TASK["text"][1]), 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        vectors = self.table(input_ids)
        if self.in_place:
            vectors = vectors.mul_(attention_mask.mul_(2)[..., None]).tanh_()
        else:
            vectors = (vectors * 2 * attention_mask[..., None]).tanh()
        return self.head(vectors.mean(1))


class InPlaceImage(nn.Module):
    """Normalizes images, in place or out of place."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.features, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 3)

    def forward(self, images):
        images = images.sub_(0.5).mul_(3.0) if self.in_place else (images - 0.5) * 3.0
        return self.head(torch.tanh(self.features(images)).mean((2, 3)))


@pytest.mark.parametrize("method", [Occlusion, KernelShap, Saliency, IntegratedGradients, GradCam])
def test_models_may_change_their_inputs_in_place(method):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    own, plain = (
        light(method)(InPlaceImage(in_place), task="image-classification", granularity=Grid(4, 4), batch_size=1)
        for in_place in (True, False)
    )
    given = images.clone()
    for _ in range(2):
        for found, expected in zip(own(given, [0, 1]), plain(images, [0, 1]), strict=True):
            assert torch.equal(found.attributions, expected.attributions)
    assert torch.equal(given, images)


@pytest.mark.parametrize("method", [Occlusion, KernelShap, Saliency, IntegratedGradients])
def test_models_may_change_ids_and_embeddings_in_place(method):
    own, plain = (
        light(method)(InPlaceText(in_place), OF_TASK["text"][1], task="text-classification", batch_size=1)
        for in_place in (True, False)
    )
    for _ in range(2):
        for found, expected in zip(own(TEXTS, 0), plain(TEXTS, 0), strict=True):
            assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)


class BatchNormalized(InPlaceImage):
    """Normalizes by the statistics of the batch."""

    def __init__(self):
        super().__init__(in_place=False)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        nn.init.normal_(self.head.weight)

    def forward(self, images):
        return self.head(torch.tanh(self.norm(self.features(images))).mean((2, 3)))


class AlwaysDropout(InPlaceImage):
    """Applies dropout in evaluation mode too."""

    def __init__(self):
        super().__init__(in_place=False)

    def forward(self, images):
        return self.head(nn.functional.dropout(torch.tanh(self.features(images)).mean((2, 3)), 0.5, training=True))


@pytest.mark.parametrize("model", [BatchNormalized, AlwaysDropout])
def test_models_whose_rows_depend_on_the_batch_run_one_at_a_time(model):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = []
    for batch_size in (1, 4, 32):
        options = {"task": "image-classification", "granularity": Grid(4, 4), "removal": "black"}
        explain = Occlusion(model().eval(), batch_size=batch_size, **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            maps.append(explain(image, 0)[0].attributions)
        drawn = [StochasticModelWarning] * (model is AlwaysDropout)
        assert [one.category for one in caught] == drawn + [BatchWarning] * (batch_size > 1)
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])
    if model is BatchNormalized:
        whole = model().eval()
        for row, column in ((0, 0), (1, 2), (3, 3)):
            hidden = image.clone()
            hidden[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
            effect = (whole(image[None]) - whole(hidden[None]))[0, 0].item()
            assert maps[0][0, row, column].item() == pytest.approx(effect, abs=1e-5)


class Standardizes(InPlaceImage):
    """Divides by the standard deviation of an image, which is 0 for a fully masked one."""

    def __init__(self):
        super().__init__(in_place=False)

    def forward(self, images):
        centred = images - images.mean((1, 2, 3), keepdim=True)
        return super().forward(centred / images.std((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("method", [KernelShap, Lime, IntegratedGradients])
def test_scores_of_perturbed_inputs_that_are_not_finite_are_refused(method):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    explain = method(Standardizes().eval(), task="image-classification", granularity=Grid(2, 2))
    with pytest.raises(
        ModelError, match=r"not a number \(NaN\) for \d+ of \d+ perturbed copies .*removal= or baseline="
    ):
        explain(image, 0)


def test_target_functions_may_change_what_they_are_given():
    model, processor = OF_TASK["image"][:2]

    def best_other(outputs):
        outputs[:, 0] = -1e9
        return outputs.max(1).values

    def best_other_apart(outputs):
        return outputs[:, 1:].max(1).values

    (found,), (expected,) = (
        Occlusion(model, processor)(PICTURE, (function, 0)) for function in (best_other, best_other_apart)
    )
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.attributions, expected.attributions)


class Recurrent(nn.Module):
    """A module without the API of transformers: it reads ids, without a mask."""

    def __init__(self, words):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.body, self.head = nn.Embedding(words, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(self.body(self.table(ids))[0][:, -1])


def test_a_recurrent_network_is_explained_like_any_other():
    words = OF_TASK["text"][1]
    model = Recurrent(len(words)).eval()
    outputs = Occlusion(model, words, task="text-classification", removal="unk", granularity="token")(TEXTS, 4)
    for text, output in zip(TEXTS, outputs, strict=True):
        ids = words(text, return_tensors="pt")["input_ids"]
        hidden = ids.repeat(ids.shape[1] - 2, 1)
        hidden[torch.arange(len(hidden)), torch.arange(1, len(hidden) + 1)] = words.unk_token_id
        with torch.no_grad():
            expected = model(ids)[:, 4] - model(hidden)[:, 4]
        assert torch.allclose(output.attributions[0], expected, atol=1e-5)
    (output,) = Saliency(model, words, task="text-classification", granularity="token", reduction="sum")(TEXTS[0], 4)
    embedded = model.table(words(TEXTS[0], return_tensors="pt")["input_ids"]).detach().requires_grad_()
    model.head(model.body(embedded)[0][:, -1])[0, 4].backward()
    assert torch.allclose(output.attributions[0], embedded.grad[0, 1:-1].sum(-1), atol=1e-5)


def test_own_language_models_are_refused_with_the_way_to_explain_them():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = OF_TASK["generation"][0]

        def forward(self, ids):
            return self.inner(ids).logits[:, -1]

    words = OF_TASK["generation"][1]
    with pytest.raises(ModelError, match="task='text-classification'"):
        Saliency(Own(), words, task="text-generation")
    token = words(" good", add_special_tokens=False)["input_ids"][0]
    options = {"removal": "space", "granularity": "token", "inference_mode": "log_softmax"}
    (own,) = Occlusion(Own().eval(), words, task="text-classification", **options)("the film was", token)
    (plain,) = Occlusion(*OF_TASK["generation"][:2], **options)("the film was", [token])
    assert torch.allclose(own.attributions[0], plain.attributions[0, : own.attributions.shape[1]], atol=1e-4)


class ReturnsOutputs(nn.Module):
    """A ViT whose logits a function puts into another form of output."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = OF_TASK["image"][0], how

    def forward(self, pixels):
        return self.how(self.inner(pixels).logits)


@pytest.mark.parametrize(
    ("how", "chosen"),
    [
        (lambda logits: (logits * 2, logits), 1),
        (lambda logits: (logits * 2, logits), -1),
        (lambda logits: [logits], 0),
        (lambda logits: {"aux": logits * 2, "out": logits}, "out"),
        (lambda logits: {"aux": logits * 2, "out": logits}, 1),
        (lambda logits: {"aux": logits * 2, "out": {"deep": logits}}, lambda output: output["out"]["deep"]),
        (lambda logits: logits[..., None], lambda output: output[..., 0]),
        (lambda logits: {"logits": logits, "aux": None}, None),
    ],
)
def test_the_part_of_the_output_that_is_explained_is_named(how, chosen):
    found = scores(ReturnsOutputs(how).eval(), "image", task="image-classification", model_output=chosen)
    assert_agree(found, scores(OF_TASK["image"][0], "image"))


@pytest.mark.parametrize(
    ("how", "chosen", "error", "message"),
    [
        (lambda logits: (logits, logits), None, ModelError, r"tuple with 0 \(a tensor of shape \(1, 3\)\), 1 .*model_output="),
        (lambda logits: {"aux": logits}, None, ModelError, r"dict with 'aux' \(a tensor of shape \(1, 3\)\)"),
        (lambda logits: {"aux": logits}, "axu", OptionError, "has no 'axu': did you mean 'aux'"),
        (lambda logits: (logits,), 3, OptionError, "has no 3: choose from '0'"),
        (lambda logits: logits, "aux", OptionError, "has no 'aux': it is a tensor"),
        (lambda logits: {"aux": None}, "aux", OptionError, "has no 'aux'"),
        (lambda logits: (logits,), lambda output: output[1], OptionError, "model_output= raised IndexError"),
        (lambda logits: (logits, 1), 1, ModelError, "of which model_output=1 is int"),
        (lambda logits: logits.to(torch.complex64), None, ModelError, "a torch.complex64 tensor"),
        (lambda logits: logits[0], None, ModelError, r"a tensor of shape \(3,\)"),
    ],
)  # fmt: skip
def test_outputs_without_logits_are_refused_with_what_there_is(how, chosen, error, message):
    with pytest.raises(error, match=message):
        Saliency(ReturnsOutputs(how).eval(), OF_TASK["image"][1], task="image-classification", model_output=chosen)(
            PICTURE
        )


@pytest.mark.parametrize("kind", ["generation", "towers"])
def test_only_classifiers_return_what_must_be_chosen_from(kind):
    model, processor = dual_encoder_model("clip") if kind == "towers" else OF_TASK[kind][:2]
    with pytest.raises(OptionError, match="model_output= is for classifiers"):
        Saliency(model, processor, model_output=0)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_heads_may_have_more_outputs_than_the_config_says(kind):
    model, processor, inputs, _ = OF_TASK[kind]
    larger = copy.deepcopy(model)
    larger.classifier = nn.Linear(model.classifier.in_features, 7)
    (output,) = Occlusion(larger, processor)(*inputs, 6)
    assert output.target_names == ("6",)
    fields = processor(inputs[0], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(output.scores, larger(**fields).logits[0, 6], atol=1e-4)
    with pytest.raises(TargetError, match="Target 7 is out of range: the model has 7 outputs"):
        Occlusion(larger, processor)(*inputs, 7)


class FewerLogits(ViTForImageClassification):
    """A ViT that returns only two of its three logits."""

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits = output.logits[:, :2]
        return output


@pytest.mark.parametrize("targets", [2, (0, 2), Contrast(0, 2)])
@pytest.mark.parametrize("method", [Occlusion, IntegratedGradients])
def test_models_may_return_fewer_outputs_than_the_config_says(method, targets):
    model, processor, inputs, _ = OF_TASK["image"]
    fewer = FewerLogits(model.config).eval()
    assert method(fewer, processor)(*inputs, 1)[0].attributions.abs().max() > 0
    with pytest.raises(TargetError, match="Target 2 is out of range"):
        method(fewer, processor)(*inputs, targets)
    assert method(fewer, processor, model_output=0)(*inputs, "all")[0].target_names == ("0", "1")


class FixedLogit(nn.Module):
    """A ViT with one logit set to a constant."""

    def __init__(self, value):
        super().__init__()
        self.inner, self.value = OF_TASK["image"][0], value

    def forward(self, pixels):
        logits = self.inner(pixels).logits.clone()
        logits[:, 2] = self.value
        return logits


@pytest.mark.parametrize("mode", ["logits", "softmax", "log_softmax"])
def test_infinite_logits_of_other_classes_do_no_harm(mode):
    found = scores(FixedLogit(-torch.inf).eval(), "image", task="image-classification", inference_mode=mode)
    expected = scores(FixedLogit(-1e6).eval(), "image", task="image-classification", inference_mode=mode)
    assert_agree(found, expected)


def test_missing_logits_of_other_classes_do_no_harm():
    processor = OF_TASK["image"][1]
    for method in (Saliency, Occlusion, LeGrad):
        expected = method(OF_TASK["image"][0], processor, patch_size=8)(PICTURE, 0)[0]
        found = method(FixedLogit(torch.nan).eval(), processor, task="image-classification", patch_size=8)(PICTURE, 0)[
            0
        ]
        assert torch.allclose(found.attributions, expected.attributions, atol=1e-5)
        assert found.info["probabilities"] == [None]


@pytest.mark.parametrize(
    ("value", "targets", "mode"), [(-torch.inf, 2, "logits"), (torch.nan, "all", "logits"), (torch.nan, 0, "softmax")]
)
def test_scores_that_are_not_finite_are_refused(value, targets, mode):
    explain = Occlusion(FixedLogit(value).eval(), OF_TASK["image"][1], task="image-classification", inference_mode=mode)
    with pytest.raises(ModelError, match="is not finite for the unperturbed sample"):
        explain(PICTURE, targets)


class Logits(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = OF_TASK[kind][0], kind


class OfPixels(Logits):
    def forward(self, pixels):
        return self.inner(pixels).logits


class OfTokens(Logits):
    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids, attention_mask).logits


@pytest.mark.filterwarnings("ignore")
def test_torchscript_has_scores_and_gradients_but_no_internals():
    model, processor, (picture,), _ = OF_TASK["image"]
    traced = torch.jit.trace(OfPixels("image").eval(), torch.zeros(1, 3, 32, 32))
    options = {"task": "image-classification", "patch_size": 8}
    for method in (Occlusion, Lime, Saliency):
        expected = method(model, processor, patch_size=8)(picture)[0].attributions
        assert torch.allclose(method(traced, processor, **options)(picture)[0].attributions, expected, atol=1e-4)
    for method in (GradCam, LeGrad, GuidedBackprop):
        with pytest.raises(UnsupportedError, match="TorchScript do not support hooks"):
            method(traced, processor, **options)
    scripted = torch.jit.script(torchvision.models.squeezenet1_1(num_classes=3)).eval()
    with pytest.raises(UnsupportedError, match="TorchScript do not support hooks"):
        GradCam(scripted, processor, task="image-classification")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_of_texts_is_perturbed():
    model, words, (text,), _ = OF_TASK["text"]
    fields = words(text, return_tensors="pt")
    traced = torch.jit.trace(OfTokens("text").eval(), (fields["input_ids"], fields["attention_mask"]))
    expected = Occlusion(model, words)(text)[0].attributions
    found = Occlusion(traced, words, task="text-classification")(text)[0].attributions
    assert torch.allclose(found, expected, atol=1e-4)
    with pytest.raises(UnsupportedError, match="TopLevelTracedModule has no table of token embeddings"):
        Saliency(traced, words, task="text-classification")


def test_an_encoder_with_a_decoder_reads_one_end_of_text():
    model, words = _bart().eval(), tokenizer("roberta")
    outputs = Occlusion(model, words, granularity="token")(["a fine film", ("a fine film", "so good")], 1)
    for given, output in zip((("a fine film",), ("a fine film", "so good")), outputs, strict=True):
        with torch.no_grad():
            assert torch.allclose(output.scores, model(**words(*given, return_tensors="pt")).logits[0, 1], atol=1e-4)
    with pytest.raises(
        InputError, match=r"contains '</s>', which marks the position that the model reads: 2 times instead of 1"
    ):
        Occlusion(model, words)("a fine</s> film")
    with pytest.raises(OptionError, match="removal='</s>' is a token that begins or ends texts"):
        Occlusion(model, words, removal="</s>")


@pytest.mark.parametrize("kind", ["text", "generation"])
def test_tokens_without_an_embedding_are_refused(kind):
    model, words = OF_TASK[kind][0], copy.deepcopy(OF_TASK[kind][1])
    words.add_tokens(["zzqq"])
    with pytest.raises(
        InputError, match=r"'zzqq' the id .* but the model has embeddings for .*resize_token_embeddings"
    ):
        Occlusion(model, words)("a zzqq film")
    with pytest.raises(OptionError, match="removal='zzqq' cannot replace a token"):
        Occlusion(model, words, removal="zzqq")
    with pytest.raises(OptionError, match="baseline='zzqq' cannot replace a token"):
        IntegratedGradients(model, words, baseline="zzqq")("a film")
    # A token that no text uses is accepted.
    assert Occlusion(model, words)("a film")[0].attributions.isfinite().any()


def count_words(given):
    return np.array([[len(text.split()), 2 * text.count("good") - text.count("bad")] for text in given], dtype=float)


def test_functions_of_texts_are_explained():
    model = from_callables(count_words, texts=True, labels=["length", "praise"])
    text = "so good, a film. Not bad!"
    (output,) = Occlusion(model)(text, "praise")
    assert "".join(output.elements) == text
    assert output.elements == ["so", " good", ",", " a", " film", ".", " Not", " bad", "!"]
    assert output.attributions.tolist() == [[0, 2, 0, 0, 0, 0, 0, -1, 0]]
    assert Occlusion(model, removal="")("so good", "length")[0].attributions.tolist() == [[1, 1]]
    assert Occlusion(model, removal="[MASK]")("so good", "length")[0].attributions.tolist() == [[0, 0]]
    assert Occlusion(model, granularity="sentence")(text, "praise")[0].attributions.tolist() == [[2, -1]]
    (shapley,) = KernelShap(model)("好 good 电影", "praise")
    assert torch.allclose(shapley.attributions, torch.tensor([[0.0, 2, 0]]), atol=1e-5)


def test_functions_of_texts_are_compared():
    model = from_callables(count_words, texts=True)
    found = compare(
        model, None, ["so good a film", "a bad one", "good good bad film"], ["Occlusion"], ["Deletion"], targets=1,
        show_progress=False,
    )  # fmt: skip
    assert found.outputs("Occlusion")[1].attributions.tolist() == [[0, -1, 0]]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: from_callables(count_words, texts=True, layout="n h w c"), OptionError, "layout= is for functions of images"),
        (lambda: from_callables(count_words, texts=True, gradients=len), OptionError, "gradients= is for functions of images"),
        (lambda: from_callables(count_words, texts=1), OptionError, "texts=1 must be True or False"),
        (lambda: Saliency(from_callables(count_words, texts=True)), UnsupportedError, "functions of texts have none"),
        (lambda: LeGrad(from_callables(count_words, texts=True)), UnsupportedError, "the functions of from_callables do not provide internals"),
        (lambda: Occlusion(from_callables(count_words, texts=True))([("a", "b")]), InputError, "reads strings; got a tuple"),
        (lambda: Occlusion(from_callables(count_words, texts=True))("  "), InputError, "is empty"),
        (lambda: Occlusion(from_callables(count_words, texts=True))("a \ud83d"), InputError, "surrogate"),
        (lambda: Occlusion(from_callables(len, texts=True))("a film"), ModelError, r"shape \(1, 'k'\); it returned \(\)"),
        (lambda: Occlusion(from_callables(count_words, texts=True))("a", 2), TargetError, "out of range"),
    ],
)  # fmt: skip
def test_functions_of_texts_are_refused_what_they_cannot(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_models_of_one_kind_of_text_read_no_pairs():
    model, words = OF_TASK["text"][:2]
    config = type(model.config)(**{**model.config.to_dict(), "type_vocab_size": 1})
    with pytest.raises(InputError, match="have types 0 to 1, but the model has embeddings for 1: pass one text"):
        Occlusion(type(model)(config).eval(), words)([("a film", "so good")])


def test_a_saturated_output_does_not_give_a_wrong_query_position():
    model = copied("text")
    with torch.no_grad():
        model.bert.pooler.dense.bias.fill_(1e4)
    with pytest.raises(UnsupportedError, match="the positions that the output reads cannot be determined"):
        RawAttention(model, OF_TASK["text"][1])(TEXTS[0])
