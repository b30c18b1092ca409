# The laptop's front door. Everything runs from two virtual environments that `make install` creates.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Python 3.11 to 3.13, the first that is there. `make PYTHON=/path/to/python3.12 ...` names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
AIRFLOW_ENV := .venv
WORKLOAD_ENV := .venv-workload
BIN := $(AIRFLOW_ENV)/bin
# What `make check` compares model files with: where a pull request goes to. `make check BASE=v1.2` names another.
BASE ?= $(shell git rev-parse --verify --quiet --abbrev-ref origin/HEAD 2>/dev/null)
# How many files of tests run at a time; most wait for servers and processes. The demo runs before: beside others of the
# same priority it takes twice as long, and so do they.
WORKERS ?= 3
# Tests that wait for no server or process run beside the demo, with the lowest priority.
WAITING := $(addprefix tests/unit/,compute embedded fakes)
CALCULATIONS := tests/dags $(filter-out %__pycache__ $(WAITING),$(wildcard tests/unit/*))
# Not by its own name, or `make -n test` would run the recipe that has it.
AGAIN = $(MAKE)
LINT = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache
export OMP_NUM_THREADS := 1
export PYTHONPATH := $(CURDIR)/plugins:$(CURDIR)
# Hundreds of processes import the same modules: let the first of them keep the bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install environments demo up down status logs check kubernetes-check test test-demo test-beside lint format bench schema clean

help:  ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## create both environments (.venv and .venv-workload), in parallel
	@$(MAKE) --no-print-directory -j2 environments

environments: $(AIRFLOW_ENV)/.installed $(WORKLOAD_ENV)/.installed
	@:

$(AIRFLOW_ENV)/.installed: requirements.txt tests/requirements.txt constraints.txt
	@$(call create_environment,$(AIRFLOW_ENV),-r requirements.txt -r tests/requirements.txt)

$(WORKLOAD_ENV)/.installed: docker/workload/requirements.txt docker/workload/constraints.txt
	@$(call create_environment,$(WORKLOAD_ENV),-r docker/workload/requirements.txt)

define create_environment
	if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=..." >&2; exit 1; fi; \
	echo "creating $(1) with $(PYTHON) (minutes; once)"; \
	$(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-input $(2) && touch $@
endef

demo: install  ## the whole loop on this machine: train, serve, drift, retrain, canary, roll back
	@$(BIN)/python -m embedded demo

up: install  ## start the platform and leave it running; prints URLs and login
	@$(BIN)/python -m embedded up

down:  ## stop the platform and everything it started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m embedded down; else echo "nothing was running"; fi

status:  ## say what runs, and where
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m embedded status; else echo "not installed; make install"; fi

logs:  ## follow the logs of every component
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m embedded logs; else echo "not installed; make install"; fi

check: install  ## validate every model file and print what would change
	@$(BIN)/python -m genai_operators.check $(if $(BASE),--base $(BASE)) $(if $(wildcard .run/platform/store),--store .run/platform/store)

kubernetes-check: install  ## is a cluster ready? NAMESPACE= IMAGE= STORE= QUEUE= NODES= GPU=1 SETTINGS=file.yaml
	@$(BIN)/python -m genai_operators.compute.kubernetes.preflight $(if $(NAMESPACE),--namespace $(NAMESPACE)) \
		$(if $(IMAGE),--image $(IMAGE)) $(if $(STORE),--store $(STORE)) $(if $(QUEUE),--queue $(QUEUE)) \
		$(if $(NODES),--nodes $(NODES)) $(if $(GPU),--gpu) $(if $(SETTINGS),--settings $(SETTINGS)) $(ARGUMENTS)

test: install  ## every test: the demo with lint and calculations beside it, then the rest (WORKERS=1: one file at a time)
	@code=0; $(AGAIN) --no-print-directory --keep-going -j2 test-demo test-beside || code=$$?; \
	$(BIN)/python -m pytest --ignore tests/e2e/test_demo.py $(addprefix --ignore ,$(CALCULATIONS)) \
		--numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15 || code=$$?; exit $$code

test-demo:
	@$(BIN)/python -m pytest tests/e2e/test_demo.py

# In the time that the demo leaves of the machine; told at its end, so that the two do not talk across each other.
test-beside:
	@mkdir -p .run; code=0; nice -n 19 $(SHELL) -c '$(LINT) && $(BIN)/python -m pytest $(CALCULATIONS)' \
		> .run/beside.log 2>&1 || code=$$?; cat .run/beside.log; exit $$code

lint: install  ## ruff, mypy (strict), the layers
	@$(LINT)

format: install  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: install  ## measure speed, memory and calibration against baselines of the same run
	@$(BIN)/python -m benchmarks

schema: install  ## write include/schema/model.schema.json anew
	@$(BIN)/python -m genai_operators.spec.schema

clean: down  ## remove what the platform wrote (.run); the environments stay
	@if [ -x $(BIN)/python ] && [ -d .run/demo ]; then $(BIN)/python -m embedded down --directory .run/demo; fi
	rm -rf .run
