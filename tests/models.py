"""Tiny models with random weights, tokenizers trained on a few sentences, and models with known attributions."""

import inspect
from functools import cache, partial
from typing import Any

import torch
import transformers as hf
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from interpreto import METHODS, METRICS, IntegratedGradients, zoo

TEXTS = ["The plot was not good.", "A truly charming film, and we saw it twice!", "Dull."]
FAST_OPTIONS = {
    "Lime": {"n_samples": 24},
    "KernelShap": {"n_samples": 40},
    "Sobol": {"n_samples": 120, "grid_size": 3},
    "Rise": {"n_samples": 24, "grid_size": 3},
    "IntegratedGradients": {"n_steps": 5},
    "SmoothGrad": {"n_samples": 4},
    "SquareGrad": {"n_samples": 4},
    "VarGrad": {"n_samples": 4},
    "GradientShap": {"n_samples": 6},
    "BlurIG": {"n_steps": 5},
    "GuidedIG": {"n_steps": 5},
    "XRAI": {"base_attribution": partial(IntegratedGradients, n_steps=3, baseline=["black", "white"])},
}
"""Options that make every method fast."""


def light(method, **options):
    """A method with few evaluations."""
    return partial(method, **FAST_OPTIONS.get(method.__name__, {}), **options)


ALL_LIGHT = {method.__name__: light(method) for method in METHODS}
LIGHT_METRICS = {
    metric.__name__: partial(metric, n_samples=8) if "n_samples" in inspect.signature(metric).parameters else metric
    for metric in METRICS
}
"""Every metric, by name, with few evaluations."""


@cache
def sentences():
    return [example.input for example in zoo.samples("reviews-bert")] + TEXTS


LINES = ["The plot was good.\nThe end.\n\nWhat? !\n\tThe (one),\n two; 2018-01-22"] * 20
"""A tokenizer trained on this has tokens of punctuation with the following line break."""


def byte_level(
    special: dict[str, str], start: str | None = None, end: str | None = None, pattern: str | None = None, texts=None
):
    """A byte-level BPE tokenizer as GPT-2 (without start and end), RoBERTa and (with a pattern of words) Llama 3 have."""
    tokenizer = Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(dict.fromkeys(special.values())), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts or sentences(), trainer)
    if start:
        ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
        tokenizer.post_processor = processors.RobertaProcessing(ids[1], ids[0])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **special, model_input_names=["input_ids", "attention_mask"]
    )


