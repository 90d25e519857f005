"""Language models: methods against slow second derivations, targets, prompts, invariances, bad input."""

import copy
import dataclasses
import functools
import gc
import itertools
import json
import math
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
import torch
import transformers as hf

from interpreto import (
    IMAGES_ONLY,
    INTERNALS,
    METHODS,
    AttributionOutput,
    Contrast,
    Deletion,
    Entropy,
    Infidelity,
    Insertion,
    IntegratedGradients,
    KernelShap,
    MuFidelity,
    Occlusion,
    Patches,
    Prompt,
    Rise,
    Saliency,
    Segments,
    SensitivityN,
    plot_attributions,
)
from interpreto.attributions.granularity.units import TextUnits
from interpreto.attributions.result import top_unit
from interpreto.cli.app import console
from interpreto.cli.results import print_sources
from interpreto.errors import InputError, ModelError, OptionError, TargetError
from interpreto.model_wrapping.language import prefix_cache as prefix
from interpreto.model_wrapping.language.causal_lm import CausalLMEngine
from interpreto.visualizations.generation_page import _data
from interpreto.visualizations.panels import Panel
from tests.attributions.test_invariants import assert_same, snapshot
from tests.causal_lms import CAUSAL_LMS, causal_lm, slow_scores
from tests.models import light
from tests.models import tokenizer as text_tokenizer

PROMPT, CONTINUATION = "The plot was not good and the film", " was very long"


@pytest.fixture(params=CAUSAL_LMS)
def model_and_tokenizer(request):
    return causal_lm(request.param)


def prompt_and_continuation(tokenizer, prompt=PROMPT, continuation=CONTINUATION):
    """The ids of prompt and continuation, and the number of ids of the prompt."""
    (output,) = Occlusion(causal_lm("gpt2")[0], tokenizer, granularity="all-tokens")(prompt, targets=continuation)
    targets = [output.targets] if isinstance(output.targets, int) else list(output.targets)
    before = tokenizer(prompt)["input_ids"]
    return before + targets, len(before)


def replacement_id(tokenizer):
    """The id of the token that replaces masked tokens."""
    return tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def maskable_positions(tokenizer, ids):
    """The positions of tokens other than the beginning-of-sequence token."""
    return [place for place, token in enumerate(ids) if token != tokenizer.bos_token_id]


