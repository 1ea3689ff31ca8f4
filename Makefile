# Everything a newcomer types, and what CI runs. The first verb sets up .venv; the second run needs no network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEV_STAMP := $(VENV)/.ready-dev
SOURCES := pyproject.toml constraints.txt $(wildcard third_party/fastecdsa/pyproject.toml)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STORY ?= wdbc

.PHONY: demo check test lint bench sim fuzz models interop clean setup

demo: $(STAMP)
	@$(BIN)/dim demo --story $(STORY)

setup: $(STAMP)

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "dimnode needs Python 3.11, 3.12 or 3.13; this is %d.%d. hint: make PYTHON=python3.12 demo" % sys.version_info[:2])'
	@echo "setting up $(VENV) (once, a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install ./third_party/fastecdsa
	@$(PIP) install -c constraints.txt -e '.[onnx]'
	@touch $@

# What tests and retraining need beside the product.
$(DEV_STAMP): $(STAMP)
	@$(PIP) install -c constraints.txt -e '.[onnx,dev,models]'
	@touch $@

check: $(DEV_STAMP)
	@$(BIN)/pytest -m 'not slow' tests

test: $(DEV_STAMP)
	@$(BIN)/pytest tests

lint: $(DEV_STAMP)
	@$(BIN)/ruff check dimnode tests benchmarks
	@$(BIN)/ruff format --check dimnode tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest tests/test_tidy.py

bench: $(DEV_STAMP)
	@$(BIN)/python -m benchmarks

sim: $(DEV_STAMP)
	@$(BIN)/python -m tests.sim --seeds 1000

fuzz: $(DEV_STAMP)
	@$(BIN)/python -m tests.fuzz --seconds 120

models: $(DEV_STAMP)
	@$(BIN)/python -m dimnode.demo.train

interop:
	@echo 'interop with foreign libp2p implementations comes with the overlay; today `make test` checks stock py-libp2p'; exit 2

clean:
	@rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info third_party/fastecdsa/build third_party/fastecdsa/*.egg-info
	@find dimnode tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
