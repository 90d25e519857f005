"""Whole calls beside captum's, at equal evaluations: from the text or image to the scores.

`python -m benchmarks.beside [text | image]` prints captum's time over ours, so that more than 1 is faster than captum:
the median of the ratios of alternating runs in one process on one thread, and their quartiles. Both sides tokenize or
preprocess in every call, run batches of 32 and send equally many rows through the model, which is checked. So are the
scores of methods that do not sample (Occlusion, Integrated Gradients): they are the same.
"""

import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import captum.attr
import torch
import transformers as hf
from PIL import Image
from torch import Tensor

from benchmarks.overhead import bert, pairs
from benchmarks.tables import Table
from interpreto import IntegratedGradients, KernelShap, Occlusion

BATCH, TARGET, STEPS, SAMPLES = 32, 0, 50, 256
SIDE, PATCH = 64, 8
TEXT = "the plot was slow and the music was loud, but the film was not bad."
"""24 tokens of the tokenizer, including special ones."""
SHARED = {"batch_size": BATCH, "show_progress": False}
WHOLE_TEXT = {"granularity": "all-tokens", **SHARED}
"""captum has no special tokens: it masks [CLS] and [SEP] too."""


def vit(layers: int, width: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, intermediate_size=4 * width,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    return hf.ViTForImageClassification(config).eval(), hf.ViTImageProcessor(size={"height": SIDE, "width": SIDE})


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The rows of every forward pass; the last item is that of the last pass."""
    rows: list[int] = []
    plain = type(model).forward

    def forward(*args: Any, **options: Any) -> Any:
        output = plain(*args, **options)
        rows.append(len(output.logits))
        return output

    # On the class, because interpreto runs a working copy of the model, which shares its class.
    type(model).forward = forward
    try:
        yield rows
    finally:
        type(model).forward = plain


class Texts:
    """captum's calls on a text classifier, as its tutorials write them."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask.expand_as(ids)).logits

    def encoded(self) -> tuple[Tensor, Tensor]:
        fields = self.tokenizer(TEXT, return_tensors="pt")
        return fields["input_ids"], fields["attention_mask"]

    def perturbed(self, method: Callable[..., Any], **options: Any) -> Tensor:
        ids, mask = self.encoded()
        return method(self.forward).attribute(
            ids,
            baselines=self.tokenizer.mask_token_id,
            target=TARGET,
            additional_forward_args=(mask,),
            perturbations_per_eval=BATCH,
            **options,
        )

    def gradients(self) -> Tensor:
        ids, mask = self.encoded()
        method = captum.attr.LayerIntegratedGradients(self.forward, self.model.get_input_embeddings())
        scores = method.attribute(
            ids,
            baselines=torch.full_like(ids, self.tokenizer.mask_token_id),
            target=TARGET,
            additional_forward_args=(mask,),
            n_steps=STEPS,
            internal_batch_size=BATCH,
        )
        return scores.sum(-1)


class Images:
    """captum's calls on an image classifier."""

    def __init__(self, model: Any, processor: Any, image: Image.Image) -> None:
        self.model, self.processor, self.image = model, processor, image

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).logits

    def pixels(self) -> Tensor:
        return self.processor(self.image, return_tensors="pt")["pixel_values"]

    def occlusion(self) -> Tensor:
        window = (3, PATCH, PATCH)
        scores = captum.attr.Occlusion(self.forward).attribute(
            self.pixels(),
            sliding_window_shapes=window,
            strides=window,
            baselines=0,
            target=TARGET,
            perturbations_per_eval=BATCH,
        )
        return scores[:, 0, ::PATCH, ::PATCH]

    def gradients(self) -> Tensor:
        # With the difference of the scores and their sum, which ours always computes.
        scores, _ = captum.attr.IntegratedGradients(self.forward).attribute(
            self.pixels(),
            baselines=0,
            target=TARGET,
            n_steps=STEPS,
            internal_batch_size=BATCH,
            return_convergence_delta=True,
        )
        return scores.sum(1)


def compared(
    name: str, method: str, model: Any, ours: Callable[[], Any], theirs: Callable[[], Tensor], repeats: int
) -> tuple[Any, ...]:
    """A row of the table."""
    # The first call makes the working copy and checks the model.
    ours()
    with counted(model) as our_rows:
        (output,) = ours()
    with counted(model) as their_rows:
        expected = theirs()
    assert sum(our_rows) == sum(their_rows), (name, method, our_rows, their_rows)
    if method != "KernelSHAP":
        torch.testing.assert_close(output.attributions, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    times = pairs(theirs, ours, repeats)
    ratios = [their_time / our_time for their_time, our_time in times]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    milliseconds = [1000 * statistics.median(side) for side in zip(*times, strict=True)]
    return name, method, sum(our_rows), len(times), *milliseconds, middle, low, high


def texts() -> Iterator[tuple[Any, ...]]:
    for layers, width, repeats in ((6, 384, 9), (2, 64, 41)):
        model, tokenizer = bert(layers, width)
        name, captums = f"BERT, {layers} layers, width {width}", Texts(model, tokenizer)
        masked = {"removal": "mask", **WHOLE_TEXT}
        for method, explain, theirs in (
            (
                "Occlusion",
                Occlusion(model, tokenizer, **masked),
                partial(captums.perturbed, captum.attr.FeatureAblation),
            ),
            (
                "KernelSHAP",
                KernelShap(model, tokenizer, n_samples=SAMPLES, **masked),
                partial(captums.perturbed, captum.attr.KernelShap, n_samples=SAMPLES),
            ),
            (
                "Integrated Gradients",
                IntegratedGradients(model, tokenizer, n_steps=STEPS, baseline="mask", **WHOLE_TEXT),
                captums.gradients,
            ),
        ):
            yield compared(name, method, model, partial(explain, TEXT, targets=TARGET), theirs, repeats)


def images() -> Iterator[tuple[Any, ...]]:
    layers, width = 6, 192
    model, processor = vit(layers, width)
    image = Image.effect_noise((SIDE, SIDE), 80).convert("RGB")
    captums = Images(model, processor, image)
    for method, explain, theirs in (
        ("Occlusion", Occlusion(model, processor, **SHARED), captums.occlusion),
        (
            "Integrated Gradients",
            IntegratedGradients(model, processor, n_steps=STEPS, granularity="pixel", **SHARED),
            captums.gradients,
        ),
    ):
        ours = partial(explain, image, targets=TARGET)
        yield compared(f"ViT, {layers} layers, width {width}, {SIDE} px", method, model, ours, theirs, 9)


PARTS = {"text": texts, "image": images}
COLUMNS = {
    "model": "",
    "method": "",
    "evaluations": "d",
    "pairs": "d",
    "captum, ms": ".1f",
    "interpreto, ms": ".1f",
    "captum / interpreto": ".3f",
    "lower quartile": ".3f",
    "upper quartile": ".3f",
}


def main() -> None:
    torch.set_num_threads(1)
    # captum warns of inputs for which it sets requires_grad.
    warnings.filterwarnings("ignore", module="captum")
    for part in sys.argv[1:] or PARTS:
        Table(f"beside-{part}", COLUMNS, PARTS[part](), n_keys=2).run()


if __name__ == "__main__":
    main()
