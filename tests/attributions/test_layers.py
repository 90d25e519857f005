"""Layers: which have patch positions, and which of them the output depends on."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

from interpreto import AttentionRollout, GradCam, LeGrad, RawAttention, Saliency
from interpreto.errors import OptionError, UnsupportedError, ZeroMapWarning
from interpreto.model_wrapping.internals.patch_positions import corner_images, responds_in_corners
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tasks.image_classification import image_classification
from interpreto.model_wrapping.wrapper import InferenceWrapper

TASK = {"task": "image-classification"}
PIXELS = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))


def convolutions(*widths):
    torch.manual_seed(0)
    layers = []
    for before, after in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)


class WithDecoder(nn.Module):
    """A decoder runs after the head, and its output is not used."""

    def __init__(self, detached=False):
        super().__init__()
        self.backbone, self.decoder = convolutions(6, 8), nn.Conv2d(8, 3, 3, padding=1)
        self.head, self.detached = nn.Linear(8, 3), detached

    def forward(self, pixels):
        features = self.backbone(pixels)
        features = features.detach() if self.detached else features
        logits = self.head(features.mean((2, 3)))
        self.decoder(features)
        return logits


def grad_cam_by_hand(model, layer, target):
    kept = []
    handle = layer.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.retain_grad())
    pixels = PIXELS[None].clone().requires_grad_()
    model(pixels)[0, target].backward()
    handle.remove()
    (features,) = kept
    return (features.grad.mean((2, 3), keepdim=True) * features).sum(1).relu()[0].detach()


def test_a_decoder_beside_the_head_is_not_explained():
    model = WithDecoder().eval()
    targets = [target for target in range(3) if grad_cam_by_hand(model, model.backbone[3], target).any()]
    (output,) = GradCam(model, **TASK, granularity="pixel")(PIXELS, tuple(targets))
    assert output.info["layer"] == "backbone"
    for target, found in zip(targets, output.attributions, strict=True):
        assert torch.allclose(found, grad_cam_by_hand(model, model.backbone[3], target), atol=1e-6)


def test_a_detached_backbone_is_explained_by_what_comes_after():
    class Detached(WithDecoder):
        def forward(self, pixels):
            with torch.no_grad():
                features = self.backbone(pixels)
            return self.head(self.decoder(features).mean((2, 3)))

    model = Detached()
    model.head = nn.Linear(3, 3)
    (output,) = GradCam(model.eval(), **TASK)(PIXELS, 0)
    assert output.info["layer"] == "decoder"


def test_an_output_without_gradients_is_refused():
    with pytest.raises(
        UnsupportedError,
        match="does not depend on a layer with spatial positions in a way that PyTorch can differentiate",
    ):
        GradCam(WithDecoder(detached=True).eval(), **TASK)(PIXELS, 0)


def test_maps_of_zeros_are_reported_and_recorded():
    model = WithDecoder().eval()
    # Every channel is positive, and every weight of one class negative.
    model.backbone[3] = nn.Sigmoid()
    model.head.weight.data[0] = -1.0
    model.head.weight.data[1] = 1.0
    with pytest.warns(ZeroMapWarning, match="GradCam gives maps that are 0 everywhere for 1 of 1 samples"):
        (output,) = GradCam(model, **TASK)(PIXELS, (0, 1))
    assert output.info["zero_maps"] == [output.target_names[0]]


@pytest.mark.parametrize("scrambled", [False, True])
def test_cells_must_respond_where_the_image_was_changed(scrambled):
    torch.manual_seed(0)
    features = nn.Conv2d(3, 5, 4, stride=4)(corner_images(PIXELS[None]))
    if scrambled:
        features = features.flatten(2)[..., torch.randperm(64)].unflatten(2, (8, 8))
    assert responds_in_corners(features) != scrambled


def test_hiera_is_read_where_its_patches_lie_in_order():
    """Hiera's blocks keep patches in the order of windows, which is known for as many as the first block gets."""
    torch.manual_seed(0)
    config = hf.HieraConfig(
        image_size=[64, 64], embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], query_stride=[2, 2],
        masked_unit_size=[8, 8], num_labels=3,
    )  # fmt: skip
    model = hf.HieraForImageClassification(config).eval()
    (output,) = GradCam(model)(torch.rand(3, 64, 64), 0)
    assert output.info["layer"].startswith("hiera.encoder.stages.3")
    # Patches are a stride apart, and are merged three times: 4 * 2**3 = 32 pixels.
    assert Saliency(model)(torch.rand(3, 64, 64), 0)[0].attributions.shape == (1, 2, 2)
    with pytest.raises(OptionError, match="has no spatial positions"):
        GradCam(model, layer="hiera.encoder.stages.2")(torch.rand(3, 64, 64), 0)


