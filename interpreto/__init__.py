"""Which words of a text or patches of an image a model's output rests on."""

from interpreto import zoo
from interpreto.attributions.comparison.comparison import Comparison
from interpreto.attributions.comparison.run import compare
from interpreto.attributions.granularity import Granularity, Grid, Patches
from interpreto.attributions.granularity.segments import Prompt, Segments
from interpreto.attributions.methods import (
    CONTROLS,
    INSIDE,
    METHODS,
    AGCam,
    AttentionRollout,
    AttentionSaliency,
    GenericAttention,
    GradCam,
    GradEclip,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LeGrad,
    Lime,
    Occlusion,
    RawAttention,
    Rise,
    Saliency,
    SmoothGrad,
    Sobol,
    SquareGrad,
    VarGrad,
)
from interpreto.attributions.metrics import (
    METRICS,
    Completeness,
    Deletion,
    Entropy,
    Gini,
    Infidelity,
    Insertion,
    MaxSensitivity,
    ModelRandomization,
    MuFidelity,
    Pic,
    PointingGame,
    RelevanceMass,
    RelevanceRank,
    SensitivityN,
)
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InterpretoError
from interpreto.model_wrapping.callables import from_callables
from interpreto.model_wrapping.pretrained import list_pretrained
from interpreto.model_wrapping.targets import Contrast
from interpreto.visualizations import plot_attributions

__version__ = "0.1.0"

__all__ = [
    "CONTROLS",
    "INSIDE",
    "METHODS",
    "METRICS",
    "AGCam",
    "AttentionRollout",
    "AttentionSaliency",
    "AttributionOutput",
    "Comparison",
    "Completeness",
    "Contrast",
    "Deletion",
    "Entropy",
    "GenericAttention",
    "Gini",
    "GradCam",
    "GradEclip",
    "GradientShap",
    "Granularity",
    "Grid",
    "Infidelity",
    "InputXGradient",
    "Insertion",
    "IntegratedGradients",
    "InterpretoError",
    "KernelShap",
    "LeGrad",
    "Lime",
    "MaxSensitivity",
    "ModelRandomization",
    "MuFidelity",
    "Occlusion",
    "Patches",
    "Pic",
    "PointingGame",
    "Prompt",
    "RawAttention",
    "RelevanceMass",
    "RelevanceRank",
    "Rise",
    "Saliency",
    "Segments",
    "SensitivityN",
    "SmoothGrad",
    "Sobol",
    "SquareGrad",
    "VarGrad",
    "compare",
    "from_callables",
    "list_pretrained",
    "plot_attributions",
    "zoo",
]
