# make demo and make test are all the set-up there is: each makes .venv first, where it is not there or out of date.
#   make demo | test | lint | bench | page | clean      PYTHON=python3.12 chooses the interpreter, ARGS=... goes to the command, WORKERS=1 tests one by one

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= auto

BIN := $(VENV)/bin
# in the stamps' names, so that another PYTHON makes a new environment
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
MADE := $(VENV)/.made-$(VERSION)
DEMO := $(VENV)/.demo-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)
BENCH := $(VENV)/.bench-$(VERSION)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

.DELETE_ON_ERROR:
.PHONY: help demo test lint bench bench-here page clean

help:
	@sed -n '1,2s/^# //p' Makefile

$(MADE):
	@test -n "$(VERSION)" || { echo "$(PYTHON) does not start; name a Python of 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is Python $(VERSION), and unvanish needs 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Setting up $(VENV) with Python $(VERSION)" >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(DEMO): $(MADE) pyproject.toml constraints.txt
	@echo "Installing what the demo needs (a minute or two, once)" >&2
	@$(PIP) --editable '.[demo]'
	@touch $@

$(DEV): $(MADE) pyproject.toml constraints.txt
	@echo "Installing what development needs (a few minutes, once)" >&2
	@$(PIP) --editable '.[demo,dev]'
	@touch $(DEMO) $@

$(BENCH): $(MADE) pyproject.toml constraints.txt
	@echo "Installing what the benchmark needs (a few minutes, once)" >&2
	@$(PIP) --editable '.[demo,bench]'
	@touch $@

demo: $(DEMO)
	@$(BIN)/unvanish demo $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# pytest comes last, and its closing line is the last that is printed
test: lint
	@bash tools/browser.sh
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m '' $(ARGS)

# in an environment of its own: the tools beside which the cost is put bring dozens of packages along
bench:
	@$(MAKE) --no-print-directory VENV=.venv-bench bench-here

bench-here: $(BENCH)
	$(BIN)/python benchmarks/overhead.py --write docs/performance.md $(ARGS)

page:
	cd web && npm ci && npm run build

clean:
	rm -rf $(VENV) .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis unvanish_runs web/node_modules web/dist
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
