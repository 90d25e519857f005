"""Types and shapes are checked in all tests."""

import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from interpreto.attributions.perturbations.mask_generators.masks import enlarged
from interpreto.errors import choices
from interpreto.model_wrapping.rows import LazyBlend
from interpreto.visualizations.panels import shortened


def test_shapes_of_arrays_are_checked():
    with pytest.raises(TypeCheckError):
        enlarged(torch.zeros(2), (4, 4))
    with pytest.raises(TypeCheckError):
        LazyBlend(np.zeros((1, 2)), torch.zeros(1, 2), torch.zeros(3), torch.clone)


def test_other_types_are_checked():
    for call in (lambda: shortened(3), lambda: choices("a", 3)):
        with pytest.raises(BeartypeCallHintParamViolation):
            call()
