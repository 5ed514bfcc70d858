# A fresh checkout needs python3 (3.11 or newer), its venv module, make and git. Each target does the rest of its own set-up.

PYTHON ?= python3
JOBS   ?= 2
BENCH  ?= small

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types floors coverage matrix fuzz bench stores counts fixtures changelog dist pyz venv clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv  ## pull, update and export a small image from a registry of our own
	$(BIN)/python -m tests.demo

test: venv  ## everything that can be known without the internet
	$(PYTEST) --numprocesses=$(JOBS) $(ARGS)

check: lint types test floors  ## what must pass before a change lands

lint: venv  ## ruff, its format, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: venv  ## mypy, strict
	$(BIN)/mypy

floors: venv  ## imports point down, libraries stay in their rooms
	$(PYTEST) tests/test_floors.py

coverage: venv  ## how much of the package the tests reach; fails below the floor in pyproject.toml
	$(PYTEST) --numprocesses=$(JOBS) --cov --cov-report=term:skip-covered $(ARGS)

matrix:  ## the quick tests on every Python at hand, and once with the oldest allowed dependencies
	tests/matrix.sh

fuzz: venv  ## every parser by atheris, where that is installed, and every property test with many more examples
	$(BIN)/python -m tests.fuzz $(SECONDS)
	$(PYTEST) --numprocesses=$(JOBS) -m hypothesis --hypothesis-profile=fuzz $(ARGS)

bench: venv  ## BENCH=small takes a minute, BENCH=full makes the tables of docs/benchmarks.md
	$(BIN)/python -m tests.bench $(BENCH)

stores: venv  ## what looking after a large store costs, and a plan against one; some minutes
	$(BIN)/python -m tests.bench.stores
	$(BIN)/python -m tests.bench.plans

counts: venv  ## instructions instead of seconds, by valgrind; some minutes
	$(BIN)/python -m tests.bench.counts

fixtures:  ## does each blob still have the digest it is named by? (how they were made: fixtures/README.md)
	@find fixtures -path '*/blobs/sha256/*' -type f | sed -E 's|.*/(.*)|\1  &|' | sha256sum --check --strict --quiet
	@echo "every fixture blob is what its name says"

changelog: venv  ## VERSION=x.y.z: fragments of changes/ into CHANGELOG.md
	$(BIN)/towncrier build --yes --version $(VERSION)

dist: venv  ## source archive and wheel, checked, and tried in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear .cache/dist
	.cache/dist/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	.cache/dist/bin/zpull --version

pyz: venv  ## dist/zpull.pyz: one file for every Python of this version and platform
	mkdir -p dist
	$(BIN)/shiv --quiet --compressed --console-script zpull --output-file dist/zpull.pyz .
	dist/zpull.pyz --version

venv: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "zpull needs Python 3.11 or newer, and there is no $(PYTHON) here" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "zpull needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:  ## all that make has made, the virtual environment included
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
