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
                 checkpoints.py huggingface.py fitting.py families.py features.py export_forms.py preprocessing.py)
QUICK_TESTS := $(addprefix tests/test_,values.py entries.py schedules.py plan.py manifest.py label_files.py images.py atomic.py latency.py wire.py)

BIN   := $(VENV)/bin
STAMP := $(VENV)/.gtp-export-installed
PIP   := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: setup setup-export quick-test export validate bench test test-full test-timm fuzz soak lint gpu-check wheel bundle test-arm64 clean help

# What `make setup` installs beside the runtime; the rest of the extras is in pyproject.toml.
SETUP_EXTRAS ?= export,tune,dev,openvino,tensorrt-rtx,litert,mnn,qnn,sign,ray

setup: $(STAMP)  ## create .venv with everything for exports, tests and benchmarks: about 2.4 GB on the disk

setup-export:  ## create .venv for exports alone, without Ray, TensorRT-RTX, OpenVINO and the tests' tools
	$(MAKE) setup SETUP_EXTRAS=export

# The pinned CPU build of torch first, so that nothing later pulls in the CUDA one; one constraints file for all. Python
# compiles what it imports: compiling all that is installed takes longer.
$(STAMP): pyproject.toml runtime/pyproject.toml constraints.txt
	@echo "installing gtp-export[$(SETUP_EXTRAS)] into $(VENV): all of it takes about 2.4 GB; make setup-export takes less"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile --retries 1 --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch torchvision
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable ./runtime --editable '.[$(SETUP_EXTRAS)]'
	touch $@

export: $(STAMP)  ## export MODEL (digits) [WEIGHTS=auto|pretrained|random|FILE PRESET=paper|measured NUM_PROP=8 OUT=DIR ARGS=...]
	$(BIN)/gtp-export export $(MODEL) --weights $(WEIGHTS) -o $(OUT) $(if $(PRESET),--preset $(PRESET)) $(if $(NUM_PROP),--num-prop $(NUM_PROP)) $(ARGS)

validate: $(STAMP)  ## prove parity of what `make export` wrote [MODEL OUT ARGS]
	$(BIN)/gtp-export validate $(OUT) $(ARGS)

bench: $(STAMP)  ## measure latency of what `make export` wrote, relative to the dense baseline [MODEL OUT ARGS]
	$(BIN)/gtp-export bench $(OUT) $(ARGS)

quick-test: $(STAMP)  ## run the tests of options, errors, settings, schedules and the manifest: about a minute on two free cores
	$(BIN)/python -m pytest -q -m "not full" -n 2 $(QUICK_TESTS) $(ARGS)

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -m "not full" -n 2 --dist loadfile $(ARGS)

test-full: $(STAMP)  ## run all tests, the large ones as well
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

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

soak: $(STAMP)  ## run the default export 100,000 times in 8 threads, load it 1,000 times, ...; writes benchmarks/results/soak.json [ARGS]
	$(BIN)/gtp-export export digits --no-check -o build/soak
	$(BIN)/python benchmarks/soak.py build/soak $(ARGS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-check: $(STAMP)  ## build, validate and time engines on this machine's GPU; writes benchmarks/results/gpu-results.md [ARGS]
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

wheel: $(STAMP)  ## build dist/*.whl, of gtp-export and of its runtime, to install on a device
	@rm -rf build/lib build/bdist.* runtime/build && mkdir -p build
	@$(BIN)/python -m build --wheel --outdir dist runtime >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@$(BIN)/python -m build --wheel --outdir dist . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@rm -rf build/lib build/bdist.* runtime/build
	@ls dist/*.whl

PLATFORM      ?=
DEVICE_PYTHON ?=
EXTRAS        ?= onnxruntime
bundle: $(STAMP)  ## build dist/*.pyz, which installs the runtime where no network is [PLATFORM=aarch64 DEVICE_PYTHON=3.10 EXTRAS=onnxruntime,sign]
	$(BIN)/python bundle/bundling.py --extras '$(EXTRAS)' $(if $(PLATFORM),--platform $(PLATFORM)) $(if $(DEVICE_PYTHON),--python $(DEVICE_PYTHON)) $(ARGS)

test-arm64: $(STAMP)  ## install the bundle on an emulated Cortex-A72 and prove the parity of fp32 and int8 there
	$(BIN)/python bundle/arm64.py $(ARGS)

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info runtime/*.egg-info .mypy_cache .pytest_cache .ruff_cache

help:  ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