def test_occlusion_is_one_row_after_the_other(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    ids, begin = prompt_and_continuation(tokenizer)
    places = list(range(begin, len(ids)))
    (output,) = Occlusion(model, tokenizer, granularity="all-tokens", batch_size=3, removal="unk")(
        PROMPT, targets=CONTINUATION
    )
    base = slow_scores(model, ids, places)
    assert output.scores.tolist() == pytest.approx(base, abs=1e-4)
    for unit in range(len(ids)):
        changed = [replacement_id(tokenizer) if place == unit else token for place, token in enumerate(ids)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([changed]), use_cache=False).logits[0].log_softmax(-1)
        for target, place in enumerate(places):
            found = float(output.attributions[target, unit])
            if unit >= place:
                assert math.isnan(found)
            else:
                assert found == pytest.approx(base[target] - float(logits[place - 1, ids[place]]), abs=1e-4)


def test_exact_shapley_values_are_those_of_all_orders(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    ids, begin = prompt_and_continuation(tokenizer, "a film", " was")
    (output,) = KernelShap(model, tokenizer, granularity="token", removal="unk")("a film", targets=" was")
    units = maskable_positions(tokenizer, ids)
    assert 2 ** len(units) <= 512
    for target, place in enumerate(range(begin, len(ids))):
        players = [unit for unit in units if unit < place]

        @functools.cache
        def coalition_value(kept, place=place, players=tuple(players)):
            row = [
                replacement_id(tokenizer) if unit in players and unit not in kept else t for unit, t in enumerate(ids)
            ]
            with torch.no_grad():
                return float(
                    model(input_ids=torch.tensor([row]), use_cache=False).logits.log_softmax(-1)[
                        0, place - 1, ids[place]
                    ]
                )

        for unit in players:
            others = [other for other in players if other != unit]
            value = sum(
                (coalition_value(frozenset(some) | {unit}) - coalition_value(frozenset(some)))
                / math.comb(len(others), size)
                for size in range(len(others) + 1)
                for some in itertools.combinations(others, size)
            ) / len(players)
            assert float(output.attributions[target, units.index(unit)]) == pytest.approx(value, abs=1e-4)
        assert output.attributions[target, len(players) :].isnan().all()
    assert output.completeness_gap.abs().max() < 1e-4


def slow_gradients(model, ids, place, alpha=1.0, end=None, fixed=()):
    """The log-probability of a token and its gradient, through full logits, with embeddings interpolated to a baseline."""
    leaf = None

    def keep(_module, _given, found):
        nonlocal leaf
        leaf = found.detach()
        if end is not None:
            moved = end + alpha * (leaf - end)
            moved[:, list(fixed)] = leaf[:, list(fixed)]
            leaf = moved
        leaf.requires_grad_()
        return leaf

    handle = model.get_input_embeddings().register_forward_hook(keep)
    score = model(input_ids=torch.tensor([ids]), use_cache=False).logits.log_softmax(-1)[0, place - 1, ids[place]]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, leaf)
    return float(score.detach()), leaf.detach()[0], gradient[0]


def test_gradients_are_those_through_full_logits(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    ids, begin = prompt_and_continuation(tokenizer)
    (output,) = Saliency(model, tokenizer, granularity="all-tokens")(PROMPT, targets=CONTINUATION)
    for target, place in enumerate(range(begin, len(ids))):
        _, _, gradient = slow_gradients(model, ids, place)
        found = output.attributions[target, :place]
        assert torch.allclose(found, gradient[:place].norm(dim=-1), rtol=1e-4, atol=1e-4)


def test_integrated_gradients_are_a_sum_along_the_path(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    ids, begin = prompt_and_continuation(tokenizer)
    baseline = torch.full((model.get_input_embeddings().embedding_dim,), 0.1)
    explain = IntegratedGradients(model, tokenizer, granularity="token", n_steps=5, baseline=baseline)
    (output,) = explain(PROMPT, targets=CONTINUATION)
    nodes, weights = np.polynomial.legendre.leggauss(5)
    fixed = sorted(set(range(len(ids))) - set(maskable_positions(tokenizer, ids)))
    move = partial(slow_gradients, model, ids, end=baseline, fixed=fixed)
    for target, place in enumerate(range(begin, len(ids))):
        total = sum(
            weight / 2 * move(place, alpha=(node + 1) / 2)[2] for node, weight in zip(nodes, weights, strict=True)
        )
        (high, top, _), (low, bottom, _) = move(place, alpha=1.0), move(place, alpha=0.0)
        expected = ((top - bottom) * total).sum(-1)[maskable_positions(tokenizer, ids[:place])]
        found = output.attributions[target, : len(expected)]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert float(output.completeness_gap[target]) == pytest.approx(high - low - float(expected.sum()), abs=1e-4)


@pytest.mark.parametrize("method", [Occlusion, partial(KernelShap, n_samples=60)])
def test_prefix_caching_does_not_change_results(model_and_tokenizer, method):
    """Prompts of different lengths, both longer than the sliding window."""
    model, tokenizer = model_and_tokenizer
    options = {"batch_size": 4, "granularity": "word"}
    fast = method(model, tokenizer, **options)
    slow = method(model, tokenizer, reuse_prefix=False, **options)
    prompts = [PROMPT, "A long film, but not a good one"]
    for one, other in zip(fast(prompts, CONTINUATION), slow(prompts, CONTINUATION), strict=True):
        assert torch.allclose(one.attributions, other.attributions, atol=1e-4, equal_nan=True)
        assert torch.allclose(one.scores, other.scores, atol=1e-4)
    assert fast.setup.wrapper.engine.reuses, "the probe should find these models fit for it"


def test_keys_and_values_of_few_texts_are_in_memory(monkeypatch):
    """For any number of texts, and while other rows wait: here the rows of one text fill more than a batch."""
    alive, most, recorded = weakref.WeakSet(), [], prefix.read_cache

    class Layers(list):
        __hash__ = object.__hash__

    def counted(*given):
        layers = Layers(recorded(*given))
        alive.add(layers)
        most.append(len(alive))
        return layers

    monkeypatch.setattr(prefix, "read_cache", counted)
    model, tokenizer = causal_lm("llama")
    gc.disable()
    try:
        Occlusion(model, tokenizer, batch_size=4)([PROMPT] * 32, CONTINUATION)
    finally:
        gc.enable()
    # And once for the run that checks whether the working copy can be used.
    assert len(most) == 32 + 1
    assert max(most) <= 2 * 4


@pytest.mark.parametrize("method", [method for method in METHODS if method not in (*INTERNALS, *IMAGES_ONLY)])
def test_other_samples_and_batch_size_do_not_change_results(method):
    model, tokenizer = causal_lm("llama")
    prompts = [PROMPT, "A film"]
    explain = light(method)(model, tokenizer, batch_size=3)
    together = explain(prompts, CONTINUATION)
    for prompt, output in zip(prompts, together, strict=True):
        (alone,) = light(method)(model, tokenizer, batch_size=16)(prompt, CONTINUATION)
        scale = max(1.0, float(alone.attributions.nan_to_num().abs().max()))
        assert torch.allclose(alone.attributions, output.attributions, atol=1e-4 * scale, equal_nan=True)
        assert alone.elements == output.elements


@pytest.mark.parametrize("method", [method for method in METHODS if method not in (*INTERNALS, *IMAGES_ONLY)])
def test_model_and_tokenizer_come_back_as_they_were(method):
    model, tokenizer = causal_lm("gpt2", tie_word_embeddings=False)
    before, words = snapshot(model), (len(tokenizer), dict(tokenizer.special_tokens_map), tokenizer.padding_side)
    generation = model.generation_config.to_dict()
    light(method)(model, tokenizer, generation_kwargs={"max_new_tokens": 3})(PROMPT)
    assert_same(before, snapshot(model))
    assert words == (len(tokenizer), dict(tokenizer.special_tokens_map), tokenizer.padding_side)
    assert generation == model.generation_config.to_dict()


def test_gradients_together_are_those_one_by_one():
    """The vectorized backward pass, which accelerators use, against the loop."""
    from interpreto.model_wrapping.language.lm_head import gradients, restrict_head_to

    model, _ = causal_lm("gpt2")
    embeddings = torch.randn(2, 6, 16).requires_grad_()
    at = torch.tensor([2, 4])
    found = []
    for together in (False, True):
        with restrict_head_to(model.lm_head, at, 6, detach=True) as head:
            logits = model(inputs_embeds=embeddings).logits
        scores = torch.stack([logits[:, 0, 1], logits[:, 1, 2], logits[:, 0, 3] + logits[:, 1, 4]], dim=1)
        places = torch.tensor([[True, False], [False, True], [True, True]]).expand(2, -1, -1)
        found.append(gradients(scores, places, head, embeddings, together))
    full = model(inputs_embeds=embeddings).logits
    (expected,) = torch.autograd.grad((full[:, 2, 3] + full[:, 4, 4]).sum(), embeddings)
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0][:, 2], expected, atol=1e-5)


def test_the_model_generates_what_is_explained():
    model, tokenizer = causal_lm("gpt2")
    (output,) = Saliency(model, tokenizer, granularity="token", generation_kwargs={"max_new_tokens": 4})(PROMPT)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    expected = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert list(output.targets) == expected.tolist()
    assert "".join(output.elements) == "".join(output.raw_input)
    assert "".join(output.target_names) == output.raw_input[1]
    (part,) = Saliency(model, tokenizer, granularity="token", generation_kwargs={"max_new_tokens": 4})(
        PROMPT, targets=slice(1, 3)
    )
    assert part.targets == output.targets[1:3]
    assert torch.allclose(part.attributions, output.attributions[1:3], atol=1e-5, equal_nan=True)


def test_targets_by_token_word_and_as_one():
    model, tokenizer = causal_lm("gpt2")
    each, words, joint = (
        IntegratedGradients(model, tokenizer, **options)(PROMPT, targets=CONTINUATION)[0]
        for options in (
            {"granularity": "token", "inference_mode": "log_softmax"},
            {"inference_mode": "log_softmax"},
            {"target_granularity": "sequence"},
        )
    )
    assert words.target_names == (" was", " very", " long")
    assert "".join(each.target_names) == CONTINUATION
    assert joint.target_names == (CONTINUATION,)
    # The score of a unit of several tokens is a sum, and so are its attributions.
    total = each.scores.sum()
    assert float(words.scores.sum()) == pytest.approx(float(total), abs=1e-4)
    assert float(joint.scores) == pytest.approx(float(total), abs=1e-4)
    units = words.attributions.nan_to_num().sum(0)
    assert torch.allclose(joint.attributions.nan_to_num()[0], units, atol=1e-3)
    assert float(each.attributions.nan_to_num().sum()) == pytest.approx(float(units.sum()), abs=1e-3)


def test_ids_contrasts_and_functions_are_targets():
    model, tokenizer = causal_lm("gpt2")
    ids = tokenizer(CONTINUATION)["input_ids"]
    explain = Occlusion(model, tokenizer, granularity="token")
    (by_text,) = explain(PROMPT, targets=CONTINUATION)
    for given in (ids, tuple(ids), torch.tensor(ids)):
        (by_ids,) = explain(PROMPT, targets=given)
        assert torch.equal(by_ids.attributions.nan_to_num(), by_text.attributions.nan_to_num())
        assert by_ids.target_names == by_text.target_names
    one, other = (token for token in (ids[0], ids[1]))
    (contrast,) = explain(PROMPT, targets=Contrast([one], [other]))
    singles = [explain(PROMPT, targets=[token])[0].attributions[0] for token in (one, other)]
    length = len(tokenizer(PROMPT)["input_ids"])
    difference = (singles[0] - singles[1])[:length]
    assert torch.allclose(contrast.attributions[0, :length], difference, atol=1e-4)

    def certainty(logits):
        return logits.log_softmax(-1).amax(-1)

    (function,) = explain(PROMPT, targets=certainty)
    assert function.target_names == ("certainty",)
    assert function.attributions.shape == (1, length)
    assert "".join(function.elements) == PROMPT
    several = Saliency(model, tokenizer)(PROMPT, targets=(certainty, lambda logits: logits[:, 5]))[0]
    alone = Saliency(model, tokenizer)(PROMPT, targets=certainty)[0]
    assert several.attributions.shape[0] == 2
    assert torch.allclose(several.attributions[0], alone.attributions[0], atol=1e-5)


def test_prompts_in_every_form():
    model, tokenizer = causal_lm("llama")
    explain = Occlusion(model, tokenizer)
    (expected,) = explain(PROMPT, targets=CONTINUATION)
    ids = tokenizer(PROMPT)["input_ids"]
    for given in (ids, torch.tensor(ids), {"input_ids": torch.tensor([ids])}, [PROMPT], [ids]):
        (found,) = explain(given, targets=CONTINUATION)
        assert torch.allclose(found.attributions, expected.attributions, atol=1e-5, equal_nan=True)


TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"


def test_chats_keep_their_template():
    model, tokenizer = causal_lm("gpt2")
    words = copy.deepcopy(tokenizer)
    words.chat_template = TEMPLATE
    chat = [{"role": "system", "content": "be brief "}, {"role": "user", "content": "Was the film good?"}]
    (output,) = Occlusion(model, words)(chat, targets=" very")
    assert "".join(output.elements) == "be brief Was the film good? very"
    assert output.raw_input == (words.apply_chat_template(chat, tokenize=False), " very")
    several = Occlusion(model, words)([chat, chat[1:]], targets=[" very", " was"])
    assert [o.target_names for o in several] == [(" very",), (" was",)]
    assert torch.allclose(several[0].attributions, output.attributions, atol=1e-5, equal_nan=True)
    with pytest.raises(InputError, match="no chat template"):
        Occlusion(model, tokenizer)(chat)


def test_results_are_saved_and_drawn(tmp_path):
    model, tokenizer = causal_lm("gpt2")
    (output,) = KernelShap(model, tokenizer, n_samples=64)(PROMPT, targets=CONTINUATION)
    loaded = type(output).load(output.save(tmp_path / "saved"))
    assert torch.equal(loaded.attributions.nan_to_num(7), output.attributions.nan_to_num(7))
    assert (loaded.targets, loaded.raw_input) == (output.targets, output.raw_input)
    plot_attributions(output, tmp_path / "figure.png")
    plot_attributions(output, tmp_path / "page.html")
    assert "nan" not in (tmp_path / "page.html").read_text().lower().replace("nano", "")


def test_half_precision_models_run():
    model, tokenizer = causal_lm("llama")
    exact = KernelShap(model, tokenizer)("a film", targets=" was")[0]
    half = KernelShap(copy.deepcopy(model).bfloat16(), tokenizer)("a film", targets=" was")[0]
    assert torch.allclose(exact.attributions, half.attributions, atol=0.3, equal_nan=True)


@pytest.mark.parametrize(
    ("prompt", "targets", "error", "message"),
    [
        ("", None, InputError, "is empty"),
        (PROMPT, lambda logits: None, TargetError, "it returned NoneType"),
        (PROMPT, "", TargetError, "has no tokens"),
        (PROMPT, (), TargetError, "has no tokens"),
        (PROMPT, [399_999], TargetError, "are not token ids"),
        (PROMPT, " very" * 60, InputError, "the model reads at most 64: prompt and continuation together"),
        (PROMPT, Contrast(" was", " was not very"), TargetError, "must have the same number of tokens"),
        (PROMPT, [" was", " is"], TargetError, "is not a target of a language model"),
        (PROMPT, slice(30, 40), TargetError, "selects none"),
        (("a", "b"), None, InputError, "Expected a prompt, got tuple"),
        ([PROMPT, 3.5], None, InputError, "Expected a prompt, got float"),
        (b"the film", None, InputError, "Expected a prompt, got bytes"),
        (bytearray(b"the film"), None, InputError, "Expected a prompt, got bytearray"),
        ([True, False], None, InputError, "Expected a prompt, got bool"),
        (torch.tensor([True, False]), None, InputError, "Expected a prompt"),
    ],
)
def test_bad_input_is_one_clear_error(prompt, targets, error, message):
    model, tokenizer = causal_lm("gpt2")
    with pytest.raises(error, match=message):
        Occlusion(model, tokenizer)(prompt, targets=targets)


def test_options_of_generation_belong_to_generation(reviews):
    for option in ({"target_granularity": "sequence"}, {"generation_kwargs": {}}, {"reuse_prefix": False}):
        with pytest.raises(OptionError, match="is for text-generation"):
            Occlusion(*reviews, **option)
    with pytest.raises(OptionError, match="leave one of them out"):
        Occlusion(*causal_lm("gpt2"), target_granularity="sequence", inference_mode="softmax")


def test_models_with_an_encoder_are_refused():
    config = hf.T5Config(vocab_size=20, d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8)
    with pytest.raises(ModelError, match="not yet those with an encoder"):
        Occlusion(hf.T5ForConditionalGeneration(config), causal_lm("gpt2")[1], task="text-generation")


def test_segments_are_units():
    model, tokenizer = causal_lm("gpt2")
    prompt = Prompt("{context} Question: {question}", context="The film was long.", question="was it good?")
    (output,) = KernelShap(model, tokenizer, granularity=Segments())(prompt, targets=" very long")
    assert output.attributions.shape == (2, 4)
    assert output.elements == ["The film was long.", " was it good?", " very", " long"]
    assert output.granularity == "segments"
    begin = prompt.index("was it")
    spans = {"context": (0, 18), "question": (begin, len(prompt))}
    (same,) = KernelShap(model, tokenizer, segments=spans)(str(prompt), targets=" very long")
    assert torch.equal(same.attributions.nan_to_num(), output.attributions.nan_to_num())
    assert output.completeness_gap.abs().max() < 1e-4
    # Text between the segments is never masked.
    units = Segments().units(KernelShap(model, tokenizer).setup.wrapper.inputs.prepare_one(prompt))
    between = prompt.index("Question")
    assert not units.assigned[len(tokenizer(prompt[:between])["input_ids"])]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({"a": (0, 8), "b": (4, 12)}, "'a' and 'b' overlap"),
        ({"a": (0, 5000)}, "is not inside the text of"),
        ({"a": (0, 3), "b": (5, 8)}, "ends inside the token"),
        ({"a": (3, 4)}, "contains no token"),
    ],
)
def test_bad_segments_say_which(reviews, spans, message):
    with pytest.raises(InputError, match=message):
        Occlusion(*reviews, segments=spans)("The plot was wonderful and long")