def _timm(name, **options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model(
        name, num_classes=3, img_size=32, patch_size=8, embed_dim=16, num_heads=2, **options
    ).eval()


def test_a_class_token_may_join_later():
    """ConViT prepends it after some blocks: positions found before the first block are wrong after that."""
    model = _timm("convit_tiny", depth=4, local_up_to_layer=2)
    wrapper = InferenceWrapper.create(image_classification, model, None, Runtime())
    sample = wrapper.inputs.prepare_one(PIXELS)
    with torch.no_grad():
        first, later = wrapper.engine.capture.positions(sample.rows), wrapper.engine.capture.positions(sample.rows, 17)
    assert first.length == 16
    assert torch.equal(first.grid.flatten(), torch.arange(16))
    assert torch.equal(later.grid.flatten(), torch.arange(16) + 1)
    (output,) = RawAttention(model, **TASK, layers=-1)(PIXELS, 0)
    kept = []
    handle = model.blocks[-1].attn.attn_drop.register_forward_pre_hook(lambda _m, given: kept.append(given[0]))
    with torch.no_grad():
        model(PIXELS[None])
    handle.remove()
    expected = kept[0][0, :, 0, 1:].mean(0).reshape(4, 4)
    assert torch.allclose(output.attributions[0], expected, atol=1e-6)
    for method in (GradCam, LeGrad):
        (output,) = method(model, **TASK)(PIXELS, 0)
        assert output.attributions.shape == (1, 4, 4)


def test_legrad_reads_the_only_block():
    model = _timm("vit_tiny_patch16_224", depth=1)
    (default,), (named,) = (LeGrad(model, **TASK, **options)(PIXELS, 0) for options in ({}, {"layers": 0}))
    assert torch.equal(default.attributions, named.attributions)


class WithAuxiliaryHead(nn.Module):
    """Adds the maximum of the per-position logits to the logits of the image, as VOLO does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.auxiliary, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 3, 1), nn.Linear(8, 3)

    def forward(self, images):
        features = torch.tanh(self.features(images))
        return self.head(features.mean((2, 3))) + 0.5 * self.auxiliary(features).flatten(2).amax(2)


def test_logits_of_an_auxiliary_head_are_no_features():
    (output,) = GradCam(WithAuxiliaryHead().eval(), **TASK)(PIXELS, 1)
    assert output.info["layer"] == "features"


def test_window_attention_has_no_patch_positions():
    from tests.models import image_model

    model, _ = image_model("swin")
    windowed = "swin.encoder.layers.0.blocks.0.attention"
    with pytest.raises(OptionError, match="has no spatial positions"):
        GradCam(copy.deepcopy(model), layer=windowed)(PIXELS, 0)


@pytest.mark.parametrize("method", [LeGrad, AttentionRollout])
def test_blocks_of_one_list_that_attend_over_different_positions_are_refused(method):
    import timm

    sizes = {"img_size": (64, 64), "embed_dim": 8, "num_heads": 1, "stages": (1, 1, 1), "q_pool": 2}
    model = timm.create_model("hiera_tiny_224", num_classes=3, **sizes, mask_unit_size=(4, 4)).eval()
    with pytest.raises(UnsupportedError, match=r"attend over \[\d+, \d+.*no map of the whole input"):
        method(model, **TASK)(torch.rand(3, 64, 64), 0)


class ReturnsPatchesToo(nn.Module):
    """Returns patches and a class token that attends to them; the head reads the token."""

    def __init__(self):
        super().__init__()
        self.features, self.join = convolutions(6, 8), Joined()
        self.head = nn.Linear(8, 3)

    def forward(self, pixels):
        patches, token = self.join(self.features(pixels))
        del patches
        return self.head(token)


class Joined(nn.Module):
    def forward(self, patches):
        return patches * 1, patches.mean((2, 3))


def test_a_layer_beside_which_the_output_is_read_is_refused():
    model = ReturnsPatchesToo().eval()
    with pytest.raises(UnsupportedError, match=r"does not depend on join in a way .* Use another layer"):
        GradCam(model, **TASK, layer="join")(PIXELS, 0)
    (output,) = GradCam(model, **TASK)(PIXELS, 0)
    assert output.info["layer"] == "features"
