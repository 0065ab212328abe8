# Every command there is. `make demo` and `make test` do all set-up on a fresh Debian machine with Python 3.11.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint browser format bench loadtest chaos serve doctor clean

PYTHON ?= python3.11
# requirements/gpu.txt on machines with CUDA GPUs: `make REQUIREMENTS=requirements/gpu.txt setup`
REQUIREMENTS ?= requirements/cpu.txt
BIN := .venv/bin
READY := .venv/.ready
READY_DEV := .venv/.ready-dev
READY_LOAD := .venv/.ready-load

help:            ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## Set up .venv from the pinned list

$(READY): $(REQUIREMENTS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11, or name it with PYTHON=..."; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv"; exit 3; }
	@echo "Setting up .venv from $(REQUIREMENTS) (about two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r $(REQUIREMENTS) 2> >(grep -v '^WARNING: Location' >&2)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e . 2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

$(READY_DEV): $(READY) requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/dev.txt 2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

$(READY_LOAD): $(READY_DEV) requirements/load.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/load.txt 2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

demo: $(READY)   ## Train, serve, evaluate and report for real (about 12 minutes on 2 cores)
	@$(BIN)/viter train deploy/runs/nano-gp-l.yaml

# the page is tried in a real browser; where it cannot be installed, those tests skip themselves and say so
browser:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  echo "Installing Chromium for the tests of the web page"; \
	  apt-get install -y -qq chromium >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 \
	  || echo "Chromium could not be installed: the tests of the web page skip themselves"; }

test: lint browser  ## Lint, then the fast tests, then the slow end-to-end ones
	@$(BIN)/pytest -m "not slow" -n 2 --durations=5
	@$(BIN)/pytest -m slow -n 2 --dist loadscope --durations=10

test-fast: lint  ## Lint and the fast tests
	@$(BIN)/pytest -m "not slow" -n 2 --durations=5

lint: $(READY_DEV)  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY_DEV)  ## Rewrite the code in the project's format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(READY_DEV)  ## Measure speed as ratios: a table, and runs/bench.json
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

loadtest: $(READY_LOAD)  ## A real service under ten times the load it admits: a table, and runs/loadtest.json
	@$(BIN)/python -m tests.load

chaos: $(READY)  ## Break runs on purpose, at length (about two hours): the table of FAULTS.md
	@$(BIN)/viter chaos --long

serve: $(READY)  ## Serve the checkpoints of ./runs over HTTP
	@$(BIN)/viter serve

doctor: $(READY)  ## Check this machine
	@$(BIN)/viter doctor

clean:           ## Remove .venv and caches, keep runs/
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