def test_segments_are_checked_as_options(reviews):
    with pytest.raises(OptionError, match="must map names"):
        Occlusion(*reviews, segments=[(0, 3)])
    with pytest.raises(OptionError, match="pass only one of them"):
        Occlusion(*reviews, segments={"a": (0, 3)}, granularity="word")
    with pytest.raises(OptionError, match="which is not among the values"):
        Prompt("{a} {b}", a="x")
    with pytest.raises(OptionError, match="are not in the template"):
        Prompt("{a}", a="x", c="y")
    with pytest.raises(InputError, match="values of a Prompt or the messages"):
        Occlusion(*reviews, granularity=Segments())("a film")


def test_messages_of_a_chat_are_segments():
    model, tokenizer = causal_lm("gpt2")
    words = copy.deepcopy(tokenizer)
    words.chat_template = TEMPLATE
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Was the film good?"}]
    (output,) = Occlusion(model, words, granularity=Segments())(chat, targets=" very")
    assert output.elements == ["be brief", "Was the film good?", " very"]


@pytest.mark.parametrize("method", [Occlusion, IntegratedGradients])
def test_lengths_and_padding_do_not_change_results(model_and_tokenizer, method):
    """Prompts of different lengths in one batch, and prompts that were padded on the left."""
    model, tokenizer = model_and_tokenizer
    prompts = [PROMPT, "A film", "A long film, but not a good one"]
    explain = light(method)(model, tokenizer, batch_size=7)
    alone = [explain(prompt, CONTINUATION)[0] for prompt in prompts]
    lefty = copy.deepcopy(tokenizer)
    lefty.padding_side, lefty.pad_token = "left", lefty.eos_token
    padded = lefty(prompts, padding=True, return_tensors="pt")
    assert not padded["attention_mask"][1, 0]
    rows = [{name: tensor[row] for name, tensor in padded.items()} for row in range(len(prompts))]
    for given, words in ((prompts, tokenizer), (prompts, lefty), (rows, tokenizer)):
        together = light(method)(model, words, batch_size=7)(given, CONTINUATION)
        for one, other in zip(alone, together, strict=True):
            assert one.elements == other.elements
            scale = max(1.0, float(one.attributions.nan_to_num().abs().max()))
            assert torch.allclose(one.attributions, other.attributions, atol=1e-4 * scale, equal_nan=True)


