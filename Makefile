# What a hand and CI do, in the same order. Needs make, git and Python 3.11 or newer; all else is fetched.
# Arguments go through: make demo ARGS=--json; make test ARGS="-k merge -x".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# A change of what is installed changes the stamp's name; a touched file does not.
READY := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt constraints-uv.txt | git hash-object --stdin)
ARGS ?=
RAW ?=
TRUTH ?=

.PHONY: demo test lint truth loop-elec2 bench bench-gpu constraints clean
.DEFAULT_GOAL := demo

demo: $(READY)
	@$(BIN)/millrace demo $(ARGS)

test: lint
	@echo "== tests" && $(BIN)/pytest $(ARGS)

lint: $(READY)
	@echo "== format" && $(BIN)/ruff format --check .
	@echo "== lint" && $(BIN)/ruff check .
	@echo "== types" && $(BIN)/mypy
	@echo "== imports" && $(BIN)/lint-imports

truth: $(READY)
	@$(BIN)/millrace truth $(if $(RAW),--raw $(RAW)) $(if $(TRUTH),--truth $(TRUTH)) $(ARGS)

loop-elec2: $(READY)
	@$(BIN)/millrace loop elec2 $(ARGS)

bench: $(READY)
	@$(BIN)/millrace bench $(ARGS)

bench-gpu: $(READY)
	@$(BIN)/millrace bench gpu $(ARGS)

$(READY): pyproject.toml constraints.txt constraints-uv.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "millrace: Python 3.11 or newer is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "== setting up $(VENV) (minutes the first time, PyTorch is large)"
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "millrace: Python's venv module does not work here; install it (Debian: python3-venv) and try again"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-uv.txt
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r constraints.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-* && touch $@

# After a change of dependencies in pyproject.toml; read the difference before you commit it.
constraints: $(READY)
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --quiet --output-file constraints.txt
	@echo uv | $(BIN)/uv pip compile - --universal --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --quiet --output-file constraints-uv.txt

clean:
	@if [ -x $(BIN)/millrace ]; then $(BIN)/millrace down; fi
	@rm -rf $(VENV) .millrace .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
