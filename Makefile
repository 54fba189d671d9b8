# make install    set up .venv: the `thinkgate` command, the embedded engine, the tools for tests
# make demo       ask the embedded model ten questions at several budgets, then keep serving
# make test       all tests that need no further environment
# make lint       check formatting, style, types, complexity of functions, and length of sentences
# make test-vllm  the tests against real vLLM on the CPU, in a cached environment
# make test-training  the training tests that need torch and TRL, in an environment of their own
# make test-export    the exports against verl's, OpenRLHF's, accelerate's and DeepSpeed's own code, without a GPU
# make test-wheel     every command of the wheel, installed into an empty environment
# make train-tiny     all stages of training on a tiny model, three seeds; see benchmarks/training-runs.md
#
# Needs only Python 3.11 or newer. ARGS="--once" is passed to the demo, TESTS="-k vote" to pytest;
# PYTHON=... and VENV=... choose another Python and environment.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.installed
TRAIN_VENV ?= .venv-train
TRAIN_INSTALLED := $(TRAIN_VENV)/.installed
TORCH ?= 2.13.0

.PHONY: install demo test test-vllm test-training test-export test-wheel train-tiny lint

install: $(INSTALLED)

demo: install
	@$(BIN)/thinkgate demo $(ARGS)

test: install
	@$(BIN)/python -m pytest $(TESTS)

test-vllm: install
	@THINKGATE_VLLM_PYTHON="$$(PYTHON=$(PYTHON) tests/vllm/install.sh)" \
		$(BIN)/python -m pytest -m vllm tests/vllm $(TESTS)

test-training: $(TRAIN_INSTALLED)
	@$(TRAIN_VENV)/bin/python -m pytest -m training tests/training/models $(TESTS)

test-export: install
	@THINKGATE_EXPORT_PYTHON="$$(PYTHON=$(PYTHON) tests/export/install.sh)" \
		$(BIN)/python -m pytest -m export tests/export $(TESTS)

test-wheel: install
	@$(BIN)/python -m pytest -m wheel tests/wheel $(TESTS)

train-tiny: $(TRAIN_INSTALLED)
	@$(TRAIN_VENV)/bin/python -m benchmarks.train_tiny $(ARGS)

lint: install
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	@complex="$$($(BIN)/python -m radon cc --show-complexity --min D gateway policies scorers)" || exit 1; \
		test -z "$$complex" || { echo "$$complex"; echo "Split these functions: their complexity is D or worse."; exit 1; }
	@$(BIN)/python .ci/prose.py

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ThinkGate needs Python 3.11 or newer; name one with PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; install it (on Debian: apt-get install python3-venv)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing ThinkGate, its embedded engine and the tools for its tests into $(VENV) (some 300 MB, once)."
	@$(PIP_INSTALL) -e '.[local,dev]'
	@$(PIP_INSTALL) --no-deps trl  # for the chat templates that it carries; its dependencies are many and heavy
	@touch $@

$(TRAIN_INSTALLED): pyproject.toml constraints.txt
	@test -x $(TRAIN_VENV)/bin/python || $(PYTHON) -m venv $(TRAIN_VENV)
	@echo "Installing torch $(TORCH), TRL and what they need into $(TRAIN_VENV) (some 2 GB, once)."
	@$(TRAIN_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
	@$(TRAIN_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,dev,train]'
	@touch $@
