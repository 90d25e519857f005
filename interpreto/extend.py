"""What methods, metrics, granularities and wrappers outside this package are made of.

See the page on extending in the documentation for an example of each.
"""

from interpreto.attributions.aggregations.gradients import Mean, SampleAccumulator
from interpreto.attributions.aggregations.masks import Differences, Estimate, KeptMean, MaskAccumulator, MaskAggregator
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity.image import bounding_boxes
from interpreto.attributions.granularity.units import ImageUnits, SegmentUnits, TextUnits, UnitReduction, Units
from interpreto.attributions.metrics.complexity import ComplexityMetric
from interpreto.attributions.metrics.metric_result import Curve, MetricResult, Needs, as_list, skip_failed_samples
from interpreto.attributions.metrics.perturbation_metric import PerturbationMetric
from interpreto.attributions.options import GradientOptions, InternalsOptions, MapOptions, Options, SharedOptions
from interpreto.attributions.perturbations.base import (
    GradientInput,
    Layout,
    MaskedRows,
    Masker,
    MaskGenerator,
    PathGenerator,
    PathPoints,
    Perturbator,
    Revealed,
    Revealer,
    reduce_axis,
)
from interpreto.attributions.plans.base import Evaluation, Plan, PlanNeeds, PreparedSample, UnitAttribution
from interpreto.attributions.plans.internals import InternalsPlan
from interpreto.attributions.plans.model_independent import ModelIndependentPlan
from interpreto.attributions.plans.path_gradients import PathGradientsPlan
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.attributions.registry import IMAGE_PARTS, REGISTRY, TEXT_PARTS, Registration
from interpreto.model_wrapping.capture_request import ActivationRequest, AttentionRequest, CapturedAttention
from interpreto.model_wrapping.execution.torch_engine import TorchEngine
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.parts import Engine, InputReader, TargetResolver
from interpreto.model_wrapping.rows import LazyBlend, Rows
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.sample import ImageSample, TextSample
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.option_kinds import checks_options
from interpreto.typing import Scores, UnitScores

__all__ = [
    "IMAGE_PARTS",
    "REGISTRY",
    "TEXT_PARTS",
    "ActivationRequest",
    "AttentionRequest",
    "CapturedAttention",
    "ComplexityMetric",
    "Curve",
    "Differences",
    "Engine",
    "Estimate",
    "Evaluation",
    "Explainer",
    "GradientInput",
    "GradientOptions",
    "ImageSample",
    "ImageUnits",
    "InferenceWrapper",
    "InputReader",
    "InternalsOptions",
    "InternalsPlan",
    "KeptMean",
    "Layout",
    "LazyBlend",
    "MapOptions",
    "MaskAccumulator",
    "MaskAggregator",
    "MaskGenerator",
    "MaskedRows",
    "Masker",
    "Mean",
    "MetricResult",
    "ModelIndependentPlan",
    "ModelRequest",
    "ModelResponse",
    "Needs",
    "Options",
    "PathGenerator",
    "PathGradientsPlan",
    "PathPoints",
    "PerturbationMetric",
    "PerturbationPlan",
    "Perturbator",
    "Plan",
    "PlanNeeds",
    "PlanRun",
    "PreparedSample",
    "Registration",
    "ResolvedSample",
    "Revealed",
    "Revealer",
    "Rows",
    "Runtime",
    "SampleAccumulator",
    "Scores",
    "SegmentUnits",
    "Setup",
    "SharedOptions",
    "TargetResolver",
    "TextSample",
    "TextUnits",
    "TorchEngine",
    "UnitAttribution",
    "UnitReduction",
    "UnitScores",
    "Units",
    "as_list",
    "bounding_boxes",
    "checks_options",
    "reduce_axis",
    "skip_failed_samples",
]
