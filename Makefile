# make train [ARGS="model.dropout=0.3"]   set up .venv and train on the embedded demo data
# make test  [ARGS="-k splits"]           set up .venv with the development tools and run the test suite
# make test-plain                         run the numeric tests as the plainest processor of this kind would
# make lint                               ruff, mypy and import-linter
# make screenshots                        take the pictures of the page for the docs (needs Chromium)
# make docs                               build the documentation into docs/_build
PYTHON ?= python3
VENV := .venv
# Compiled by all cores afterwards, where pip would take one. Left uncompiled, a machine that writes no bytecode
# (PYTHONDONTWRITEBYTECODE) would compile torch and Lightning at every start.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := $(VENV)/bin/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true

NUMERIC := tests/features tests/evaluation tests/training tests/data tests/sweeps/stacked tests/bundle \
    tests/test_network.py tests/contracts/test_every_feature_set.py
# No vector instructions beyond what NumPy and torch were built for, MKL's oldest path, one thread.
PLAIN = NPY_DISABLE_CPU_FEATURES="$$($(VENV)/bin/python -c 'from numpy._core._multiarray_umath import \
    __cpu_dispatch__ as found, __cpu_features__ as has; print(*(name for name in found if has[name]))')" \
    ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1

.PHONY: train test test-plain lint docs screenshots clean

train: $(VENV)/.installed
	$(VENV)/bin/python train.py $(ARGS)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-plain: $(VENV)/.installed-dev
	$(PLAIN) $(VENV)/bin/python -m pytest -n auto --dist worksteal $(NUMERIC) $(ARGS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.installed-dev
	$(VENV)/bin/python -m sphinx -a -E -W --keep-going -n -q docs docs/_build $(ARGS)
	@echo "docs/_build/index.html"

screenshots: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tools.page.screenshots $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a minute or two)"
	$(PIP) -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) with the development tools (two or three minutes)"
	$(PIP) -e ".[dev]"
	@$(COMPILE)
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV)
