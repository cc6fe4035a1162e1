# `make bench` and `make test` are all there is to it; `make help` lists the rest.
# Variables, each with `make test NAME=value`:
#   PY=python3        interpreter that creates the environment (>= 3.11)
#   VENV=.venv        where the environment lives
#   TORCH=cpu         install PyTorch's CPU build first, from PyTorch's own index: on a machine
#                     without a GPU this saves the gigabytes of CUDA libraries that pip's default
#                     build of torch brings. Needed on the first call only.
#   BENCH_ARGS=...    further arguments for `fastppo bench train`
#   PYTEST_ARGS=...   further arguments for both runs of pytest, e.g. PYTEST_ARGS='-k gae'
PY ?= python3
VENV ?= .venv
TORCH ?= default
BENCH_ARGS ?=
PYTEST_ARGS ?=

ifeq ($(filter cpu default,$(TORCH)),)
$(error TORCH=$(TORCH): only TORCH=cpu is known; leave it out for the build that pip picks)
endif

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := $(VENV)/bin
STAMP := $(VENV)/.fastppo-installed
# Older pips hand PIP_CONSTRAINT to build environments too, newer ones want PIP_BUILD_CONSTRAINT.
PINNED := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
TORCH_PIN = $(shell grep '^torch==' constraints.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@echo; sed -nE '/^# Variables/,/^[^#]/s/^# ?//p' $(firstword $(MAKEFILE_LIST))

.PHONY: bench
bench: $(STAMP)  ## quick benchmark on real environments: table, HTML report, offline W&B run
	mkdir -p results
	$(BIN)/fastppo bench train --quick --allow-mismatch --json results/bench.json \
	  --md results/bench.md --html results/bench.html --wandb offline $(BENCH_ARGS)

.PHONY: test
test: lint  ## lint, then the tests, then the kernel tests again in Triton's interpreter
	$(BIN)/pytest $(PYTEST_ARGS)
	TRITON_INTERPRET=1 $(BIN)/pytest tests/kernels $(PYTEST_ARGS)

.PHONY: static
static: $(STAMP)  ## compile every kernel without a GPU and compare with bench/static/expected
	$(BIN)/fastppo static --check

# Counts block: one more operator, byte, wait or import than the parent has, unless a commit says
# `Gate-accepts: PATTERN`. Times are reported; this machine alone convicts nobody.
GATE_BASE ?= HEAD~1
COUNTS := operators/*,bytes/*,syncs/*,modules/*
.PHONY: gate
gate: $(STAMP)  ## HEAD against its parent (GATE_BASE=...): counts block, times are reported
	if ! git rev-parse --quiet --verify '$(GATE_BASE)^{commit}' > /dev/null; then \
	  echo "gate: $(GATE_BASE) is not in this clone; nothing to compare with"; exit 0; fi; \
	accept=$$(git log '$(GATE_BASE)..HEAD' --format='%(trailers:key=Gate-accepts,valueonly)' \
	  | paste -sd, -); \
	code=0; $(BIN)/fastppo gate '$(GATE_BASE)' --only '$(COUNTS)' --accept "$$accept" || code=$$?; \
	[ $$code -ne 1 ] || exit 1; \
	$(BIN)/fastppo gate '$(GATE_BASE)' --only 'kernel/*,train/*' --screen --rounds 12 \
	  || echo "gate: nothing was shown of times (exit code $$?)"

.PHONY: test-slow
test-slow: $(STAMP)  ## only the tests marked slow
	$(BIN)/pytest -m slow $(PYTEST_ARGS)

.PHONY: faults
faults: $(STAMP)  ## kill, stop, fill the disk, damage every file (minutes); table in docs/reliability.md
	$(BIN)/pytest -m slow tests/faults $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMP)  ## ruff check, ruff format --check, mypy strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: docs
docs: $(STAMP)  ## the pages as a site in build/site, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

.PHONY: dist
dist: $(STAMP)  ## sdist and wheel; the wheel may hold nothing but fastppo/
	rm -rf build dist
	$(PINNED) $(BIN)/python -m build
	$(BIN)/check-wheel-contents --toplevel fastppo dist/*.whl

.PHONY: install
install: $(STAMP)  ## only create the environment

# One install per change of pyproject.toml or constraints.txt; otherwise nothing is resolved.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PY) >/dev/null || { echo "fastppo: no '$(PY)' on PATH; name one: make PY=/path/to/python" >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fastppo needs Python >= 3.11, but '$(PY)' is $$($(PY) --version 2>&1); name another: make PY=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "creating $(VENV)"; $(PY) -m venv $$([ ! -f $(VENV)/pyvenv.cfg ] || echo --clear) $(VENV); }
	@echo "installing into $(VENV); the first time takes minutes"
ifeq ($(TORCH),cpu)
	@$(PINNED) $(BIN)/python -m pip install -q --no-deps --index-url $(TORCH_CPU_INDEX) $(TORCH_PIN)
endif
	@$(PINNED) $(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

# What `make lock` does not choose anew. On Linux, PyPI's torch requires exactly one triton, so the
# two move together: change both, then the CUDA section of constraints.txt, then run `make lock`.
HELD := torch==2.13.0 triton==3.7.1

.PHONY: lock
lock:  ## rewrite constraints.txt from a fresh resolve (its CUDA section is kept)
	rm -rf build/lock
	$(PY) -m venv build/lock
	build/lock/bin/python -m pip install -q $(HELD) -e ".[dev]"
	build/lock/bin/python -m pip check
	{ sed '/^$$/,$$d' constraints.txt; echo; \
	  build/lock/bin/python -m pip list --format=freeze --exclude pip --exclude fastppo \
	    | sed -E 's/\+.*//' | LC_ALL=C sort -f; \
	  echo; sed -n '/^# CUDA/,$$p' constraints.txt; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/lock

.PHONY: clean
clean:  ## remove what was built or cached, but not the environment
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find fastppo kernels bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
