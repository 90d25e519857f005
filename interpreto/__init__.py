"""Which words of a text or patches of an image a model's output rests on."""

from interpreto import zoo
from interpreto.attributions.granularity import Granularity, Grid, Patches
from interpreto.attributions.granularity.segments import Prompt, Segments
from interpreto.attributions.methods.gradients import InputXGradient, Saliency
from interpreto.attributions.methods.kernel_shap import KernelShap
from interpreto.attributions.methods.lime import Lime
from interpreto.attributions.methods.occlusion import Occlusion
from interpreto.attributions.methods.paths import GradientShap, IntegratedGradients
from interpreto.attributions.methods.rise import Rise
from interpreto.attributions.methods.smoothing import SmoothGrad, SquareGrad, VarGrad
from interpreto.attributions.methods.sobol import Sobol
from interpreto.attributions.metrics.alone import Completeness, Entropy, Gini
from interpreto.attributions.metrics.curves import Deletion, Insertion
from interpreto.attributions.metrics.fidelity import Infidelity, MuFidelity, SensitivityN
from interpreto.attributions.metrics.localization import PointingGame, RelevanceMass, RelevanceRank
from interpreto.attributions.metrics.randomization import ModelRandomization
from interpreto.attributions.metrics.stability import MaxSensitivity
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InterpretoError
from interpreto.model_wrapping.callables import from_callables
from interpreto.model_wrapping.targets import Contrast
from interpreto.visualizations import plot_attributions

METHODS = (
    Occlusion,
    Lime,
    KernelShap,
    Sobol,
    Rise,
    Saliency,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    SquareGrad,
    VarGrad,
    GradientShap,
)
"""All methods, for those who want to try every one."""

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "AttributionOutput",
    "Completeness",
    "Contrast",
    "Deletion",
    "Entropy",
    "Gini",
    "GradientShap",
    "Granularity",
    "Grid",
    "Infidelity",
    "InputXGradient",
    "Insertion",
    "IntegratedGradients",
    "InterpretoError",
    "KernelShap",
    "Lime",
    "MaxSensitivity",
    "ModelRandomization",
    "MuFidelity",
    "Occlusion",
    "Patches",
    "PointingGame",
    "Prompt",
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
    "from_callables",
    "plot_attributions",
    "zoo",
]
