# Every target builds .venv by itself, from pinned and hashed requirements; once that is done it costs nothing.
# Needs Python 3.11 or newer (PYTHON=python3.13 make demo chooses one) and its venv module. Nothing is installed globally.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := var/bench/venv
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: demo test load chaos bench lessons lint secrets backup restore pictures screenshots pins help python
# One after another: two of them must not build the same .venv.
.NOTPARALLEL:

demo: $(VENV)/.demo $(VENV)/.package  ## start everything on this machine until Ctrl-C  [PORT WORKERS BROKER VIDEOS STATE]
	@$(BIN)/flixtrail demo

test: $(VENV)/.dev $(VENV)/.package  ## run the tests, without those of docker-compose.yml  [T=tests/unit for a part]
	@$(BIN)/pytest $(T)

load: $(VENV)/.dev $(VENV)/.package  ## load the running demo, and fail when a view is lost  [HOST USERS DURATION UI=1]
	@$(BIN)/python -m proof.load

chaos: $(VENV)/.dev $(VENV)/.package  ## kill everything while views flow; fail when one is lost  [SEED MINUTES FAULTS BROKER_IMAGE]
	@$(BIN)/python -m proof.chaos

bench: $(VENV)/.dev $(VENV)/.package $(BENCH)/.done  ## measure beside other ways of doing the same  [QUICK=1 ONLY=P1,P2]
	@$(BIN)/python -m proof.bench

lessons: $(VENV)/.demo $(VENV)/.package  ## run each concept of messaging on a real RabbitMQ  [ONLY="exchanges queues" BROKER_IMAGE RECORD=1]
	@$(BIN)/python -m lessons $(ONLY)

lint: $(VENV)/.dev $(VENV)/.package  ## check style, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m lessons.pages --check

secrets: $(VENV)/.demo $(VENV)/.package  ## write random secrets for docker compose into .env; those that are there stay
	@$(BIN)/flixtrail secrets

backup: $(VENV)/.demo $(VENV)/.package  ## back up the compose stack  [TO=backups; QUIET=1: let nobody in until all is written]
	@$(BIN)/flixtrail backup $(if $(TO),"$(TO)") $(if $(QUIET),--quiet)

restore: $(VENV)/.demo $(VENV)/.package  ## put a backup back into the compose stack  [FROM=backups/...; YES=1: do not ask]
	@$(if $(FROM),,echo "Which one? FROM=backups/... make restore" >&2; exit 2)
	@$(BIN)/flixtrail restore "$(FROM)" $(if $(YES),--yes)

pictures:  ## draw the pictures in docs (*.svg) anew from their text (needs graphviz)
	@$(PYTHON) docs/pictures/draw.py

screenshots: $(VENV)/.dev $(VENV)/.package  ## take the README's screenshots of a running compose stack (needs chromium)
	@PYTHONPATH=. $(BIN)/python docs/pictures/screenshots.py

pins: $(VENV)/.dev  ## write requirements/*.txt anew from pyproject.toml: the newest versions that it allows
	@$(COMPILE) --extra monitor --output-file requirements/app.txt
	@$(COMPILE) --extra monitor --extra reload --constraint requirements/app.txt --output-file requirements/reload.txt
	@$(COMPILE) --extra monitor --extra local --output-file requirements/demo.txt
	@$(COMPILE) --extra monitor --extra local --group dev --output-file requirements/dev.txt
	@$(BIN)/uv pip compile --group bench $(PINNED) --output-file requirements/bench.txt

help:  ## show this
	@awk -F ' *## *' '/^[a-z]+:.*##/ { sub(/:.*/, "", $$1); printf "  make %-11s  %s\n", $$1, $$2 }' Makefile

# --universal: for every Python from 3.11 on and every system. No index: a lock file names no address.
COMPILE = $(BIN)/uv pip compile pyproject.toml $(PINNED)
PINNED = --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

# -- .venv: a stamp for each step ---------------------------------------------------------------------

# What `make demo` needs. When a pin changes, .venv is made anew, so that nothing stays in it that is not pinned.
$(VENV)/.demo: requirements/demo.txt | python
	@echo "making $(VENV) for make demo (about half a minute, once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r $<
	@touch $@

# What the other targets need besides. A running demo keeps its .venv: this only adds to it.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	@if [ -e $@ ]; then rm -rf $(VENV) && $(MAKE) --no-print-directory $(VENV)/.demo; fi
	@echo "adding to $(VENV) what tests and lint need (about half a minute, once)"
	@$(PIP) install --require-hashes -r $<
	@touch $@

# The peers of `make bench` and its pictures. celery-batches needs an older Celery, so they have an environment of their own.
$(BENCH)/.done: requirements/bench.txt | python
	@echo "making $(BENCH) for make bench (about half a minute, once)"
	@rm -rf $(BENCH)
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

# Flixtrail itself, as it lies here (editable): the program `flixtrail`.
$(VENV)/.package: pyproject.toml $(VENV)/.demo
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and there is no '$(PYTHON)'. \
	Install it, or name one: PYTHON=/path/to/python3 make demo" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; \
	'$(PYTHON)' is $$($(PYTHON) -c 'import platform; print(platform.python_version())'). \
	Name another: PYTHON=python3.13 make demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' comes without its venv module. \
	Debian, Ubuntu: apt install python3-venv" >&2; exit 1; }
