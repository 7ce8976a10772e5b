# `make demo` and `make test` set everything up; nothing else is needed than Python >= 3.10.
PYTHON ?= python3
SEED ?= 0
PLAN ?= short
MINUTES ?= 8
BIN := .venv/bin
# glibc keeps what a step frees: half the time of a step on a CPU (docs/recipes.md#fast)
KEEP := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456

.PHONY: install demo test test-slow benchmark-gpu notebooks docs lint package clean

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev]'
	touch $@

demo: install  ## random weights, ImageNet's, after PPLR on drawn people: three rows of mAP
	$(KEEP) $(BIN)/python -m pplr_lightning demo --seed $(SEED)

test: install  ## a worker for each core, of one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	    --no-loadscope-reorder

benchmark-gpu:  ## needs a CUDA device: tables within MINUTES, by PLAN; installs nothing
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu.py --plan $(PLAN) --minutes $(MINUTES)

test-slow: install  ## long sweeps
	$(BIN)/python -m pytest -m slow

notebooks: install  ## runs them; what they show is not kept
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev,notebooks]'
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

docs: install  ## the site, in build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -b html docs build/docs
	@echo "open build/docs/index.html"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

package:  ## wheel and sdist, checked; the wheel trains a few steps of the demo in an empty environment
	rm -rf build dist
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet build twine
	build/tools/bin/python -m build
	build/tools/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet "$$(echo dist/*.whl)[cpu]"
	cd build && empty/bin/python -m pplr_lightning fit --trainer.max_epochs 1 --data.iterations 3 \
		--config "$$(empty/bin/python -c 'from pplr_lightning.commands.demo import CONFIGS; print(CONFIGS)')/demo.yaml"

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
