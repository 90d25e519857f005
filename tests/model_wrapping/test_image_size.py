"""The option `image_size`: position embeddings are interpolated as in the model's library."""

import copy

import open_clip
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from interpreto import Occlusion
from interpreto.model_wrapping.inputs.image_size import resolution_of
from tests.dual_encoders import dual_encoder_model
from tests.models import image_model

SIZE = 64


def of_timm(model):
    made = copy.deepcopy(model)
    made.set_input_size(img_size=SIZE)
    return made


def of_torchvision(model):
    made = torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=3
    )
    made.load_state_dict(interpolate_embeddings(SIZE, 8, model.state_dict()))
    return made.eval()


def of_open_clip(model):
    vision = open_clip.CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=8, image_size=SIZE)
    text = open_clip.CLIPTextCfg(context_length=16, vocab_size=49408, width=32, heads=4, layers=2)
    made = open_clip.model.CLIP(16, vision, text)
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, made)
    made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize(
    ("name", "at_other_size"), [("timm-vit", of_timm), ("torchvision-vit", of_torchvision), ("open-clip", of_open_clip)]
)
def test_scores_are_those_of_the_model_that_its_library_makes_for_the_size(name, at_other_size):
    pixels = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    if name == "open-clip":
        model, _ = dual_encoder_model(name)
        target = torch.rand(16, generator=torch.Generator().manual_seed(1))
        explain = Occlusion(model, (None, open_clip.SimpleTokenizer(context_length=16)), image_size=SIZE)
        image = nn.functional.normalize(at_other_size(model).encode_image(pixels)[0], dim=0)
        expected = model.logit_scale.exp() * (image @ nn.functional.normalize(target, dim=0))[None]
    else:
        model, _ = image_model(name)
        target = (0, 1, 2)
        explain = Occlusion(model, task="image-classification", image_size=SIZE, inference_mode="logits")
        expected = at_other_size(model)(pixels)[0]
    found = explain(pixels, target)[0].scores
    assert torch.allclose(found, expected.detach().to(found), rtol=1e-4, atol=1e-6)


def test_position_embeddings_of_other_models_are_interpolated_without_antialiasing():
    """As in transformers and in the releases of DINO and DeiT."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.img_size = 32
            self.pos_embed = nn.Parameter(torch.rand(1, 17, 6, generator=torch.Generator().manual_seed(0)))

        def forward(self, images):
            return images

    model = Own()
    first, table = model.pos_embed.detach()[0].clone().split([1, 16])
    grid = table.reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(3, 5), mode="bicubic").permute(0, 2, 3, 1).reshape(15, 6)
    with resolution_of(model, model.forward, (24, 40), (8, 8)).applied():
        assert torch.equal(model.pos_embed[0, :1], first)
        assert torch.allclose(model.pos_embed[0, 1:], expected, atol=1e-6)
    assert model.pos_embed.shape == (1, 17, 6)
