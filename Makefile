PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
HOURS ?= 1
GPU_PYTHON ?= python3

# installed files are compiled at their first import, once: each test process compiles them anew otherwise
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint compiled check-tests docs wheel lowest backends jax native native-test browser campaign bench gpu clean

help: ## the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("longtail needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY) ## the main job: class balancing compared on real data, in about a minute
	$(BIN)/longtail compare

test: lint compiled check-tests ## lint, types and every test

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@echo "suppressions in src: $$(grep -rEc '# (type: ignore|noqa)' src --include='*.py' | awk -F: '{n+=$$2} END {print n}')"

# installed files that the tests import: compiled beside the lint, not by each of the tests' processes
IMPORTED := accelerate dask datasets distributed huggingface_hub hypothesis keras lightning matplotlib mpmath numpy \
  pandas peft pyarrow pydantic rich scipy sklearn sympy torch torchmetrics transformers triton

compiled: $(READY)
	@cd $(VENV)/lib/python3*/site-packages && ../../../bin/python -m compileall -q \
	  -x 'transformers/models|/tests?/' $(IMPORTED) >/dev/null 2>&1 || true

check-tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 20

wheel: $(READY) ## the built wheel, installed elsewhere and tried from an empty folder
	$(BIN)/python tests/wheel.py

lowest: $(READY) ## the same with the lowest versions that pyproject.toml allows, without torch
	$(BIN)/python tests/wheel.py --lowest

backends: $(READY) ## the losses' whole battery on every backend: plain, fused, kernels interpreted (minutes)
	$(BIN)/python -m pytest -n $(JOBS) tests/test_losses.py --backend torch
	$(BIN)/python -m pytest -n $(JOBS) tests/test_losses.py --backend fused
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n $(JOBS) tests/test_losses.py tests/test_losses_fused.py --backend fused

jax: $(READY) ## the tests that take JAX: its arrays as counts, and Keras on it
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev,jax]"
	$(BIN)/python -m pytest tests/test_effective.py tests/test_weights.py tests/test_keras.py -k jax

native: $(READY) ## C++ kernels for CIFAR ResNets on this CPU, installed from experiments/cifar_cpu and built once
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e experiments/cifar_cpu
	$(BIN)/python -m longtail_cifar_cpu

native-test: native ## the tests of these kernels (minutes)
	$(BIN)/python -m pytest -n $(JOBS) experiments/cifar_cpu/tests

docs: $(READY) ## the documentation as a site, into site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

browser: ## chromium for the tests of the report's page, where one may be installed
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && timeout 150 sh -c '{ apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 </dev/null'; } \
	  || echo "no chromium could be installed: the tests of the report's page will be skipped"

campaign: $(READY) ## hours of crashes, kills, full disks and damaged files: make campaign HOURS=1
	$(BIN)/python tests/campaign --hours $(HOURS) $(if $(TIMES),--times $(TIMES)) $(if $(OUT),--out $(OUT)) $(foreach name,$(ONLY),--only $(name))

bench: $(READY) native ## speed, as ratios in one run, into results/benchmarks/
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/counts.py
	$(BIN)/python benchmarks/ddnet.py
	$(BIN)/python benchmarks/embedding.py
	$(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/train_throughput.py

gpu: ## on a CUDA machine, GPU_PYTHON with its torch: tests, speed, missing cells; again goes on
	$(GPU_PYTHON) benchmarks/gpu.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
