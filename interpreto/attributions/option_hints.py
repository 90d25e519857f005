"""Error messages for option and method names of captum, shap, inseq and upstream interpreto, with our equivalents."""

from collections.abc import Iterable

from interpreto.errors import OptionError, choices

_HINTS = {
    "tokenizer": "pass the tokenizer as the second argument, as in Lime(model, tokenizer)",
    "model_inputs": "pass the inputs when calling the explainer, as in explainer(inputs)",
    "inputs": "pass the inputs when calling the explainer, as in Lime(model, processor)(inputs)",
    "target": "pass targets= when calling the explainer, as in explainer(inputs, targets=1)",
    "targets": "pass targets= when calling the explainer, as in explainer(inputs, targets=1)",
    "n_perturbations": "use n_samples=",
    "nsamples": "use n_samples=",
    "nt_samples": "use n_samples= of SmoothGrad, SquareGrad or VarGrad",
    "max_evals": "use n_samples=; the evaluations of a result are in output.n_evaluations",
    "noise_std": "use noise_level=, relative to the range of the input",
    "stdevs": "use noise_level=, relative to the range of the input",
    "baselines": "use baseline= for path methods such as IntegratedGradients, or removal= for methods that mask units",
    "feature_mask": "pass granularity=, such as Grid(14, 14), or an object with units() and labels()",
    "granularity_aggregation_strategy": "use pooling= for texts, resize= for images",
    "input_x_gradient": "use the class InputXGradient",
    "sliding_window_shapes": "use window= of Occlusion",
    "strides": "use stride= of Occlusion",
    "internal_batch_size": "use batch_size=",
    "perturbations_per_eval": "use batch_size=",
    "additional_forward_args": "wrap the model in a torch.nn.Module that adds these arguments, or use from_callables",
    "attribute": "call the explainer object instead: explainer(inputs, targets=...)",
    "shap_values": "call the explainer object instead: explainer(inputs, targets=...)",
}


def unknown_option(owner: str, name: str, options: Iterable[str]) -> OptionError:
    """The error for an unknown option; the message has our equivalent of another library's option, or similar names."""
    hint = _HINTS.get(name)
    return OptionError(f"{owner} has no option {name!r}: {choices(name, options) if hint is None else f'{hint}.'}")


def unknown_attribute(owner: str, name: str) -> AttributeError:
    """The error for an unknown attribute; the message has our equivalent of another library's method."""
    hint = _HINTS.get(name)
    return AttributeError(f"{owner!r} has no attribute {name!r}{f': {hint}' if hint else ''}.")
