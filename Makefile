# `make demo` and `make test` set up all that they need; both also work offline once that is done.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPING := $(VENV)/.developing

LOWEST ?= .venv-lowest

.PHONY: demo test coverage test-all test-lowest lint format docs bench zoo clean

demo: $(INSTALLED)
	$(BIN)/interpreto demo --out interpreto-demo

test: $(DEVELOPING)
	$(BIN)/python -m pytest

# The same tests, with the share of lines that they run.
coverage: $(DEVELOPING)
	$(BIN)/python -m pytest --cov=interpreto --cov-report=term:skip-covered

# All combinations of parameters instead of pairs, and the tests that take long.
test-all: $(DEVELOPING)
	$(BIN)/python -m pytest --all-parameters

# The lowest versions that pyproject.toml names, in an environment of their own. Old releases warn of what newer ones that
# they depend on deprecate; that is not ours to change.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -W ignore::DeprecationWarning -W ignore::FutureWarning

lint: $(DEVELOPING)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(DEVELOPING)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEVELOPING)
	$(BIN)/mkdocs build --strict

# Several hours. The tables are written to benchmarks/results; `python -m benchmarks.difference` compares two such folders.
# The last three need a GPU or published models, and end with what is missing where they cannot run.
bench: $(DEVELOPING)
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.beside
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.pair
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.comparison
	$(BIN)/python -m benchmarks.segmentation
	$(BIN)/python -m benchmarks.interrupts
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.what_was_tried
	$(BIN)/python -m benchmarks.zoo_comparison
	$(BIN)/python -m benchmarks.zoo_truth
	-$(BIN)/python -m benchmarks.explained_score
	-$(BIN)/python -m benchmarks.real_language_model
	-$(BIN)/python -m benchmarks.devices

zoo: $(DEVELOPING)
	$(BIN)/python -m interpreto.zoo.train

clean:
	rm -rf $(VENV) $(LOWEST) site interpreto-demo

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The stamps are older than pyproject.toml only if something must be installed.
$(INSTALLED): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(LOWEST)/.installed: pyproject.toml | $(DEVELOPING)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e ".[dev]"
	touch $@

$(DEVELOPING): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(INSTALLED)
