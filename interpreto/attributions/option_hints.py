"""Hints for names that other libraries (captum, shap, inseq, upstream interpreto) give to options and functions."""

from collections.abc import Iterable

from interpreto.errors import OptionError, choices

_HINTS = {
    "tokenizer": "pass the tokenizer as the second argument, as in Method(model, tokenizer)",
    "model_inputs": "pass the inputs as the first argument of the call, as in method(inputs)",
    "inputs": "pass the inputs to the call, as in Method(model, processor)(inputs)",
    "target": "pass targets= to the call, as in method(inputs, targets=1)",
    "targets": "pass targets= to the call, as in method(inputs, targets=1)",
    "n_perturbations": "use n_samples=",
    "nsamples": "use n_samples=",
    "nt_samples": "use n_samples= of SmoothGrad, SquareGrad or VarGrad",
    "max_evals": "use n_samples=; the evaluations of a result are in output.n_evaluations",
    "noise_std": "use noise_level=, relative to the range of the input",
    "stdevs": "use noise_level=, relative to the range of the input",
    "baselines": "use baseline= of methods with a path, or removal= of methods that mask units",
    "feature_mask": "pass granularity=, such as Grid(14, 14), or an object with units() and labels()",
    "granularity_aggregation_strategy": "use pooling= for texts, resize= for images",
    "input_x_gradient": "use the method InputXGradient",
    "sliding_window_shapes": "use window= of Occlusion",
    "strides": "use stride= of Occlusion",
    "internal_batch_size": "use batch_size=",
    "perturbations_per_eval": "use batch_size=",
    "additional_forward_args": "wrap the model in a module whose forward passes them, or use from_callables",
    "attribute": "call the method: method(inputs, targets=...)",
    "shap_values": "call the method: method(inputs, targets=...)",
}


def unknown_option(owner: str, name: str, options: Iterable[str]) -> OptionError:
    """The error for an option that does not exist: what to use instead of another library's name, or close names."""
    hint = _HINTS.get(name)
    return OptionError(f"{owner} has no option {name!r}: {choices(name, options) if hint is None else f'{hint}.'}")


def unknown_attribute(owner: str, name: str) -> AttributeError:
    """The error for an attribute that does not exist, with a hint for functions of other libraries."""
    hint = _HINTS.get(name)
    return AttributeError(f"{owner!r} has no attribute {name!r}{f': {hint}' if hint else ''}.")
