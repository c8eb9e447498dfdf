# gtp-export: `make export` and `make test` are all it takes; `make help` lists the rest.

PYTHON      ?= python3
VENV        ?= .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
MODEL       ?= digits
WEIGHTS     ?= auto
PRESET      ?=
NUM_PROP    ?=
OUT         ?= build/$(MODEL)
ARGS        ?=
TIMM        ?= 1.0.28 1.0.31
TIMM_TESTS  := $(addprefix tests/test_,patch.py blocks.py eva.py golden.py plan.py methods.py recipes.py choosing.py weights.py \
                 state_dict.py features.py export_forms.py preprocessing.py)

BIN   := $(VENV)/bin
STAMP := $(VENV)/.gtp-export-installed
PIP   := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: setup export validate bench test test-full test-timm fuzz lint gpu-check wheel clean help

setup: $(STAMP)  ## create .venv with everything for exports, tests and benchmarks

# The pinned CPU build of torch first, so that nothing later pulls in the CUDA one; one constraints file for all.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --retries 1 --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch torchvision
	$(PIP) install --quiet --constraint constraints.txt --editable '.[export,dev,openvino,tensorrt-rtx,sign,ray]'
	touch $@

export: $(STAMP)  ## export MODEL (digits) [WEIGHTS=auto|pretrained|random|FILE PRESET=paper|measured NUM_PROP=8 OUT=DIR ARGS=...]
	$(BIN)/gtp-export export $(MODEL) --weights $(WEIGHTS) --output $(OUT) $(if $(PRESET),--preset $(PRESET)) $(if $(NUM_PROP),--num-prop $(NUM_PROP)) $(ARGS)

validate: $(STAMP)  ## prove parity of what `make export` wrote [MODEL OUT ARGS]
	$(BIN)/gtp-export validate $(OUT) $(ARGS)

bench: $(STAMP)  ## measure latency of what `make export` wrote, relative to the dense baseline [MODEL OUT ARGS]
	$(BIN)/gtp-export bench $(OUT) $(ARGS)

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -m "not full" -n 2 $(ARGS)

test-full: $(STAMP)  ## run all tests, the large ones as well
	$(BIN)/python -m pytest -n 2 $(ARGS)

# Each timm beside the environment, in front of its own: nothing else changes.
test-timm: $(STAMP)  ## run the tests that use timm with the oldest and the newest supported one [TIMM="1.0.28 1.0.31"]
	set -e; for version in $(TIMM); do \
	  $(PIP) install --quiet --no-deps --upgrade --target build/timm-$$version timm==$$version; \
	  export PYTHONPATH=build/timm-$$version; \
	  $(BIN)/python -c "import gtp_models, timm; assert timm.__version__ == '$$version'; print('timm', timm.__version__)"; \
	  $(BIN)/python -m pytest -q -m "not full" $(TIMM_TESTS) $(ARGS); done

SECONDS ?= 60
fuzz: $(STAMP)  ## fuzz everything that reads files, each target for SECONDS (60) [TARGET=manifest|pack|... SECONDS=600]
	$(BIN)/python tests/fuzz/run.py $(TARGET) --seconds $(SECONDS) $(ARGS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-check: $(STAMP)  ## build, validate and time engines on this machine's GPU; writes docs/gpu-results.md [ARGS]
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

wheel: $(STAMP)  ## build dist/*.whl, to install on a device
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --outdir dist .
	rm -rf build/lib build/bdist.*

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
