# `make demo` and `make test` set everything up; nothing else is needed than Python >= 3.10.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin

.PHONY: install demo test test-slow lint clean

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev]'
	touch $@

demo: install  ## random weights, warm start, PPLR on drawn people: three rows of mAP
	$(BIN)/python -m pplr_lightning demo --seed $(SEED)

test: install
	$(BIN)/python -m pytest

test-slow: install  ## long sweeps
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
