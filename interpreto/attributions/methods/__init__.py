"""The attribution methods. Each one chooses the parts of its plan."""

from interpreto.attributions.methods.attention_rollout import AttentionRollout, RawAttention
from interpreto.attributions.methods.attention_saliency import AGCam, AttentionSaliency
from interpreto.attributions.methods.controls import (
    CentreGaussian,
    InputNorm,
    PositionOnly,
    RandomScores,
    TokenFrequency,
)
from interpreto.attributions.methods.generic_attention import GenericAttention
from interpreto.attributions.methods.grad_cam import GradCam
from interpreto.attributions.methods.grad_eclip import GradEclip
from interpreto.attributions.methods.gradients import GuidedBackprop, InputXGradient, Saliency
from interpreto.attributions.methods.kernel_shap import KernelShap
from interpreto.attributions.methods.legrad import LeGrad
from interpreto.attributions.methods.lime import Lime
from interpreto.attributions.methods.occlusion import Occlusion
from interpreto.attributions.methods.paths import BlurIG, GradientShap, GuidedIG, IntegratedGradients
from interpreto.attributions.methods.rise import Rise
from interpreto.attributions.methods.smoothing import SmoothGrad, SquareGrad, VarGrad
from interpreto.attributions.methods.sobol import Sobol
from interpreto.attributions.methods.xrai import XRAI

INTERNALS = (
    GradCam,
    RawAttention,
    AttentionRollout,
    AttentionSaliency,
    AGCam,
    GenericAttention,
    LeGrad,
    GradEclip,
)
"""Methods that use internals of a model: attention, or activations of a layer."""

IMAGES_ONLY = (GradCam, XRAI)
"""Methods for images only."""

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
    BlurIG,
    GuidedIG,
    GuidedBackprop,
    XRAI,
    *INTERNALS,
)
"""All methods."""

CONTROLS = (RandomScores, PositionOnly, CentreGaussian, InputNorm, TokenFrequency)
"""Controls: scores that do not use the model, which a method must beat to be informative."""
