# No make? Each target is one or two commands that you can type.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run setup test test-all lint bench clean

run: setup
	$(BIN)/coterie run examples/society.yaml

setup:
	@$(PYTHON) scripts/setup.py

test: lint
	$(BIN)/pytest -m "not slow"

test-all: lint
	$(BIN)/pytest

# Style, types, and which package imports which.
lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-test
	@set -e; for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup-test
setup-test:
	@$(PYTHON) scripts/setup.py --test