def assert_rows_score_as_alone(model, tokenizer, prompts, continuation, places=(0, 1)):
    """Check the scores of rows in one batch against those of one row at a time."""
    explain = Occlusion(model, tokenizer, granularity="all-tokens", batch_size=5, removal=replacement_id(tokenizer))
    for prompt, output in zip(prompts, explain(prompts, continuation), strict=True):
        ids, begin = prompt_and_continuation(tokenizer, prompt, continuation)
        with torch.no_grad():
            base = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for target, place in enumerate(range(begin, len(ids))):
            assert float(output.scores[target]) == pytest.approx(float(base[place - 1, ids[place]]), abs=1e-4)
        for unit in places:
            changed = [replacement_id(tokenizer) if place == unit else token for place, token in enumerate(ids)]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([changed])).logits[0].log_softmax(-1)
            for target, place in enumerate(range(begin, len(ids))):
                expected = float(base[place - 1, ids[place]] - logits[place - 1, ids[place]])
                assert float(output.attributions[target, unit]) == pytest.approx(expected, abs=1e-4)


def test_positions_are_counted_as_the_model_counts_them():
    words = text_tokenizer("roberta")
    torch.manual_seed(0)
    config = hf.RobertaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        initializer_range=0.4, is_decoder=True, pad_token_id=1,
    )  # fmt: skip
    model = hf.RobertaForCausalLM(config).eval()
    words.pad_token_id = 1
    assert_rows_score_as_alone(model, words, [PROMPT, "a film"], " was very long")


