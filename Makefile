# `make run` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run serve test snapshots check gpu bench format clean

run: $(VENV)/.installed
	$(BIN)/treechat $(ARGS)

serve: $(VENV)/.installed-dev
	$(BIN)/textual serve --command "$(BIN)/treechat $(ARGS)"

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not gpu" $(ARGS)

# After a change that is meant to be seen: writes the screens' snapshots anew, and the diff shows what changed.
snapshots: $(VENV)/.installed-dev
	$(BIN)/python assets/make_screenshots.py
	UPDATE_SNAPSHOTS=1 $(BIN)/pytest -q tests/treechat/tui/test_snapshots.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

gpu:
	PYTHONPATH=engine:kernels $(PYTHON) -m pytest -m gpu tests/engine tests/kernels
	PYTHONPATH=.:engine:kernels $(PYTHON) -m tests.bench.gpu $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/treechat bench $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "treechat needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@
