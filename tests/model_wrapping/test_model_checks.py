"""Checks that run the model: adapters, blocked gradients, LM heads that are not called, batch dependence."""

import copy
import warnings

import pytest
import torch
import transformers as hf
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from interpreto import InputXGradient, IntegratedGradients, KernelShap, Occlusion, Saliency
from interpreto.errors import ModelError, StochasticModelWarning, UnsupportedError
from tests.causal_lms import causal_lm, slow_scores
from tests.models import image_model, some_images, text_model

peft = pytest.importorskip("peft")

ADAPTERS = {
    "prompt-tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "p-tuning": lambda: peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8),
    "prefix-tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "lora": lambda: peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False),
}


def log_probabilities(model, ids, continuation):
    """The log-probability of each token of a continuation, counted from the end: adapters may prepend tokens."""
    whole = torch.tensor([[*ids, *continuation]])
    with torch.no_grad():
        logits = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0].log_softmax(-1)
    return torch.stack([logits[place - len(continuation) - 1, token] for place, token in enumerate(continuation)])


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated", "ignore:.is_gradient_checkpointing. is")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_may_lengthen_the_text(adapter):
    model, words = causal_lm("llama")
    tuned = peft.get_peft_model(copy.deepcopy(model), ADAPTERS[adapter]()).eval()
    ids, continuation = words("a good film")["input_ids"], [7, 9, 8]
    explain = Occlusion(tuned, words, task="text-generation", granularity="all-tokens", removal="unk")
    (output,) = explain("a good film", continuation)
    expected = log_probabilities(tuned, ids, continuation)
    assert torch.allclose(output.scores, expected, atol=1e-4)
    for place in range(len(ids)):
        hidden = [*ids[:place], words.unk_token_id, *ids[place + 1 :]]
        effect = expected - log_probabilities(tuned, hidden, continuation)
        assert torch.allclose(output.attributions[:, place], effect, atol=1e-4)
    for method in (KernelShap, Saliency):
        (output,) = method(tuned, words, task="text-generation", granularity="token")("a good film", continuation)
        assert torch.allclose(output.scores, expected, atol=1e-4)
        assert not output.attributions[0, :3].isnan().any()


class TiedHead(hf.LlamaForCausalLM):
    """Computes its logits without calling its output embedding."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        hidden = self.model(input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs)
        return CausalLMOutput(logits=hidden.last_hidden_state @ self.lm_head.weight.T)


@pytest.mark.parametrize("method", [Occlusion, Saliency, IntegratedGradients])
def test_logits_may_be_made_without_calling_the_head(method):
    model, words = causal_lm("llama")
    other = TiedHead(model.config).eval()
    other.load_state_dict(model.state_dict())
    (expected,), (found,) = (
        method(one, words, granularity="token")("a good film", [7, 8, 9]) for one in (model, other)
    )
    assert torch.allclose(found.scores, expected.scores, atol=1e-5)
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-4, equal_nan=True)
    ids = words("a good film")["input_ids"]
    slow = slow_scores(model, [*ids, 7, 8, 9], [len(ids), len(ids) + 1, len(ids) + 2])
    assert torch.allclose(found.scores, torch.tensor(slow), atol=1e-4)


class GradientBlocking(nn.Module):
    """A quantized layer: its output is right, and it passes no gradient."""

    def __init__(self, inner):
        super().__init__()
        self.weight, self.bias = inner.weight, inner.bias

    def forward(self, x):
        return nn.functional.linear(x.detach(), self.weight, self.bias)


def with_blocked_gradients(model):
    """A copy whose linear layers pass no gradient; residual connections still do."""
    found = copy.deepcopy(model)
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, GradientBlocking(child))
    return found


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_blocked_gradients_are_refused(name):
    model, words = text_model(name)
    other = with_blocked_gradients(model)
    # The last layer passes gradients, so that the score has a gradient.
    if name == "bert":
        other.classifier, other.bert.pooler = model.classifier, model.bert.pooler
    else:
        other.score = model.score
    for method in (Saliency, IntegratedGradients):
        with pytest.raises(UnsupportedError, match="The gradient of this model is not that of its score"):
            method(other, words)("a good film", 0)
    (expected,), (found,) = (Occlusion(one, words)("a good film", 0) for one in (model, other))
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-5)


def test_blocked_gradients_of_language_models_are_refused():
    model, words = causal_lm("llama")
    other = with_blocked_gradients(model)
    other.lm_head = model.lm_head
    with pytest.raises(UnsupportedError, match="use a perturbation method"):
        Saliency(other, words)("a good film", " and")
    Occlusion(other, words)("a good film", " and")


def test_blocked_gradients_of_image_models_are_refused():
    model, processor = image_model("vit")
    other = with_blocked_gradients(model)
    other.classifier = model.classifier
    with pytest.raises(UnsupportedError, match="Quantised layers often have no gradient"):
        Saliency(other, processor)(some_images()[0], 0)


class OneClassDetached(nn.Module):
    """Nearly all of the gradient of the second class is blocked by a detached input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(192, 1), nn.Linear(192, 1)

    def forward(self, images):
        flat = images.flatten(1)
        return torch.cat([self.first(flat), self.second(flat.detach()) + 1e-3 * self.first(flat)], 1)


