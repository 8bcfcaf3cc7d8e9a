# The same commands for people and for CI. Each sets up what it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_PYTHON := $(BIN)/python
PEERS_VENV := .venv-peers
PEERS_READY := $(PEERS_VENV)/.ready
# Each process loads torch and Ray, so that more than a few cost more than they save.
PARALLEL := --maxprocesses=4 --dist=worksteal
# One process more than cores, since some tests wait.
WAITING := $(PARALLEL) --numprocesses=$(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
# What runs by itself in tests/benchmarks/ is a benchmark.
BENCHES := $(notdir $(basename $(shell grep -l '__main__' tests/benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format bench $(BENCHES:%=bench-%) clean
# Benchmarks that run side by side would measure each other, and one that cannot run here does not stop the others.
.NOTPARALLEL:
ifneq ($(filter bench,$(MAKECMDGOALS)),)
MAKEFLAGS += --keep-going
endif

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 11

setup: $(READY)  ## Make .venv with the pinned dependencies

# Renewed when a pin or a dependency changes, and not otherwise. Without Debian's python3-venv, a failed `venv` leaves a Python
# without pip.
$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with the pinned dependencies, which takes some minutes"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "twinhead needs Python 3.11 or newer; set PYTHON=python3.11")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The shell outlives Ctrl-C, because the demo then prints the command that continues.
demo: setup  ## Render, search, retrain and test: the main job, small
	@trap : INT; $(BIN)/twinhead demo; code=$$?; \
	echo "for the commands above: source $(BIN)/activate"; \
	exit $$code

# Threads of OpenBLAS that spin take the cores of the other tests.
test test-fast: export OPENBLAS_NUM_THREADS = 1

test: setup  ## Run all tests, in two runs: those that start Ray or a database come last
	@failed=0; \
	$(BIN)/python -m pytest $(WAITING) -m "not cluster and not postgres" || failed=1; \
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "cluster or postgres" || failed=1; \
	exit $$failed

test-fast: setup  ## Run the tests that start neither Ray nor a database and take less than about half a second
	$(BIN)/python -m pytest $(PARALLEL) --numprocesses=auto -m "not cluster and not slow and not postgres"

check: setup  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(patsubst %,bench-%,$(or $(BENCH),$(BENCHES)))  ## Run all benchmarks, or BENCH=NAME, to artifacts/bench/

$(BENCHES:%=bench-%): bench-%: setup
	mkdir -p artifacts/bench
	$(BENCH_PYTHON) tests/benchmarks/$*.py --json artifacts/bench/$*.json

# The loader is measured against others, which .venv does not have.
bench-loader: $(BENCH_READY)
bench-loader: BENCH_PYTHON := $(BENCH_BIN)/python

# It sees what .venv has, beneath its own.
$(BENCH_READY): tests/benchmarks/peers.txt $(READY)
	$(BENCH_BIN)/python -m pip --version > /dev/null 2>&1 || $(VENV)/bin/python -m venv --clear $(BENCH_VENV)
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/$(VENV)/lib/python*/site-packages)')" \
		> "$$(echo $(BENCH_VENV)/lib/python*/site-packages)/twinhead.pth"
	$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/benchmarks/peers.txt
	touch $@

# The other search methods run in processes of their own, since they need an older numpy.
bench-search_peers: $(PEERS_READY)

$(PEERS_READY): tests/benchmarks/syne_tune.txt
	$(PEERS_VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/benchmarks/syne_tune.txt
	touch $@

clean:  ## Remove the environment and the caches; artifacts/ stays
	rm -rf $(VENV) $(BENCH_VENV) $(PEERS_VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
