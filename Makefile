# make demo     ask the embedded model ten questions at several budgets, then keep serving
# make install  set up .venv, nothing more
# make test     all tests            make lint  formatting, style and types
#
# Needs Python 3.11 or newer and nothing else. ARGS="--once" and the like go to the demo,
# TESTS="-k vote" and the like to pytest; PYTHON=... and VENV=... choose others.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUNTIME := $(VENV)/.installed
TOOLS := $(VENV)/.installed-dev
FILES := pyproject.toml constraints.txt

.PHONY: install demo test lint

install: $(RUNTIME)

demo: $(RUNTIME)
	@$(BIN)/thinkgate demo $(ARGS)

test: $(TOOLS)
	@$(BIN)/python -m pytest $(TESTS)

lint: $(TOOLS)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

$(RUNTIME): $(FILES)
	@test -n "$(PYTHON)" || { echo "ThinkGate needs Python 3.11 or newer; name one with PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; install it (on Debian: apt-get install python3-venv)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing ThinkGate and its embedded engine into $(VENV) (some 200 MB, once)."
	@$(PIP_INSTALL) -e '.[local]'
	@touch $@

$(TOOLS): $(RUNTIME)
	@echo "Installing the tools for tests and linting into $(VENV)."
	@$(PIP_INSTALL) -e '.[local,dev]'
	@touch $@