def test_models_that_depend_on_length_are_not_batched_over_lengths():
    _, words = causal_lm("llama")
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4,
            "original_max_position_embeddings": 16}  # fmt: skip
    config = hf.Phi3Config(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, initializer_range=0.4, rope_parameters=rope, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = hf.Phi3ForCausalLM(config).eval()
    assert_rows_score_as_alone(model, words, ["a film", PROMPT], " was very long")


@pytest.mark.parametrize(("build", "config", "options"), [
    (hf.Lfm2ForCausalLM, hf.Lfm2Config, {"layer_types": ["conv", "full_attention"]}),
    (hf.MiniMaxForCausalLM, hf.MiniMaxConfig, {"layer_types": ["linear_attention", "full_attention"], "block_size": 8}),
])  # fmt: skip
def test_layers_without_keys_and_values_use_no_prefix_cache(build, config, options):
    _, words = causal_lm("llama")
    torch.manual_seed(0)
    model = build(config(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=64, initializer_range=0.4, **options,
    )).eval()  # fmt: skip
    assert_rows_score_as_alone(model, words, [PROMPT], " was very long")


def test_models_that_read_ahead_are_refused():
    words = text_tokenizer("bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = hf.BertLMHeadModel(hf.BertConfig(vocab_size=len(words), **sizes, initializer_range=0.4)).eval()
    with pytest.raises(ModelError, match="is not a causal model"):
        Occlusion(model, words, task="text-generation")("a film", targets="was very long")


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_decoders_that_round_all_positions_together_are_refused():
    model, words = causal_lm("llama")
    rounded = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ModelError, match="Dynamically quantised layers round all positions by one scale"):
        Occlusion(rounded, words)("a good film", " and")


def test_units_may_be_numbered_in_any_order():
    class Reversed:
        def units(self, sample):
            index = sample.text_index * 0 + torch.arange(len(sample.text_index)).flip(0)
            return TextUnits(index, (len(index),))

        def labels(self, sample):
            return list(sample.tokens)[::-1]

    model, tokenizer = causal_lm("gpt2")
    plain, turned = (
        KernelShap(model, tokenizer, granularity=how)("a film", targets=" was")[0] for how in ("token", Reversed())
    )
    assert plain.attributions.shape == turned.attributions.shape
    assert torch.allclose(plain.attributions.nansum(), turned.attributions.nansum(), atol=1e-4)
    first = plain.attributions[0]
    seen = ~first.isnan()
    assert torch.allclose(turned.attributions[0].flip(0)[seen], first[seen], atol=1e-4)


def test_messages_are_not_found_in_the_template():
    model, tokenizer = causal_lm("gpt2")
    words = copy.deepcopy(tokenizer)
    words.chat_template = TEMPLATE
    (output,) = Occlusion(model, words, removal="unk")([{"role": "user", "content": "user"}], targets=" very")
    rendered = "<|user|>user\n<|assistant|>"
    spans = words(rendered, return_offsets_mapping=True)["offset_mapping"]
    ids = words(rendered)["input_ids"]
    said = [place for place, (start, end) in enumerate(spans) if start < 12 and end > 8]
    changed = [replacement_id(words) if place in said else token for place, token in enumerate(ids)]
    behind = words(" very")["input_ids"]
    places = [len(ids) + number for number in range(len(behind))]
    base, hidden = (sum(slow_scores(model, row + behind, places)) for row in (ids, changed))
    assert float(output.attributions[0, 0]) == pytest.approx(base - hidden, abs=1e-4)
    explain = Occlusion(model, words, granularity=Segments(), removal="unk")
    (one,) = explain([{"role": "user", "content": "user"}], targets=" very")
    assert float(one.attributions[0, 0]) == pytest.approx(base - hidden, abs=1e-4)


def test_special_tokens_in_a_prompt_are_no_units_and_numbers_of_all_kinds_are_ids():
    model, tokenizer = causal_lm("llama")
    text = f"The film{tokenizer.eos_token} was good"
    (output,) = Occlusion(model, tokenizer)(text, targets=" very")
    assert tokenizer.eos_token not in [element.strip() for element in output.elements]
    (found,) = Occlusion(model, tokenizer)(PROMPT, targets=Contrast(np.int64(5), torch.tensor(6)))
    (expected,) = Occlusion(model, tokenizer)(PROMPT, targets=Contrast(5, 6))
    assert torch.equal(found.attributions.nan_to_num(), expected.attributions.nan_to_num())


def test_scores_of_units_that_no_row_kept_are_unknown():
    model, tokenizer = causal_lm("gpt2")
    (output,) = Rise(model, tokenizer, n_samples=12, keep_probability=0.05)(PROMPT, targets=" very")
    assert output.attributions[0, :-1].isnan().any()
    assert output.standard_errors[0].isnan().tolist() == output.attributions[0].isnan().tolist()


STATEFUL = {
    "mamba": (hf.MambaForCausalLM, hf.MambaConfig, {
        "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.4,
    }),
    "bamba": (hf.BambaForCausalLM, hf.BambaConfig, {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 24, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4,
        "mamba_chunk_size": 8, "initializer_range": 0.4,
    }),
    "recurrent-gemma": (hf.RecurrentGemmaForCausalLM, hf.RecurrentGemmaConfig, {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
        "lru_width": 16, "attention_window_size": 8,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", STATEFUL)
def test_recurrent_models_use_no_prefix_cache(name):
    build, config, options = STATEFUL[name]
    _, tokenizer = causal_lm("llama")
    torch.manual_seed(0)
    model = build(config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **options)).eval()
    explain = Occlusion(model, tokenizer, granularity="all-tokens", batch_size=3, removal="unk")
    (output,) = explain(PROMPT, targets=CONTINUATION)
    assert not explain.setup.wrapper.engine.reuses
    ids, begin = prompt_and_continuation(tokenizer)
    for unit in (1, 4, begin):
        changed = [replacement_id(tokenizer) if place == unit else token for place, token in enumerate(ids)]
        for target, place in enumerate(range(begin, len(ids))):
            if unit < place:
                (before,), (after,) = (slow_scores(model, row[:place] + ids[place:], [place]) for row in (ids, changed))
                assert float(output.attributions[target, unit]) == pytest.approx(before - after, abs=1e-4)


@pytest.mark.parametrize("kind", ["tied", "untied", "bfloat16", "no pad, no mask"])
def test_models_and_tokenizers_of_all_kinds_come_back_as_they_were(kind):
    model, tokenizer = causal_lm("gpt2", tie_word_embeddings=kind != "untied")
    words = copy.deepcopy(tokenizer)
    if kind == "bfloat16":
        model = model.bfloat16()
    if kind == "no pad, no mask":
        words.pad_token = words.mask_token = None
        model.config.pad_token_id = model.generation_config.pad_token_id = None
        assert words.pad_token_id is words.mask_token_id is None
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (kind != "untied")
    before, files = snapshot(model), words.backend_tokenizer.to_str()
    special = dict(words.special_tokens_map)
    for method in (Occlusion, IntegratedGradients, light(KernelShap)):
        outputs = method(model, words, generation_kwargs={"max_new_tokens": 2})([PROMPT, "A film"])
        for output in outputs:
            assert output.attributions.dtype == torch.float32
            assert not output.attributions.isnan().all(1).any()
            assert output.attributions.nan_to_num().isfinite().all()
    assert_same(before, snapshot(model))
    assert files == words.backend_tokenizer.to_str()
    assert special == dict(words.special_tokens_map)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"generation_kwargs": 5}, OptionError, "must be a dictionary of keyword arguments"),
        ({"generation_kwargs": {"max_new_tokens": 0}}, OptionError, "does not take generation_kwargs"),
        ({"generation_kwargs": {"max_new_token": 3}}, OptionError, "does not take generation_kwargs"),
        ({"generation_kwargs": {"num_return_sequences": 2}}, OptionError, "one continuation of a prompt"),
        ({"generation_kwargs": {"max_new_tokens": 60}}, InputError, "there is no room for 60 new tokens"),
        ({"target_granularity": "no"}, OptionError, "There is no target_granularity"),
        ({"truncation": True}, OptionError, "shorten the prompt"),
        ({"granularity": Segments}, OptionError, "is a class"),
        ({"granularity": Patches(4)}, OptionError, "is for images"),
        ({"segments": {}}, OptionError, "must map names"),
    ],
)
def test_bad_options_are_one_clear_error(options, error, message):
    model, tokenizer = causal_lm("gpt2")
    with pytest.raises(error, match=message):
        Occlusion(model, tokenizer, **options)(PROMPT)


