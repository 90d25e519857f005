"""Unusual texts: accents and emoji, too long, already tokenized, tokenizers without offsets."""

import copy
import unicodedata

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreto import Occlusion, Saliency, plot_attributions
from interpreto.attributions.granularity.segmentation import clauses, sentences, words
from interpreto.errors import InputError
from interpreto.model_wrapping.inputs import token_spans
from tests.causal_lms import causal_lm
from tests.models import text_model, tokenizer


def cut(split, text):
    starts = split(text)
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


SENTENCES = [
    ["Is it so?", "No.", "I said no.", "Dr. Smith paid 3.5 dollars."],
    ["(It was so.)", "End.", "See Fig. 3.", "It is No. 5 here.", "Vol. 2 is out."],
    ["lower case.", "next one.", "U.S. troops came."],
    ["1. Go home.", "2. Eat now."],
    ["यह एक वाक्य है।", "यह दूसरा है।", "क्या?"],
    ["یہ ایک جملہ ہے۔", "یہ دوسرا ہے۔"],
    ["هل هذا صحيح؟", "نعم.", "جيد."],
    ["မြန်မာ စာ ဖြစ်သည်။", "ဒုတိယ စာ။"],
    ["今天很好。", "我们走吧！"],
]


@pytest.mark.parametrize("expected", SENTENCES, ids=lambda expected: expected[0])
def test_sentences_of_many_languages(expected):
    joint = "" if expected[0].startswith("今") else "\n" if expected[0].startswith("1") else " "
    assert cut(sentences, joint.join(expected)) == expected


def test_words_are_those_of_unicode():
    text = "👨‍👩‍👧‍👦👍🏽🇩🇪🇫🇷❤️ ok ฉันชอบดูหนัง 我喜欢看电影 état-major -- cafe\u0301-bar C++ !!!"
    assert cut(words, text) == [
        "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🇫🇷", "❤️", "ok", "ฉัน", "ชอบ", "ดู", "หนัง", "我", "喜欢", "看", "电影", "état-major", "--",
        "cafe\u0301-bar", "C", "++", "!!!",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("Dr. J.No (\u2028\u00a0\u200b\n'"))))
def test_any_text_can_be_divided(text):
    for split in (words, clauses, sentences):
        starts = split(text)
        assert starts == sorted(set(starts))
        assert all(not text[start].isspace() for start in starts)
        assert bool(starts) == bool(text.strip())


MARKED = [
    "cafe\u0301 e\u0301te\u0301",
    "e\u0301",
    "good ❤\ufe0f film ❤\ufe0f",
    "नमस्ते दुनिया",
    "ฉันชอบดูหนัง",
    "Zalgo\u0336\u0337 it\u200bs",
]


@pytest.mark.parametrize("granularity", ["token", "word", "sentence"])
@pytest.mark.parametrize("text", MARKED)
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-r"])
def test_marks_stay_with_what_they_follow(name, text, granularity):
    """Also if the normalizer drops them, as BERT's drops accents."""
    model, words_of = text_model(name)
    (output,) = Occlusion(model, words_of, granularity=granularity)(text)
    assert "".join(output.elements) == text
    if granularity == "word" or name == "bert":
        assert not any(unicodedata.category(piece.lstrip()[:1] or "a")[0] == "M" for piece in output.elements)


LONG = "".join(f"w{number} good film, " for number in range(60))


