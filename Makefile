# make train: a first run. make test: everything that must hold. Both set the machine up first.
# make bench TEXT=FILE: beside PyTorch, which it needs in .venv.

PYTHON ?= python3
WORKDIR ?= runs/quickstart
CONFIG ?= configs/quickstart.py

BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test lint setup bench

train: setup
	$(BIN)/python -m lm.train --config=$(CONFIG) --workdir=$(WORKDIR)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python benchmarks/char_cpu.py --text=$(TEXT)

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: $$($(PYTHON) --version) found; Python 3.11 to 3.13 is needed: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