def test_generation_follows_its_config_and_stays_within_the_model():
    model, tokenizer = causal_lm("gpt2")
    config = hf.GenerationConfig(max_new_tokens=2, pad_token_id=0)
    options = ({"generation_config": config}, {"max_new_tokens": 2})
    short, same = (
        Saliency(model, tokenizer, granularity="token", generation_kwargs=given)(PROMPT)[0] for given in options
    )
    assert len(short.targets) == 2
    assert short.targets == same.targets
    long = "film film film " * 8
    length = len(tokenizer(long)["input_ids"])
    assert 64 - 20 < length < 64
    (output,) = Saliency(model, tokenizer, granularity="token")(long)
    assert len(output.targets) <= 64 - length


def test_functions_need_gradients_where_these_are_taken_and_are_not_joint():
    model, tokenizer = causal_lm("gpt2")
    with pytest.raises(ModelError, match="does not depend on the input"):
        Saliency(model, tokenizer)(PROMPT, targets=lambda logits: logits[:, 0].detach())
    with pytest.raises(TargetError, match="functions of the outputs have none"):
        Occlusion(model, tokenizer, target_granularity="sequence")(PROMPT, targets=lambda logits: logits[:, 0])


def test_messages_are_the_segments_of_a_chat_and_templates_may_refuse_it():
    model, tokenizer = causal_lm("gpt2")
    words = copy.deepcopy(tokenizer)
    words.chat_template = TEMPLATE
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Was the film good?"}]
    with pytest.raises(InputError, match="Segments\\(\\) without spans"):
        Occlusion(model, words, segments={"a": (0, 8)})(chat)
    words.chat_template = "{{ raise_exception('no system message') }}"
    with pytest.raises(InputError, match="rejects this chat: no system message"):
        Occlusion(model, words)(chat)


