# make demo | test | slow | lint | format | docs | install; each makes .venv first and installs what it needs.
# make defaults SET=cracks ROOT=DIR trains with the plan, and others in as many seconds: 15 runs of 10 minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# torch.compile, which a test runs, needs a C++ compiler and Python's headers.
CAN_COMPILE = command -v g++ >/dev/null && test -f "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Nothing is installed whose hash is not in the lock, not even what builds the package.
INSTALL = $(PIP) install --require-hashes --requirement $(1) && $(PIP) install --no-deps --no-build-isolation --editable .

.PHONY: install demo test slow tools lint format docs defaults

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: tools
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --durations 15

slow: tools
	$(BIN)/python -m pytest -n 2 -m slow --durations 15

tools: $(VENV)/.installed-dev
	@command -v chromium chromium-browser google-chrome >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q chromium; } \
		|| echo "no chromium: the page of sanet demo is not tested"
	@$(CAN_COMPILE) || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q g++ python3-dev; } \
		|| echo "no C++ compiler or Python.h: torch.compile is tested without code generation"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

defaults: $(VENV)/.installed-dev
	$(BIN)/python -m reproduce defaults $(SET) --root $(ROOT) --output runs/defaults/$(SET)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q python3-venv; } \
		|| { echo "install python3-venv as root, then make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.txt | $(BIN)/python
	@echo "Installing sanet and what it needs into $(VENV); PyTorch is large, so this can take some minutes."
	$(call INSTALL,requirements.txt)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(call INSTALL,requirements-dev.txt)
	@touch $@