@pytest.mark.parametrize("granularity", ["token", "word", "sentence"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_truncated_text_shows_what_was_read(side, granularity):
    model, given = text_model("bert")
    words_of = copy.deepcopy(given)
    words_of.truncation_side = side
    (output,) = Occlusion(model, words_of, granularity=granularity, truncation=True)(LONG)
    ids = words_of(LONG, truncation=True, max_length=70)
    total = len(words_of(LONG, add_special_tokens=False)["input_ids"])
    spans = [
        span
        for span in words_of(LONG, truncation=True, max_length=70, return_offsets_mapping=True)["offset_mapping"]
        if span != (0, 0)
    ]
    shown = "".join(output.elements)
    assert output.info["truncated"] == f"{'last' if side == 'left' else 'first'} 68 of {total} tokens"
    assert f", {output.info['truncated']}" in str(plot_attributions(output))
    assert shown == (LONG[spans[0][0] :] if side == "left" else LONG[: spans[-1][1]])
    logits = model(**words_of(LONG, truncation=True, max_length=70, return_tensors="pt")).logits[0]
    assert len(ids["input_ids"]) == 70
    assert torch.allclose(output.scores[0], logits.max(), atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_truncated_pair_shows_what_was_read_of_each(side):
    model, given = text_model("bert")
    words_of = copy.deepcopy(given)
    words_of.truncation_side = side
    (output,) = Occlusion(model, words_of, truncation=True, granularity="token")([(LONG, "a short one")])
    ids = words_of(LONG, "a short one", truncation=True, max_length=70, return_offsets_mapping=True)
    spans = [s for s, part in zip(ids["offset_mapping"], ids.sequence_ids(0), strict=True) if part == 0]
    first = LONG[spans[0][0] :] if side == "left" else LONG[: spans[-1][1]]
    assert "".join(output.elements) == first + "a short one"
    assert output.info["truncated"].startswith(f"{len(output.elements)} of ")


def test_a_text_that_fits_is_not_marked_as_truncated():
    model, words_of = text_model("bert")
    (output,) = Occlusion(model, words_of, truncation=True)("a good film")
    assert "truncated" not in output.info


def test_ids_without_a_mask_have_their_padding_stripped():
    model, words_of = text_model("bert")
    explain = Occlusion(model, words_of, granularity="token")
    (expected,) = explain("a good film")
    ids = words_of("a good film")["input_ids"]
    for padded in ([*ids, 0, 0, 0], [0, 0, *ids]):
        assert words_of.pad_token_id == 0
        (output,) = explain({"input_ids": padded})
        assert torch.allclose(output.attributions, expected.attributions, atol=1e-6)
        assert output.elements == expected.elements
    with pytest.raises(InputError, match="every id is the padding token"):
        explain({"input_ids": [0, 0]})


def test_padding_that_may_be_the_end_of_a_text_is_not_guessed():
    model, given = causal_lm("gpt2")
    words_of = copy.deepcopy(given)
    words_of.pad_token = words_of.eos_token
    end = words_of.eos_token_id
    ids = words_of("a good film")["input_ids"]
    with pytest.raises(InputError, match="both for padding and as a token of texts: pass an 'attention_mask'"):
        Saliency(model, words_of)({"input_ids": [end, end, end, *ids]}, " and")
    (one,) = Saliency(model, words_of, granularity="token")({"input_ids": [end, *ids]}, " and")
    at = model(torch.tensor([[end, *ids]])).logits[0, -1].log_softmax(-1)
    token = words_of(" and")["input_ids"][0]
    assert torch.allclose(one.scores[0], at[token], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_a_token_masked_by_the_user_keeps_its_position(name):
    model, words_of = text_model(name)
    ids = words_of("a good film, not bad")["input_ids"]
    for hidden in range(1, len(ids) - 1):
        mask = [int(place != hidden) for place in range(len(ids))]
        (output,) = Occlusion(model, words_of, granularity="token")({"input_ids": ids, "attention_mask": mask}, 0)
        with torch.no_grad():
            expected = model(torch.tensor([ids]), attention_mask=torch.tensor([mask])).logits[0, 0]
        assert torch.allclose(output.scores[0], expected, atol=1e-5)


def test_a_masked_token_of_a_prompt_keeps_its_position():
    model, words_of = causal_lm("llama")
    ids = words_of("a good film, not bad")["input_ids"]
    mask = [int(place != 2) for place in range(len(ids))]
    (output,) = Occlusion(model, words_of, granularity="token")({"input_ids": ids, "attention_mask": mask}, [7, 8])
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, 7, 8]]), attention_mask=torch.tensor([[*mask, 1, 1]])).logits[0]
    expected = logits.log_softmax(-1)[[len(ids) - 1, len(ids)], [7, 8]]
    assert torch.allclose(output.scores, expected, atol=1e-4)


