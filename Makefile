# Every target does its own set-up: a virtual environment in .venv, the dependencies under constraints.txt. Nothing
# outside .venv is used or changed. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A PYTHONPATH or user site from outside must not leak into the virtual environment.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE = 1
MAKEFLAGS += --no-print-directory

WEB := api/web
WEB_STAMP := $(WEB)/node_modules/.installed

.PHONY: help demo test check serve openapi vendor install clean compiler node
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile

demo: compiler $(STAMP) ## optimise an example task: recorded model replies, everything else live
	@$(BIN)/cudaforge demo

test: compiler $(STAMP) ## all tests that need neither a GPU nor a network
	$(BIN)/python -m pytest

check: $(STAMP) $(WEB_STAMP) ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@cd $(WEB) && npm run --silent check

serve: compiler $(STAMP) ## the service on http://127.0.0.1:8000/api/v1, with one worker
	@$(BIN)/cudaforge serve

openapi: $(STAMP) ## store the service's OpenAPI document again, after its routes have changed
	$(BIN)/python -m cudaforge_api.openapi > docs/openapi.json

vendor: $(WEB_STAMP) ## build the viewer's libraries again, after api/web/package.json or an element has changed
	@cd $(WEB) && npm run --silent build

install: $(STAMP) ## the set-up alone

clean: ## remove .venv, caches and build leftovers; your runs in CUDAFORGE_HOME stay
	rm -rf $(VENV) $(WEB)/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find cudaforge profiling api prompts tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is as old as the last complete installation, so a broken or outdated one is done again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "CudaForge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12." >&2; exit 1; }
	@test -f $(VENV)/pyvenv.cfg && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# Packages come by the hashes in the lockfile, and no script of theirs is run.
$(WEB_STAMP): $(WEB)/package.json $(WEB)/package-lock.json | node
	@cd $(WEB) && npm ci --ignore-scripts --silent
	@touch $@

node:
	@command -v npm >/dev/null && node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' || { echo "node 20 or newer and npm are not here: the viewer's elements are checked and built with them. Install them (Debian, Ubuntu: apt install nodejs npm), or see https://nodejs.org." >&2; exit 1; }

compiler:
	@command -v $(firstword $(CXX)) >/dev/null || { echo "$(firstword $(CXX)) is not here: kernels are built with a C++ compiler. Install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++), or set CXX." >&2; exit 1; }
