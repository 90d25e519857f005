"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import inspect

import pytest

from interpreto.attributions.methods import CONTROLS, METHODS
from tests.test_guards import PATHS, module_of

MODULES = [module_of(path) for path in PATHS if ">>>" in path.read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.parametrize("method", [*METHODS, *CONTROLS], ids=lambda method: method.__name__)
def test_every_method_has_an_example(method):
    assert ">>>" in inspect.getdoc(method)
