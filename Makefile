# Paths here are relative, so that a checkout may lie under a path with a space in it. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench system clean lock

BIN := .venv/bin

# One thread each: the tests run in two processes, and more threads than cores only slow both down.
test check docs: export OMP_NUM_THREADS := 1
test check docs: export TOKENIZERS_PARALLELISM := false
test check docs: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
test check docs: export NO_MKDOCS_2_WARNING := 1
ifdef PYTHON
export PYTHON
endif

help:    ## list the targets
	@sed -n 's/^\([a-z]*\): *\([a-z ]*\)## /  make \1	/p' Makefile | expand -t 16

setup:   ## make .venv in this checkout, or find it made
	@sh scripts/setup.sh

demo: setup    ## the main job: find the circuit for a task in a real language model, prove it, show it
	$(BIN)/interpose locate ioi --out out/demo

test: check    ## everything that must hold: the checks below, then the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup    ## format, lint, import contracts, types, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright
	$(BIN)/mkdocs build --strict --quiet

docs: setup    ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: setup    ## what runs and experiments cost, beside other libraries in their own environment: half an hour
	@sh scripts/peers.sh
	.venv-peers/bin/python benchmarks/engine.py
	.venv-peers/bin/python benchmarks/attribution.py
	.venv-peers/bin/python benchmarks/speed.py
	.venv-peers/bin/python benchmarks/growth.py

system:  ## install from Debian what some tests use: a browser and a font
	@sh scripts/system.sh

lock: setup    ## write requirements.lock again, with the newest versions that fit
	$(BIN)/python scripts/lock.py --upgrade

clean:   ## remove the environment, the built documentation and all caches; results in out/ stay
	rm -rf .venv .venv-peers site dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
