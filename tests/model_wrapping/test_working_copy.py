"""Working copies share all tensors with the user's model and nothing else."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from torch import nn

from interpreto import (
    AttentionRollout,
    GradCam,
    GuidedBackprop,
    IntegratedGradients,
    KernelShap,
    LeGrad,
    Occlusion,
    Saliency,
)
from interpreto.errors import CannotCopyError, ModelError, UnsupportedError
from interpreto.model_wrapping.execution.module_state import ModuleState
from interpreto.model_wrapping.execution.working_copy import WorkingCopy
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tasks.image_classification import image_classification
from interpreto.model_wrapping.wrapper import InferenceWrapper
from tests.causal_lms import CAUSAL_LMS, causal_lm
from tests.dual_encoders import DUAL_ENCODERS, dual_encoder_model
from tests.models import IMAGE_MODELS, TEXT_MODELS, TEXTS, image_model, some_images, text_model, tokenizer

MODELS = {
    **{f"text-{name}": lambda name=name: text_model(name)[0] for name in TEXT_MODELS},
    **{f"image-{name}": lambda name=name: image_model(name)[0] for name in IMAGE_MODELS},
    **{f"generation-{name}": lambda name=name: causal_lm(name)[0] for name in CAUSAL_LMS},
    **{f"towers-{name}": lambda name=name: dual_encoder_model(name)[0] for name in DUAL_ENCODERS},
}


class Configured(nn.Module):
    """Reads settings, counts its calls in a plain tensor, and adds a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(192, 3)
        self.settings = SimpleNamespace(scale=1.0, more={"shifts": [0.0, 0.0]})
        self.calls = torch.zeros(1)
        self.register_buffer("bias", torch.zeros(3))

    def forward(self, images):
        self.calls += 1
        shift = sum(self.settings.more["shifts"])
        return self.head(images.flatten(1)) * self.settings.scale + shift + self.bias


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.settings, "scale", 10.0),
        lambda model: model.settings.more["shifts"].append(3.0),
        lambda model: model.bias.data.add_(5.0),
    ],
)
def test_changes_within_settings_and_of_data_are_seen(change):
    model, image = Configured().eval(), torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    explain = Occlusion(model, task="image-classification", granularity="pixel")
    explain(image, 0)
    assert not model.calls.any()
    change(model)
    found = explain(image, 0)[0].scores
    assert torch.allclose(found, model(image[None])[0, :1], atol=1e-5)


def test_changes_of_a_generation_config_are_seen():
    model, words = causal_lm("gpt2")
    model = copy.deepcopy(model)
    explain = Occlusion(model, words, granularity="token")
    for count in (4, 2):
        model.generation_config.max_new_tokens = count
        assert len(explain("the film was")[0].target_names) == count


