"""Tests architectures, kinds of input and methods against independent computations, and prints the results as tables.

Every model is tiny and has random weights from a seed. A cell is one of

- "right": the numbers equal those of the independent computation,
- "refused": an error of this library states the reason,
- "warned": attributions miss the promised sum, and `ConvergenceWarning` reports it with the gap that is measured here,
- "wrong": the numbers differ, or another library raised an exception,
- "-": not tested.

Independent computations: for Occlusion, the score of the model itself, one row at a time, with one token or patch
replaced; for KernelSHAP and Integrated Gradients, that scores sum to the difference between the score of the input and
that of the baseline, both from the model itself; for attention and Grad-CAM, that maps are finite, have no negative
entry, and, where the rows of attention are probabilities, sum to at most 1. A batch is right if texts of different
length get the scores that each gets alone.

Run `python -m benchmarks.what_was_tried` from the root of the repository; `--write` updates
the tables of docs/tried.md.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import Tensor

from benchmarks.tables import Table
from interpreto import GradCam, IntegratedGradients, InterpretoError, KernelShap, LeGrad, Occlusion, RawAttention
from interpreto.errors import ConvergenceWarning
from tests.causal_lms import CAUSAL_LMS, causal_lm, slow_scores
from tests.dual_encoders import DUAL_ENCODERS, dual_encoder_model, encoded
from tests.models import IMAGE_MODELS, TEXT_MODELS, image_model, some_images, text_model, tokenizer

PAGE = Path(__file__).parents[1] / "docs" / "tried.md"
TEXT, LONG, PAIR = "the film was good", "a bad film, and not a good one at all", ("a good film", "so bad")
PATCH = 8
_SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "num_labels": 3,
    "max_position_embeddings": 70, "initializer_range": 0.3,
}  # fmt: skip
MORE_TEXTS: dict[str, dict[str, Any]] = {
    "xlnet": {"max_position_embeddings": None, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "fnet": {},
    "mpnet": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "convbert": {"embedding_size": 16, "conv_kernel_size": 3},
    "funnel": {
        "num_hidden_layers": None,
        "block_sizes": [1, 1],
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
    },
    "big_bird": {"attention_type": "original_full"},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
    "ibert": {},
    "yoso": {"use_expectation": True},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "ernie": {},
    "camembert": {"pad_token_id": 1},
    "flaubert": {"emb_dim": 16, "n_layers": 2, "n_heads": 2},
    "t5": {
        "d_model": 16,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "d_kv": 8,
        "decoder_start_token_id": 0,
        "eos_token_id": 3,
    },
    "bart": {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "decoder_start_token_id": 3,
        "forced_eos_token_id": None,
    },
    "qwen2": {"num_key_value_heads": 1},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "gpt_neox": {},
    "mistral": {"num_key_value_heads": 1},
}
"""Text classifiers in addition to those of the tests, by the name of their config."""
_IMAGES = {"image_size": 32, "num_labels": 3, "initializer_range": 0.3}
MORE_IMAGES: dict[str, dict[str, Any]] = {
    "vit_msn": {**_SMALL, **_IMAGES, "patch_size": 8},
    "ijepa": {**_SMALL, **_IMAGES, "patch_size": 8},
    "data2vec-vision": {**_SMALL, **_IMAGES, "patch_size": 8},
    "hiera": {**_IMAGES, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": [64, 64]},
    "mobilevit": {
        **_IMAGES,
        "hidden_sizes": [8, 12, 16],
        "neck_hidden_sizes": [4, 8, 8, 12, 12, 16, 32],
        "num_attention_heads": 2,
    },
    "pvt": {**_IMAGES, "num_attention_heads": [1, 1, 2, 2], "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "segformer": {**_IMAGES, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16},
    "poolformer": {**_IMAGES, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "regnet": {
        **_IMAGES,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "embedding_size": 8,
        "groups_width": 4,
    },
    "efficientnet": {**_IMAGES, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320},
    "mobilenet_v2": {**_IMAGES, "depth_multiplier": 0.35},
    "convnextv2": {**_IMAGES, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "swinv2": {**_IMAGES, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4},
}


def tried(act: Callable[[], bool]) -> str:
    """The cell of one test."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            right = act()
        # `adds_up` allows for a gap that the result reports, so that a right sum may still come with a warning.
        missed = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        return "warned" if right and missed else "right" if right else "wrong"
    except InterpretoError:
        return "refused"
    except Exception as error:
        print(f"  {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
        return "wrong"


def near(one: Any, other: Any, share: float = 1e-3) -> bool:
    """Whether two results agree, up to a share of the largest value."""
    one, other = (torch.as_tensor(value).double().flatten() for value in (one, other))
    # The constant allows for rounding if all values are near 0.
    return one.shape == other.shape and float((one - other).abs().max()) <= share * (1e-2 + float(other.abs().max()))


def adds_up(output: Any, scores: Tensor, difference: Tensor, share: float) -> bool:
    """Whether the scores of the first target sum to a difference, up to the gap if the result reports one."""
    gap = output.completeness_gap
    missed = 0 if gap is None or float(gap[0].abs()) <= 0.05 * float(difference.abs()) else gap[0]
    return near(scores.sum() + missed, difference, share)


def is_map(scores: Tensor, most: float = torch.inf) -> bool:
    """Whether scores are finite, not negative and not all zero, with a sum of at most `most`."""
    return bool(scores.isfinite().all() and (scores >= 0).all() and scores.sum() <= most + 1e-4 and (scores > 0).any())


def other_text(name: str) -> tuple[Any, Any]:
    """A classifier of `MORE_TEXTS`."""
    words = tokenizer("roberta" if name in ("bart", "camembert", "mpnet") else "bert")
    ids = {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
    if name == "bart":
        ids |= {f"{role}_token_id": getattr(words, f"{role}_token_id") for role in ("bos", "eos")}
    options = {**_SMALL, **MORE_TEXTS[name], **ids}
    # None removes an option that the config does not have.
    config = hf.AutoConfig.for_model(name, **{key: value for key, value in options.items() if value is not None})
    torch.manual_seed(0)
    return hf.AutoModelForSequenceClassification.from_config(config).eval(), words


def other_image(name: str) -> tuple[Any, Any]:
    """A classifier of `MORE_IMAGES`."""
    config = hf.AutoConfig.for_model(name, **MORE_IMAGES[name])
    side = MORE_IMAGES[name]["image_size"]
    torch.manual_seed(0)
    height = side[0] if isinstance(side, list) else side
    processor = hf.ViTImageProcessor(size={"height": height, "width": height})
    return hf.AutoModelForImageClassification.from_config(config).eval(), processor


def logits(model: Any, words: Any, ids: list[int], inputs: Any = None) -> Tensor:
    """The logits of one text, run alone."""
    fields = dict(inputs if inputs is not None else {"attention_mask": torch.ones(1, len(ids), dtype=torch.long)})
    with torch.no_grad():
        try:
            return model(input_ids=torch.tensor([ids]), **fields).logits[0]
        except TypeError:
            # Some forwards take no token types, or no mask.
            return model(input_ids=torch.tensor([ids])).logits[0]


def text_row(model: Any, words: Any) -> Iterator[tuple[str, str]]:
    """The cells of a text classifier."""
    explain = Occlusion(model, words, granularity="token", removal="unk")

    def occluded(text: Any) -> bool:
        (output,) = explain([text], 1)
        texts = text if isinstance(text, tuple) else (text,)
        fields = words(*texts, return_tensors="pt")
        ids = fields.pop("input_ids")[0].tolist()
        base = logits(model, words, ids, fields)
        positions = [
            place
            for place, token in enumerate(ids)
            if token not in words.all_special_ids or token == words.unk_token_id
        ]
        masked = [
            [words.unk_token_id if place == position else token for place, token in enumerate(ids)]
            for position in positions
        ]
        expected = [base[1] - logits(model, words, row, fields)[1] for row in masked]
        return near(output.attributions[0], torch.stack(expected))

    def ids_alike() -> bool:
        fields = words(TEXT, return_tensors="pt")
        return near(explain(fields, 1)[0].attributions, explain(TEXT, 1)[0].attributions)

    def batch_alike() -> bool:
        outputs = explain([TEXT, LONG, TEXT], 1)
        return all(
            near(output.attributions, explain(text, 1)[0].attributions)
            for output, text in zip(outputs, (TEXT, LONG, TEXT), strict=True)
        )

    def sums_up(method: Callable[..., Any], share: float) -> bool:
        (output,) = method(model, words, granularity="token")(TEXT, 1)
        fields = words(TEXT, return_tensors="pt")
        ids = fields.pop("input_ids")[0].tolist()
        baseline = [words.unk_token_id if token not in words.all_special_ids else token for token in ids]
        difference = logits(model, words, ids, fields)[1] - logits(model, words, baseline, fields)[1]
        return adds_up(output, output.attributions[0], difference, share)

    yield "text", tried(partial(occluded, TEXT))
    yield "pair", tried(partial(occluded, PAIR))
    yield "ids", tried(ids_alike)
    yield "batch", tried(batch_alike)
    yield "KernelShap", tried(lambda: sums_up(partial(KernelShap, removal="unk"), 1e-3))
    yield "IntegratedGradients", tried(lambda: sums_up(partial(IntegratedGradients, n_steps=400, baseline="unk"), 0.05))
    yield "RawAttention", tried(lambda: is_map(RawAttention(model, words)(TEXT, 1)[0].attributions, 1))
    yield "LeGrad", tried(lambda: is_map(LeGrad(model, words)(TEXT, 1)[0].attributions))


def image_row(
    model: Any, processor: Any, scores: Callable[[Tensor], Tensor], target: Any = 1
) -> Iterator[tuple[str, str]]:
    """The cells of an image model; `scores` computes the score of the target independently."""
    image = some_images()[0]
    explain = Occlusion(model, processor, patch_size=PATCH)
    pixels = explain.setup.wrapper.inputs.prepare_one(image).rows.fields["pixel_values"]

    def occluded() -> bool:
        attributions = explain(image, target)[0].attributions[0]
        expected = torch.zeros_like(attributions)
        for row, column in np.ndindex(*attributions.shape):
            masked = pixels.clone()
            masked[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 0
            expected[row, column] = scores(pixels) - scores(masked)
        return near(attributions, expected)

    def forms_alike() -> bool:
        expected = explain(image, target)[0].attributions
        forms = (np.asarray(image), {"pixel_values": pixels})
        return all(near(explain(form, target)[0].attributions, expected) for form in forms)

    def sums_up(method: Callable[..., Any], share: float) -> bool:
        (output,) = method(model, processor, patch_size=PATCH)(image, target)
        return adds_up(output, output.attributions[0], scores(pixels) - scores(torch.zeros_like(pixels)), share)

    yield "image", tried(occluded)
    yield "array, tensor", tried(forms_alike)
    yield "KernelShap", tried(lambda: sums_up(partial(KernelShap, n_samples=200), 1e-3))
    yield "IntegratedGradients", tried(lambda: sums_up(partial(IntegratedGradients, n_steps=400), 0.05))
    yield "RawAttention", tried(lambda: is_map(RawAttention(model, processor)(image, target)[0].attributions, 1.0e9))
    yield "LeGrad", tried(lambda: is_map(LeGrad(model, processor)(image, target)[0].attributions))
    yield "GradCam", tried(lambda: is_map(GradCam(model, processor)(image, target)[0].attributions))


def class_score(model: Any, pixels: Tensor) -> Tensor:
    """The logit of class 1."""
    with torch.no_grad():
        output = model(pixels)
    return (output if isinstance(output, Tensor) else output.logits)[0, 1]


def prompt_score(wrapper: Any, prompt: str, pixels: Tensor) -> Tensor:
    """The similarity of an image and a prompt, from the features of both towers."""
    dual_encoder = wrapper.dual_encoder
    with torch.no_grad():
        image, text = dual_encoder.image_features(pixels)[0], encoded(dual_encoder, [prompt])[0]
    return torch.cosine_similarity(image, text, dim=0) * dual_encoder.scale + dual_encoder.bias


def language_row(model: Any, words: Any) -> Iterator[tuple[str, str]]:
    """The cells of a causal language model."""
    continuation = words(" good and", add_special_tokens=False)["input_ids"]
    explain = Occlusion(model, words, granularity="all-tokens", removal="unk")

    def log_probabilities(ids: list[int]) -> Tensor:
        text = [*ids, *continuation]
        return torch.tensor(slow_scores(model, text, list(range(len(ids), len(text)))))

    def occluded(prompt: Any, ids: list[int]) -> bool:
        (output,) = explain(prompt, tuple(continuation) if len(continuation) > 1 else continuation)
        masked = [[*ids[:place], words.unk_token_id, *ids[place + 1 :]] for place in range(len(ids))]
        base = log_probabilities(ids)
        expected = [base - log_probabilities(row) for row in masked]
        return near(output.attributions[:, : len(ids)], torch.stack(expected, 1))

    def batch_alike() -> bool:
        texts = ["the film was", "a bad film, and not at all", "so"]
        batch = explain(texts, [continuation] * 3)
        singles = [explain(text, continuation)[0] for text in texts]
        return all(
            near(a.attributions.nan_to_num(), b.attributions.nan_to_num()) for a, b in zip(batch, singles, strict=True)
        )

    def sums_up(method: Callable[..., Any], share: float) -> bool:
        ids = words("the film was")["input_ids"]
        (output,) = method(model, words, granularity="all-tokens")("the film was", continuation[:1])
        text = [*ids, continuation[0]]
        # With granularity="all-tokens" the beginning-of-sequence token is a unit too, and is replaced.
        baseline = [*[words.unk_token_id] * len(ids), continuation[0]]
        base, empty = (torch.tensor(slow_scores(model, row, [len(ids)])) for row in (text, baseline))
        return adds_up(output, output.attributions[0, : len(ids)], (base - empty)[0], share)

    prompt = words("the film was")["input_ids"]
    yield "prompt", tried(partial(occluded, "the film was", prompt))
    yield "ids", tried(partial(occluded, prompt, prompt))
    yield "batch", tried(batch_alike)
    yield "KernelShap", tried(lambda: sums_up(partial(KernelShap, removal="unk"), 1e-2))
    yield "IntegratedGradients", tried(lambda: sums_up(partial(IntegratedGradients, n_steps=400, baseline="unk"), 0.05))
    yield (
        "RawAttention",
        tried(lambda: is_map(RawAttention(model, words)("the film was", continuation)[0].attributions)),
    )


def table(name: str, title: str, rows: dict[str, dict[str, str]]) -> str:
    """Cells as Markdown, written as JSON too."""
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    cells = [(row, *(cells.get(column) for column in columns)) for row, cells in rows.items()]
    Table(f"tried-{name}", dict.fromkeys(["architecture", *columns], ""), cells).write()
    lines = [f"## {title}", "", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [
        f"| {name} | {' | '.join(cells.get(column, '-') for column in columns)} |" for name, cells in rows.items()
    ]
    return "\n".join([*lines, ""])


def rows_of(
    names: Any, build: Callable[[str], Any], row: Callable[..., Iterator[tuple[str, str]]]
) -> dict[str, dict[str, str]]:
    """The rows of some architectures; those that cannot be built are reported and left out."""
    cells = {}
    for name in names:
        print(name, file=sys.stderr)
        try:
            parts = build(name)
        except Exception as error:
            print(f"  not built: {type(error).__name__}: {str(error)[:150]}", file=sys.stderr)
            continue
        cells[name] = dict(row(*parts))
    return cells


def image_parts(build: Callable[[str], Any], name: str) -> tuple[Any, Any, Any]:
    """An image classifier and its score."""
    model, processor = build(name)
    return model, processor, partial(class_score, model)


def dual_encoder_parts(name: str) -> tuple[Any, Any, Any, str]:
    """A dual encoder and its score."""
    model, processor = dual_encoder_model(name)
    wrapper = Occlusion(model, processor).setup.wrapper
    return model, processor, partial(prompt_score, wrapper, "a red circle"), "a red circle"


def main() -> None:
    """Run all tests and print the tables."""
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    torch.set_num_threads(1)
    texts = rows_of(TEXT_MODELS, text_model, text_row) | rows_of(MORE_TEXTS, other_text, text_row)
    images = rows_of(IMAGE_MODELS, partial(image_parts, image_model), image_row)
    images |= rows_of(MORE_IMAGES, partial(image_parts, other_image), image_row)
    tables = [
        table("texts", "Text classifiers", texts),
        table("images", "Image classifiers", images),
        table("language-models", "Language models", rows_of(CAUSAL_LMS, causal_lm, language_row)),
        table(
            "dual-encoders",
            "Dual encoders: images compared with a prompt",
            rows_of(DUAL_ENCODERS, dual_encoder_parts, image_row),
        ),
    ]
    page = "\n".join(tables)
    print(page)
    cells = [cell for line in page.splitlines() for cell in line.split(" | ")]
    print(
        {kind: sum(kind in cell for cell in cells) for kind in ("right", "warned", "refused", "wrong")}, file=sys.stderr
    )
    if "--write" in sys.argv:
        PAGE.write_text(PAGE.read_text().split("<!-- tables -->")[0] + "<!-- tables -->\n\n" + page)


if __name__ == "__main__":
    main()