@pytest.mark.parametrize("targets", [[(0, 1)], [0, 1]])
def test_gradients_of_every_target_are_checked(targets):
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    explain = Saliency(OneClassDetached().eval(), task="image-classification")
    for early in targets[:-1]:
        explain(image, early)
    with pytest.raises(UnsupportedError, match="The gradient of this model is not that of its score"):
        explain(image, targets[-1])


class RoundingLayer(nn.Module):
    """A quantized layer, whose output is rounded as coarsely as in half precision.

    Args:
        inner: The exact layer.
        straight_through: Whether the gradient of the exact layer passes, as in quantisation-aware training; else none.
    """

    def __init__(self, inner, straight_through):
        super().__init__()
        self.inner, self.straight_through = inner, straight_through

    def forward(self, x):
        exact = self.inner(x if self.straight_through else x.detach())
        return exact + (exact.to(torch.bfloat16).to(exact) - exact).detach()


def rounding(model, straight_through):
    found = copy.deepcopy(model)
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(module, name, RoundingLayer(child, straight_through))
    return found


@pytest.mark.parametrize("continuation", [" and", " good", [7], [9]])
def test_blocked_gradients_are_detected_despite_rounding(continuation):
    """Small steps change such a score only by rounding errors."""
    model, words = causal_lm("llama")
    with pytest.raises(UnsupportedError, match="The gradient of this model is not that of its score"):
        Saliency(rounding(model, straight_through=False), words)("a good film", continuation)
    found, expected = (
        Saliency(one, words)("a good film", continuation)[0] for one in (rounding(model, straight_through=True), model)
    )
    scale = expected.attributions.nan_to_num().max()
    assert (found.attributions - expected.attributions).nan_to_num().abs().max() < 0.05 * scale


class InPlaceLayer(nn.Module):
    """A layer that runs without gradients and changes its output in place, as some quantized kernels do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        leaf = x.detach().requires_grad_()
        with torch.no_grad():
            return self.inner(leaf.add_(0))


def test_models_that_run_only_without_gradients_are_refused():
    model, words = text_model("bert")
    other = copy.deepcopy(model)
    other.bert.pooler.dense = InPlaceLayer(other.bert.pooler.dense)
    (expected,), (found,) = (Occlusion(one, words)("a good film", 0) for one in (model, other))
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-5)
    with pytest.raises(
        UnsupportedError, match=r"runs only without gradients \(.*in-place operation.*perturbation method"
    ):
        Saliency(other, words)("a good film", 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by torch, on quantization
def test_dynamically_quantised_models_are_refused_where_gradients_are_asked_for():
    model, words = text_model("bert")
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    Occlusion(quantised, words)("a good film", 0)
    with pytest.raises(ModelError, match="load the model without quantisation"):
        Saliency(quantised, words)("a good film", 0)


class Hybrid(nn.Module):
    """Tokens from a normalized feature map, as in hybrids of convolutions and attention."""

    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.head = nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.Linear(6 * 64, 2)

    def forward(self, images):
        tokens = self.norm(self.convolution(images)).flatten(2).transpose(1, 2)
        return self.head((tokens * tokens.softmax(-1)).flatten(1))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("double", [False, True])
def test_gradients_of_one_image_through_a_norm_whose_output_is_transposed(norm, double):
    """PyTorch reads the gradient of such a layer in the wrong memory order for a batch of one, but not of two."""
    model = Hybrid(norm).eval().to(torch.float64 if double else torch.float32)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(model.head.weight)
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    explain = InputXGradient(model, task="image-classification", granularity="pixel")
    for image, gradient in zip(images, expected, strict=True):
        found = explain(image, 1)[0].attributions
        assert torch.allclose(found.flatten(), (image * gradient).sum(0).float().flatten(), atol=1e-5)
    assert not model.norm._forward_hooks


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_kinks_of_max_pooling_are_not_blocked_gradients(colour):
    """If all pixels are equal, all pooling windows tie."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 2)).eval()
    image = torch.full((3, 16, 16), colour)
    leaf = image[None].clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[0, 1], leaf)
    found = InputXGradient(model, task="image-classification", granularity="pixel")(image, 1)[0].attributions
    assert torch.allclose(found.flatten(), (image * expected[0]).sum(0).flatten(), atol=1e-5)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def canine():
    torch.manual_seed(0)
    config = hf.CanineConfig(
        **SMALL, initializer_range=0.3, num_labels=3, num_hash_functions=2, num_hash_buckets=128, downsampling_rate=4,
        local_transformer_stride=16, max_position_embeddings=128,
    )  # fmt: skip
    return hf.CanineForSequenceClassification(config).eval(), hf.CanineTokenizer()