def as_tensors(outputs):
    return torch.cat([output.attributions.flatten() for output in outputs])


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_shared_and_modules_are_not(name):
    model = MODELS[name]()
    state = ModuleState.of(model)
    made = WorkingCopy(model)
    assert state.is_current(model)
    pairs = list(zip(model.modules(), made.module.modules(), strict=True))
    assert all(type(one) is type(other) and one is not other for one, other in pairs)
    for one, other in zip(model.parameters(), made.module.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
        assert not other.requires_grad
    # Tied parameters stay tied in the copy.
    assert len({id(p) for _, p in model.named_parameters(remove_duplicate=False)}) == len(
        {id(p) for _, p in made.module.named_parameters(remove_duplicate=False)}
    )
    assert made.is_current()


def test_the_copy_follows_what_the_user_changes():
    model, words = text_model("bert")
    model = copy.deepcopy(model)
    explainer = Occlusion(model, words)

    def agrees():
        return torch.allclose(as_tensors(explainer(TEXTS, 0)), as_tensors(Occlusion(model, words)(TEXTS, 0)), atol=1e-6)

    changes = [
        lambda: model.classifier.weight.data.mul_(2),
        lambda: setattr(model.classifier, "weight", nn.Parameter(torch.randn_like(model.classifier.weight))),
        lambda: setattr(model, "classifier", copy.deepcopy(model.classifier)),
        lambda: model.classifier.weight.data.normal_(),
        lambda: model.bert.register_forward_hook(lambda _m, _g, out: None),
        lambda: model.classifier.register_forward_hook(lambda _m, _g, out: 3 * out),
        lambda: model.double(),
        lambda: model.load_state_dict({name: tensor * 0.5 for name, tensor in model.state_dict().items()}, assign=True),
        lambda: setattr(model.bert.encoder.layer[0].attention.output.LayerNorm, "eps", 0.5),
        lambda: model.set_attn_implementation("eager"),
    ]
    for change in changes:
        before = as_tensors(explainer(TEXTS, 0))
        change()
        assert agrees()
        after = as_tensors(explainer(TEXTS, 0))
        assert after.shape == before.shape


class Counting(nn.Module):
    """Writes to its buffers, attributes and containers in every forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen, self.last = [], None
        self.head = nn.Linear(3, 2)

    def forward(self, pixels):
        self.calls += 1
        self.seen.append(len(pixels))
        self.last, self.extra = pixels, len(self.seen)
        return self.head(pixels.mean((2, 3))) * self.calls.clamp(max=1)


def test_what_a_forward_writes_stays_in_the_copy():
    model = Counting()
    state = ModuleState.of(model)
    for _ in range(2):
        Occlusion(model, task="image-classification")(torch.rand(2, 3, 28, 28))
    assert state.is_current(model)
    assert float(model.calls) == 0


@pytest.mark.filterwarnings("ignore:The scores of this model for an input depend")
def test_a_call_does_not_depend_on_the_calls_before_it():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("offset", torch.zeros(()))
            self.head = nn.Linear(3, 2)

        def forward(self, pixels):
            out = self.head(pixels.mean((2, 3))) + self.offset * pixels[:, :2, 0, 0]
            self.offset += 1
            return out

    explainer = Occlusion(Remembering(), task="image-classification", batch_size=1000)
    image = torch.rand(1, 3, 28, 28)
    assert torch.equal(as_tensors(explainer(image, 0)), as_tensors(explainer(image, 0)))


def _big_bird():
    torch.manual_seed(0)
    words = tokenizer("bert")
    config = hf.BigBirdConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=256, block_size=4, num_random_blocks=1, initializer_range=0.5,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return hf.BigBirdForSequenceClassification(config).eval(), words


@pytest.mark.filterwarnings("ignore:Attention type")
def test_a_model_that_exchanges_its_own_parts_stays_as_it_was():
    """BigBird replaces its attention modules for short texts, permanently."""
    model, words = _big_bird()
    long, short = " ".join(["the plot was good and we saw a film"] * 7), "a film"
    state = ModuleState.of(model)
    alone = Occlusion(model, words, granularity="sentence")(long, 0)[0]
    assert state.is_current(model)
    # Texts run in the order of their lengths: the short one first, which makes the model replace its modules.
    together = Occlusion(model, words, granularity="sentence")([long, short], 0)[0]
    assert torch.allclose(together.attributions, alone.attributions, atol=1e-6)
    assert state.is_current(model)
    assert model.bert.attention_type == "block_sparse"


@pytest.mark.parametrize("method", [LeGrad, Saliency, Occlusion])
def test_outputs_that_transformers_captures_are_counted_once(method):
    model, processor = image_model("vit")
    model = copy.deepcopy(model)
    pixels = torch.rand(1, 3, 32, 32)

    def states(one):
        return len(one(pixel_values=pixels, output_hidden_states=True).hidden_states)

    expected = states(copy.deepcopy(model))
    explainer = method(model, processor)
    explainer(some_images())
    assert states(model) == expected
    # Hooks that transformers adds to the user's model are not added again to the copy, nor at the next call.
    model.config.output_hidden_states = True
    for _ in range(3):
        explainer(some_images())
        with explainer.setup.wrapper.lease() as lease:
            assert states(lease.wrapper.engine.module) == expected
    assert states(model) == expected


def test_a_model_in_training_mode_is_explained_without_dropout():
    model, words = text_model("bert")
    training = copy.deepcopy(model).train()
    expected = as_tensors(IntegratedGradients(model, words)(TEXTS, 0))
    assert torch.allclose(as_tensors(IntegratedGradients(training, words)(TEXTS, 0)), expected, atol=1e-6)
    assert all(module.training for module in training.modules())


def test_dictionaries_of_tensors_and_outputs_are_attributes_like_others():
    """Tensors as keys are compared by identity; an output of transformers is a dictionary that cannot be cleared."""
    model = nn.Linear(2, 2)
    model.table = {torch.zeros(3): 1, torch.ones(3): 2}
    model.last = hf.modeling_outputs.BaseModelOutput(last_hidden_state=torch.zeros(3))
    first = next(iter(model.table))
    state = ModuleState.of(model)
    assert state.is_current(model)
    del model.table[first]
    model.table[torch.zeros(3)] = 1
    model.last.last_hidden_state = torch.ones(3)
    assert not state.is_current(model)
    state.restore()
    assert state.is_current(model)
    assert first in model.table
    assert not model.last.last_hidden_state.any()


class Closure(nn.Module):
    """Runs its convolution through a closure over the module."""

    def __init__(self):
        super().__init__()
        self.convolution, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        convolution, drop = self.convolution, self.drop
        self.features = lambda pixels: drop(convolution(pixels)).relu()

    def forward(self, pixels):
        return self.head(self.features(pixels).mean((2, 3)))


class HiddenClosure(nn.Module):
    """The same with the closure inside an object, where the structure of the model does not show it."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)
        convolution = self.convolution

        class Call:
            def __deepcopy__(self, memo):
                return self

            def __call__(self, pixels):
                return convolution(pixels).relu()

        self.features = Call()

    def forward(self, pixels):
        return self.head(self.features(pixels).mean((2, 3)))


@pytest.mark.parametrize("build", [Closure, HiddenClosure])
def test_modules_in_closures_are_found(build):
    torch.manual_seed(0)
    model = build()
    images = torch.rand(2, 3, 28, 28)
    plain = copy.deepcopy(model).eval()
    for one, training in ((model.eval(), False), (model.train(), True)):
        explainer = Occlusion(one, task="image-classification")
        found = explainer(images, 0)
        assert "closure" in found[0].info["working_copy"]
        for output, image in zip(found, images, strict=True):
            changed = image[None].repeat(2, 1, 1, 1)
            changed[1, :, :2, :2] = 0
            with torch.no_grad():
                scores = model.eval()(changed)[:, 0]
                one.train(training)
            assert torch.allclose(output.attributions[0, 0, 0], scores[0] - scores[1], atol=1e-5)
        assert {module.training for module in one.modules()} == {training}
    # Hooks are then set on the model itself.
    (output,) = GradCam(model.eval(), task="image-classification", layer=model.convolution)(images[0], 0)
    assert output.attributions.isfinite().all()
    assert plain


def test_models_that_can_neither_be_copied_nor_moved_are_refused():
    model = Closure().eval()
    wrapper = InferenceWrapper.create(image_classification, model, None, Runtime(device="meta"))
    with pytest.raises(ModelError, match="move a model that cannot be copied"), wrapper.lease():
        pass


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_takes_no_hooks():
    model, processor = image_model("torchvision-resnet")
    script = torch.jit.trace(model, torch.rand(2, 3, 32, 32))
    with pytest.raises(CannotCopyError, match="TorchScript"):
        WorkingCopy(script)
    with pytest.raises(UnsupportedError, match="do not support hooks"):
        GuidedBackprop(script, processor, task="image-classification")(some_images()[0])


def test_hooks_of_the_user_run_on_the_copy_as_on_the_model():
    model, processor = image_model("vit")
    model, calls = copy.deepcopy(model), []

    class Recorder:
        def __init__(self):
            self.lock = __import__("threading").Lock()

        def __call__(self, _module, _given, output):
            calls.append(output.shape)

    model.classifier.register_forward_hook(Recorder())
    model.classifier.register_forward_hook(functools.partial(lambda tag, *_: calls.append(tag), "tag"))
    (output,) = Occlusion(model, processor)(some_images()[0])
    assert "working_copy" not in output.info
    assert "tag" in calls


def test_layers_are_named_by_the_users_module():
    model, processor = image_model("torchvision-resnet")
    expected = GradCam(model, processor, layer="layer3")(some_images())
    found = GradCam(model, processor, layer=model.layer3)(some_images())
    assert torch.equal(as_tensors(found), as_tensors(expected))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:.*:UserWarning")
def test_models_with_the_hooks_of_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, words = text_model("bert")
    expected = as_tensors(IntegratedGradients(model, words)(TEXTS, 0))
    maps = as_tensors(AttentionRollout(model, words)(TEXTS, 0))
    placed = accelerate.dispatch_model(copy.deepcopy(model), {"": "cpu"}, force_hooks=True)
    away = accelerate.cpu_offload(copy.deepcopy(model), torch.device("cpu"))
    on_disk = accelerate.disk_offload(copy.deepcopy(model), str(tmp_path / "weights"), torch.device("cpu"))
    for sharded in (placed, away, on_disk):
        found = as_tensors(AttentionRollout(sharded, words)(TEXTS, 0))
        assert torch.allclose(found, maps, atol=1e-6)
        for _ in range(2):
            found = as_tensors(Occlusion(sharded, words)(TEXTS, 0))
            assert torch.allclose(found, as_tensors(Occlusion(model, words)(TEXTS, 0)), atol=1e-6)
    assert torch.allclose(as_tensors(IntegratedGradients(placed, words)(TEXTS, 0)), expected, atol=1e-6)
    assert {p.device.type for p in away.parameters()} == {"meta"}


def test_fully_sharded_models_run_without_a_copy(tmp_path):
    """FSDP models cannot be copied: calls wait for each other."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("This PyTorch has no gloo.")
    from torch.distributed.fsdp import fully_shard

    model, words = text_model("bert")
    expected = as_tensors(Occlusion(model, words)(TEXTS, 0))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        sharded = fully_shard(copy.deepcopy(model), mesh=mesh)
        try:
            sharded(**words(TEXTS[0], return_tensors="pt"))
        except AttributeError as error:
            pytest.skip(f"This PyTorch does not shard on CPUs: {error}")
        (output, *others) = Occlusion(sharded, words)(TEXTS, 0)
        assert torch.allclose(as_tensors([output, *others]), expected, atol=1e-5)
        assert output.info["working_copy"].startswith("none")
    finally:
        distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantised_models_are_copied():
    model, words = text_model("bert")
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    explainer = KernelShap(quantised, words, n_samples=64)
    (output,) = explainer(TEXTS[0], 0)
    with torch.no_grad():
        logits = quantised(**words(TEXTS[0], return_tensors="pt")).logits
    assert torch.allclose(output.scores[0], logits[0, 0], atol=1e-4)
    assert "working_copy" not in output.info


def test_compiled_models_are_unwrapped():
    model, words = text_model("bert")
    compiled = torch.compile(model, backend="eager")
    expected = as_tensors(IntegratedGradients(model, words)(TEXTS, 0))
    assert torch.allclose(as_tensors(IntegratedGradients(compiled, words)(TEXTS, 0)), expected, atol=1e-6)


def test_modules_compiled_in_place_are_copied_without_it():
    model, words = text_model("bert")
    expected = as_tensors(IntegratedGradients(model, words)(TEXTS, 0))
    model = copy.deepcopy(model)
    model.compile(backend="eager")
    outputs = IntegratedGradients(model, words)(TEXTS, 0)
    assert torch.allclose(as_tensors(outputs), expected, atol=1e-6)
    assert "working_copy" not in outputs[0].info
    assert model._compiled_call_impl is not None


def test_a_copy_serves_one_call_at_a_time_and_is_used_again():
    wrapper = InferenceWrapper.create(image_classification, *image_model("vit"), Runtime())
    with wrapper.lease() as first, wrapper.lease() as second:
        assert first.wrapper is not second.wrapper
        kept = {id(first.wrapper), id(second.wrapper)}
    with wrapper.lease() as again:
        assert id(again.wrapper) in kept
    with pytest.raises(ValueError, match="on purpose"), wrapper.lease() as spoilt:
        raise ValueError("on purpose")
    with wrapper.lease() as one, wrapper.lease() as other:
        assert spoilt.wrapper not in (one.wrapper, other.wrapper)
