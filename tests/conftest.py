"""Shared fixtures: small, seeded models and inputs, built without the network."""

import functools
import shutil
from itertools import groupby
from pathlib import Path

import jaxtyping

# The unused imports save time: jaxtyping's import hook also recompiles modules that interpreto is the first to import.
import matplotlib.figure  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch
import torchvision  # noqa: F401
import transformers.models  # noqa: F401
from threadpoolctl import threadpool_limits

from interpreto import zoo
from tests import models
from tests.covering import covering

QUICK = {"on": True}


def pytest_addoption(parser):
    parser.addoption(
        "--all-parameters", action="store_true", help="all combinations of parameters, and tests that take long"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long, and runs with --all-parameters or by its name")
    named = any("::" in argument for argument in config.args)
    QUICK["on"] = not (config.getoption("--all-parameters") or named)


def pytest_collection_modifyitems(config, items):
    """Reduce combinations of parameters to pairs, unless all are requested as by `make test-all`."""
    if not QUICK["on"]:
        return
    brief = [item for item in items if item.get_closest_marker("long") is None]
    kept = [item for _, some in groupby(brief, key=lambda item: item.path) for item in covering(list(some))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def reduced(count, least=1):
    """Reduce a number of samples, calls or lines to an eighth, unless all parameters are requested.

    Args:
        count: The full number.
        least: The smallest number that a bound on a share of them needs.
    """
    return min(count, max(least, -(-count // 8))) if QUICK["on"] else count


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two workers on two cores: more threads per worker would only wait for each other."""
    torch.set_num_threads(1)
    threadpool_limits(1)


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


@pytest.fixture
def without_report(monkeypatch):
    """Skip the report and figures of a run, for tests of its other files."""
    monkeypatch.setattr("interpreto.comparison.report_view.write_folder", lambda comparison, path: None)


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of the module's finished run, for tests that change it."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture(params=["text", "image"])
def setting(request):
    """A tiny random model, its processor and three inputs of different sizes, for each modality."""
    return models.setting(request.param)


@pytest.fixture
def without_type_checks():
    """Disable the run-time checks of annotations, which users do not have."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
