"""Models and inputs that many tests share; small, seeded, and built without the network."""

import functools

import pytest
import torch

from interpreto import zoo
from tests import models


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two workers on two cores: more threads each would only wait for one another."""
    torch.set_num_threads(1)


@functools.cache
def loaded(name):
    return zoo.load(name)


@pytest.fixture
def reviews():
    return loaded("reviews-bert")


@pytest.fixture
def shapes():
    return loaded("shapes-vit")


@pytest.fixture
def texts():
    return [example.input for example in zoo.samples("reviews-bert", 4)]


@pytest.fixture
def pictures():
    return [example.input for example in zoo.samples("shapes-vit", 3)]


@pytest.fixture(params=["text", "image"])
def setting(request):
    """A tiny random model, its processor and three inputs of unlike size, for each modality."""
    return models.setting(request.param)
