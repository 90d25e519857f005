"""Models with two towers that are known to work."""

from interpreto.model_wrapping.loading import OPEN_CLIP

_TRANSFORMERS = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-large-patch14-336",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "facebook/metaclip-b32-400m",
    "facebook/metaclip-b16-fullcc2.5b",
    "facebook/metaclip-2-worldwide-huge-quickgelu",
    "google/siglip-base-patch16-224",
    "google/siglip-base-patch16-384",
    "google/siglip-large-patch16-256",
    "google/siglip-so400m-patch14-384",
    "google/siglip2-base-patch16-224",
    "google/siglip2-base-patch16-512",
    "google/siglip2-large-patch16-256",
    "google/siglip2-so400m-patch14-384",
    "OFA-Sys/chinese-clip-vit-base-patch16",
    "CIDAS/clipseg-rd64-refined",
)
_KINDS = ("ViT-", "coca_ViT-")
"""Of the architectures of OpenCLIP those whose image tower is a plain ViT."""
_OTHER = ("CL32", "roberta", "xlm", "nllb", "MobileCLIP", "naflex")
"""Parts of names whose text or image towers are built in ways that were not tried."""


def list_pretrained() -> tuple[str, ...]:
    """CLIP-type models that every method is known to work on, by names that `--model` takes.

    Hub ids for transformers and, where OpenCLIP is installed, `open_clip:NAME:WEIGHTS`: ViT CLIP, SigLIP through timm,
    and CoCa. What is known is the architecture: it is tested with small random weights.
    """
    try:
        import open_clip
    except ImportError:
        return _TRANSFORMERS
    known = [
        f"{OPEN_CLIP}{name}:{tag}"
        for name, tag in open_clip.list_pretrained()
        if name.startswith(_KINDS) and not any(part in name for part in _OTHER)
    ]
    return (*_TRANSFORMERS, *known)
