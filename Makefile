# make setup       make .venv with exact versions (a second run does nothing)
# make demo        simulate a log, train DV365 on it, export, publish and report
# make demo-funnel play a funnel in a simulated world, serve it, and look at it in a browser
# make test        the tests, without the slow ones and those that need a GPU
# make test-all    every test this machine can run
# make lint        ruff (lint, format), mypy, and hadolint for the Dockerfile
# make bench       every benchmark; BENCH="slices data" picks some
# make lock        write the locks in requirements/ anew
#
# PYTHON=…  the Python 3.11 or 3.12 that .venv is made with
# VENV=…    another environment than .venv; TORCH=2.11 the older set of versions
# PORT=8080  where make demo-funnel serves
# PYTEST_ARGS=…  added to pytest's: tests/nn, -k tables, -n 0 for one process

VENV ?= .venv
TORCH ?=
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import venv' 2>/dev/null && echo $$python && break; done)
PYTEST_ARGS ?=
BENCH ?= $(notdir $(basename $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))))

BIN := $(VENV)/bin
RUN := $(BIN)/python -m
# Three processes for two cores, as tests wait for what they start, and one thread each. The tests of
# a file stay together: they share what the file has trained, and a simulated cluster.
WORKERS = $(shell $(BIN)/python -c 'import os; print(len(os.sched_getaffinity(0)) * 3 // 2)')
PYTEST = OMP_NUM_THREADS=1 $(RUN) pytest -n $(WORKERS) --dist loadfile

.PHONY: setup demo demo-funnel test test-all lint format bench lock clean-venv
.DEFAULT_GOAL := setup

setup:
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or 3.12." >&2; exit 1; }
	@$(PYTHON) -m recsys.install --venv $(VENV) --dev $(if $(TORCH),--torch $(TORCH))

demo: setup
	@PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo.sh

demo-funnel: setup
	@PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo_funnel.sh

test: setup
	$(PYTEST) $(PYTEST_ARGS)

test-all: setup
	$(PYTEST) -m "" $(PYTEST_ARGS)

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/hadolint Dockerfile

format: setup
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

bench: setup
	@for name in $(BENCH); do $(BIN)/recsys bench $$name || exit 1; done

lock:
	requirements/lock.sh $(PYTHON) 2.13.0 1.8.0 1.8.0
	CONSTRAINTS=requirements/torch-2.13.txt requirements/lock.sh $(PYTHON) 2.11.0 1.6.0 1.6.1

clean-venv:
	rm -rf $(VENV)