def test_a_mask_of_another_length_is_refused():
    model, words_of = text_model("bert")
    with pytest.raises(InputError, match="The attention mask has 2 entries, but there are 5 input ids"):
        Occlusion(model, words_of)({"input_ids": words_of("a good film")["input_ids"], "attention_mask": [1, 1]})


def test_half_a_surrogate_pair_is_refused():
    model, words_of = text_model("bert")
    with pytest.raises(InputError, match=r"contains '\\ud83d' at 2, one half of a surrogate pair"):
        Occlusion(model, words_of)("a \ud83d film")


class WrongOffsets(hf.PreTrainedTokenizerFast):
    """A tokenizer whose offsets all begin at 0."""

    def __call__(self, *texts, **options):
        encoding = super().__call__(*texts, **options)
        if "offset_mapping" in encoding:
            encoding["offset_mapping"] = [(0, end) for _, end in encoding["offset_mapping"]]
        return encoding


def test_offsets_that_cannot_be_true_are_not_used():
    model, words_of = text_model("bert")
    lying = WrongOffsets(tokenizer_object=words_of.backend_tokenizer, **words_of.special_tokens_map)
    text = "A good film, badly made"
    expected, found = (Occlusion(model, one, granularity="word")(text)[0] for one in (words_of, lying))
    assert found.elements == expected.elements
    assert torch.allclose(found.attributions, expected.attributions)
    with pytest.raises(InputError, match="WrongOffsets returns impossible offsets"):
        Occlusion(model, lying, granularity="word")("e\u0301t good 😀 xyz\u0301 film")
    (by_token,) = Occlusion(model, lying, granularity="token")("e\u0301t good 😀 film")
    assert len(by_token.elements) == by_token.attributions.shape[1]


def test_ids_of_a_byte_level_tokenizer_have_words():
    """A character of four bytes may be split into four tokens."""
    model, words_of = text_model("roberta")
    text = "naïve 🙂 film 我喜欢"
    ids = words_of(text)["input_ids"]
    (expected,), (found,) = (Occlusion(model, words_of, granularity="word")(one) for one in (text, {"input_ids": ids}))
    assert found.elements == expected.elements
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama-3"])
def test_spans_from_decoding_are_those_that_the_tokenizer_tells(kind):
    words_of = tokenizer(kind)
    text = "A good film, naïve 🙂 and 我喜欢: " * 3
    encoding = words_of(text, add_special_tokens=False, return_offsets_mapping=True)
    found = token_spans._decoded(words_of, encoding["input_ids"], text)
    begins, ends = zip(*encoding["offset_mapping"], strict=True)
    complete = [place for place, (begin, end) in enumerate(zip(begins[1:], ends, strict=False)) if begin >= end]
    assert [found[place, 1] for place in complete] == [ends[place] for place in complete]
    assert found[0, 0] == 0
    assert found[-1, 1] == len(text)


def test_units_are_not_shared_between_results():
    model, words_of = text_model("bert")
    first, second = Occlusion(model, words_of)(["a good film", "a good film"])
    first.elements[0] = "changed"
    first.attributions[0, 0] = 7.0
    assert second.elements[0] == "a"
    (again,) = Occlusion(model, words_of)("a good film")
    assert again.elements[0] == "a"
    assert float(again.attributions[0, 0]) != 7.0


def test_long_lines_are_cut_into_the_sentences_of_short_ones():
    pieces = [
        "我喜欢这部电影。",
        "是吗？",
        "Dr. Smith came. ",
        "“Why?” she said. ",
        "यह अच्छी है। ",
        "See no. 5. ",
        "a word ",
    ]
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(pieces, 4000))
    starts = sentences(text)
    # The position of the windows must not change where sentences begin.
    half = starts[len(starts) // 2]
    assert [half + start for start in sentences(text[half:])] == [s for s in starts if s >= half]
    assert sentences(text[:half]) == [start for start in starts if start < half]


def test_one_sentence_may_be_longer_than_a_window():
    text = "word " * 5000 + "end. Next one."
    assert sentences(text) == [0, len(text) - len("Next one.")]
