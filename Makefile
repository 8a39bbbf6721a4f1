# Everything a fresh machine with Python 3.11 to 3.13 needs. `make help` lists the commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A hash of what decides the environment; file times say nothing after a checkout.
STAMP := $(VENV)/.setup-hash
WANTED := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)

# Once for the hundreds of processes that import torch; empty, each file when it is first asked for.
COMPILE ?= --compile-bytecode

# One more than there are cores: some tests wait for daemons and deadlines.
TESTERS ?= $(shell expr $$(nproc) + 1)

# Hundreds of processes import the same sources: not each of them is to compile them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install quickstart test test-slow test-gpu check format clean

help:  ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install:  ## Set up .venv (skipped when pyproject.toml and constraints.txt are unchanged)
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(WANTED)" ]; then \
	  echo "setting up $(VENV)"; \
	  { [ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV); } && \
	  $(BIN)/python -m pip install --quiet uv && \
	  UV_COMPILE_BYTECODE_TIMEOUT=0 $(BIN)/uv pip install $(COMPILE) \
	    --python $(BIN)/python \
	    --constraints constraints.txt -e '.[dev]' && \
	  echo "$(WANTED)" > $(STAMP); \
	fi

quickstart: install  ## Build a phantom set, train a small LoVT, compare it with the untrained encoder
	@PYTHONPATH=. $(BIN)/python -m distributed_pretrain quickstart

test: install  ## Run the default tests (CPU, offline, minutes)
	@PYTHONPATH=. $(BIN)/python -m pytest -n $(TESTERS) --dist loadgroup

test-slow: install  ## Run the slow tests (docs/measurements.md has their last run)
	@PYTHONPATH=. $(BIN)/python -m pytest -m 'slow and not gpu' --timeout 3600

test-gpu: install  ## Run the tests that need a GPU, some of them two; without one it says so and fails
	@PYTHONPATH=. $(BIN)/python -m pytest -m gpu --timeout 600

check: install  ## Format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@PYTHONPATH=. $(BIN)/lint-imports
	@$(BIN)/mypy

format: install  ## Rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove everything that can be made again
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
