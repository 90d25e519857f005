"""`shapes-clip`: a small CLIP, made for testing, that matches captions with scenes of two objects.

Captions name one or both objects, so that the object that a caption names decides its similarity; the masks of both are
known. A caption may be true of several scenes of a batch, and all of them are positives (a symmetric cross-entropy with
several true labels). During training scenes are masked, faded and noisy: a caption becomes less true as its objects
disappear, and an image without a true caption has a uniform target.

A second loss ties the content of a patch to its place: from the second block on, the features of patches on an object,
through the same projection as the image's, are classified as the name of the object. Without it, transformers store
information of the whole image in arbitrary patches, and methods that use internals could not locate it (registers:
Darcet et al. 2023, arXiv:2309.16588).
"""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from interpreto.zoo.captions import RELATIONS, SIZES, Caption, caption, named, truth
from interpreto.zoo.scenes import COLOURS, KINDS, SIZE, TEXTURES, Scene, two_objects
from interpreto.zoo.shapes_vit import hidden_parts, stand_ins
from interpreto.zoo.training import create_model_card, fit, save

NAME = "shapes-clip"
STEPS, BATCH, N_SAMPLES = 2600, 128, 200
N_CANDIDATES = 32
"""Number of captions from which the model chooses when its accuracy is measured."""
LOCAL, FROM_BLOCK, LOCAL_SCALE = 0.5, 2, 10.0
"""Weight of the patch loss, the block after which it begins, and the factor of their cosine similarities."""
LENGTH = 24
LARGEST_SCALE = 50.0
"""Upper limit of the learned factor of cosine similarities (1 / temperature); CLIP's is 100."""
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which each word of the captions is one token; other words are split into ASCII characters."""
    words = ["a", "photo", "of", "and", "on", "shape", *KINDS, *COLOURS, *SIZES, *TEXTURES]
    words += [word for relation in RELATIONS for word in relation.split()]
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    trained.train_from_iterator([*words, *letters], trainer)
    parts = json.loads(trained.to_str())["model"]
    vocabulary = {**parts["vocab"]}
    # Unknown words are split into letters, and a letter at the end of a word, `x</w>`, is a different token from `x`.
    for letter in letters:
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    for special in (START, END):
        vocabulary[special] = len(vocabulary)
    merges: Any = [tuple(pair) for pair in parts["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def build() -> tuple[CLIPModel, CLIPProcessor]:
    """The untrained model and its processor."""
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "projection_dim": 64}
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "num_hidden_layers": 2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**sizes, "image_size": SIZE, "patch_size": 8, "num_hidden_layers": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    images = CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return CLIPModel(config), CLIPProcessor(images, tokenizer)


def scenes(count: int, rng: np.random.Generator) -> tuple[list[Scene], torch.Tensor, torch.Tensor]:
    """Scenes, their pixel values in [-1, 1] `n 3 H W` and the masks of both objects `n 2 H W`."""
    drawn = [two_objects(rng) for _ in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2) * 2 - 1
    masks = np.stack([np.stack([shape.mask for shape in scene.shapes]) for scene in drawn])
    return drawn, images, torch.from_numpy(masks).float()


def disturb(
    images: torch.Tensor, masks: torch.Tensor, strength: float, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask, fade and add noise to scenes.

    Returns:
        The images, the visible share of each object `n 2`, and the masks of its visible pixels `n 2 H W`.
    """
    count = len(images)

    def some(share: float) -> torch.Tensor:
        return torch.rand(count, generator=rng) < share * strength

    masked = hidden_parts(count, rng) * some(0.4)[:, None, None]
    images = torch.lerp(images, stand_ins(images, rng), masked[:, None])
    visible = 1 - (masked[:, None] * masks).sum((2, 3)) / masks.sum((2, 3))
    fade = torch.where(some(0.2), torch.rand(count, generator=rng), torch.ones(count))
    sigma = torch.where(some(0.3), 0.4 * torch.rand(count, generator=rng), torch.zeros(count))
    noise = torch.randn(images.shape, generator=rng)
    # An object counts as fully visible down to half of its contrast.
    visible = visible * (2 * fade)[:, None].clamp(max=1)
    visible_masks = masks * (1 - masked[:, None]) * (fade > 0.5)[:, None, None, None]
    return images * fade[:, None, None, None] + sigma[:, None, None, None] * noise, visible, visible_masks


