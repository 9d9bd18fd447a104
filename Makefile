# `make` lists the targets. ARGS passes overrides: make train ARGS="model=dcgan trainer.max_epochs=2"
PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help install train sample tensorboard test test-all check bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv and install the package with all it needs

# `python -m pip`, never `pip`: a script's first line breaks in a path with blanks.
$(STAMP): pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

train: install  ## train; ARGS="model=dcgan trainer.max_epochs=2"
	$(RUN) -m gan_lightning $(ARGS)

sample: install  ## images from the newest run; ARGS="n=64 ckpt=<run folder>"
	$(RUN) -m gan_lightning.sample $(ARGS)

tensorboard: install  ## curves and pictures of all runs in the browser
	$(RUN) -m tensorboard.main --logdir outputs $(ARGS)

# One thread per worker: two workers with two threads each fight over two cores.
test: install  ## the tests, under ten minutes on two cores; ARGS="-k losses"
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) -m pytest -n 2 $(ARGS)

test-all: install  ## the slow tests and those for a GPU as well
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m "" $(ARGS)

check: install  ## format, lint, type-check
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .
	$(RUN) -m mypy

bench: install  ## images per second beside plain PyTorch
	$(RUN) benchmarks/throughput.py $(ARGS)

clean:  ## remove caches; keeps .venv and outputs/
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