def test_prompts_are_templates_of_strings():
    for template, values, message in (
        ("{a}", {"a": 3}, "must be a string"),
        ("{a:>10}", {"a": "x"}, "as they are"),
        ("{a!r}", {"a": "x"}, "as they are"),
        ("{a", {"a": "x"}, "part of the text: {{ or }}"),
        ("a}", {}, "is not a template"),
    ):
        with pytest.raises(OptionError, match=message):
            Prompt(template, **values)
    assert Prompt("{template}", template="x") == "x"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_removal_tokens_are_given_as_text(name):
    """A word with its leading space, which tokenizers represent differently."""
    model, words = causal_lm(name)
    spelled = next(token for token in sorted(words.get_vocab()) if token[0] in "Ġ▁" and token[1:].isalpha())
    token, written = words.convert_tokens_to_ids(spelled), f" {spelled[1:]}"
    by_text, by_id = (Occlusion(model, words, removal=removal)(PROMPT, CONTINUATION)[0] for removal in (written, token))
    assert torch.equal(by_text.attributions.nan_to_num(), by_id.attributions.nan_to_num())
    assert by_text.info["removal"] == written
    (as_spelled,) = Occlusion(model, words, removal=spelled)(PROMPT, CONTINUATION)
    assert torch.equal(as_spelled.attributions.nan_to_num(), by_id.attributions.nan_to_num())
    with pytest.raises(OptionError, match="neither one of"):
        Occlusion(model, words, removal="several words at once")


# The word has several tokens, so that the later ones depend on the first.
DATE = "2018-01-22"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_units_of_the_target_itself_are_not_ranked(name, tmp_path):
    model, words = causal_lm(name)
    (output,) = IntegratedGradients(model, words, baseline="unk", n_steps=128)(PROMPT, targets=f" very {DATE}")
    unit = next(n for n, element in enumerate(output.elements) if element.strip() == DATE)
    (target,) = (n for n, label in enumerate(output.target_names) if label.strip() == DATE)
    assert output.target_units is not None
    assert output.target_units[target].nonzero()[:, 0].tolist() == [unit]
    # The promised sum includes these cells: the path moves all tokens of the word except the last.
    assert float(output.attributions[target, unit]) != 0
    promised = output.attributions[target].nansum() + output.completeness_gap[target]
    assert abs(float(output.completeness_gap[target])) < 0.02 * abs(float(promised))
    # Rankings leave them out.
    largest = dataclasses.replace(output, attributions=output.attributions.clone())
    largest.attributions[target, unit] = 1e3
    assert math.isnan(float(largest.ranking_scores[target, unit]))
    assert top_unit(largest, target) != DATE
    assert float(Entropy().evaluate(largest).values[0][target]) > 0.1
    assert DATE not in _top_sources(largest)[target]
    largest.save(tmp_path / "output")
    assert torch.equal(AttributionOutput.load(tmp_path / "output").target_units, output.target_units)
    # The colour scale of a figure does not depend on them.
    assert Panel("", largest, target).colours[1].vmax < 1e3
    assert json.loads(_data(largest))["scores"][target][unit] is None


def _top_sources(output):
    """The unit with the highest score for each generated unit, as the command line prints it."""
    with console.capture() as screen:
        print_sources(output)
    return [line.split("│")[3] for line in screen.get().splitlines() if line.startswith("│")]


@pytest.mark.parametrize("metric", [MuFidelity, Infidelity, partial(SensitivityN, n=0.5), Deletion, Insertion])
def test_metrics_do_not_mask_units_of_the_target_itself(metric):
    model, words = causal_lm("gpt2")
    (output,) = Occlusion(model, words)(PROMPT, targets=f" very {DATE} long")
    measure = metric(model, words, removal="unk")
    target_ids = torch.tensor(output.targets[1])
    begin = len(words(PROMPT)["input_ids"]) + len(output.targets[0])
    end = begin + len(target_ids)
    kept = []
    scored = CausalLMEngine._score

    def counted(self, scored_request):
        if begin + 1 in scored_request.targets.positions.tolist():
            kept.append(bool((scored_request.rows.fields["input_ids"][:, begin:end] == target_ids).all()))
        return scored(self, scored_request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMEngine, "_score", counted)
        values = measure.evaluate(output).values[0]
    assert len(kept)
    assert all(kept)
    assert values.isfinite().all()


@pytest.mark.filterwarnings("ignore:The target .* begins with a space")
@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-3"])
@pytest.mark.parametrize("unit", ["token", "word", "part-sentence", "sentence"])
@pytest.mark.parametrize(
    "said", [".\nThe", ".\n\nThe end.\n", "\tThe (one),\n two", " \n", " was\n\n good. \n  The", DATE]
)
def test_names_of_targets_joined_give_the_continuation_back(kind, unit, said):
    words = text_tokenizer(kind)
    ids = {f"{role}_token_id": getattr(words, f"{role}_token_id") for role in ("bos", "eos")}
    torch.manual_seed(0)
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=1, **ids)).eval()
    for prompt in ("The plot", "The plot was good.\n", "The plot "):
        (output,) = Saliency(model, words, granularity=unit)(prompt, targets=said)
        assert "".join(output.target_names) == said
        assert "".join(output.elements) == prompt + said


def test_generated_tokens_are_explained_by_their_log_probability():
    model, words = causal_lm("gpt2")
    (output,) = Occlusion(model, words, granularity="token")(PROMPT, targets=CONTINUATION)
    assert output.info["inference_mode"] == "log_softmax"
    assert bool((output.scores < 0).all())
    (same,) = Occlusion(model, words, granularity="token", inference_mode=None)(PROMPT, targets=CONTINUATION)
    assert torch.equal(same.scores, output.scores)
    ids, begin = prompt_and_continuation(words)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    for mode, scores in (("logits", logits), ("softmax", logits.softmax(-1))):
        (other,) = Occlusion(model, words, granularity="token", inference_mode=mode)(PROMPT, targets=CONTINUATION)
        expected = [float(scores[place - 1, ids[place]]) for place in range(begin, len(ids))]
        assert other.scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert other.info["inference_mode"] == mode


