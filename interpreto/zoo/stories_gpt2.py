"""`stories-gpt2`: a small GPT-2 with its own byte-level BPE vocabulary, made for testing, that continues stories.

During training tokens are masked and word embeddings are scaled towards zero. Two words of a story are decided by an
earlier occurrence, a name and an object; their targets approach the uniform distribution over names or objects as the
earlier occurrence disappears. The embeddings of `<mask>` and `<pad>` stay at zero, so that masking and a zero baseline
are the same removal, and one that the model was trained on.
"""

import json
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from interpreto.zoo.stories import NAMES, OBJECTS, Story, story
from interpreto.zoo.training import create_model_card, fit, random_mask_and_scale, save

NAME = "stories-gpt2"
STEPS, BATCH, HELD_OUT = 2000, 64, 400
LENGTH = 128
NAME_AGAIN, THING = 7, 3
"""Positions at which the name and the object occur again, counted in tokens from the end of a story."""
END, PAD, MASK = "<|endoftext|>", "<pad>", "<mask>"


def build_tokenizer(texts: list[str]) -> GPT2Tokenizer:
    """A byte-level BPE tokenizer trained on these texts: it encodes any text, and common words are one token."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=600, special_tokens=[END, PAD, MASK], show_progress=False)
    parts = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(pair) for pair in parts["merges"]]
    return GPT2Tokenizer(
        vocab=parts["vocab"], merges=merges, bos_token=END, eos_token=END, unk_token=END, pad_token=PAD,
        mask_token=MASK, model_max_length=LENGTH,
    )  # fmt: skip


def build(tokenizer: Any) -> GPT2LMHeadModel:
    """The untrained model."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=LENGTH,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_inner=128,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        empty_rows(model, tokenizer).zero_()
    return model


def empty_rows(model: GPT2LMHeadModel, tokenizer: Any) -> torch.Tensor:
    """The embeddings of `<pad>` and `<mask>`, a view of two adjacent rows of the embedding matrix."""
    first, last = tokenizer.pad_token_id, tokenizer.mask_token_id
    assert last == first + 1
    return model.get_parameter("transformer.wte.weight")[first : last + 1]


def decision(
    log_probabilities: torch.Tensor,
    ids: torch.Tensor,
    alike: torch.Tensor,
    place: torch.Tensor,
    choices: torch.Tensor,
    left: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of a word that an earlier occurrence of it decides.

    The target approaches the uniform distribution over the choices as the earlier occurrence disappears.

    Args:
        log_probabilities: Log-probabilities, `n l k`.
        ids: Token ids, `n l`.
        alike: Word ids, `n l`: tokens of the same word have the same id.
        place: The position of the second occurrence, `n`.
        choices: Token ids of the words that are possible there.
        left: The share of each token that is left after masking and fading, `n l`.
    """
    rows = torch.arange(len(ids))
    token = ids[rows, place]
    before = torch.arange(ids.shape[1]) < place[:, None]
    deciding = (alike == alike[rows, place][:, None]) & before
    label_weight = (left * deciding).amax(1, keepdim=True)
    target = label_weight * nn.functional.one_hot(token, log_probabilities.shape[-1])
    target[:, choices] += (1 - label_weight) / len(choices)
    # A token is predicted at the position before it.
    return -(target * log_probabilities[rows, place - 1]).sum(1).mean()


def train(seed: int = 0) -> None:
    """Train, measure on held-out stories and save."""
    torch.manual_seed(seed)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    held_out = {item.prompt: item for item in (story(np.random.default_rng(10_000_000 + i)) for i in range(HELD_OUT))}
    tokenizer: Any = build_tokenizer([story(np.random.default_rng(30_000_000 + i)).text for i in range(4000)])
    model = build(tokenizer)
    words = model.get_input_embeddings()
    things = torch.tensor(tokenizer.convert_tokens_to_ids([f"\u0120{thing}" for thing in OBJECTS]))
    names = torch.tensor(tokenizer.convert_tokens_to_ids([f"\u0120{name}" for name in NAMES]))
    # A name at the beginning of a text is another token than the same name after a space ("\u0120" in byte-level BPE).
    word_ids = torch.arange(len(tokenizer))
    word_ids[tokenizer.convert_tokens_to_ids(list(NAMES))] = names

    def fresh(count: int) -> list[Story]:
        drawn = (story(rng) for _ in iter(int, 1))
        return [next(item for item in drawn if item.prompt not in held_out) for _ in range(count)]

    def loss(step: int) -> torch.Tensor:
        batch = fresh(BATCH)
        encoded = tokenizer([item.text + END for item in batch], padding=True, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"].bool()
        end = mask.sum(1)
        positions = torch.arange(ids.shape[1])
        # The words after the prompt are those that the model generates itself: they are not perturbed.
        scale, masked, remaining = random_mask_and_scale(
            positions >= (end - THING)[:, None], min(1.0, step / (0.3 * STEPS)), noise
        )
        logits = model(inputs_embeds=words(ids) * scale[..., None], attention_mask=mask.long()).logits
        log_probs = logits.log_softmax(-1)
        # Only unperturbed stories count in the language loss: nothing predicts a word from a text without its cues.
        counted = mask[:, 1:] & (scale == 1).all(1)[:, None]
        language = -log_probs[:, :-1].gather(2, ids[:, 1:, None])[..., 0][counted].mean()
        same_word = word_ids[ids]
        decisions = [
            decision(log_probs, ids, same_word, end - offset, choices, remaining[:, None] * ~masked)
            for offset, choices in ((NAME_AGAIN, names), (THING, things))
        ]
        # Without this penalty the embeddings of <pad> and <mask> would leave zero, because the output layer shares the
        # embedding matrix, and masking would differ from fading.
        return language + sum(decisions) + empty_rows(model, tokenizer).square().sum()

    seconds = fit(model, loss, steps=STEPS, learning_rate=2e-3, weight_decay=0.01, name=NAME)
    items = list(held_out.values())
    with torch.no_grad():
        empty_rows(model, tokenizer).zero_()
        encoded = tokenizer([item.prompt for item in items], padding=True, return_tensors="pt")
        last = encoded["attention_mask"].sum(1) - 1
        predicted = model(**encoded).logits[torch.arange(len(items)), last].argmax(-1)
    labels = torch.tensor(tokenizer.convert_tokens_to_ids([f"\u0120{item.thing}" for item in items]))
    model_card = create_model_card(
        "text-generation",
        "the thing that somebody took is the thing that they put down",
        predicted == labels,
        seed,
        STEPS,
        seconds,
    )
    folder = save(NAME, model, tokenizer, model_card)
    rows = [{"input": item.prompt, "label": f" {item.thing}", "truth": [item.thing]} for item in items[:200]]
    (folder / "samples.json").write_text(json.dumps(rows, indent=0) + "\n")
