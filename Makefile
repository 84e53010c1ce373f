# `make demo`, `make test`, `make test-nova` and `make bench` each make the environment they need in .venv first.
# Another Python (3.11 or later): make test PYTHON=python3.12

.POSIX:

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
# One stamp for each PYTHON that was asked for: asking for another one looks at the environment again.
INSTALLED = $(VENV)/installed/$(PYTHON)
MEASURING = $(VENV)/measuring/$(PYTHON)
VERSION = import sys; print(sys.version)
# One more than there are processors: some tests wait for processes, and none for the time that another one takes.
WORKERS = $$(($$(getconf _NPROCESSORS_ONLN) + 1))

.PHONY: help demo test lint types test-unit test-nova proof bench clean

help:
	@echo 'make demo       restart a simulated fleet, end to end'
	@echo 'make test       lint, types, tests and coverage'
	@echo 'make test-nova  the tests against a real Nova on loopback (0.5 GB, installed at the first run)'
	@echo 'make proof      kills, faults and crashes by the thousand'
	@echo 'make bench      what a restart costs, against other clients; BENCH=--write writes it down'
	@echo 'make clean      remove what these made here'

demo: $(INSTALLED)
	@$(BIN)/bulkrestart demo

test: lint types test-unit

lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

types: $(INSTALLED)
	@$(BIN)/mypy --no-error-summary

test-unit: $(INSTALLED)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --quiet --numprocesses=$(WORKERS) --dist=worksteal
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# addopts leaves tests/nova out of `make test`.
test-nova: $(INSTALLED)
	@$(BIN)/pytest --override-ini='addopts=--strict-markers --strict-config' tests/nova

proof: $(INSTALLED)
	@$(BIN)/python -m tests.kills
	@$(BIN)/python -m tests.explore
	@$(BIN)/python -m tests.attacks
	@$(BIN)/python -m tests.rollouts
	@$(BIN)/python -m tests.faults

# BENCH holds the arguments: parts, --rounds, --write.
bench: $(MEASURING)
	@$(BIN)/python -m benchmarks $(BENCH)

$(MEASURING): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[bench]'
	@mkdir -p "$$(dirname $@)" && touch $@

# A working environment of the same version is kept: a new pyproject.toml then costs seconds.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'bulkrestart needs Python 3.11 or later, and $(PYTHON) is not: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1 || \
	    [ "$$($(PYTHON) -c '$(VERSION)')" != "$$($(BIN)/python -c '$(VERSION)')" ]; then \
	  $(PYTHON) -m venv --clear $(VENV); fi
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@mkdir -p "$$(dirname $@)" && touch $@

clean:
	@rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
