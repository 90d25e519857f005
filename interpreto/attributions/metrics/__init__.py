"""Metrics of attributions: with the model, with a mask of the ground truth, or of the attributions themselves."""

from interpreto.attributions.metrics.completeness import Completeness
from interpreto.attributions.metrics.complexity import Entropy, Gini
from interpreto.attributions.metrics.faithfulness import Infidelity, MuFidelity, SensitivityN
from interpreto.attributions.metrics.insertion_deletion import Deletion, Insertion
from interpreto.attributions.metrics.localization import PointingGame, RelevanceMass, RelevanceRank
from interpreto.attributions.metrics.pic import Pic
from interpreto.attributions.metrics.randomization import ModelRandomization
from interpreto.attributions.metrics.robustness import MaxSensitivity

METRICS = (
    Deletion,
    Insertion,
    SensitivityN,
    MuFidelity,
    Infidelity,
    Pic,
    Completeness,
    PointingGame,
    RelevanceMass,
    RelevanceRank,
    ModelRandomization,
    MaxSensitivity,
    Entropy,
    Gini,
)
"""All metrics."""
