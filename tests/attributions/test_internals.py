"""Methods that read internals against a second derivation: the blocks of CLIP and ViT written out by hand."""

import copy
import math

import open_clip
import pytest
import torch
import transformers as hf
from open_clip.model import CLIP
from torch import nn
from torch.nn import functional

from interpreto import (
    AGCam,
    AttentionRollout,
    AttentionSaliency,
    GenericAttention,
    GradCam,
    GradEclip,
    LeGrad,
    PointingGame,
    RawAttention,
    RelevanceMass,
    zoo,
)
from interpreto.errors import ModelError, OptionError, UnsupportedError
from interpreto.model_wrapping.internals.attention_recorder import AttentionRecorder
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tasks.image_classification import image_classification
from interpreto.model_wrapping.tasks.zero_shot_image_classification import image_with_prompts
from interpreto.model_wrapping.wrapper import InferenceWrapper
from tests.conftest import reduced
from tests.dual_encoders import PROMPTS, dual_encoder_model, encoded
from tests.models import IMAGE_MODELS, TEXTS, image_model, some_images, text_model

HEADS = 4


def block(layer, hidden, mask, merge=False):
    """One block of transformers' CLIP: its output, and its internals with their autograd graphs."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    heads = 1 if merge else HEADS
    q, k, v = (
        part(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    probabilities = (q @ k.mT / math.sqrt(q.shape[-1]) + mask).softmax(-1)
    o = (probabilities @ v).transpose(1, 2).flatten(2)
    hidden = hidden + attention.out_proj(o)
    hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return hidden, {"A": probabilities, "q": q, "k": k, "v": v, "o": o, "out": attention.out_proj, "Z": hidden}


class ReferenceTower:
    """A tower of CLIP written out block by block, with the formulas of the methods."""

    def __init__(self, model, processor, side, raw):
        self.side = side
        if side == "image":
            tower, self.project = model.vision_model, model.visual_projection
            pixels = processor[0](images=raw, return_tensors="pt")["pixel_values"]
            hidden = tower.pre_layrnorm(tower.embeddings(pixels))
            self.norm, self.read, mask = tower.post_layernorm, 0, torch.zeros(())
        else:
            tower, self.project = model.text_model, model.text_projection
            ids = processor[1](raw, return_tensors="pt")["input_ids"]
            hidden = tower.embeddings(input_ids=ids)
            self.norm, self.read = tower.final_layer_norm, ids.shape[1] - 1
            mask = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)
        self.hidden, self.mask, self.layers = hidden, mask, tower.encoder.layers
        self.scale = model.logit_scale.exp()

    def score(self, state, other, mean=False):
        pooled = state.mean(1) if mean else state[:, self.read]
        own = functional.normalize(self.project(self.norm(pooled)), dim=-1)
        return (self.scale * own @ other).sum()

    def run(self, merge_from=None):
        insides, hidden = [], self.hidden
        for number, layer in enumerate(self.layers):
            merge = merge_from is not None and number >= merge_from
            hidden, inside = block(layer, hidden, self.mask, merge)
            insides.append(inside)
        return hidden, insides

    def legrad(self, other, first):
        total, hidden = 0, self.hidden
        for number, layer in enumerate(self.layers):
            hidden, inside = block(layer, hidden.detach(), self.mask)
            if number >= first:
                (slope,) = torch.autograd.grad(self.score(inside["Z"], other, self.side == "image"), inside["A"])
                # The package sets gradients to 0 where the mask forbids attention.
                slope = slope * (inside["A"] > 0)
                total = total + slope.relu().mean((1, 2))
        return total[0]

    def slopes(self, other, what, merge_from=None):
        hidden, insides = self.run(merge_from)
        found = torch.autograd.grad(self.score(hidden, other), [inside[what] for inside in insides])
        if what == "A":
            found = [slope * (inside["A"] > 0) for slope, inside in zip(found, insides, strict=True)]
        return found, insides

    def generic(self, other):
        slopes, insides = self.slopes(other, "A")
        count = insides[0]["A"].shape[-1]
        relevance = torch.eye(count)
        for slope, inside in zip(slopes, insides, strict=True):
            # Chefer et al. 2021: R <- R + mean over heads of relu(gradient * A) @ R, from the identity.
            relevance = relevance + (slope * inside["A"]).relu().mean(1)[0] @ relevance
        return (relevance - torch.eye(count))[self.read]

    def rollout(self):
        _, insides = self.run()
        flow = torch.eye(insides[0]["A"].shape[-1])
        for inside in insides:
            # Abnar and Zuidema 2020: the residual connection as an identity of equal weight, rows normalized to 1.
            step = inside["A"].mean(1)[0] + torch.eye(len(flow))
            flow = (step / step.sum(-1, keepdim=True)) @ flow
        return flow[self.read]

    def eclip(self, other, first, similarity, merge):
        slopes, insides = self.slopes(other, "o", first if merge else None)
        total = 0
        for slope, inside in list(zip(slopes, insides, strict=True))[first:]:
            g = slope[0, self.read]
            q, k, v = (inside[name].transpose(1, 2).flatten(2)[0] for name in "qkv")
            weights = torch.ones(len(v))
            if similarity:
                # The loosened attention of Grad-ECLIP: cosine similarity of query and keys, scaled to [0, 1].
                keys, query = inside["out"](k), inside["out"](q[self.read])
                weights = functional.cosine_similarity(query[None], keys)
                own = weights[self.inner]
                weights = (weights - own.min()) / (own.max() - own.min())
            total = total + ((g * v).sum(-1) * weights).relu()
        return total

    @property
    def inner(self):
        return slice(1, None) if self.side == "image" else slice(1, -1)

    def shown(self, scores):
        scores = scores[self.inner]
        return scores.reshape(4, 4) if self.side == "image" else scores


def settings(side):
    """A CLIP model, its processor, an input, its targets, and the features of the targets."""
    model, processor = dual_encoder_model("clip")
    image = some_images()[0]
    with torch.no_grad():
        if side == "image":
            tokens = processor[1](list(PROMPTS), padding=True, return_tensors="pt")
            features = model.get_text_features(**tokens).pooler_output
            return model, processor, image, PROMPTS, functional.normalize(features, dim=-1)
        pixels = processor[0](images=image, return_tensors="pt")["pixel_values"]
        features = model.get_image_features(pixel_values=pixels).pooler_output
        return model, processor, PROMPTS[1], (image,), functional.normalize(features, dim=-1)


def explained(method, side, model, processor, raw, targets):
    granularity = "patch" if side == "image" else "token"
    return method(model, processor, modality=side, granularity=granularity)(raw, targets)[0].attributions


SIDES = pytest.mark.parametrize("side", ["image", "text"])


def assert_close(found, expected):
    expected = expected.detach()
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max()) + 1e-7


@SIDES
@pytest.mark.parametrize("first", [0, 1, 2])
def test_legrad(side, first):
    model, processor, raw, targets, features = settings(side)
    found = explained(lambda *a, **o: LeGrad(*a, layers=first, **o), side, model, processor, raw, targets)
    hand = ReferenceTower(model, processor, side, raw)
    for map_, other in zip(found, features, strict=True):
        assert_close(map_, hand.shown(hand.legrad(other, first)))


@SIDES
@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("similarity", [True, False])
@pytest.mark.parametrize("merge", [True, False])
def test_grad_eclip(side, first, similarity, merge):
    model, processor, raw, targets, features = settings(side)
    options = {"layers": first, "similarity": similarity, "merge_heads": merge}
    found = explained(lambda *a, **o: GradEclip(*a, **options, **o), side, model, processor, raw, targets)
    hand = ReferenceTower(model, processor, side, raw)
    for map_, other in zip(found, features, strict=True):
        assert_close(map_, hand.shown(hand.eclip(other, first, similarity, merge)))


@SIDES
def test_rollout_and_raw_attention(side):
    model, processor, raw, targets, _ = settings(side)
    hand = ReferenceTower(model, processor, side, raw)
    found = explained(AttentionRollout, side, model, processor, raw, targets)
    for map_ in found:
        assert_close(map_, hand.shown(hand.rollout()))
    raw_map = explained(RawAttention, side, model, processor, raw, targets)[0]
    assert_close(raw_map, hand.shown(hand.run()[1][-1]["A"].mean(1)[0, hand.read]))


@SIDES
def test_generic_attention(side):
    model, processor, raw, targets, features = settings(side)
    found = explained(GenericAttention, side, model, processor, raw, targets)
    hand = ReferenceTower(model, processor, side, raw)
    for map_, other in zip(found, features, strict=True):
        assert_close(map_, hand.shown(hand.generic(other)))


RULES = {
    "attn": lambda a, g: a,
    "grad": lambda a, g: g,
    "gradcam": lambda a, g: g.relu() * a,
    "agcam": lambda a, g: g.relu() * a.sigmoid(),
}


@SIDES
@pytest.mark.parametrize("rule", [*RULES, "callable"])
@pytest.mark.parametrize(("heads", "layers"), [("sum", "sum"), ("mean", "max"), ("min", "prod")])
def test_attention_saliency(side, rule, heads, layers):
    model, processor, raw, targets, features = settings(side)

    def own(attention, gradient):
        return attention * gradient

    options = {"rule": own if rule == "callable" else rule, "head_reduce": heads, "layer_reduce": layers}
    found = explained(lambda *a, **o: AttentionSaliency(*a, **options, **o), side, model, processor, raw, targets)
    hand = ReferenceTower(model, processor, side, raw)
    reduce = {
        "sum": torch.sum,
        "mean": torch.mean,
        "max": torch.amax,
        "min": torch.amin,
        "prod": lambda x, axis: x.prod(axis),
    }
    for map_, other in zip(found, features, strict=True):
        slopes, insides = hand.slopes(other, "A")
        parts = [
            reduce[heads]((own if rule == "callable" else RULES[rule])(inside["A"], slope), 1)[0]
            for slope, inside in zip(slopes, insides, strict=True)
        ]
        expected = reduce[layers](torch.stack(parts), 0)[hand.read]
        assert_close(map_, hand.shown(expected))


def test_ag_cam_is_a_preset():
    model, processor, raw, targets, _ = settings("image")
    found = explained(AGCam, "image", model, processor, raw, targets)
    same = explained(lambda *a, **o: AttentionSaliency(*a, rule="agcam", **o), "image", model, processor, raw, targets)
    assert torch.equal(found, same)


def test_activations_and_discarding():
    model, processor, raw, targets, _ = settings("image")

    def saliency(**options):
        return explained(lambda *a, **o: AttentionSaliency(*a, **options, **o), "image", model, processor, raw, targets)

    assert (saliency(rule="grad", activation="abs") >= saliency(rule="grad", activation="relu")).all()
    assert torch.allclose(saliency(rule="attn", activation="sigmoid"), saliency(rule=lambda a, g: a.sigmoid()))
    for ratio, kept in ((0.9, 2), (0.5, 9)):
        found = explained(
            lambda *a, ratio=ratio, **o: AttentionRollout(*a, layers=[0], discard_ratio=ratio, **o),
            "image", model, processor, raw, targets,
        )  # fmt: skip
        assert int((found[0] > 0).sum()) <= kept + 1


def test_a_rule_of_another_shape_is_reported():
    model, processor, raw, targets, _ = settings("image")
    with pytest.raises(ModelError, match=r"must return a tensor of the shape of the attention"):
        AttentionSaliency(model, processor, rule=lambda a, g: a.sum(1))(raw, targets)
    with pytest.raises(OptionError, match="There is no rule='gradcan'"):
        AttentionSaliency(model, processor, rule="gradcan")


def converted(model):
    """An OpenCLIP model with the weights of a CLIP of transformers."""
    theirs, _ = dual_encoder_model("open-clip")
    config = model.config.vision_config
    made = CLIP(
        16,
        open_clip.model.CLIPVisionCfg(
            layers=3, width=32, head_width=8, mlp_ratio=config.intermediate_size / 32, patch_size=8, image_size=32
        ),
        open_clip.model.CLIPTextCfg(context_length=16, vocab_size=99, width=32, heads=4, layers=1),
        quick_gelu=True,
    ).eval()
    state, own = model.vision_model.state_dict(), {}
    own["class_embedding"] = state["embeddings.class_embedding"]
    own["positional_embedding"] = state["embeddings.position_embedding.weight"]
    own["conv1.weight"] = state["embeddings.patch_embedding.weight"]
    own["proj"] = model.visual_projection.weight.T
    for mine, other in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        own |= {f"{mine}.{part}": state[f"{other}.{part}"] for part in ("weight", "bias")}
    for number in range(3):
        mine, other = f"transformer.resblocks.{number}", f"encoder.layers.{number}"
        for part in ("weight", "bias"):
            own[f"{mine}.attn.in_proj_{part}"] = torch.cat([state[f"{other}.self_attn.{x}_proj.{part}"] for x in "qkv"])
            own[f"{mine}.attn.out_proj.{part}"] = state[f"{other}.self_attn.out_proj.{part}"]
            own |= {f"{mine}.ln_{n}.{part}": state[f"{other}.layer_norm{n}.{part}"] for n in (1, 2)}
            own[f"{mine}.mlp.c_fc.{part}"] = state[f"{other}.mlp.fc1.{part}"]
            own[f"{mine}.mlp.c_proj.{part}"] = state[f"{other}.mlp.fc2.{part}"]
    made.visual.load_state_dict(own)
    made.logit_scale.data = model.logit_scale.data.clone()
    del theirs
    return made


@pytest.mark.parametrize(
    "method", [LeGrad, GradEclip, GenericAttention, AttentionRollout, AGCam, RawAttention, GradCam]
)
def test_the_same_weights_in_open_clip_and_transformers_give_the_same_maps(method):
    model, processor, raw, _, features = settings("image")
    pixels = processor[0](images=raw, return_tensors="pt")["pixel_values"]
    other = converted(model)
    expected = method(model, (None, processor[1]))(pixels, features)[0]
    found = method(other, (None, open_clip.SimpleTokenizer(context_length=16)))(pixels, features)[0]
    assert torch.allclose(found.scores, expected.scores, atol=1e-4)
    scale = expected.attributions.abs().max()
    assert (found.attributions - expected.attributions).abs().max() <= 1e-4 * max(scale, 1)


def reference_pooler(name, model):
    """The blocks of an image tower, its pooler as a function of hidden states, and which keys are patches."""
    if name == "siglip":
        tower = model.vision_model
        return tower.encoder.layers, lambda state: functional.normalize(tower.head(state), dim=-1), slice(None)
    if name == "open-siglip":
        trunk = model.visual.trunk
        return trunk.blocks, lambda state: functional.normalize(trunk.attn_pool(state), dim=-1), slice(None)
    visual = model.visual
    return visual.transformer.resblocks, lambda state: visual.attn_pool(state)[:, 0] @ visual.proj, slice(1, None)


@pytest.mark.parametrize("name", ["siglip", "open-siglip", "open-coca"])
def test_legrad_of_poolers(name):
    """The pooler is applied to every block's unnormalized output, as in the released code.

    For SigLIP, positions with a high score for the empty prompt are suppressed.
    """
    model, processor = dual_encoder_model(name)
    wrapper = InferenceWrapper.create(image_with_prompts, model, processor, Runtime())
    sample = wrapper.inputs.prepare_one(some_images()[0])
    blocks, pool, patches = reference_pooler(name, model)
    states = []
    handles = [block.register_forward_hook(lambda _m, _i, output: states.append(output)) for block in blocks]
    with torch.no_grad():
        wrapper.dual_encoder.image_features(sample.rows.fields["pixel_values"])
        prompts = functional.normalize(encoded(wrapper.dual_encoder, [PROMPTS[0], "a photo of a"]).float(), dim=-1)
    for handle in handles:
        handle.remove()

    def by_hand(prompt):
        total = 0
        for state in states[-2:]:
            state = state[0] if isinstance(state, tuple) else state
            with torch.no_grad(), AttentionRecorder() as tap:
                tap.recording = True
                score = wrapper.dual_encoder.scale * (pool(state) @ prompt).sum()
                (slope,) = torch.autograd.grad(score, tap.calls[0].probabilities)
            total = total + slope.relu().mean(1).sum(1)[0, patches]
        return total.reshape(4, 4)

    expected, blank = by_hand(prompts[0]), by_hand(prompts[1])
    if name != "open-coca":
        expected[(blank - blank.min()) / (blank.max() - blank.min()) > 0.8] = 0
    assert expected.any()
    assert_close(LeGrad(model, processor)(some_images()[0], PROMPTS[0])[0].attributions[0], expected)


def test_legrad_of_a_classifier_is_scored_by_its_own_head():
    model, processor = image_model("vit")
    (output,) = LeGrad(model, processor, layers=0)(some_images()[0], targets=1)
    pixels = processor(images=some_images()[0], return_tensors="pt")["pixel_values"]
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    states = twin(pixel_values=pixels, output_hidden_states=True).hidden_states
    total = 0
    for layer, state in zip(twin.vit.layers, states[:-1], strict=False):
        seen = []
        handle = layer.attention.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output[1]))
        out = layer(state.detach())
        handle.remove()
        out = out[0] if isinstance(out, tuple) else out
        logit = twin.classifier(twin.vit.layernorm(out)[:, 0])[0, 1]
        (slope,) = torch.autograd.grad(logit, seen[0])
        total = total + slope.relu().mean((1, 2))[0, 1:]
    assert_close(output.attributions[0], total.reshape(4, 4))


def test_text_classifiers_read_their_class_token():
    model, tokenizer = text_model("bert")
    outputs = RawAttention(model, tokenizer, granularity="all-tokens")(TEXTS)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    for output, text in zip(outputs, TEXTS, strict=True):
        attention = twin(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions[-1]
        assert_close(output.attributions[0], attention.mean(1)[0, 0])


def test_decoders_read_their_last_token():
    model, tokenizer = text_model("gpt2")
    outputs = RawAttention(model, tokenizer, granularity="all-tokens")(TEXTS)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    for output, text in zip(outputs, TEXTS, strict=True):
        attention = twin(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions[-1]
        assert_close(output.attributions[0], attention.mean(1)[0, -1])


class Pooled(nn.Module):
    """A small convolutional network with a global average pool and a linear head."""

    def __init__(self, channels_last=False):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Tanh())
        self.last = nn.Identity()
        self.head = nn.Linear(6, 3)
        self.channels_last = channels_last

    def forward(self, pixels):
        found = self.features(pixels)
        found = self.last(found.permute(0, 2, 3, 1) if self.channels_last else found)
        return self.head(found.mean((1, 2) if self.channels_last else (2, 3)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_grad_cam_has_a_closed_form_behind_a_global_average_pool(channels_last):
    model = Pooled(channels_last).eval()
    pixels = torch.rand(2, 3, 16, 32)
    outputs = GradCam(model, task="image-classification")(pixels, targets=(0, 2))
    features = model.features(pixels)
    for output, own in zip(outputs, features, strict=True):
        assert output.granularity == "Grid(rows=4, columns=8)"
        expected = torch.einsum("kc,chw->khw", model.head.weight[[0, 2]], own).relu() / 32
        assert_close(output.attributions, expected)


def test_layers_of_grad_cam_are_named():
    model, processor = image_model("torchvision-resnet")

    def cam(layer):
        return GradCam(model, processor, task="image-classification", layer=layer)(some_images()[0])[0]

    assert torch.equal(cam("layer3").attributions, cam(model.layer3).attributions)
    assert cam("layer2").attributions.shape != cam("layer3").attributions.shape
    with pytest.raises(OptionError, match=r"no layer='layer9'.*layer3"):
        cam("layer9")
    with pytest.raises(OptionError, match=r"layer='fc' has no spatial positions.*layer3"):
        cam("fc")


def test_a_layer_after_which_nothing_is_read_is_reported():
    model, processor = image_model("vit")
    with pytest.raises(UnsupportedError, match=r"does not depend on the patches of vit\.layers\.1"):
        GradCam(model, processor, layer="vit.layers.1")(some_images()[0])


@pytest.mark.parametrize("name", list(IMAGE_MODELS))
def test_grids_have_the_form_of_the_image(name):
    model, processor = image_model(name)
    task = None if getattr(model, "config", None) is not None else "image-classification"
    (output,) = GradCam(model, processor, task=task)(some_images()[0])
    assert output.attributions.ndim == 3
    assert output.attributions.shape[1] == output.attributions.shape[2] > 1
    assert output.elements.shape == (output.attributions[0].numel(), 4)


def _dinov2_with_registers():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    return hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(**sizes, image_size=32, patch_size=8, num_register_tokens=3, num_labels=3)
    )


def _deit_with_a_teacher():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**sizes, image_size=32, patch_size=8, num_labels=3))


class ClassTokenLast(nn.Module):
    """A transformer whose class token comes after the patches, which are in column order."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True) for _ in range(2)]
        )
        self.head = nn.Linear(16, 3)

    def forward(self, pixels):
        hidden = self.stem(pixels).transpose(2, 3).flatten(2).mT
        hidden = torch.cat([hidden, self.token.expand(len(pixels), -1, -1)], 1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden[:, -1])


