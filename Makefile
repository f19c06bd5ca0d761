# Two commands matter: `make quickstart` and `make test`. Each sets everything up first, in .venv, and only once.
# `make test OPTIONS="-k noise"` passes options on to pytest; tests run side by side, one process per core.

PYTHON ?= python3.11 python3 python3.12 python3.13
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint format bench docs constraints clean

help:  ## what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(RUNTIME)  ## the tour: real runs and one report, a few minutes on two cores
	$(BIN)/rl-scaling quickstart

test: $(DEV)  ## the tests, without those marked slow or gpu
	$(BIN)/python -m pytest -n auto $(OPTIONS)

test-slow: $(DEV)  ## the tests marked slow, the long statistical ones among them
	$(BIN)/python -m pytest -m "slow and not gpu" $(OPTIONS)

lint: $(DEV)  ## style, formatting, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: $(DEV)  ## fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(DEV)  ## throughput against Stable-Baselines3 and against the limit
	$(BIN)/rl-scaling bench atari

docs: $(DEV)  ## this documentation as a site, in site/, with every link checked
	$(BIN)/mkdocs build --strict

constraints: $(DEV)  ## write down the installed versions as the tested ones
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude rl-scaling | sed 's/+cpu$$//; s/+cu[0-9]*$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove what tools leave behind; keeps .venv, runs and results
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(BIN)/pip:
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$python -m venv .venv; fi; \
	done; \
	echo "Python 3.11 or newer is needed (tried: $(PYTHON)): install one, or name it: make PYTHON=/path/to/python" >&2; exit 1

# torch comes first: it is by far the largest part, and the build it comes in is the only choice to make. On a machine
# without a GPU the CPU build is enough; on Linux with a GPU the plain wheel is the CUDA build. pip takes whichever its own
# configuration offers (PIP_INDEX_URL, PIP_FIND_LINKS); the version is the one in constraints.txt. setuptools builds this
# package without a second environment. MinAtar (GPL-3) is for the tour.
$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) torch setuptools
	$(INSTALL) --no-build-isolation -e '.[minatar]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) torch setuptools
	$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $(RUNTIME) $@