def test_a_prompt_starts_with_a_bos_token_on_request():
    """With the token, the score of the longer text is explained; the token itself is not a unit."""
    model, words = causal_lm("gpt2")
    ids = words(PROMPT)["input_ids"]
    said = words(CONTINUATION)["input_ids"]
    (output,) = Occlusion(model, words, granularity="token", prepend_bos=True)(PROMPT, targets=said)
    whole = [words.bos_token_id, *ids, *said]
    expected = slow_scores(model, whole, list(range(1 + len(ids), len(whole))))
    assert output.scores.tolist() == pytest.approx(expected, abs=1e-4)
    (without,) = Occlusion(model, words, granularity="token")(PROMPT, targets=said)
    assert output.elements == without.elements
    (given,) = Occlusion(model, words, granularity="token", prepend_bos=True)({"input_ids": ids}, targets=said)
    assert torch.equal(given.scores, without.scores)


def test_a_prompt_has_one_bos_token():
    """No second token is added if the tokenizer adds one, or if the text begins with it."""
    model, words = causal_lm("llama")
    (plain,) = Saliency(model, words)(PROMPT, targets=CONTINUATION)
    for prompt, options in ((PROMPT, {"prepend_bos": True}), (words.bos_token + PROMPT, {})):
        (output,) = Saliency(model, words, **options)(prompt, targets=CONTINUATION)
        assert output.scores.tolist() == pytest.approx(plain.scores.tolist(), abs=1e-5)
    chat = [{"role": "user", "content": "Was the plot good?"}]
    words.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    rendered = words.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    (of_chat,), (of_text,) = (Saliency(model, words)(given, targets=CONTINUATION) for given in (chat, rendered))
    assert of_text.scores.tolist() == pytest.approx(of_chat.scores.tolist(), abs=1e-5)
    words.bos_token = None
    with pytest.raises(OptionError, match="does not define"):
        Saliency(causal_lm("gpt2")[0], words, prepend_bos=True)(PROMPT)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3", "opt", "gpt-neox"])
def test_words_are_masked_by_attention_and_the_first_is_replaced(name):
    """Against a loop with attention masks; positions are those of the unperturbed text."""
    model, words = causal_lm(name)
    (output,) = Occlusion(model, words, granularity="all-tokens")(PROMPT, targets=CONTINUATION)
    assert output.info["removal"] == "attention-sink"
    ids, _ = prompt_and_continuation(words)
    last = len(ids) - 1
    base = slow_scores(model, ids, [last])[0]
    sink = words(" ", add_special_tokens=False)["input_ids"]
    sink = sink[0] if len(sink) == 1 else words.unk_token_id
    for unit in range(last):
        changed, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)
        changed[0, unit], mask[0, unit] = (sink, 1) if unit == 0 else (ids[unit], 0)
        with torch.no_grad():
            positions = torch.arange(len(ids))[None]
            logits = model(input_ids=changed, attention_mask=mask, position_ids=positions, use_cache=False).logits[0]
        expected = base - float(logits.log_softmax(-1)[last - 1, ids[last]])
        assert float(output.attributions[-1, unit]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", STATEFUL)
def test_words_of_recurrent_models_are_replaced(name):
    """A recurrent layer reads tokens that the attention mask excludes."""
    build, config, options = STATEFUL[name]
    _, words = causal_lm("llama")
    model = build(config(vocab_size=len(words), pad_token_id=words.pad_token_id, **options)).eval()
    assert Occlusion(model, words)("The plot", " very")[0].info["removal"] == "unk"


@pytest.mark.parametrize("removal", ["attention", "attention-sink", "space"])
def test_masking_tokens_and_changing_embeddings_combine(removal):
    """Smoothing a perturbation method changes the embeddings; masked tokens must stay masked."""
    model, words = causal_lm("gpt2")
    modality = Occlusion(model, words, removal=removal).setup.masker()
    sample = Occlusion(model, words).setup.wrapper.inputs.prepare_one(PROMPT)
    ids = sample.rows.fields["input_ids"]
    moved = dataclasses.replace(sample, rows=sample.rows.replace(embeddings=modality.tokens.embed(ids)))
    hidden = torch.zeros(1, ids.shape[1], dtype=torch.bool)
    hidden[0, :2] = True
    rows = modality.replaced(moved, modality.fully_masked(moved, torch.Generator()), hidden)
    plain = modality.replaced(sample, modality.fully_masked(sample, torch.Generator()), hidden)
    assert torch.equal(rows.fields["input_ids"], plain.fields["input_ids"])
    attended = plain.fields["attention_mask"].bool()[0]
    expected = modality.tokens.embed(plain.fields["input_ids"])
    assert torch.equal(rows.fields["embeddings"][0, attended], expected[0, attended])


@pytest.mark.parametrize(
    ("prompt", "target", "remedy"),
    [
        ("Anna finds the", "kite", "pass targets=' kite'"),
        ("Anna finds it.", "Then", "pass targets=' Then'"),
        ("Anna finds the ", " kite", "pass targets='kite'"),
        ("The plot", Contrast(" a", "a"), "pass targets=' a'"),
        ("Anna finds the", " kite", None),
        ("Anna finds the ", "kite", None),
        ("Anna finds the\n", " kite", None),
        ("Anna finds (", "kite", None),
        ('Anna says "', "kite", None),
        ("Anna finds the kite", ".", None),
        ("猫は", "魚", None),
        ("The plot", [5, 6], None),
        ([{"role": "user", "content": "What now"}], "kite", None),
    ],
)
def test_a_target_that_merges_with_the_prompt_is_reported(prompt, target, remedy):
    model, tokenizer = causal_lm("gpt2")
    words = copy.deepcopy(tokenizer)
    words.chat_template = TEMPLATE
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Saliency(model, words)(prompt, targets=target)
    found = [str(one.message) for one in caught]
    assert len(found) == (remedy is not None)
    if remedy is not None:
        assert remedy in found[0]
