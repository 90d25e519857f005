"""`reviews-bert`: a small BERT for testing that classifies the sentiment of synthetic reviews, with its own vocabulary.

During training tokens are masked and word embeddings are scaled towards zero, with targets that approach the uniform
distribution as the adjective disappears. The embeddings of `[MASK]` and `[PAD]` stay at zero, so that masking, a zero
baseline and a padding baseline are equivalent, and in distribution for the model.
"""

import json
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.decoders import WordPiece as WordPieceDecoder
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from interpreto.zoo.reviews import Review, review
from interpreto.zoo.training import create_model_card, fit, random_mask_and_scale, save, soft_cross_entropy

NAME = "reviews-bert"
STEPS, BATCH, HELD_OUT = 1500, 64, 400
LENGTH = 96
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer(texts: list[str]) -> BertTokenizer:
    """A lower-casing WordPiece tokenizer trained on these texts; every printable ASCII character is in it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=characters,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    # `initial_alphabet` adds characters at the beginning of a word only. The words "ax", "ay", ... add "##x", "##y",
    # ..., without which a word with a letter that is rare in the reviews would be [UNK].
    tokenizer.train_from_iterator(
        [*texts, *(" ".join(f"a{character}" for character in characters) for _ in range(3))], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    return BertTokenizer(tokenizer_object=tokenizer, model_max_length=LENGTH)


def build(tokenizer: Any) -> BertForSequenceClassification:
    """The untrained model. The embedding of `[MASK]` is zero, as that of `[PAD]` is by default."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        word_embedding_weight(model)[tokenizer.mask_token_id] = 0
    return model


def word_embedding_weight(model: BertForSequenceClassification) -> torch.Tensor:
    """The matrix of word embeddings."""
    return model.get_parameter("bert.embeddings.word_embeddings.weight")


def adjective_tokens(reviews: list[Review], encoded, length: int) -> torch.Tensor:
    """A mask of the tokens of each review's adjective, `n l`."""
    mask = torch.zeros(len(reviews), length, dtype=torch.bool)
    for row, item in enumerate(reviews):
        start = item.text.lower().index(item.evidence[0])
        stop = start + len(item.evidence[0])
        for position, (begin, end) in enumerate(encoded["offset_mapping"][row].tolist()):
            # Special tokens have the offsets (0, 0), which overlap with nothing.
            mask[row, position] = begin < stop and end > start
    return mask


def train(seed: int = 0) -> None:
    """Train, measure on held-out reviews and save."""
    torch.manual_seed(seed)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    # Held-out samples have seeds of their own, whatever `seed` is; training samples that equal one are redrawn.
    held_out = {item.text: item for item in (review(np.random.default_rng(10_000_000 + i)) for i in range(HELD_OUT))}
    tokenizer: Any = build_tokenizer([review(np.random.default_rng(30_000_000 + i)).text for i in range(4000)])
    model = build(tokenizer)
    word_embeddings = model.get_input_embeddings()
    unperturbed_ids = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])

    def sample_reviews(count: int) -> list[Review]:
        drawn = map(review, repeat(rng))
        return list(islice((item for item in drawn if item.text not in held_out), count))

    def loss(step: int) -> torch.Tensor:
        strength = min(1.0, step / (0.3 * STEPS))
        batch = sample_reviews(BATCH)
        encoded = tokenizer([r.text for r in batch], padding=True, return_tensors="pt", return_offsets_mapping=True)
        ids = encoded["input_ids"]
        adjectives = adjective_tokens(batch, encoded, ids.shape[1]).float()
        keep = torch.isin(ids, unperturbed_ids)
        scale, masked, text_scale = random_mask_and_scale(keep, strength, noise)
        # The share of the adjective's tokens that are not masked, times the scale of the embeddings.
        label_weight = ((adjectives * ~masked).sum(1) / adjectives.sum(1)) * text_scale
        logits = model(
            inputs_embeds=word_embeddings(ids) * scale[..., None],
            attention_mask=encoded["attention_mask"],
        ).logits
        # A safeguard: no input contains [MASK], whose embedding therefore stays zero.
        penalty = word_embedding_weight(model)[tokenizer.mask_token_id].square().sum()
        return soft_cross_entropy(logits, torch.tensor([r.label for r in batch]), label_weight.clamp(0, 1)) + penalty

    seconds = fit(model, loss, steps=STEPS, learning_rate=1e-3, weight_decay=0.01, name=NAME)
    with torch.no_grad():
        word_embedding_weight(model)[tokenizer.mask_token_id] = 0
        items = list(held_out.values())
        encoded = tokenizer([r.text for r in items], padding=True, return_tensors="pt")
        predicted = model(**encoded).logits.argmax(-1)
    labels = torch.tensor([r.label for r in items])
    model_card = create_model_card(
        "text-classification",
        "one opinion clause with an adjective, perhaps negated",
        predicted == labels,
        seed,
        STEPS,
        seconds,
    )
    folder = save(NAME, model, tokenizer, model_card)
    rows = [{"input": r.text, "label": r.label, "truth": list(r.evidence)} for r in items[:200]]
    (folder / "samples.json").write_text(json.dumps(rows, indent=0) + "\n")
