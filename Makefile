# make train [ARGS="model.dropout=0.3"]   set up .venv and train on the embedded demo data
# make test  [ARGS="-k splits"]           set up .venv with the development tools and run the test suite
# make lint                               ruff and mypy
PYTHON ?= python3
VENV := .venv
# Python compiles what it imports; compiling all that is installed would take as long as installing it.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: train test lint clean

train: $(VENV)/.installed
	$(VENV)/bin/python train.py $(ARGS)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a minute or two)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) with the development tools (two or three minutes)"
	$(PIP) -e ".[dev]"
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV)
