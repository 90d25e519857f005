"""The tap against eager attention, and what it leaves behind: nothing."""

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
from tests.models import IMAGE_MODELS, TEXT_MODELS, TEXTS, image_model, some_pictures, text_model
from tests.two_towers import PROMPTS, TWO_TOWERS, two_towers


class Spy:
    """A rule that keeps what it sees."""

    def __call__(self, seen):
        self.seen = seen
        return torch.zeros(seen.layers[0].attention.shape[:1] + seen.layers[0].attention.shape[-1:])


def looked(wrapper, samples, **probe):
    """What is seen of a batch, and the scores."""
    spy = Spy()
    ask = AttentionRequest(spy, **probe)
    with wrapper.lease() as lease:
        answers = lease.wrapper.engine.respond(
            [ModelRequest(sample.rows, ClassTargets((0,), ("0",)), capture=ask) for sample in samples]
        )
    return spy.seen, torch.cat([answer.scores for answer in answers])


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
    """Rows with their padding moved to the front."""
    mask = rows.fields["attention_mask"].bool()
    order = mask.long().argsort(dim=1, stable=True)
    return rows.replace(**{name: tensor.gather(1, order) for name, tensor in rows.fields.items()})


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("side", ["right", "left"])
def test_classifiers_are_seen_as_eager_attention_shows_them(name, side):
    wrap, make, inputs = CLASSIFIERS[name]
    model, processor = make(name)
    wrapper = wrap(model, processor, Runtime())
    samples = [wrapper.prepare_one(raw) for raw in inputs or some_pictures()]
    if inputs is not None and model.config.pad_token_id is None:
        # Such a model takes no padding from a user.
        samples = samples[:1]
    rows = samples[0].rows.join([sample.rows for sample in samples])
    if side == "left" and inputs is not None:
        rows = left_padded(rows)
    seen, scores = looked(wrapper, [replace(samples[0], rows=rows)])
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


@pytest.mark.parametrize("name", [name for name in TWO_TOWERS if not name.startswith("open") and name != "siglip2"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_towers_are_seen_as_eager_attention_shows_them(name, side):
    model, processor = two_towers(name)
    wrapper = (image_with_prompts if side == "image" else text_with_images)(model, processor, Runtime())
    samples = [wrapper.prepare_one(raw) for raw in (some_pictures() if side == "image" else PROMPTS)]
    seen, _ = looked(wrapper, samples)
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
    """Models whose relative positions arrive through the mask, some of them in shifted windows."""
    if kind == "beit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        config = hf.BeitConfig(**sizes, image_size=32, patch_size=8, use_relative_position_bias=True, num_labels=3)
        return hf.BeitForImageClassification(config)
    sizes = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2, "mlp_ratio": 2.0}
    if kind == "swin":
        return hf.SwinForImageClassification(hf.SwinConfig(**sizes, image_size=32, patch_size=4, num_labels=3))
    return hf.Swinv2ForImageClassification(hf.Swinv2Config(**sizes, image_size=32, patch_size=4, num_labels=3))


@pytest.mark.parametrize("kind", ["beit", "swin", "swinv2"])
def test_relative_positions_and_windows_are_seen(kind):
    torch.manual_seed(0)
    model = _windows(kind)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    model = model.eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), AttentionRecorder() as tap:
        tap.open = True
        found = model(pixel_values=pixels).logits
        slopes = torch.autograd.grad(found[:, 0].sum(), [call.probabilities for call in tap.calls], allow_unused=True)
    twin = eager(model)
    with torch.no_grad(), AttentionRecorder() as other:
        other.open = True
        expected = twin(pixel_values=pixels).logits
        others = torch.autograd.grad(
            expected[:, 0].sum(), [call.probabilities for call in other.calls], allow_unused=True
        )
    with torch.no_grad():
        assert torch.allclose(found.detach(), twin(pixel_values=pixels).logits, atol=1e-5)
        assert torch.allclose(found.detach(), model(pixel_values=pixels).logits, atol=1e-5)
    assert len(tap.calls) == len(other.calls) == 2 * len(getattr(model.config, "depths", [1]))
    for call, plain, slope, second in zip(tap.calls, other.calls, slopes, others, strict=True):
        assert torch.allclose(call.probabilities, plain.probabilities, atol=1e-5)
        allowed = plain.probabilities > 1e-12
        assert (slope - second)[allowed].abs().max() <= 1e-4 * second.abs().max() + 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_half_precision(dtype):
    model, processor = image_model("vit")
    expected = LeGrad(model, processor)(some_pictures())
    half = copy.deepcopy(model).to(dtype)
    for one, other in zip(LeGrad(half, processor)(some_pictures()), expected, strict=True):
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
    with torch.no_grad(), AttentionRecorder() as tap:
        tap.open = True
        found = functional.scaled_dot_product_attention(query, key, value, **options)
        assert torch.is_grad_enabled()
    real = torch.ones(2, 1, 5, 1)
    if masked == "left":
        real[0, 0, :2] = 0
        assert not found[0, :, :2].any()
    assert ((found - plain) * real).abs().max() < 1e-6
    (call,) = tap.calls
    assert call.probabilities.shape == (2, 4, 5, 5)
    assert call.probabilities.isfinite().all()
    assert torch.allclose(call.output, found)
    (slope,) = torch.autograd.grad(found.square().sum(), call.probabilities)
    assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype):
    query = torch.randn(1, 2, 3, 4).to(dtype)
    with torch.no_grad(), AttentionRecorder() as tap:
        tap.open = True
        found = functional.scaled_dot_product_attention(query, query, query)
    assert found.dtype == dtype
    assert tap.calls[0].probabilities.dtype == torch.float32


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_multi_head_attention_gives_the_weights_it_was_asked_for(average, batched):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    given = torch.randn(3, 5, 8) if batched else torch.randn(5, 8)
    with torch.no_grad():
        plain, weights = module(given, given, given, average_attn_weights=average)
        with AttentionRecorder() as tap:
            tap.open = True
            found, opened = module(given, given, given, average_attn_weights=average)
            bare, none = module(given, given, given, need_weights=False)
    assert torch.allclose(plain, found, atol=1e-6)
    assert torch.allclose(plain, bare, atol=1e-6)
    assert torch.allclose(weights, opened, atol=1e-6)
    assert none is None
    assert len(tap.calls) == 2
    assert functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention


def test_a_tap_inside_a_tap_sees_its_own_calls_alone():
    """What a function of the user explains inside of a tapped run does not reach the outer tap."""
    given = torch.randn(1, 2, 3, 4)
    with torch.no_grad(), AttentionRecorder() as outer:
        outer.open = True
        functional.scaled_dot_product_attention(given, given, given)
        with AttentionRecorder() as inner:
            inner.open = True
            functional.scaled_dot_product_attention(given, given, given)
            given.softmax(-1)
        functional.scaled_dot_product_attention(given, given, given)
    assert (len(outer.calls), len(inner.calls)) == (2, 2)


def test_nothing_is_left_after_an_exception():
    model, processor = image_model("vit")
    model = copy.deepcopy(model)
    before = [dict(module.__dict__) for module in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    def fails(attention, gradient):
        raise ValueError("on purpose")

    from interpreto import AttentionSaliency

    with pytest.raises(OptionError, match="on purpose"):
        AttentionSaliency(model, processor, rule=fails)(some_pictures())
    assert [dict(module.__dict__) for module in model.modules()] == before
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention
    assert torch.is_grad_enabled()
    assert LeGrad(model, processor)(some_pictures())[0].attributions.isfinite().all()


def test_only_asked_layers_are_kept_and_none_below_has_a_graph():
    model, processor = image_model("vit")
    wrapper = image_classification(model, processor, Runtime())
    samples = [wrapper.prepare_one(raw) for raw in some_pictures()]
    seen, _ = looked(wrapper, samples, layers=-1)
    assert len(seen.layers) == 1
    calls = []
    kept = AttentionRecorder._attention

    def counted(self, *args, **options):
        calls.append(torch.is_grad_enabled())
        return kept(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionRecorder, "_attention", counted)
        looked(wrapper, samples, layers=-1)
    assert calls == [False]


def test_frozen_weights_are_no_obstacle():
    model, processor = image_model("vit")
    frozen = copy.deepcopy(model).requires_grad_(False)
    expected = LeGrad(model, processor)(some_pictures())
    for one, other in zip(LeGrad(frozen, processor)(some_pictures()), expected, strict=True):
        assert torch.equal(one.attributions, other.attributions)


def test_models_loaded_eager_show_the_same():
    model, processor = image_model("vit")
    expected = LeGrad(model, processor)(some_pictures())
    for one, other in zip(LeGrad(eager(model), processor)(some_pictures()), expected, strict=True):
        assert torch.allclose(one.attributions, other.attributions, atol=1e-6)


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flex_attention"])
def test_closed_kernels_are_exchanged_and_put_back(kernel):
    model, processor = image_model("vit")
    closed = copy.deepcopy(model)
    for part in closed.modules():
        if getattr(part, "config", None) is not None:
            part.config._attn_implementation_internal = kernel
    wrapper = image_classification(closed, processor, Runtime())
    samples = [wrapper.prepare_one(raw) for raw in some_pictures()]
    seen, _ = looked(wrapper, samples)
    assert len(seen.layers) == len(model.vit.layers)
    assert closed.config._attn_implementation == kernel
    model_seen, _ = looked(image_classification(model, processor, Runtime()), samples)
    for one, other in zip(seen.layers, model_seen.layers, strict=True):
        assert torch.equal(one.attention, other.attention)


class Odd(nn.Module):
    """Attention without a softmax, in a list of blocks."""

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


def test_attention_that_cannot_be_seen_is_named():
    with pytest.raises(
        UnsupportedError, match=r"The attention of Odd cannot be captured: blocks\.0, blocks\.1 call neither"
    ):
        LeGrad(Odd(), task="image-classification")(torch.rand(1, 3, 16, 16))


def test_layers_out_of_range():
    model, processor = image_model("vit")
    with pytest.raises(OptionError, match=r"layers=9 is out of range: the model has 2 blocks, 0 to 1"):
        AttentionRollout(model, processor, layers=9)(some_pictures())
    with pytest.raises(OptionError, match="must be the number of a block"):
        AttentionRollout(model, processor, layers=[])
    assert AttentionRollout(model, processor, layers=[-1])(some_pictures())


def test_the_model_is_run_without_graphs():
    wrapper = image_classification(*image_model("vit"), Runtime())
    with torch.inference_mode(), wrapper.lease():
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