@pytest.mark.parametrize("build", [_dinov2_with_registers, _deit_with_a_teacher, ClassTokenLast])
def test_patch_positions_are_found(build):
    """The position found for a patch is the one whose input to the first block changes with the patch's pixels."""
    torch.manual_seed(0)
    model = build().eval()
    wrapper = InferenceWrapper.create(image_classification, model, None, Runtime())
    pixels = torch.rand(3, 32, 48 if build is ClassTokenLast else 32)
    sample = wrapper.inputs.prepare_one(pixels)
    # Run the user's model instead of a copy, because its own blocks are hooked below.
    with torch.no_grad():
        positions = wrapper.engine.capture.positions(sample.rows)
        structure = wrapper.engine.capture.structure(sample.rows)
    assert positions.grid.shape == (4, pixels.shape[2] // 8)
    entered = []
    handle = structure.blocks[0].register_forward_pre_hook(lambda _m, given: entered.append(given[0]))
    for row, column in ((0, 0), (1, 2), (3, 1)):
        changed = pixels.clone()
        changed[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
        entered.clear()
        with torch.no_grad():
            model(torch.stack([pixels, changed]))
        (place,) = (entered[0][0] - entered[0][1]).abs().amax(-1).nonzero()[:, 0]
        assert positions.grid[row, column] == place
    handle.remove()
    for method in (LeGrad, GenericAttention, RawAttention, GradCam, GradEclip):
        (output,) = method(model, task="image-classification")(pixels)
        assert output.attributions.shape == (1, *positions.grid.shape)


def test_other_granularities():
    model, processor = image_model("vit")
    fine = LeGrad(model, processor, granularity="pixel")(some_images()[0])[0]
    coarse = LeGrad(model, processor)(some_images()[0])[0]
    expected = functional.interpolate(coarse.attributions[None], size=(32, 32), mode="bilinear")[0]
    assert torch.allclose(fine.attributions, expected)


def test_language_models_are_refused_with_a_reason():
    model, tokenizer = zoo.load("stories-gpt2")
    with pytest.raises(
        UnsupportedError, match="LeGrad captures internals of the model: the attention of generated words"
    ):
        LeGrad(model, tokenizer)


@pytest.mark.parametrize(
    ("method", "bound"), [(LeGrad, 0.85), (lambda *a: GradEclip(*a, layers=-2), 0.9)], ids=["LeGrad", "GradEclip"]
)
def test_prompts_find_the_objects_that_they_name(method, bound):
    model, processor = zoo.load("shapes-clip")
    examples = zoo.samples("shapes-clip", reduced(400, least=100))
    outputs = method(model, processor)([e.input for e in examples], [e.label for e in examples])
    masks = [torch.from_numpy(example.truth) for example in examples]
    swapped = [masks[number ^ 1] for number in range(len(masks))]
    game = PointingGame().evaluate(outputs, masks)
    own = RelevanceMass().evaluate(outputs, masks)
    other = RelevanceMass().evaluate(outputs, swapped)
    assert game.mean > bound
    moved = torch.tensor([float(a) > float(b) for a, b in zip(own.values, other.values, strict=True)])
    assert moved.float().mean() >= 0.85


def test_layers_that_can_be_used_are_listed():
    model, processor = zoo.load("shapes-clip")
    image = zoo.samples("shapes-clip", 1)[0].input
    with pytest.raises(OptionError, match=r"did you mean 'vision_model.encoder.layers.2'"):
        GradCam(model, processor, layer="vision_model.encoder.layer.2")(image, "a dog")
    with pytest.raises(OptionError, match=r"'vision_model.encoder.layers.0', 'vision_model.encoder.layers.1'"):
        GradCam(model, processor, layer="nope")(image, "a dog")
