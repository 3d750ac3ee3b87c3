# make demo | make test: each does all its set-up on a machine with Python >= 3.10, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-full test-gpu check results clean

demo: $(VENV)/.report
	$(BIN)/teachformer demo --output demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not gpu and not full" --cov --cov-report=term:skip-covered

test-full: $(VENV)/.dev
	$(BIN)/pytest -m "not gpu"

# With a GPU only. PYTEST can name another interpreter's, e.g. PYTEST="python3 -m pytest".
PYTEST ?= $(BIN)/pytest
test-gpu:
	$(PYTEST) -m gpu -rs

# Rewrites docs/RESULTS.md and its per-case tables from the runs and the shipped model.
results: $(VENV)/.dev
	$(BIN)/python Training/results.py

$(VENV)/.report: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[report]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
