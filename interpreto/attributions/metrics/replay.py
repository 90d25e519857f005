"""Runs a model again on the samples of results, with the same inputs, targets and units."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from interpreto.attributions import granularity
from interpreto.attributions.assembly import Setup
from interpreto.attributions.granularity import Grid, Patches, Pixels, UnitSegmenter
from interpreto.attributions.perturbations.base import Layout
from interpreto.attributions.pipeline import Completed, Job, Pipeline
from interpreto.attributions.plans.base import PlanNeeds, PreparedSample
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError, OptionError
from interpreto.model_wrapping.messages import PlanRun
from interpreto.model_wrapping.sample import ImageSample, Sample
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.type_guards import is_list
from interpreto.typing import UnitScores

Result = TypeVar("Result")


def inputs_and_targets(
    outputs: Sequence[AttributionOutput], inputs: object, wrapper: InferenceWrapper
) -> tuple[Any, Any]:
    """The samples and targets of results, as a user would pass them to a method.

    Args:
        outputs: The results.
        inputs: The samples; None for those of the results.
        wrapper: The model, which knows what saved inputs and targets stand for.

    Raises:
        InputError: if a target was a function, an image or an embedding, and the result was loaded from a file, or
            there is not one sample per result.
    """
    targets, reader = wrapper.targets, wrapper.inputs
    specs = [
        targets.from_saved(output.targets, output.target_names) if output.request is None else output.request.targets
        for output in outputs
    ]
    # Read once, because some metrics explain the samples several times.
    samples = list(inputs) if isinstance(inputs, Iterator) and not reader.is_single(inputs) else inputs
    if samples is None:
        samples = [
            reader.from_saved(output.raw_input) if output.request is None else output.request.inputs
            for output in outputs
        ]
    count = len(samples) if is_list(samples) and not reader.is_single(samples) else len(outputs)
    if count != len(outputs):
        raise InputError(f"There are {len(outputs)} outputs for {count} inputs: pass one output per sample.")
    # A list of targets would be one per sample; a single sample can be passed without a list.
    return samples, specs[0] if len(specs) == 1 else specs


def run_on_samples(
    setup: Setup,
    outputs: Sequence[AttributionOutput],
    inputs: object,
    run: Callable[[PreparedSample, UnitScores], PlanRun[Result]],
    n_evaluations: Callable[[Layout], int],
) -> list[Completed[Result]]:
    """Run a plan on the sample of each result, with the attributions of the result.

    Args:
        setup: The wrapped model and options.
        outputs: The results.
        inputs: The samples; None for those of the results.
        run: Starts the plan for a sample and its attributions.
        n_evaluations: Expected number of evaluations of a sample.

    Raises:
        InputError: if results and samples do not belong together.
    """
    samples, specs = inputs_and_targets(outputs, inputs, setup.wrapper)
    job = Job(
        lambda number, prepared: run(prepared, _aligned(outputs[number], prepared)),
        n_evaluations,
        PlanNeeds(),
        segmenter=lambda number, sample: _segmenter_of(outputs[number], sample),
    )
    done = [result for result in Pipeline(setup).run_all(samples, specs, job) if isinstance(result, Completed)]
    if len(done) != len(outputs):
        raise InputError(f"There are {len(outputs)} outputs for {len(done)} inputs: pass one output per sample.")
    return done


def _segmenter_of(output: AttributionOutput, sample: Sample) -> UnitSegmenter:
    """The granularity of a result. For a loaded one it is found by its name, or for images by its boxes.

    Raises:
        OptionError: if the granularity of a text has no name.
        InputError: if the boxes are not a grid on the image that the model reads.
    """
    if output.request is not None:
        return output.request.segmenter
    segmenters = {str(name): segmenter for name, segmenter in granularity.KNOWN[output.modality].items()}
    if output.granularity == "segments":
        return granularity.Segments()
    if not isinstance(sample, ImageSample) or output.unit_map is not None:
        if output.granularity not in segmenters:
            raise OptionError(f"The granularity of the outputs is {output.granularity}: pass it as granularity=.")
        return segmenters[output.granularity]
    height, width = output.attributions.shape[1:]
    tall, wide = sample.size
    # The same shape can be a grid, or patches with a remainder at the border; the boxes tell which.
    candidates: list[Grid | Patches | Pixels] = []
    if height <= tall and width <= wide:
        candidates = [Grid(height, width), Patches((tall // height, wide // width))]
    for candidate in candidates:
        if _same_units(candidate.labels(sample), output.elements):
            return candidate
    raise InputError(
        f"The boxes of the outputs, {height} x {width}, do not fit the image that this model reads: they are of "
        "another image or model, or their granularity= must be passed."
    )


def _same_units(labels: object, elements: object) -> bool:
    """Whether units are the same; boxes are compared up to rounding."""
    # Pieces of text are lists, for which == compares all; boxes are tensors.
    if labels is elements or not isinstance(labels, Tensor) or not isinstance(elements, Tensor):
        return labels is elements or labels == elements
    return labels.shape == elements.shape and torch.allclose(labels, elements, atol=1e-3)


def _aligned(output: AttributionOutput, prepared: PreparedSample) -> UnitScores:
    """The attributions of a result, after a check that its units and targets are those of the sample.

    Raises:
        InputError: if they are not.
    """
    same = _same_units(prepared.labels, output.elements) and _same_units(prepared.units.unit_map, output.unit_map)
    if not same or output.attributions.shape[1:] != prepared.units.shape:
        raise InputError(
            "The units of an output are not those of its sample: pass the inputs that were explained, in the same "
            "order, and the same granularity=."
        )
    if len(output.attributions) != len(prepared.targets):
        raise InputError(
            f"An output has {len(output.attributions)} targets where the metric's sample has {len(prepared.targets)}: "
            f"{output.target_names} and {prepared.targets.names}."
        )
    return output.ranking_scores.float()