def metaspace(special: dict[str, str], start: str, end: str | None):
    """A Unigram tokenizer with markers for spaces, as in Llama and XLM-R."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=list(dict.fromkeys(special.values())), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    names = [(token, tokenizer.token_to_id(token)) for token in (start, end) if token]
    tail = f" {end}" if end else ""
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A{tail}", special_tokens=names)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **special, model_input_names=["input_ids", "attention_mask"]
    )


@cache
def tokenizer(kind: str) -> Any:
    if kind == "bert":
        return hf.AutoTokenizer.from_pretrained(zoo.path("reviews-bert"))
    if kind == "roberta":
        names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        return byte_level({**names, "mask_token": "<mask>"}, "<s>", "</s>")
    if kind == "gpt2":
        end = "<|endoftext|>"
        return byte_level({"eos_token": end, "bos_token": end, "unk_token": end})
    if kind == "llama-3":
        pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        return byte_level({"bos_token": "<s>", "eos_token": "</s>"}, pattern=pattern, texts=LINES)
    if kind == "llama":
        return metaspace({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, "<s>", None)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return metaspace({**names, "mask_token": "<mask>"}, "<s>", "</s>")


_SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 70, "num_labels": 3, "initializer_range": 0.3,
}  # fmt: skip


def _config(kind, config, **options):
    words = tokenizer(kind)
    ids = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos")}
    return config(**{**_SMALL, **ids, "vocab_size": len(words), "pad_token_id": words.pad_token_id, **options})


TEXT_MODELS = {
    "bert": ("bert", hf.BertForSequenceClassification, hf.BertConfig, {}),
    "roberta": ("roberta", hf.RobertaForSequenceClassification, hf.RobertaConfig, {}),
    "distilbert": (
        "bert", hf.DistilBertForSequenceClassification, hf.DistilBertConfig,
        {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    ),
    "albert": ("bert", hf.AlbertForSequenceClassification, hf.AlbertConfig, {"embedding_size": 8}),
    "electra": ("bert", hf.ElectraForSequenceClassification, hf.ElectraConfig, {"embedding_size": 8}),
    "deberta-v2": (
        "bert", hf.DebertaV2ForSequenceClassification, hf.DebertaV2Config,
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "xlm-r": ("xlm-r", hf.XLMRobertaForSequenceClassification, hf.XLMRobertaConfig, {}),
    "modernbert": (
        "bert", hf.ModernBertForSequenceClassification, hf.ModernBertConfig,
        {"global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3},
    ),
    "gpt2": ("gpt2", hf.GPT2ForSequenceClassification, hf.GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "llama": ("llama", hf.LlamaForSequenceClassification, hf.LlamaConfig, {"num_key_value_heads": 1}),
}  # fmt: skip


@cache
def text_model(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    kind, model, config, options = TEXT_MODELS[name]
    return model(_config(kind, config, **options)).eval(), tokenizer(kind)


# With the usual standard deviation, the scores of such a narrow model would be nearly constant.
_TOWER = {
    "initializer_range": 0.3,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_VIT = {**_TOWER, "image_size": 32, "patch_size": 8, "num_labels": 3}
_STAGES = {"image_size": 32, "num_labels": 3, "depths": [1, 1]}


def _hf_image(model, config, **options):
    return lambda: (model(config(**options)), processor())


def _torchvision(name, **options):
    import torchvision

    return lambda: (getattr(torchvision.models, name)(num_classes=3, **options), transform())


def _timm(name, **options):
    import timm

    return lambda: (timm.create_model(name, num_classes=3, **options), transform())


def processor(side: int = 32):
    return hf.ViTImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def transform(side: int = 32):
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.Resize((side, side)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


IMAGE_MODELS = {
    "vit": _hf_image(hf.ViTForImageClassification, hf.ViTConfig, **_VIT),
    "deit": _hf_image(hf.DeiTForImageClassification, hf.DeiTConfig, **_VIT),
    "beit": _hf_image(hf.BeitForImageClassification, hf.BeitConfig, **_VIT, use_relative_position_bias=True),
    "dinov2": _hf_image(hf.Dinov2ForImageClassification, hf.Dinov2Config, **_VIT),
    "dinov2-registers": _hf_image(
        hf.Dinov2WithRegistersForImageClassification, hf.Dinov2WithRegistersConfig, **_VIT, num_register_tokens=2
    ),
    "swin": _hf_image(
        hf.SwinForImageClassification, hf.SwinConfig, **_STAGES, patch_size=4, window_size=4, embed_dim=8,
        num_heads=[1, 2],
    ),
    "convnext": _hf_image(
        hf.ConvNextForImageClassification, hf.ConvNextConfig, **_STAGES, hidden_sizes=[8, 16], num_stages=2
    ),
    "resnet": _hf_image(
        hf.ResNetForImageClassification, hf.ResNetConfig, num_labels=3, depths=[1, 1], hidden_sizes=[8, 16],
        embedding_size=8, layer_type="basic",
    ),
    "torchvision-resnet": _torchvision("resnet18"),
    "torchvision-vit": _torchvision(
        "VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24
    ),
    "timm-vit": _timm(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=16, num_heads=2
    ),
}  # fmt: skip


@cache
def image_model(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, processed = IMAGE_MODELS[name]()
    for parameter in model.parameters():
        # Some heads are initialized to zero, which would make all attributions zero.
        if not parameter.any() and parameter.ndim == 2:
            nn.init.normal_(parameter)
    return model.eval(), processed


@cache
def some_images() -> list[Image.Image]:
    shown = [example.input for example in zoo.samples("shapes-vit", 3)]
    return [shown[0], shown[1].resize((40, 70)), shown[2].crop((0, 0, 50, 30))]


def setting(modality: str) -> tuple[Any, Any, list[Any]]:
    if modality == "text":
        return *text_model("bert"), TEXTS
    return *image_model("vit"), some_images()


class LinearImage(nn.Module):
    """Scores that are linear in the pixels."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.einsum("pchw,kchw->pk", pixels, self.weights)


class Game(nn.Module):
    """A function of the means of the four quarters of an image, as a cooperative game of four units."""

    def __init__(self, play) -> None:
        super().__init__()
        self.play = play
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.gain * self.play(nn.functional.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), 2).flatten(1))


class LinearText(hf.BertPreTrainedModel):
    """Scores that are linear in the token embeddings, without positions."""

    def __init__(self, config: hf.BertConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.num_labels, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.head(self.words(input_ids) * attention_mask[..., None]).sum(1))


@cache
def linear_text() -> tuple[Any, Any]:
    torch.manual_seed(0)
    return LinearText(_config("bert", hf.BertConfig)).eval(), tokenizer("bert")
