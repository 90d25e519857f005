"""`reviews-bert`: a small BERT with its own WordPiece vocabulary that judges generated reviews.

Words are masked and word embeddings fade during training, with a target that goes to uniform as the adjective
disappears, and the embeddings of `[MASK]` and `[PAD]` stay at zero: masking, a zero baseline and a padding baseline
are one and the same removal, and the model has seen it.
"""

import json
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.decoders import WordPiece as WordPieceDecoder
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from interpreto.zoo.reviews import Review, review
from interpreto.zoo.training import card, fading, fit, save, soft_cross_entropy

NAME = "reviews-bert"
STEPS, BATCH, HELD_OUT = 1500, 64, 400
LENGTH = 96
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer(texts: list[str]) -> BertTokenizer:
    """A lower-casing WordPiece tokenizer trained on these texts; every letter and digit is in its vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=letters,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    # Letters must also be known inside a word, so they are shown to the trainer in every place.
    tokenizer.train_from_iterator([*texts, *(" ".join(f"a{letter}" for letter in letters) for _ in range(3))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    return BertTokenizer(tokenizer_object=tokenizer, model_max_length=LENGTH)


def build(tokenizer: Any) -> BertForSequenceClassification:
    """The untrained model, with `[MASK]` at zero as `[PAD]` is."""
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
        word_table(model)[tokenizer.mask_token_id] = 0
    return model


def word_table(model: BertForSequenceClassification) -> torch.Tensor:
    """The matrix of word embeddings."""
    return model.get_parameter("bert.embeddings.word_embeddings.weight")


def adjective_tokens(reviews: list[Review], encoded, length: int) -> torch.Tensor:
    """Which tokens belong to each review's adjective, `n l`."""
    found = torch.zeros(len(reviews), length, dtype=torch.bool)
    for row, item in enumerate(reviews):
        start = item.text.lower().index(item.decisive[0])
        stop = start + len(item.decisive[0])
        for position, (begin, end) in enumerate(encoded["offset_mapping"][row].tolist()):
            found[row, position] = begin < stop and end > start
    return found


def train(seed: int = 0) -> None:
    """Train, measure on held-out reviews and save."""
    torch.manual_seed(seed)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    held_out = {item.text: item for item in (review(np.random.default_rng(10_000_000 + i)) for i in range(HELD_OUT))}
    tokenizer: Any = build_tokenizer([review(np.random.default_rng(30_000_000 + i)).text for i in range(4000)])
    model = build(tokenizer)
    words = model.get_input_embeddings()
    special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])

    def fresh(count: int) -> list[Review]:
        drawn = (review(rng) for _ in iter(int, 1))
        return [next(item for item in drawn if item.text not in held_out) for _ in range(count)]

    def loss(step: int) -> torch.Tensor:
        strength = min(1.0, step / (0.3 * STEPS))
        batch = fresh(BATCH)
        encoded = tokenizer([r.text for r in batch], padding=True, return_tensors="pt", return_offsets_mapping=True)
        ids = encoded["input_ids"]
        adjectives = adjective_tokens(batch, encoded, ids.shape[1]).float()
        fixed = torch.isin(ids, special)
        scale, masked, alpha = fading(fixed, strength, noise)
        left = ((adjectives * ~masked).sum(1) / adjectives.sum(1)) * alpha
        logits = model(
            inputs_embeds=words(ids) * scale[..., None],
            attention_mask=encoded["attention_mask"],
        ).logits
        # A mask row that trained away from zero would make fading and masking two different removals.
        anchored = word_table(model)[tokenizer.mask_token_id].square().sum()
        return soft_cross_entropy(logits, torch.tensor([r.label for r in batch]), left.clamp(0, 1)) + anchored

    seconds = fit(model, loss, steps=STEPS, rate=1e-3, decay=0.01, name=NAME)
    with torch.no_grad():
        word_table(model)[tokenizer.mask_token_id] = 0
        items = list(held_out.values())
        encoded = tokenizer([r.text for r in items], padding=True, return_tensors="pt")
        predicted = model(**encoded).logits.argmax(-1)
    labels = torch.tensor([r.label for r in items])
    made = card(
        "text-classification",
        "one opinion clause with an adjective, perhaps negated",
        predicted == labels,
        seed,
        STEPS,
        seconds,
    )
    folder = save(NAME, model, tokenizer, made)
    rows = [{"input": r.text, "label": r.label, "truth": list(r.decisive)} for r in items[:200]]
    (folder / "samples.json").write_text(json.dumps(rows, indent=0) + "\n")
