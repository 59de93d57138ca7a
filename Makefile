# Verbs of the project; needs Python 3.11+ and make only. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run rerun test check fix config lock bench-plan ui clean

PYTHON ?= python3
CONFIG ?= config/demo.yaml
CORES ?= all
# More words for snakemake, as in: make run ARGS=-n
ARGS ?=

# ARGS="--config run=mine_lora" writes elsewhere than the configuration says.
OTHER_RUN := $(patsubst run=%,%,$(filter run=%,$(ARGS)))
PAGE := $(CURDIR)/results/$(OTHER_RUN)/report/index.html
WHERE = $(if $(OTHER_RUN),test ! -f $(PAGE) || echo "Report: file://$(PAGE)",sb config where $(CONFIG))

BIN := $(CURDIR)/.venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
INSTALLED := .venv/.installed
SOURCES := src kernels tests examples docs .ci

export PATH := $(BIN):$(PATH)
# Nothing calls home, nothing downloads models, ranks don't fight over cores.
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS := 1
export PYTHONUNBUFFERED := 1
# Images set it; then each of a run's 30 processes would compile anew what it imports, for seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv with the locked packages; about 5 minutes the first time

# Not compiled: of 20,000 modules few are imported, and those compile then; it saves 50 s of CPU.
# Python 3.11 brings a pip that takes a third longer; where no newer one can be had, it does as well.
$(INSTALLED): requirements.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	-$(PIP) install --quiet --upgrade pip==26.3
	$(PIP) install --no-compile -r requirements.lock -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## the whole pipeline; CONFIG=config/smoke.yaml for another one, ARGS=-n to look first
	@sb config check $(CONFIG)
	snakemake --configfile $(CONFIG) --cores $(CORES) $(ARGS)
	@$(WHERE)

rerun: setup ## force one stage and what follows it: make rerun STAGE=train_variant
	snakemake --configfile $(CONFIG) --cores $(CORES) --forcerun $(STAGE) $(ARGS)

test: setup check ## checks, then every test; at most 10 minutes on two cores
	pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests

check: setup ## formats, types, imports, spelling, generated files; rewrites nothing
	ruff check $(SOURCES)
	ruff format --check $(SOURCES)
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	python .ci/lint_workflow.py
	codespell README.md CONTRIBUTING.md CHANGELOG.md config docs examples src kernels tests workflow
	sb config export --check

fix: setup ## rewrite formats and generated files
	ruff check --fix $(SOURCES)
	ruff format $(SOURCES)
	snakefmt Snakefile workflow
	sb config export

config: setup ## regenerate default.yaml, schema.json and the reference from the schema
	sb config export

lock: ## resolve the ranges of pyproject.toml anew and rewrite all pins; then make test
	$(PYTHON) .ci/lock.py

bench-plan: setup ## how long planning takes, 1 to 2 minutes; the last line is one json object
	@$(BIN)/python -m sbcore.plan.bench

ui: setup ## MLflow on this machine, the variants' runs side by side
	@sb config where $(CONFIG)
	@echo "MLflow starts at http://127.0.0.1:$${PORT:-5000} (20 s); stop it with Ctrl-C."
	mlflow server --backend-store-uri sqlite:///results/mlflow/mlflow.db --host 127.0.0.1 --port $${PORT:-5000} --workers 1

clean: ## delete results of runs (not .venv)
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -r {} +
