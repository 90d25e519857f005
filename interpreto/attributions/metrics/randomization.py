"""Model randomisation: whether attributions depend on the learned weights."""

import copy
import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.faithfulness import correlation
from interpreto.attributions.metrics.metric_result import Curve, MetricResult, Needs, skip_failed_samples
from interpreto.attributions.metrics.perturbation_metric import check_method
from interpreto.attributions.metrics.replay import inputs_and_targets
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import ConvergenceWarning, InputError, UnsupportedError
from interpreto.option_kinds import checks_options


class ModelRandomization:
    """Rank correlation of attributions with those of the same model with random weights (Adebayo et al. 2018,
    arXiv 1810.03292).

    Layers are randomised in steps from the last to the first. A weight matrix is drawn from a normal distribution with
    its own mean and standard deviation; a vector (biases, normalisation weights) is shuffled. The value is Spearman's
    correlation of the absolute attributions after all layers are random, or 0 if one of the two is constant. `curves`
    has the correlation for every step, with the share x of random layers. Low is good: attributions that do not change
    do not depend on the model. The authors compare images; here the scores of units are compared.

    The method runs on a copy of the model, which takes as much memory as the model. The model itself is not changed.

    Args:
        method: The method that explained the outputs, on the same model.
        n_steps: Number of steps in which layers are randomised.
        seed: Seed of the random weights.
    """

    needs: ClassVar[Needs] = Needs.METHOD
    higher_is_better: ClassVar[bool] = False

    @checks_options
    def __init__(self, method: Explainer, *, n_steps: int = 1, seed: int = 0) -> None:
        self.method, self.n_steps, self.seed = method, n_steps, seed

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: object = None) -> MetricResult:
        """Measure attributions of this method.

        Args:
            outputs: The outputs of the method.
            inputs: The samples, in the same order; None uses the raw inputs that the outputs keep.

        Raises:
            InputError: if outputs and method do not belong together.
            UnsupportedError: if the model is a function, or cannot be copied.
        """
        outputs = check_method(outputs, self.method)
        samples, specs = inputs_and_targets(outputs, inputs, self.method.setup.wrapper)
        method, model = _copied(self.method)
        originals = self.method.setup.wrapper.engine.module
        assert originals is not None
        layers = list(zip(*map(_layers, (model, originals)), strict=True))
        steps: list[list[list[float]]] = []
        n_evaluations = 0
        for step in range(1, self.n_steps + 1):
            # modules() lists layers in the order of their definition, which is that of the forward pass in most models.
            top = layers[len(layers) - round(len(layers) * step / self.n_steps) :]
            _randomise(top, self.seed)
            with warnings.catch_warnings():
                # Path integrals converge slowly on random weights, which does not matter here.
                warnings.simplefilter("ignore", ConvergenceWarning)
                others = method.explain_unchecked(samples, specs)
            n_evaluations += sum(other.n_evaluations for other in others)
            steps.append([_correlations(*pair) for pair in zip(outputs, others, strict=True)])
        x = torch.linspace(0, 1, self.n_steps + 1)
        curves = [
            [Curve(x, torch.tensor([1.0, *(step[number][target] for step in steps)])) for target in range(len(names))]
            for number, names in enumerate(output.target_names for output in outputs)
        ]
        values = [torch.tensor([float(curve.y[-1]) for curve in sample_curves]) for sample_curves in curves]
        return MetricResult(type(self).__name__, values, False, curves, n_evaluations)


def _correlations(output: AttributionOutput, other: AttributionOutput) -> list[float]:
    """Spearman's correlation of the absolute attributions of two outputs, one per target.

    Raises:
        InputError: if they have different units.
    """
    if output.attributions.shape != other.attributions.shape:
        raise InputError("The method divides the inputs into other units than those of the outputs.")
    correlations = []
    for original, randomised in zip(output.ranking_scores.flatten(1), other.ranking_scores.flatten(1), strict=True):
        has_scores = ~(original.isnan() | randomised.isnan())
        pair = [scores[has_scores].abs() for scores in (original, randomised)]
        # The correlation with a constant is not defined. It counts as 0, because no information is shared.
        constant = any(len(scores) < 2 or bool((scores == scores[0]).all()) for scores in pair)
        correlations.append(
            0.0 if constant else correlation(*(torch.from_numpy(rankdata(scores.numpy())) for scores in pair))
        )
    return correlations


def _copied(method: Explainer) -> tuple[Explainer, nn.Module]:
    """The method on a copy of its model, and that copy.

    Raises:
        UnsupportedError: if the model is a function, or cannot be copied.
    """
    if method.setup.wrapper.engine.module is None:
        raise UnsupportedError("ModelRandomization needs weights to randomise; this model is a function.")
    try:
        # The whole method, since its wrapper, engine and plan all refer to the model.
        method_copy = copy.deepcopy(method)
    except Exception as error:
        raise UnsupportedError(
            f"ModelRandomization randomises a copy of the model, and this one cannot be copied: {error}"
        ) from error
    model = method_copy.setup.wrapper.engine.module
    assert model is not None
    return method_copy, model


def _layers(model: nn.Module) -> list[nn.Module]:
    """The modules that own parameters, rather than only having submodules that do."""
    return [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]


@torch.no_grad()
def _randomise(layers: Sequence[tuple[nn.Module, nn.Module]], seed: int) -> None:
    """Overwrite the weights of layers with random ones that have the statistics of the original weights."""
    rng, visited = torch.Generator().manual_seed(seed), set[int]()
    for layer, original in layers:
        for parameter, weights in zip(layer.parameters(recurse=False), original.parameters(recurse=False), strict=True):
            # Tied weights, such as those of embeddings and language model head, are drawn once.
            if id(parameter) not in visited:
                visited.add(id(parameter))
                parameter.copy_(_random_like(weights, rng))


def _random_like(parameter: Tensor, rng: torch.Generator) -> Tensor:
    """Random weights: a matrix from a normal distribution, a vector shuffled."""
    if parameter.ndim < 2:
        # Vectors are shuffled, which keeps their distribution; normal noise would hardly change those close to 1.
        flat = parameter.flatten()
        return flat[torch.randperm(len(flat), generator=rng).to(flat.device)].reshape(parameter.shape)
    values = parameter.float()
    noise = torch.randn(parameter.shape, generator=rng).to(values.device)
    return values.mean() + values.std(correction=0) * noise
