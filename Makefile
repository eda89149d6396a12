# No make? Each target is one or two commands that you can type.

PYTHON ?= python3
BIN := .venv/bin
# Two processes share the tests, file by file in the order of tests/conftest.py; a machine with more cores takes
# `make test PROCESSES=8`.
PROCESSES ?= 2
PARALLEL := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

# Every process reads what Python compiled once: without it, each start compiles torch and the rest anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run setup test test-all quick-tests all-tests lint bench tiny clean

run: setup
	$(BIN)/coterie run examples/society.yaml

setup:
	@$(PYTHON) scripts/setup.py

# Lint works beside the tests: it has one process only, and those of the tests wait now and then.
test: setup-test
	@$(MAKE) --no-print-directory --jobs=2 lint quick-tests

test-all: setup-test
	@$(MAKE) --no-print-directory --jobs=2 lint all-tests

quick-tests: setup-test
	$(BIN)/pytest $(PARALLEL) -m "not slow"

all-tests: setup-test
	$(BIN)/pytest $(PARALLEL)

# Style, types, and which package imports which.
lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-test
	@set -e; for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

# The built-in model coterie-tiny, trained anew from generated text: minutes on two cores.
tiny: setup
	$(BIN)/python -m coterie.agents.tiny.train

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup-test
setup-test:
	@$(PYTHON) scripts/setup.py --test
