# The commands of the project; `make help` lists them.
# Needs make and one of Python 3.11, 3.12, 3.13; everything else is installed into $(VENV).

VENV := .venv
BIN := $(VENV)/bin
# The TensorFlow that the newest TensorFlow Serving is built on: exports must load there.
TF220 := $(VENV)-tf220
# PYTHON=/path/to/python names the interpreter; empty: the first of these that runs and is new enough.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
# What an installation depends on: the metadata, and the schema that code is generated from.
SOURCES := pyproject.toml setup.py $(wildcard protos/*.proto)

# How many processes run the fast tests; each takes up to 3 GB.
TEST_WORKERS := 2

# The quickstart: how many rows to make, which config to train, where it all goes.
ROWS := 200000
CONFIG := samples/configs/multi_tower_taobao.config
DATA := data/quickstart
RUN := runs/quickstart

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# MovieLens-1M may not be passed on, so CI leaves out what needs it unless the variable says where it is.
UNAVAILABLE := $(if $(CI),$(if $(EASYREC_LITE_ML1M),, and not movielens))

.PHONY: help quickstart stream-demo install test test-slow lint format types imports notebooks docs docs-serve wheel clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed ## Install, make data, train MultiTower, evaluate it, export it
	$(BIN)/python -m tools.data.taobao_like --rows $(ROWS) --out $(DATA) --overwrite
	rm -rf $(RUN)
	$(BIN)/python -m easyrec_lite.train --config $(CONFIG) --model_dir $(RUN) \
		--train_input_path '$(DATA)/train/*.parquet' --eval_input_path '$(DATA)/eval/*.parquet'
	$(BIN)/python -m easyrec_lite.evaluate --model_dir $(RUN)
	$(BIN)/python -m easyrec_lite.export --model_dir $(RUN) --export_dir $(RUN)/export
	@echo
	@echo "data        $(DATA)/"
	@echo "model       $(RUN)/ (completed config, checkpoints, metrics, statistics of the data)"
	@echo "SavedModel  $(RUN)/export/"
	@echo "curves      $(BIN)/tensorboard --logdir $(RUN)"

stream-demo: $(VENV)/.installed-dev ## Live training on a stream: a kill, a resume, a drift, an alarm, a restore (needs Java)
	$(BIN)/python -m tools.stream_demo --out runs/stream-demo

install: $(VENV)/.installed-dev ## Install the package and the tools of its developers into .venv

test: $(VENV)/.installed-dev ## Run the fast tests
	$(BIN)/python -m pytest -m "not slow and not broker" --numprocesses $(TEST_WORKERS) --dist loadfile

test-slow: $(VENV)/.installed-dev $(TF220)/.installed ## Run the long tests and those that need a Kafka broker
	EASYREC_LITE_TF220=$(abspath $(TF220)/bin/python) $(BIN)/python -m pytest -m "(slow or broker)$(UNAVAILABLE)"

lint: $(VENV)/.installed-dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Mend what `make lint` can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy

imports: $(VENV)/.installed-dev ## Check which room imports which
	$(BIN)/lint-imports

notebooks: $(VENV)/.installed-dev ## Run the notebooks of samples/notebooks and keep their outputs
	$(BIN)/python -m tools.notebooks

docs: $(VENV)/.installed-dev ## Build the manual into site/
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.installed-dev ## Show the manual at http://127.0.0.1:8000 and follow its changes
	$(BIN)/mkdocs serve

wheel: $(VENV)/.installed-dev ## Build the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --wheel

clean: ## Remove what was built and cached; keeps .venv, data/ and runs/
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find easyrec_lite tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on PATH proves nothing (version managers put shims there that only print an error): run each candidate.
$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "$$candidate -m venv $(VENV)"; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 with the venv module was found. Tried: $(CANDIDATES)." >&2; \
	echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV), which takes some minutes the first time"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable .
	@touch $@

$(TF220)/.installed: | $(BIN)/python
	@echo "Installing TensorFlow 2.20 into $(TF220), for one test"
	$(BIN)/python -m venv $(TF220)
	$(TF220)/bin/python -m pip install --disable-pip-version-check --quiet "tensorflow==2.20.*"
	@touch $@

# Also stands for .installed, so that a developer's environment is installed once.
$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV), which takes some minutes the first time"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,docs]'
	@touch $(VENV)/.installed $@
