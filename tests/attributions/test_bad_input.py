"""Every mistake raises one clear error: what was passed, what is accepted, what to do."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interpreto import (
    Contrast,
    IntegratedGradients,
    InterpretoError,
    KernelShap,
    Lime,
    Occlusion,
    Rise,
    Saliency,
    SmoothGrad,
    Sobol,
    from_callables,
    plot_attributions,
)
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, linear_text, processor, some_images, text_model, tokenizer

BERT, VIT = text_model("bert"), image_model("vit")
PICTURE = some_images()[0]


def broken(model):
    """A copy of a model with one NaN in its weights."""
    import copy

    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(copied.parameters())).fill_(float("nan"))
    return copied


def labelled(*labels):
    import copy

    model = copy.deepcopy(VIT[0])
    model.config.id2label = dict(enumerate(labels))
    return model


CASES = {
    "no model": (lambda: Saliency("bert"), "Expected a model, got str"),
    "unknown model": (lambda: Saliency(nn.Linear(2, 2)), "The task of Linear cannot be detected.*task='image-classification'"),
    "model of another task": (
        lambda: Saliency(BERT[0], BERT[1], task="text-generation"),
        "BertForSequenceClassification has no head over the vocabulary",
    ),
    "task to come": (
        lambda: Saliency(BERT[0], BERT[1], task="image-text-to-text"),
        "Models for image-text-to-text cannot be explained yet; the tasks that can are image-classification, text",
    ),
    "unknown task": (lambda: Saliency(*BERT, task="text-clasification"), "did you mean 'text-classification'"),
    "unknown modality": (lambda: Saliency(*BERT, modality="image"), "modality='image' does not go with text"),
    "no tokenizer": (lambda: Saliency(BERT[0]), r"needs its tokenizer: Method\(model, tokenizer\)"),
    "no processor": (lambda: Saliency(VIT[0])(PICTURE), "Without a processor an image must be a preprocessed tensor"),
    "image processor for a text": (lambda: Saliency(BERT[0], processor()), "needs a tokenizer, got ViTImageProcessor"),
    "tokenizer for an image": (lambda: Saliency(VIT[0], tokenizer("bert")), "needs an image processor or a transform"),
    "number as processor": (lambda: Saliency(VIT[0], 3), "needs an image processor or a transform, got int"),
    "contrast of a function": (
        lambda: Saliency(*VIT)(PICTURE, Contrast(lambda outputs: outputs[:, 0], 1)),
        "A Contrast compares two classes, passed as indices or labels",
    ),
    "contrast of a contrast": (
        lambda: Saliency(*VIT)(PICTURE, Contrast(Contrast(0, 1), 2)),
        r"Contrast\(fact=0, foil=1\) is neither",
    ),
    "a target function that fails": (
        lambda: Saliency(*VIT)(PICTURE, lambda outputs: outputs[:, 99]),
        r"The target function raised IndexError for outputs of shape \(1, 3\)",
    ),
    "a label of two classes": (
        lambda: Saliency(labelled("crane", "dog", "crane"), VIT[1])(PICTURE, "crane"),
        r"Several classes have the label 'crane', \[0, 2\]: pass the index of one",
    ),
    "fewer rows than inputs": (
        lambda: Occlusion(*VIT, model_output=lambda output: output.logits.mean(0, keepdim=True))(PICTURE),
        r"one row of logits per input; this model returned a tensor of shape \(1, 3\) for \d+ inputs",
    ),
    "positions of tokens": (
        lambda: Saliency(*BERT)({"input_ids": [[2, 9, 3]], "position_ids": [[5, 6, 7]]}),
        "The model reads 'position_ids' of this tokenised text, but only input_ids",
    ),
    "a mask for fewer texts": (
        lambda: Saliency(*BERT)({"input_ids": [[2, 9, 3], [2, 8, 3]], "attention_mask": [[1, 1, 1]]}),
        "There are input ids for 2 texts, but 'attention_mask' for 1: pass one row per text",
    ),
    "half of a surrogate pair in a continuation": (
        lambda: Saliency(*causal_lm("gpt2"))("the film was", " a\ud800"),
        "one half of a surrogate pair",
    ),
    "a fraction of new tokens": (
        lambda: Saliency(*causal_lm("gpt2"), generation_kwargs={"max_new_tokens": 3.5})("the film was"),
        "max_new_tokens=3.5 of generation_kwargs= must be a whole number",
    ),
    "what generate cannot use": (
        lambda: Saliency(*causal_lm("gpt2"), generation_kwargs={"streamer": object()})("the film was"),
        "generate\\(\\) does not take generation_kwargs=",
    ),
    "empty text": (lambda: Saliency(*BERT)("  "), "is empty: there is nothing to explain"),
    "no text": (lambda: Saliency(*BERT)(3), "Expected a text, got int"),
    "no text in a list": (lambda: Saliency(*BERT)(["a film", 3]), "Expected a text, got int"),
    "no inputs": (lambda: Saliency(*BERT)([]), "The list of inputs is empty"),
    "mapping without ids": (lambda: Saliency(*BERT)({"words": "a film"}), "needs 'input_ids'; it has 'words'"),
    "long text": (
        lambda: Saliency(*BERT)("film " * 100),
        r"has \d+ tokens but the model reads at most 70: pass truncation=True",
    ),
    "target out of range": (lambda: Saliency(*BERT)("a film", targets=3), "Target 3 is out of range: the model has 3 outputs"),
    "negative target": (lambda: Saliency(*BERT)("a film", targets=-1), "Target -1 is out of range"),
    "unknown label": (lambda: Saliency(*BERT)("a film", targets="LABEL_7"), "has no label 'LABEL_7': did you mean 'LABEL_"),
    "unknown label in a contrast": (
        lambda: Saliency(*BERT)("a film", targets=Contrast("LABEL_0", "x")),
        "has no label 'x': choose from 'LABEL_0', 'LABEL_1', 'LABEL_2'",
    ),
    "no target": (lambda: Saliency(*BERT)("a film", targets=()), "contains no target"),
    "target of a strange kind": (lambda: Saliency(*BERT)("a film", targets=1.5), "1.5 is not a target; pass a class index"),
    "targets of the wrong length": (
        lambda: Saliency(*BERT)(TEXTS, targets=[0, 1]),
        r"a list of 2 for 3 samples.*the same 2 targets of every sample pass the tuple \(0, 1\)",
    ),
    "too few targets in a stream": (
        lambda: list(Saliency(*BERT).stream(iter(TEXTS), targets=[0, 1])),
        "a list of 2 but there are more samples, at least 3",
    ),
    "too many targets in a stream": (
        lambda: list(Saliency(*BERT).stream(iter(TEXTS), targets=[0, 1, 0, 1])),
        "a list of 4 but there were only 3 samples",
    ),
    "function of the wrong shape": (
        lambda: Saliency(*BERT)("a film", targets=lambda logits: logits),
        r"must return one score per row, shape \(1,\)",
    ),
    "granularity of images for a text": (
        lambda: Saliency(*BERT, granularity="patch"),
        "'patch' is not a granularity of texts: choose from 'all-tokens', 'token', 'word'",
    ),
    "granularity of texts for an image": (lambda: Saliency(*VIT, granularity="word"), "choose from 'pixel', 'patch'"),
    "misspelt granularity": (lambda: Saliency(*VIT, granularity="pixle"), "did you mean 'pixel'"),
    "granularity of a strange kind": (lambda: Saliency(*VIT, granularity=3), "neither a name nor an object"),
    "patch size of a text": (lambda: Saliency(*BERT, patch_size=3), "patch_size=3 is for images"),
    "patch size and granularity": (lambda: Saliency(*VIT, patch_size=3, granularity="pixel"), "contradict each other"),
    "patches larger than the image": (lambda: Saliency(*VIT, patch_size=99)(PICTURE), "99 x 99 are larger than the image"),
    "patches of a CNN": (
        lambda: Saliency(*image_model("resnet"), granularity="patch")(PICTURE),
        "this model has none of its own; pass patch_size=",
    ),
    "NaN in weights": (lambda: Saliency(broken(VIT[0]), VIT[1])(PICTURE), "not finite.*weights or the input contain NaN"),
    "NaN in pixels": (lambda: Saliency(VIT[0])(torch.full((3, 32, 32), float("nan"))), "pixel values contain NaN"),
    "NaN in an image": (lambda: Saliency(*VIT)(np.full((9, 9, 3), np.nan)), "contains NaN"),
    "zero-size image": (lambda: Saliency(*VIT)(Image.new("RGB", (0, 5))), "no pixels: its size is 0 x 5"),
    "zero-size array": (lambda: Saliency(*VIT)(np.zeros((0, 5, 3))), "and pixels; got"),
    "values out of range": (lambda: Saliency(*VIT)(np.full((9, 9, 3), 200.0)), r"floats in \[0, 1\]; these float64 values are in"),
    "channels": (lambda: Saliency(*VIT)(np.zeros((9, 9, 2))), "1, 3 or 4 channels"),
    "no image": (lambda: Saliency(*VIT)(3.5), "Expected an image, got float"),
    "missing file": (lambda: Saliency(*VIT)("nowhere.png"), "There is no image file 'nowhere.png'"),
    "misspelt option": (lambda: KernelShap(*BERT, n_sample=9), "KernelShap has no option 'n_sample': did you mean 'n_samples'"),
    "misspelt shared option": (lambda: Saliency(*BERT, batchsize=9), "did you mean 'batch_size'"),
    "option of another method": (lambda: Saliency(*BERT, n_steps=9), "Saliency has no option 'n_steps'"),
    "batch size": (lambda: Saliency(*BERT, batch_size=0), "batch_size=0 must be a whole number of at least 1"),
    "samples": (lambda: Lime(*BERT, n_samples=1), "n_samples=1 is too few"),
    "steps": (lambda: IntegratedGradients(*BERT, n_steps=0), "n_steps=0 must be a whole number of at least 1"),
    "one step of the trapezoid": (lambda: IntegratedGradients(*BERT, n_steps=1, rule="trapezoid"), "at least 2"),
    "rule": (lambda: IntegratedGradients(*BERT, rule="trapez"), "did you mean 'trapezoid'"),
    "kernel": (lambda: Lime(*BERT, kernel="euclid"), "did you mean 'euclidean'"),
    "ridge": (lambda: Lime(*BERT, ridge=-1.0), "ridge=-1.0 must be a number that is not negative"),
    "kernel width": (lambda: Lime(*BERT, kernel_width=0.0), "must be a positive number"),
    "order": (lambda: Sobol(*BERT, order="totale"), "did you mean 'total'"),
    "designs that do not fit": (lambda: Sobol(*VIT, n_samples=20)(PICTURE), "n_samples=20 is too few for the Sobol indices"),
    "keep_probability": (lambda: Rise(*VIT, keep_probability=1.0), "keep_probability=1.0 must be a number between 0 and 1"),
    "noise": (lambda: SmoothGrad(*VIT, noise_level=-0.1), "noise_level=-0.1 must be a number that is not negative"),
    "reduction": (lambda: Saliency(*VIT, reduction="nrom"), "did you mean 'norm'"),
    "pooling": (lambda: Saliency(*BERT, pooling="avg"), "There is no pooling='avg'"),
    "resize": (lambda: Saliency(*VIT, resize="cubic"), "did you mean 'bicubic'"),
    "inference mode": (lambda: Saliency(*VIT, inference_mode="soft"), "did you mean 'softmax'"),
    "removal of a text": (lambda: Occlusion(*BERT, removal="[MASKED]"), r"neither one of.*did you mean '\[MASK\]'"),
    "removal token id": (lambda: Occlusion(*BERT, removal={"id": 9999}), "is not a token id: the tokenizer has"),
    "removal by a number": (lambda: Occlusion(*BERT, removal=0.5), r'removal=0.5 is a number.*\{"id": 5\}'),
    "baseline by a number": (
        lambda: IntegratedGradients(*BERT, baseline=0.0)("a film"), r"baseline=0.0 is a number.*'zeros', a token as text"
    ),
    "removal without a value": (lambda: Occlusion(*VIT, removal=float("nan"))(PICTURE), "removal=nan is not finite"),
    "baseline without a value": (
        lambda: IntegratedGradients(*VIT, baseline=float("inf"))(PICTURE), "baseline=inf is not finite"
    ),
    "removal of an image": (lambda: Occlusion(*VIT, removal="blurr")(PICTURE), "did you mean 'blur'"),
    "removal of a strange shape": (lambda: Occlusion(*VIT, removal=(1, 2))(PICTURE), r"3 numbers \(a colour\)"),
    "baseline of a strange shape": (
        lambda: IntegratedGradients(*BERT, baseline=torch.zeros(3))("a film"),
        r"A baseline for this text has the shape \(4, 16\) or \(16,\); got \(3,\)",
    ),
    "a wrapper with a processor": (lambda: Saliency(from_callables(len), VIT[1]), "wrapped already"),
    "a wrapper with options of its own": (
        lambda: Occlusion(from_callables(len), inference_mode="softmax"),
        "Occlusion got inference_mode= for a model that is wrapped already",
    ),
    "inference mode of the wrong shape": (
        lambda: Saliency(*BERT, inference_mode=lambda logits: logits[:, 0])("a film"),
        r"inference_mode must map logits \(1, 3\) to scores \(rows, outputs\); it returned shape \(1,\)",
    ),
    "gradients of an encoder with a decoder": (
        lambda: Saliency(_bart(), tokenizer("roberta")),
        "BartForSequenceClassification reads its text twice, in the encoder and in the decoder",
    ),
    "no gradients": (lambda: Saliency(from_callables(len)), "Saliency needs gradients, and this model has none"),
    "plot of nothing": (lambda: plot_attributions([]), "no result to plot"),
    "plot of something else": (lambda: plot_attributions({"IG": "a"}), "Expected results of a method, got str"),
    "softmax of one output": (
        lambda: Saliency(_regression(), BERT[1], inference_mode="softmax")("a film"),
        "inference_mode='softmax' is constant on a model with one output",
    ),
}  # fmt: skip


def _bart():
    import transformers as hf

    words = tokenizer("roberta")
    config = hf.BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=70,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id,
        decoder_start_token_id=words.eos_token_id, forced_eos_token_id=None,
    )  # fmt: skip
    return hf.BartForSequenceClassification(config).eval()


def _regression():
    import transformers as hf

    config = BERT[0].config.to_dict() | {"num_labels": 1, "id2label": {0: "score"}, "label2id": {"score": 0}}
    return hf.BertForSequenceClassification(hf.BertConfig(**config))


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_reported(name):
    act, message = CASES[name]
    with pytest.raises(InterpretoError, match=message):
        act()


def test_an_unreadable_image_file(tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"no picture at all")
    with pytest.raises(InterpretoError, match=r"cat.jpg' cannot be read as an image"):
        Saliency(*VIT)(path)
    PICTURE.save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InterpretoError, match=r"cut.png' cannot be read as an image"):
        Saliency(*VIT)(tmp_path / "cut.png")


def test_mistakes_are_reported_before_the_model_runs():
    model, words = linear_text()
    calls = []
    handle = model.register_forward_pre_hook(lambda module, given: calls.append(1))
    try:
        for inputs, targets in (([*TEXTS, 3], None), ([*TEXTS, ""], None), (TEXTS, [0, 1, 9]), (TEXTS, "nothing")):
            with pytest.raises(InterpretoError):
                Occlusion(model, words, task="text-classification")(inputs, targets=targets)
    finally:
        handle.remove()
    assert not calls


def test_long_texts_are_truncated_on_request():
    (output,) = Saliency(*BERT, truncation=True, granularity="token")("film " * 100)
    assert len(output.elements) == 68
    assert "".join(output.elements) == "film " * 67 + "film"