def several_right(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with several true labels per row: `right` has their degrees of truth, from 0 to 1.

    A row whose degrees sum to less than 1 has the rest of its target spread uniformly.
    """
    total = right.sum(1, keepdim=True)
    certainty = total.clamp(max=1)
    target = certainty * right / total.clamp(min=1e-6) + (1 - certainty) / logits.shape[1]
    return -(target * logits.log_softmax(1)).sum(1).mean()


def names_of(drawn: list[Scene]) -> torch.Tensor:
    """The indices of both objects' names, a colour and a kind, among all names: `n 2`."""
    # In the order of `every_name` in `train`.
    colours = list(COLOURS)
    return torch.tensor(
        [[KINDS.index(s.kind) * len(colours) + colours.index(s.colour) for s in scene.shapes] for scene in drawn]
    )


def local_loss(
    model: CLIPModel, states: tuple[torch.Tensor, ...], names: torch.Tensor, own: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the names of objects, over the patches of which an object covers more than half.

    Args:
        model: The model, whose last layer norm and projection map hidden states to features.
        states: Hidden states after each block from `FROM_BLOCK` on, `n 65 d` each.
        names: Normalised features of all names.
        own: The indices of both objects' names, `n 2`.
        masks: Visible pixels of both objects, `n 2 H W`.
    """
    coverage = torch.nn.functional.avg_pool2d(masks, 8).flatten(2)
    scene, number, patch = (coverage > 0.5).nonzero(as_tuple=True)
    losses = []
    for state in states:
        # Position 0 is the class token.
        features = model.visual_projection(model.vision_model.post_layernorm(state[scene, patch + 1]))
        logits = LOCAL_SCALE * torch.nn.functional.normalize(features, dim=-1) @ names.T
        losses.append(torch.nn.functional.cross_entropy(logits, own[scene, number]))
    return torch.stack(losses).mean()


def train(seed: int = 0) -> None:
    """Train, measure on held-out scenes and save."""
    torch.manual_seed(seed)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    model, processor = build()
    tokenizer = processor.tokenizer

    def tokens(captions: list[str]) -> Any:
        return tokenizer(captions, padding=True, return_tensors="pt")

    def logits(pixels: torch.Tensor, captions: list[Caption]) -> torch.Tensor:
        return model(pixel_values=pixels, **tokens([str(caption) for caption in captions])).logits_per_image

    def named_features() -> torch.Tensor:
        output: Any = model.get_text_features(**tokens(every_name))
        return output.pooler_output

    every_name = [f"a {colour} {kind}" for kind in KINDS for colour in COLOURS]

    def loss(step: int) -> torch.Tensor:
        drawn, images, masks = scenes(BATCH, rng)
        images, visible, masks = disturb(images, masks, min(1.0, step / (0.3 * STEPS)), noise)
        captions = [caption(scene, rng) for scene in drawn]
        right = torch.from_numpy(truth(drawn, captions, visible.numpy())).float()
        with torch.no_grad():
            # CLIP limits its scale, too, for stable training. The parameter is the logarithm of the scale.
            model.logit_scale.clamp_(max=float(np.log(LARGEST_SCALE)))
        text_inputs = tokens([str(item) for item in captions])
        output = model(pixel_values=images, **text_inputs, output_hidden_states=True)
        scores = output.logits_per_image
        # Gradients pass through the names: the text tower learns from patches, too.
        names = torch.nn.functional.normalize(named_features(), dim=-1)
        states = output.vision_model_output.hidden_states[FROM_BLOCK:]
        local = local_loss(model, states, names, names_of(drawn), masks)
        return (several_right(scores, right) + several_right(scores.T, right.T)) / 2 + LOCAL * local

    seconds = fit(model, loss, steps=STEPS, learning_rate=1.5e-3, weight_decay=0.05, name=NAME)
    shipped = [two_objects(np.random.default_rng(30_000_000 + index)) for index in range(N_SAMPLES)]
    held_out, images, _ = scenes(N_CANDIDATES * 100, np.random.default_rng(40_000_000))
    rng = np.random.default_rng(50_000_000)
    correct = []
    for begin in range(0, len(held_out), N_CANDIDATES):
        part = slice(begin, begin + N_CANDIDATES)
        captions = [caption(scene, rng) for scene in held_out[part]]
        with torch.no_grad():
            best = logits(images[part], captions).argmax(1)
        # A caption of another scene may be true of this one, too.
        correct.append(torch.from_numpy(truth(held_out[part], captions)).gather(1, best[:, None])[:, 0] == 1)
    model_card = create_model_card(
        "zero-shot-image-classification",
        f"the best of {N_CANDIDATES} captions is true of the scene; a prompt's object decides",
        torch.cat(correct),
        seed,
        STEPS,
        seconds,
    )
    folder = save(NAME, model, processor, model_card)
    sheet = np.concatenate([(scene.image * 255).round().astype(np.uint8) for scene in shipped])
    Image.fromarray(sheet).save(folder / "samples.png", optimize=True)
    # Two masks per image, in the order of the captions below.
    masks = np.concatenate([shape.mask for scene in shipped for shape in scene.shapes])
    Image.fromarray(masks).save(folder / "masks.png", optimize=True)
    prompts = [str(named(scene, number)) for scene in shipped for number in (0, 1)]
    (folder / "labels.json").write_text(json.dumps(prompts) + "\n")
