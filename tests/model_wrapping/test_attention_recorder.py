"""The attention recorder against eager attention, and that it leaves no changes."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional

from interpreto import AttentionRollout, LeGrad
from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.capture_request import AttentionRequest
from interpreto.model_wrapping.internals.attention_recorder import AttentionRecorder
from interpreto.model_wrapping.messages import ModelRequest
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.targets import ClassTargets
from interpreto.model_wrapping.tasks.image_classification import image_classification
from interpreto.model_wrapping.tasks.text_classification import text_classification
from interpreto.model_wrapping.tasks.zero_shot_image_classification import image_with_prompts, text_with_images
from interpreto.model_wrapping.wrapper import InferenceWrapper
from tests.dual_encoders import DUAL_ENCODERS, PROMPTS, dual_encoder_model
from tests.models import IMAGE_MODELS, TEXT_MODELS, TEXTS, image_model, some_images, text_model


class StoringRule:
    """A rule that stores the captured attention."""

    def __call__(self, seen):
        self.seen = seen
        return torch.zeros(seen.layers[0].attention.shape[:1] + seen.layers[0].attention.shape[-1:])


def captured(wrapper, samples, **request_options):
    """The captured attention of a batch, and the scores."""
    storing_rule = StoringRule()
    request = AttentionRequest(storing_rule, **request_options)
    with wrapper.lease() as lease:
        responses = lease.wrapper.engine.respond(
            [ModelRequest(sample.rows, ClassTargets((0,), ("0",)), capture=request) for sample in samples]
        )
    return storing_rule.seen, torch.cat([response.scores for response in responses])


def eager(model):
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    return twin


def supports_both(model):
    return getattr(model, "_supports_sdpa", False)


CLASSIFIERS = {
    **dict.fromkeys(TEXT_MODELS, (text_classification, text_model, TEXTS)),
    **dict.fromkeys(IMAGE_MODELS, (image_classification, image_model, None)),
}
BOTH = [name for name, (_, make, _) in CLASSIFIERS.items() if supports_both(make(name)[0]) and name != "swin"]


def left_padded(rows):
    """Rows with their padding moved to the left."""
    mask = rows.fields["attention_mask"].bool()
    order = mask.long().argsort(dim=1, stable=True)
    return rows.replace(**{name: tensor.gather(1, order) for name, tensor in rows.fields.items()})


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("side", ["right", "left"])
def test_attention_of_classifiers_equals_eager_attention(name, side):
    wrap, make, inputs = CLASSIFIERS[name]
    model, processor = make(name)
    wrapper = InferenceWrapper.create(wrap, model, processor, Runtime())
    samples = [wrapper.inputs.prepare_one(raw) for raw in inputs or some_images()]
    if inputs is not None and model.config.pad_token_id is None:
        # These models refuse padding from the user.
        samples = samples[:1]
    rows = samples[0].rows.join([sample.rows for sample in samples])
    if side == "left" and inputs is not None:
        rows = left_padded(rows)
    seen, scores = captured(wrapper, [replace(samples[0], rows=rows)])
    twin = eager(model)
    output = twin(**rows.fields, output_attentions=True)
    attentions = [a for a in output.attentions if a is not None]
    assert torch.allclose(scores[:, 0], output.logits[:, 0], atol=1e-5)
    slopes = torch.autograd.grad(output.logits[:, 0].sum(), attentions)
    assert len(seen.layers) == len(attentions)
    for layer, attention, slope in zip(seen.layers, attentions, slopes, strict=True):
        real = seen.not_padding[:, None, :, None]
        assert ((layer.attention - attention) * real).abs().max() < 1e-5
        allowed = attention > 0
        difference = ((layer.gradient - slope) * real)[allowed]
        assert difference.abs().max() < 1e-4 * slope.abs().max() + 1e-7
        assert not layer.gradient[~allowed & real.expand_as(allowed)].any()


def test_there_are_classifiers_of_both_kinds():
    assert {"bert", "roberta", "gpt2", "llama", "vit"} <= set(BOTH)


@pytest.mark.parametrize("name", [name for name in DUAL_ENCODERS if not name.startswith("open") and name != "siglip2"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_attention_of_dual_encoders_equals_eager_attention(name, side):
    model, processor = dual_encoder_model(name)
    wrapper = InferenceWrapper.create(
        image_with_prompts if side == "image" else text_with_images, model, processor, Runtime()
    )
    samples = [wrapper.inputs.prepare_one(raw) for raw in (some_images() if side == "image" else PROMPTS)]
    seen, _ = captured(wrapper, samples)
    rows = samples[0].rows.join([sample.rows for sample in samples])
    twin = eager(model)
    if side == "image":
        output = twin.get_image_features(**rows.fields, output_attentions=True)
    else:
        ids, mask = wrapper.dual_encoder.padded(rows.fields["input_ids"], rows.fields["attention_mask"])
        fields = {"input_ids": ids} | ({} if wrapper.dual_encoder.full_length else {"attention_mask": mask})
        output = twin.get_text_features(**fields, output_attentions=True)
    slopes = torch.autograd.grad(output.pooler_output[:, 0].sum(), output.attentions)
    for layer, attention, slope in zip(seen.layers, output.attentions, slopes, strict=True):
        real = seen.not_padding[:, None, :, None]
        assert ((layer.attention - attention) * real).abs().max() < 1e-5
        assert (((layer.gradient - slope) * real)[attention > 0]).abs().max() < 1e-4 * slope.abs().max() + 1e-7


def _windows(kind):
    """Models that pass relative positions through the attention mask, some of them in shifted windows."""
    if kind == "beit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        config = hf.BeitConfig(**sizes, image_size=32, patch_size=8, use_relative_position_bias=True, num_labels=3)
        return hf.BeitForImageClassification(config)
    sizes = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2, "mlp_ratio": 2.0}
    if kind == "swin":
        return hf.SwinForImageClassification(hf.SwinConfig(**sizes, image_size=32, patch_size=4, num_labels=3))
    return hf.Swinv2ForImageClassification(hf.Swinv2Config(**sizes, image_size=32, patch_size=4, num_labels=3))


@pytest.mark.parametrize("kind", ["beit", "swin", "swinv2"])
def test_relative_positions_and_windows_are_recorded(kind):
    torch.manual_seed(0)
    model = _windows(kind)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    model = model.eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), AttentionRecorder() as recorder:
        recorder.recording = True
        found = model(pixel_values=pixels).logits
        slopes = torch.autograd.grad(
            found[:, 0].sum(), [call.probabilities for call in recorder.calls], allow_unused=True
        )
    twin = eager(model)
    with torch.no_grad(), AttentionRecorder() as other:
        other.recording = True
        expected = twin(pixel_values=pixels).logits
        others = torch.autograd.grad(
            expected[:, 0].sum(), [call.probabilities for call in other.calls], allow_unused=True
        )
    with torch.no_grad():
        assert torch.allclose(found.detach(), twin(pixel_values=pixels).logits, atol=1e-5)
        assert torch.allclose(found.detach(), model(pixel_values=pixels).logits, atol=1e-5)
    assert len(recorder.calls) == len(other.calls) == 2 * len(getattr(model.config, "depths", [1]))
    for call, plain, slope, second in zip(recorder.calls, other.calls, slopes, others, strict=True):
        assert torch.allclose(call.probabilities, plain.probabilities, atol=1e-5)
        allowed = plain.probabilities > 1e-12
        assert (slope - second)[allowed].abs().max() <= 1e-4 * second.abs().max() + 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_half_precision(dtype):
    model, processor = image_model("vit")
    expected = LeGrad(model, processor)(some_images())
    half = copy.deepcopy(model).to(dtype)
    for one, other in zip(LeGrad(half, processor)(some_images()), expected, strict=True):
        assert one.info["dtype"] == str(dtype).removeprefix("torch.")
        correlation = torch.corrcoef(torch.stack([one.attributions.flatten(), other.attributions.flatten()]))[0, 1]
        assert correlation > 0.95


@pytest.mark.parametrize("masked", ["none", "boolean", "additive", "causal", "left"])
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_fused_attention_is_written_out(masked, heads):
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 5, 8, generator=rng) for n in (4, heads, heads))
    options = {"enable_gqa": heads < 4}
    if masked == "boolean":
        options["attn_mask"] = torch.rand(2, 1, 5, 5, generator=rng) > 0.4
        options["attn_mask"][0, 0, 0] = False
    elif masked == "additive":
        options["attn_mask"] = torch.randn(2, 4, 5, 5, generator=rng).masked_fill(torch.eye(5).bool(), -torch.inf)
    elif masked == "causal":
        options["is_causal"] = True
    elif masked == "left":
        options["attn_mask"] = torch.zeros(2, 1, 5, 5)
        options["attn_mask"][0, 0, :, :2] = torch.finfo(torch.float32).min
        options["attn_mask"][0, 0, :2] = torch.finfo(torch.float32).min
    plain = functional.scaled_dot_product_attention(query, key, value, **options)
    with torch.no_grad(), AttentionRecorder() as recorder:
        recorder.recording = True
        found = functional.scaled_dot_product_attention(query, key, value, **options)
        assert torch.is_grad_enabled()
    real = torch.ones(2, 1, 5, 1)
    if masked == "left":
        real[0, 0, :2] = 0
        assert not found[0, :, :2].any()
    assert ((found - plain) * real).abs().max() < 1e-6
    (call,) = recorder.calls
    assert call.probabilities.shape == (2, 4, 5, 5)
    assert call.probabilities.isfinite().all()
    assert torch.allclose(call.output, found)
    (slope,) = torch.autograd.grad(found.square().sum(), call.probabilities)
    assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype):
    query = torch.randn(1, 2, 3, 4).to(dtype)
    with torch.no_grad(), AttentionRecorder() as recorder:
        recorder.recording = True
        found = functional.scaled_dot_product_attention(query, query, query)
    assert found.dtype == dtype
    assert recorder.calls[0].probabilities.dtype == torch.float32


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_multi_head_attention_gives_the_weights_it_was_asked_for(average, batched):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    given = torch.randn(3, 5, 8) if batched else torch.randn(5, 8)
    with torch.no_grad():
        plain, weights = module(given, given, given, average_attn_weights=average)
        with AttentionRecorder() as recorder:
            recorder.recording = True
            found, opened = module(given, given, given, average_attn_weights=average)
            bare, none = module(given, given, given, need_weights=False)
    assert torch.allclose(plain, found, atol=1e-6)
    assert torch.allclose(plain, bare, atol=1e-6)
    assert torch.allclose(weights, opened, atol=1e-6)
    assert none is None
    assert len(recorder.calls) == 2
    assert functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention


def test_nested_recorders_record_only_their_own_calls():
    """An explanation inside a function of the user, during a recorded run, does not reach the outer recorder."""
    given = torch.randn(1, 2, 3, 4)
    with torch.no_grad(), AttentionRecorder() as outer:
        outer.recording = True
        functional.scaled_dot_product_attention(given, given, given)
        with AttentionRecorder() as inner:
            inner.recording = True
            functional.scaled_dot_product_attention(given, given, given)
            given.softmax(-1)
        functional.scaled_dot_product_attention(given, given, given)
    assert (len(outer.calls), len(inner.calls)) == (2, 2)


def test_nothing_stays_changed_after_an_exception():
    model, processor = image_model("vit")
    model = copy.deepcopy(model)
    before = [dict(module.__dict__) for module in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    def fails(attention, gradient):
        raise ValueError("on purpose")

    from interpreto import AttentionSaliency

    with pytest.raises(OptionError, match="on purpose"):
        AttentionSaliency(model, processor, rule=fails)(some_images())
    assert [dict(module.__dict__) for module in model.modules()] == before
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention
    assert torch.is_grad_enabled()
    assert LeGrad(model, processor)(some_images())[0].attributions.isfinite().all()


def test_only_requested_layers_are_kept_and_none_below_has_a_graph():
    model, processor = image_model("vit")
    wrapper = InferenceWrapper.create(image_classification, model, processor, Runtime())
    samples = [wrapper.inputs.prepare_one(raw) for raw in some_images()]
    seen, _ = captured(wrapper, samples, layers=-1)
    assert len(seen.layers) == 1
    calls = []
    kept = AttentionRecorder._attention

    def counted(self, *args, **options):
        calls.append(torch.is_grad_enabled())
        return kept(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionRecorder, "_attention", counted)
        captured(wrapper, samples, layers=-1)
    assert calls == [False]


def test_frozen_weights_are_supported():
    model, processor = image_model("vit")
    frozen = copy.deepcopy(model).requires_grad_(False)
    expected = LeGrad(model, processor)(some_images())
    for one, other in zip(LeGrad(frozen, processor)(some_images()), expected, strict=True):
        assert torch.equal(one.attributions, other.attributions)


def test_models_loaded_with_eager_attention_give_the_same():
    model, processor = image_model("vit")
    expected = LeGrad(model, processor)(some_images())
    for one, other in zip(LeGrad(eager(model), processor)(some_images()), expected, strict=True):
        assert torch.allclose(one.attributions, other.attributions, atol=1e-6)


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flex_attention"])
def test_unrecordable_attention_is_replaced_and_restored(kernel):
    model, processor = image_model("vit")
    closed = copy.deepcopy(model)
    for part in closed.modules():
        if getattr(part, "config", None) is not None:
            part.config._attn_implementation_internal = kernel
    wrapper = InferenceWrapper.create(image_classification, closed, processor, Runtime())
    samples = [wrapper.inputs.prepare_one(raw) for raw in some_images()]
    seen, _ = captured(wrapper, samples)
    assert len(seen.layers) == len(model.vit.layers)
    assert closed.config._attn_implementation == kernel
    model_seen, _ = captured(InferenceWrapper.create(image_classification, model, processor, Runtime()), samples)
    for one, other in zip(seen.layers, model_seen.layers, strict=True):
        assert torch.equal(one.attention, other.attention)


class LinearAttentionModel(nn.Module):
    """Linear attention (without a softmax) in a list of blocks."""

    class LinearAttention(nn.Module):
        def forward(self, hidden):
            return hidden @ (hidden.mT @ hidden)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, 8)
        self.blocks = nn.ModuleList([self.LinearAttention() for _ in range(2)])

    def forward(self, pixels):
        hidden = self.stem(pixels).flatten(2).mT
        for block in self.blocks:
            hidden = block(hidden)
        return hidden.mean(1)


def test_attention_that_cannot_be_recorded_is_named():
    with pytest.raises(
        UnsupportedError,
        match=r"The attention of LinearAttentionModel cannot be captured: blocks\.0, blocks\.1 call neither",
    ):
        LeGrad(LinearAttentionModel(), task="image-classification")(torch.rand(1, 3, 16, 16))


def test_layers_out_of_range():
    model, processor = image_model("vit")
    with pytest.raises(OptionError, match=r"layers=9 is out of range: the model has 2 blocks, 0 to 1"):
        AttentionRollout(model, processor, layers=9)(some_images())
    with pytest.raises(OptionError, match="must be the index of the first block"):
        AttentionRollout(model, processor, layers=[])
    assert AttentionRollout(model, processor, layers=[-1])(some_images())


def test_the_model_is_run_without_graphs():
    wrapper = InferenceWrapper.create(image_classification, *image_model("vit"), Runtime())
    with torch.inference_mode(), wrapper.lease():
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
