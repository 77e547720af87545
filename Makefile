PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint check-tests bench clean

help: ## the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("longtail needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY) ## the main job: class balancing compared on real data, in about a minute
	$(BIN)/longtail compare

test: lint check-tests ## lint, types and every test

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@echo "suppressions in src: $$(grep -rEc '# (type: ignore|noqa)' src --include='*.py' | awk -F: '{n+=$$2} END {print n}')"

check-tests: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

bench: $(READY) ## speed, as ratios in one run, into results/benchmarks/
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/loss.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
