# Everything a clean clone needs: Python 3.11 to 3.13, make, and a package index. No root, no servers.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# On two cores. Most tests of the end wait for a third of their time: with a third process of pytest the cores have work
# meanwhile, and a fourth costs more, with servers of its own, than it gains.
JOBS   ?= 3
# Containers like to set it. Without bytecode pytest rewrites all tests in each process, and each command that a test
# starts compiles all of our modules.
export PYTHONDONTWRITEBYTECODE =
FUZZ_SECONDS ?= 600
DEVICE ?= cuda

.DEFAULT_GOAL := help
.PHONY: help demo test test-all chaos fuzz gpu wheels lint format clean

help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/.demo ## Tag real photographs with a real model, then re-threshold them
	@$(BIN)/python -m tagonce.demo demo-out

# A file is of one worker process, which shares servers, pages and tagged photographs between its tests. Those of the
# end-to-end tests, the longest, come first, so that no core waits for one at the end.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10

test: $(VENV)/.test ## Run the suite: unit, services (real Redis, PostgreSQL, S3, Chromium), end to end
	$(BIN)/python tests/browser.py
	$(PYTEST)

test-all: $(VENV)/.test ## The same with storms, outages, more examples of hypothesis, and screenshots of the page
	$(BIN)/python tests/browser.py
	$(PYTEST) --thorough -m 'not chaos'

chaos: $(VENV)/.test ## Let everything fail, by ten seeds, in three quarters of an hour (CHAOS_SEEDS="1 2 3" for others)
	$(BIN)/python -m pytest -m chaos -s tests/e2e

fuzz: $(VENV)/.test ## Feed the decoder files that a fuzzer makes, for ten minutes (FUZZ_SECONDS=36000 for longer)
	$(PIP) --group fuzz
	PYTHONPATH=. $(BIN)/python fuzz/decode.py -max_total_time=$(FUZZ_SECONDS) -timeout=30 -max_len=20000 build/fuzz

# With WHEELS, the environment of $(PYTHON), which has torch, gets what it lacks from there. The checkout comes first on
# the path, so that wheels of an older commit serve too.
gpu: $(if $(WHEELS),,$(VENV)/.test) ## Test and measure on a GPU, in nine minutes (WHEELS=FOLDER without a package index, DEVICE=cpu)
	$(if $(WHEELS),$(PYTHON) -m pip install --quiet --no-index --find-links $(WHEELS) --requirement $(WHEELS)/requirements.txt)
	PYTHONPATH=$(CURDIR) $(if $(WHEELS),$(PYTHON),$(BIN)/python) bench/gpu.py --device $(DEVICE) --out build/gpu.md

# PYTHON is a version here, of the GPU host; this machine need not have it. WITHOUT names packages that the host has.
wheels: ## Collect wheels for a GPU host without a package index (PYTHON=3.12: its version of Python)
	$(MAKE) $(VENV)/.test PYTHON=python3
	$(BIN)/python deploy/wheels.py build/wheels $(if $(filter 3.%,$(PYTHON)),--python $(PYTHON)) $(if $(WITHOUT),--without $(WITHOUT))

lint: $(VENV)/.test ## Check style, types, the direction of imports, and the words of the documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.prose

format: $(VENV)/.test ## Put the code into the house's shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what the targets above have made
	rm -rf $(VENV) demo-out build *.egg-info

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip  # dependency groups came with pip 25.1; Python 3.11 brings an older one
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.venv
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.venv
	$(PIP) --editable '.[demo,postgres,parquet,plots]' --group test --group lint
	touch $@
