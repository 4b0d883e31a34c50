# Every target builds .venv by itself, from pinned and hashed requirements. After that it costs no time. You need Python
# 3.11 or newer (PYTHON=python3.13 make demo chooses one) and its venv module. Nothing is installed globally.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := var/bench/venv
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: demo test load chaos bench lessons lint secrets backup restore pictures screenshots pins help
.PHONY: demo-venv dev-venv bench-venv python
# Your variables for other Python programs must not reach ours. File names are UTF-8 in every locale.
unexport PYTHONPATH PYTHONHOME
export PYTHONUTF8 := 1
# Your current folder, also with `make -C`, so that you can paste the commands that are printed.
export CALLED_FROM := $(value PWD)
# One target after another: two must not build the same .venv.
.NOTPARALLEL:

demo: demo-venv  ## start everything on this machine until Ctrl-C  [PORT WORKERS BROKER VIDEOS STATE]
	@$(BIN)/flixtrail demo

# Two at a time: each process has brokers, databases and ports of its own, and much of a test is waiting. A file stays
# together, since its tests share what is slow to start.
test: dev-venv  ## run the tests, without those of docker-compose.yml  [T=tests/unit for a part, JOBS=2]
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(T)

load: dev-venv  ## load the running demo, and fail when a view is lost  [HOST USERS DURATION UI=1]
	@$(BIN)/python -m proof.load

chaos: dev-venv  ## kill everything while views flow; fail when one is lost  [SEED MINUTES FAULTS BROKER BROWSER BROKER_IMAGE]
	@$(BIN)/python -m proof.chaos

bench: dev-venv bench-venv  ## measure beside other ways of doing the same  [QUICK=1 ONLY=P1,P2 BROKER_IMAGE]
	@$(BIN)/python -m proof.bench

lessons: demo-venv  ## run each concept of messaging on a real RabbitMQ  [ONLY="exchanges queues" BROKER_IMAGE RECORD=1]
	@$(BIN)/python -m lessons $(ONLY)

lint: dev-venv  ## check style, format and types
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python -m mypy
	@$(BIN)/python -m lessons.pages --check

secrets: demo-venv  ## write random secrets for docker compose into .env; those that are there stay
	@$(BIN)/flixtrail secrets

backup: demo-venv  ## back up the compose stack  [TO=backups; QUIET=1: let nobody in until all is written]
	@$(BIN)/flixtrail backup $(if $(TO),"$(TO)") $(if $(QUIET),--quiet)

restore: demo-venv  ## put a backup back into the compose stack  [FROM=backups/...; YES=1: do not ask]
	@$(if $(FROM),,echo "Which one? FROM=backups/... make restore" >&2; exit 2)
	@$(BIN)/flixtrail restore "$(FROM)" $(if $(YES),--yes)

pictures:  ## draw the pictures in docs (*.svg) anew from their text (needs graphviz)
	@"$(PYTHON)" docs/pictures/draw.py

screenshots: dev-venv  ## take the README's screenshots of a running compose stack (needs chromium)
	@PYTHONPATH=. $(BIN)/python docs/pictures/screenshots.py

pins: dev-venv  ## write requirements/*.txt anew from pyproject.toml: the newest versions that it allows
	@$(COMPILE) --extra monitor --output-file requirements/app.txt
	@$(COMPILE) --extra monitor --extra reload --constraint requirements/app.txt --output-file requirements/reload.txt
	@$(COMPILE) --extra monitor --extra local --output-file requirements/demo.txt
	@$(COMPILE) --extra monitor --extra local --group dev --output-file requirements/dev.txt
	@$(BIN)/python -m uv pip compile --group bench $(PINNED) --output-file requirements/bench.txt

help:  ## show this
	@awk -F ' *## *' '/^[a-z]+:.*##/ { sub(/:.*/, "", $$1); printf "  make %-11s  %s\n", $$1, $$2 }' Makefile

# --universal: for every Python from 3.11 on and for every system. No index: a lock file contains no address.
COMPILE = $(BIN)/python -m uv pip compile pyproject.toml $(PINNED)
PINNED = --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

# -- .venv: requirements/venv.py makes it, and makes it anew when something has changed -----------------

demo-venv dev-venv: python
	@"$(PYTHON)" requirements/venv.py $(VENV) $(@:-venv=)

# The other systems of `make bench` and its charts. celery-batches needs an older Celery, so they have their own
# environment.
bench-venv: python
	@mkdir -p $(dir $(BENCH))
	@"$(PYTHON)" requirements/venv.py $(BENCH) bench

python:
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11 or newer is needed, and there is no '$(PYTHON)'. \
	Install it, or name one: PYTHON=/path/to/python3 make demo" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; \
	'$(PYTHON)' is $$("$(PYTHON)" -c 'import platform; print(platform.python_version())'). \
	Name another: PYTHON=python3.13 make demo" >&2; exit 1; }
