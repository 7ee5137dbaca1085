# `make run` and `make test` do everything on a fresh machine with Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
# Tests of one file share what is trained for them. One worker more than there are cores, since they wait for processes a
# quarter of the time; more than eight start longer than they save. A worker that dies is the end: with another in its
# place pytest-xdist (3.8) would wait for ever for the rest of the dead one's file.
WORKERS = $(shell $(PYTHON) -c "import os; print(min(8, 1 + (os.cpu_count() or 1)))")
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0

.PHONY: run test test-long test-gpu lint install

run: .venv/installed ## the main job, small: every method on both tasks, into ./runs and ./mlflow.db
	$(BIN)/python -m benchmark run --suite grbm --preset quick

test: lint ## lint, types and the tests that take seconds
	$(BIN)/python -m pytest -m "not long and not gpu" $(PARALLEL)

test-long: .venv/installed-test ## the tests that take longer
	$(BIN)/python -m pytest -m "long and not gpu" $(PARALLEL) --durations 25 --durations-min 20

test-gpu: .venv/installed-test ## the tests that need a GPU (docs/gpu.md)
	$(BIN)/python -m pytest -m gpu tests/gpu

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: some minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@
