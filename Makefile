# Commands of this repository. A developer and the continuous integration run the same ones:
#
#   make search [ARGS="--seed 1"]      a search on the digits data, just under three minutes on two CPU cores
#   make test [PYTHON=python3.12]      static checks, docs, then the quick tests
#   make test-all                      the same with every test, and two passes under other settings of JAX
#
# PYTHON picks the interpreter. Another one than the default gets a virtual environment of its own, beside .venv.

DEFAULT_PYTHON := $(shell python3.11 -c "" >/dev/null 2>&1 && echo python3.11 || echo python3)
PYTHON ?= $(DEFAULT_PYTHON)
VENV ?= $(if $(filter $(DEFAULT_PYTHON),$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
ARGS ?=

BIN := $(VENV)/bin
PACKAGING := setup.py requirements.txt $(wildcard requirements/lock-*.txt)
PY_TAG = $$($(BIN)/python -c "import sys; print('py%d%d' % sys.version_info[:2])")

# Real data for development, where it lies beside the checkout.
ifneq ($(wildcard ../shared/data),)
export JAXNAS_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install search test test-all lint format docs pytest pytest-x64 pytest-leaks pytest-all clean

help:
	@echo "make install   virtual environment $(VENV) with everything that development needs"
	@echo "make search    python -m experiments.snas digits (options: ARGS=\"--seed 1\")"
	@echo "make test      lint, types, docs, and the tests that are not marked slow"
	@echo "make test-all  lint, types, docs, and all tests; chosen ones also with 64 bits and with JAX's check for leaks"
	@echo "make lint      ruff check, ruff format --check, mypy"
	@echo "make format    ruff check --fix, ruff format"
	@echo "make docs      build the documentation into docs/_build/html"
	@echo "make clean     remove caches and build outputs, keep $(VENV)"

# pip_install EXTRAS: the checkout in editable mode, with the tested lock as constraints where there is one.
define pip_install
lock=requirements/lock-$(PY_TAG).txt; \
if [ -f "$$lock" ]; then constraints="-c $$lock"; else constraints=""; fi; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check $$constraints --editable ".[$(1)]"
endef

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-dev: $(PACKAGING) | $(BIN)/python
	@echo "installing jaxnas[dev,docs,log] into $(VENV)"
	@$(call pip_install,dev$(comma)docs$(comma)log)
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-run: $(PACKAGING) | $(BIN)/python
	@echo "installing jaxnas[plot,log,export] into $(VENV)"
	@$(call pip_install,plot$(comma)log$(comma)export)
	@touch $@

comma := ,

install: $(VENV)/.installed-dev

search: $(VENV)/.installed-run
	$(BIN)/python -m experiments.snas digits $(ARGS)

# pytest comes last, so that the closing line is that of the tests.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs 2 lint docs
	@$(MAKE) --no-print-directory pytest

test-all: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs 2 lint docs
	@$(MAKE) --no-print-directory pytest-x64
	@$(MAKE) --no-print-directory pytest-leaks
	@$(MAKE) --no-print-directory pytest-all

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev
	$(BIN)/sphinx-build -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html

# Compiled programs are kept between runs, which is most of the time of a second run. Work stealing keeps neighbouring
# tests, which share programs, in one process. WORKERS is the number of processes.
WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal
pytest pytest-x64 pytest-leaks pytest-all: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
pytest pytest-x64 pytest-leaks pytest-all: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2
pytest: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(ARGS)

pytest-all: $(VENV)/.installed-dev
	$(PYTEST) --durations 12 $(ARGS)

# What is marked x64 also runs with 64-bit JAX, what is marked leaks with JAX's check that no tracer leaves its function.
pytest-x64: $(VENV)/.installed-dev
	JAX_ENABLE_X64=1 $(PYTEST) -m x64

pytest-leaks: $(VENV)/.installed-dev
	JAX_CHECK_TRACER_LEAKS=1 $(PYTEST) -m leaks

clean:
	rm -rf .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist docs/_build docs/_api *.egg-info
	find benchmarks experiments jaxnas tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
