"""Model randomisation: does an attribution depend on what the model has learned?"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

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

    Layers are randomised from the top down, a further part of them at every step: a weight matrix is drawn from a
    normal distribution with its own mean and standard deviation, a vector (of biases, of a normalisation) is
    shuffled. The value is Spearman's correlation of the absolute attributions once all layers are random, 0 where one
    of them is constant; `curves` hold it for every step, x the share of layers that is random. Low is good: an
    attribution that stays the same does not tell of the model. The authors compare images; here units are compared,
    in the units of the outputs.

    The method runs on a copy of the model with weights of its own, which takes as much memory as the model; the
    model itself stays as it is.

    Args:
        method: A method on the model, as it explained the outputs.
        n_steps: In how many steps layers are randomised.
        seed: Where randomness starts.
    """

    needs: ClassVar[Needs] = Needs.METHOD
    higher_is_better: ClassVar[bool] = False

    @checks_options
    def __init__(self, method: Explainer, *, n_steps: int = 1, seed: int = 0) -> None:
        self.method, self.n_steps, self.seed = method, n_steps, seed

    @skip_failed_samples
    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: Any = None) -> MetricResult:
        """Measure attributions of this method.

        Args:
            outputs: What the method said.
            inputs: The samples, in the same order; None takes the raw inputs that the outputs keep.

        Raises:
            InputError: if outputs and method do not belong together.
            UnsupportedError: if the model is a function, or cannot be copied.
        """
        outputs = check_method(outputs, self.method)
        samples, specs = inputs_and_targets(outputs, inputs)
        method, model = _copied(self.method)
        originals = self.method.setup.wrapper.engine.module
        assert originals is not None
        layers = list(zip(*map(_layers, (model, originals)), strict=True))
        steps: list[list[list[float]]] = []
        rows = 0
        for step in range(1, self.n_steps + 1):
            top = layers[len(layers) - round(len(layers) * step / self.n_steps) :]
            _randomise(top, self.seed)
            with warnings.catch_warnings():
                # Random weights are steep; whether a path converges on them matters to nobody.
                warnings.simplefilter("ignore", ConvergenceWarning)
                others = method.explain(samples, specs)
            rows += sum(other.n_evaluations for other in others)
            steps.append([_correlations(*pair) for pair in zip(outputs, others, strict=True)])
        x = torch.linspace(0, 1, self.n_steps + 1)
        curves = [
            [Curve(x, torch.tensor([1.0, *(step[number][target] for step in steps)])) for target in range(len(names))]
            for number, names in enumerate(output.target_names for output in outputs)
        ]
        values = [torch.tensor([float(curve.y[-1]) for curve in some]) for some in curves]
        return MetricResult(type(self).__name__, values, False, curves, rows)


def _correlations(output: AttributionOutput, other: AttributionOutput) -> list[float]:
    if output.attributions.shape != other.attributions.shape:
        raise InputError("The method cuts the inputs into other units than those of the outputs.")
    found = []
    for one, two in zip(output.ranking_scores.flatten(1), other.ranking_scores.flatten(1), strict=True):
        seen = ~(one.isnan() | two.isnan())
        pair = [scores[seen].abs() for scores in (one, two)]
        constant = any(len(scores) < 2 or bool((scores == scores[0]).all()) for scores in pair)
        found.append(0.0 if constant else correlation(*(torch.from_numpy(rankdata(scores.numpy())) for scores in pair)))
    return found


def _copied(method: Explainer) -> tuple[Explainer, nn.Module]:
    """A method on a copy of its model, weights and all, and that copy.

    Raises:
        UnsupportedError: if there is no model, or none that can be copied.
    """
    if method.setup.wrapper.engine.module is None:
        raise UnsupportedError("ModelRandomization needs weights to randomise; this model is a function.")
    try:
        own = copy.deepcopy(method)
    except Exception as error:
        raise UnsupportedError(
            f"ModelRandomization randomises a copy of the model, and this one cannot be copied: {error}."
        ) from error
    model = own.setup.wrapper.engine.module
    assert model is not None
    return own, model


def _layers(model: nn.Module) -> list[nn.Module]:
    """The modules that have weights of their own."""
    return [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]


@torch.no_grad()
def _randomise(layers: Sequence[tuple[nn.Module, nn.Module]], seed: int) -> None:
    """Give layers random weights, made from those of their originals."""
    rng, done = torch.Generator().manual_seed(seed), set[int]()
    for layer, original in layers:
        for parameter, own in zip(layer.parameters(recurse=False), original.parameters(recurse=False), strict=True):
            if id(parameter) not in done:
                done.add(id(parameter))
                parameter.copy_(_drawn(own, rng))


def _drawn(parameter: Tensor, rng: torch.Generator) -> Tensor:
    if parameter.ndim < 2:
        flat = parameter.flatten()
        return flat[torch.randperm(len(flat), generator=rng).to(flat.device)].reshape(parameter.shape)
    values = parameter.float()
    noise = torch.randn(parameter.shape, generator=rng).to(values.device)
    return values.mean() + values.std() * noise