def test_models_that_read_windows_score_texts_as_alone():
    """Padding changes their scores only if it fills a window, so that one pair of lengths may not show it."""
    model, words = canine()
    texts = ["the film was good and not bad", "a bad film, and not at all good so far said the man", "so"]
    together = Occlusion(model, words)(texts, 1)
    for text, output in zip(texts, together, strict=True):
        (alone,) = Occlusion(model, words)(text, 1)
        with torch.no_grad():
            expected = model(**words(text, return_tensors="pt")).logits[0, 1]
        assert torch.allclose(output.scores, expected[None], atol=1e-4)
        assert torch.allclose(output.attributions, alone.attributions, atol=1e-4)


def reformer(*kinds):
    _, words = text_model("bert")
    torch.manual_seed(0)
    config = hf.ReformerConfig(
        vocab_size=len(words), pad_token_id=0, attention_head_size=8, attn_layers=list(kinds), axial_pos_shape=[8, 8],
        axial_pos_embds_dim=[8, 8], hidden_size=16, num_attention_heads=2, feed_forward_size=24, is_decoder=False,
        lsh_attn_chunk_length=4, local_attn_chunk_length=4, num_hashes=1, num_buckets=4, num_labels=3,
        initializer_range=0.5,
    )  # fmt: skip
    return hf.ReformerForSequenceClassification(config).eval(), words


TEXT = "the film was good and not bad at all said the man who saw it"


def test_scores_that_depend_on_random_numbers_are_reported():
    model, words = reformer("lsh", "lsh")
    with pytest.warns(
        StochasticModelWarning, match=r"score of one draw is explained, seed=3\. Explain with several seeds"
    ):
        first = Occlusion(model, words, seed=3)(TEXT, 1)
    with pytest.warns(StochasticModelWarning):
        again = Occlusion(model, words, seed=3)(TEXT, 1)
    assert torch.equal(first[0].attributions, again[0].attributions)


def test_gradients_that_a_model_refuses_are_refused():
    model, words = reformer("local", "local")
    with pytest.raises(UnsupportedError, match="PyTorch cannot differentiate this model"):
        Saliency(model, words)("the film was good", 1)
    assert Occlusion(model, words)("the film was good", 1)[0].attributions.any()


def test_latents_are_not_taken_for_input_embeddings():
    """Perceiver returns its latents as input embeddings."""
    _, words = text_model("bert")
    torch.manual_seed(0)
    config = hf.PerceiverConfig(
        vocab_size=len(words), d_model=16, d_latents=16, num_latents=4, num_blocks=1, num_self_attends_per_block=1,
        num_self_attention_heads=2, num_cross_attention_heads=2, max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    model = hf.PerceiverForSequenceClassification(config).eval()
    ids = words("the film was good", return_tensors="pt")
    table = model.perceiver.input_preprocessor.embeddings
    with torch.no_grad():
        looked_up = table(ids["input_ids"])
    leaf = looked_up.clone().requires_grad_()
    handle = table.register_forward_hook(lambda *_: leaf)
    (gradient,) = torch.autograd.grad(model(ids["input_ids"], attention_mask=ids["attention_mask"]).logits[0, 1], leaf)
    handle.remove()
    (found,) = InputXGradient(model, words, granularity="all-tokens")("the film was good", 1)
    assert torch.allclose(found.attributions[0], (looked_up * gradient)[0].sum(-1), atol=1e-5)


@pytest.mark.parametrize("text", ["the film was good", "film"])
def test_models_that_cannot_resume_from_their_cache_do_not_use_it(text):
    _, words = text_model("bert")
    torch.manual_seed(0)
    sizes = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_token_id": words.pad_token_id}
    model = hf.XLMWithLMHeadModel(hf.XLMConfig(vocab_size=len(words), causal=True, **sizes)).eval()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        (found,) = Occlusion(model, words)(text, " and")
    (whole,) = Occlusion(model, words, reuse_prefix=False)(text, " and")
    assert torch.allclose(found.attributions.nan_to_num(), whole.attributions.nan_to_num(), atol=1e-5)
