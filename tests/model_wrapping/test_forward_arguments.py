"""Arguments of forward methods: other names, declarations in base classes, and prefix caching that depends on them."""

import warnings

import pytest
import torch
import transformers as hf
from transformers.cache_utils import Cache

from interpreto import KernelShap, Occlusion
from interpreto.model_wrapping.execution.forward_arguments import CACHE_NAMES, ForwardArguments
from tests.causal_lms import CAUSAL_LMS, causal_lm
from tests.models import TEXTS, text_model

PROMPT, CONTINUATION = "The plot was not good and we saw", " a film."


class RenamedLlama(hf.LlamaForCausalLM):
    """A Llama whose arguments are named as in a possible later release."""

    def forward(self, input_ids=None, attention_mask=None, memory: Cache | None = None, **kwargs):
        name = next(n for n in CACHE_NAMES if n in ForwardArguments.of(hf.LlamaForCausalLM(self.config)).names)
        return super().forward(input_ids, attention_mask, **{name: memory}, **kwargs)


class InheritingLlama(hf.LlamaForCausalLM):
    """A Llama whose arguments are declared only by its base class."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class InheritingBert(hf.BertForSequenceClassification):
    """A classifier of the same kind, whose pairs of texts need token types."""

    def forward(self, input_ids, **kwargs):
        return super().forward(input_ids, **kwargs)


class IgnoresCache(hf.LlamaForCausalLM):
    """Accepts a cache and does not write to it."""

    def forward(self, input_ids=None, attention_mask=None, cache: Cache | None = None, **kwargs):
        return super().forward(input_ids, attention_mask, use_cache=False)


class DriftsWithCache(hf.LlamaForCausalLM):
    """Returns different logits when it resumes from a cache."""

    def forward(self, input_ids=None, attention_mask=None, cache: Cache | None = None, **kwargs):
        begun = cache is not None and cache.get_seq_length() > 0
        name = next(n for n in CACHE_NAMES if n in ForwardArguments.of(hf.LlamaForCausalLM(self.config)).names)
        out = super().forward(input_ids, attention_mask, **{name: cache}, **kwargs)
        out.logits = out.logits + 3.0 * begun * torch.arange(out.logits.shape[-1])
        return out


def with_weights(kind):
    plain, words = causal_lm("llama")
    made = kind(plain.config).eval()
    made.load_state_dict(plain.state_dict())
    return made, words


def lengths_read(model, run):
    """The number of positions that the model reads in each run."""
    found = []
    handle = model.register_forward_hook(
        lambda _module, given, kwargs, _out: found.append((given[0] if given else kwargs["input_ids"]).shape[1]),
        with_kwargs=True,
    )
    try:
        return run(), found
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", [hf.LlamaForCausalLM, RenamedLlama, InheritingLlama])
def test_prefixes_are_reused_for_any_name_of_the_argument(kind):
    model, words = with_weights(kind)
    whole = Occlusion(model, words, reuse_prefix=False)(PROMPT, CONTINUATION)[0]
    assert whole.info["prefix_reuse"] == "off: reuse_prefix=False"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (output,), read = lengths_read(model, lambda: Occlusion(model, words)(PROMPT, CONTINUATION))
    assert output.info["prefix_reuse"] == "on"
    assert torch.allclose(output.attributions, whole.attributions, atol=1e-4, equal_nan=True)
    # Runs that resume from the cache read less than the whole text.
    assert min(read) < max(read)


@pytest.mark.parametrize(
    ("kind", "why"), [(IgnoresCache, "wrote no keys and values"), (DriftsWithCache, "differ from those of a whole run")]
)
def test_disabled_prefix_caching_is_reported_once(kind, why):
    model, words = with_weights(kind)
    explainer = KernelShap(model, words, n_samples=64)
    with pytest.warns(UserWarning, match=rf"{kind.__name__} does not reuse the prefix .* {why}"):
        (output,) = explainer(PROMPT, CONTINUATION)
    assert why in output.info["prefix_reuse"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer(PROMPT, CONTINUATION)
    whole = KernelShap(model, words, n_samples=64, reuse_prefix=False)(PROMPT, CONTINUATION)[0]
    assert torch.allclose(output.attributions, whole.attributions, atol=1e-4, equal_nan=True)


def test_models_known_to_have_no_prefix_cache_give_no_warning():
    torch.manual_seed(0)
    _, words = causal_lm("llama")
    config = hf.MambaConfig(vocab_size=len(words), hidden_size=16, state_size=4, num_hidden_layers=2, pad_token_id=0)
    model = hf.MambaForCausalLM(config).eval()
    (output,) = Occlusion(model, words)(PROMPT, CONTINUATION)
    assert output.info["prefix_reuse"] == "off: the model keeps a state of the text that cannot be cropped"


@pytest.mark.parametrize("name", CAUSAL_LMS)
def test_every_causal_lm_reuses_prefixes(name):
    model, words = causal_lm(name)
    assert Occlusion(model, words)(PROMPT, CONTINUATION)[0].info["prefix_reuse"] == "on"


def test_what_a_base_class_takes_reaches_it():
    plain, words = text_model("bert")
    model = InheritingBert(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    given = [("a good film", "it was not"), *TEXTS]
    for options in ({}, {"removal": "attention"}):
        found = Occlusion(model, words, **options)(given, 0)
        wanted = Occlusion(plain, words, **options)(given, 0)
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one.attributions, other.attributions, atol=1e-5)
            assert torch.allclose(one.scores, other.scores, atol=1e-5)


def test_arguments_are_found_where_they_are_declared():
    declared = ForwardArguments.of(with_weights(InheritingLlama)[0])
    assert {"attention_mask", "position_ids", "use_cache"} <= declared.names
    assert declared.caches[0] in CACHE_NAMES
    assert ForwardArguments.of(with_weights(RenamedLlama)[0]).caches[0] in ("memory", *CACHE_NAMES)
    assert "attention_mask" not in ForwardArguments.of(torch.nn.Linear(1, 1))
    assert ForwardArguments.of(torch.nn.Linear(1, 1)).caches == ()
