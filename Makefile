# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo demo-short test lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         install into .venv, then train, evaluate and draw on generated clips (under 20 minutes on 2 cores)"
	@echo "make demo-short   the same with few clips and steps; its accuracies mean nothing"
	@echo "make test         install into .venv, then run the tests (under 12 minutes on 2 cores)"
	@echo "make lint         ruff and mypy"
	@echo "make clean        remove .venv and caches (runs/ is kept)"

# The stamp is newer than pyproject.toml once everything is installed, so a second run installs nothing.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "stvideo needs Python 3.10 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: CLIPS = train_per_class=600 test_per_class=60
demo-short: CLIPS = train_per_class=16 test_per_class=4
demo-short: SHORT = train.epochs=1
# Decoding runs beside training; threads that compete with it for the same cores slow such small networks down.
demo demo-short: export OMP_NUM_THREADS = 1
demo demo-short: $(VENV)/installed
	$(BIN)/python data_tools/motion.py runs/$@/data $(CLIPS)
	$(BIN)/python -m stvideo.study configs/studies/demo.yaml output=runs/$@ data.root=runs/$@/data $(SHORT)
	$(BIN)/python -m stvideo.evaluate configs/demo.yaml runs/$@/dense-seed0 data.root=runs/$@/data \
		sweep=keep_rate:0.8,0.6,0.4,0.25 output=runs/$@/curve
	for name in stgm evit random; do \
		$(BIN)/python -m stvideo.visualize runs/$@/data/val/right/000000.mp4 runs/$@/data/val/toward/000000.mp4 \
			checkpoint=runs/$@/$$name-seed0 output=runs/$@/pictures/$$name || exit 1; done

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TEST_ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
