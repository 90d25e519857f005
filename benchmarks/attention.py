"""Time of an attention method: LeGrad against the bare model, and against its authors' package.

`python -m benchmarks.attention [bare | package]`. The first part runs a ViT-B/16 of OpenCLIP at 224 pixels and compares
one map with one forward pass and one backward pass through the captured blocks, and eight prompts with eight such
backward passes. The second part compares with the package `legrad_torch`, which needs OpenCLIP 2.23 and therefore an
environment of its own: `pip install --no-deps open_clip_torch==2.23.0 legrad_torch einops opencv-python-headless`.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import open_clip
import torch
from torch.nn import functional

from benchmarks.overhead import ratio
from benchmarks.tables import Table
from interpreto import LeGrad

SIZE, PROMPTS, LAYERS = 224, 8, 2


def clip() -> Any:
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-16").eval()


def words() -> Any:
    return open_clip.get_tokenizer("ViT-B-16")


def embeddings(count: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, 512, generator=torch.Generator().manual_seed(0)), dim=-1)


def bare(model: Any, image: torch.Tensor, prompts: torch.Tensor) -> None:
    """One forward pass, and one backward pass per prompt through the last blocks, written by hand."""
    blocks = model.visual.transformer.resblocks
    block_inputs = []

    def enter(_module: Any, args: Any) -> Any:
        # The blocks before this one run without gradients.
        torch.set_grad_enabled(True)
        block_inputs.append(args[0].detach().requires_grad_())
        return (block_inputs[0], *args[1:])

    handle = blocks[-LAYERS].register_forward_pre_hook(enter)
    with torch.no_grad():
        features = functional.normalize(model.encode_image(image), dim=-1)
        for number, prompt in enumerate(prompts):
            # The last backward pass frees the graph.
            torch.autograd.grad((features @ prompt).sum(), block_inputs[0], retain_graph=number + 1 < len(prompts))
    handle.remove()


def against_bare() -> Iterator[tuple[Any, ...]]:
    model = clip()
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    method = LeGrad(model, (None, words()), layers=-LAYERS, show_progress=False)
    for count in (1, PROMPTS):
        prompts = embeddings(count)
        factor, ours, bare_time = ratio(lambda p=prompts: method(image, p), lambda p=prompts: bare(model, image, p), 15)
        yield count, 1000 * bare_time, 1000 * ours, factor


def against_package() -> Iterator[tuple[Any, ...]]:
    from legrad import LeWrapper

    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    method = LeGrad(clip(), (None, words()), layers=-LAYERS, show_progress=False)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = LeWrapper(clip(), layer_index=-LAYERS)
    for count in (1, PROMPTS):
        prompts = embeddings(count)
        (output,) = method(image, prompts)
        upsampled = functional.interpolate(output.attributions[None], scale_factor=16, mode="bilinear")[0]
        low, high = upsampled.amin((1, 2), keepdim=True), upsampled.amax((1, 2), keepdim=True)
        reference = theirs.compute_legrad(text_embedding=prompts, image=image)[0].detach()
        # The package upsamples maps and scales them to [0, 1], ours are neither.
        difference = float(((upsampled - low) / (high - low) - reference).abs().max())
        factor, their_time, our_time = ratio(
            lambda p=prompts: theirs.compute_legrad(text_embedding=p, image=image),
            lambda p=prompts: method(image, p),
            7,
        )
        yield count, 1000 * their_time, 1000 * our_time, factor, difference


BARE = {"prompts": "d", "one forward and a backward each, ms": ".0f", "LeGrad, ms": ".0f", "ratio": ".3f"}
PACKAGE = {
    "prompts": "d",
    "legrad_torch, ms": ".0f",
    "LeGrad, ms": ".0f",
    "times faster": ".2f",
    "largest difference": ".1e",
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or ["bare"]
    if "bare" in chosen:
        Table("attention", BARE, against_bare()).run()
    if "package" in chosen:
        Table("attention-package", PACKAGE, against_package()).run()
