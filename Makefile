# Every developer's job is one of these targets; each works on a fresh clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RECIPE := recipes/similarity.yaml
PARSER := recipes/address-parser/model/us-address-parser/config.json

# llama.cpp for any x86-64 with AVX2 or any ARM64, not for this very processor: what is measured is what is shipped.
LLAMA_FLAGS := -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF \
	-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF
HAS_LLAMA := $(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("llama_cpp") is None)'

.PHONY: help demo test lint format docs bench onnx gguf dev compile-llama pi-lab clean

help:
	@echo "make demo    the main job on a real model: download, quantize, bench, package"
	@echo "make test    every test: the fast ones, then those on real models"
	@echo "make lint    style and types"
	@echo "make pi-lab  what emulates a Raspberry Pi 5 and 4 here, from packages (Debian on x86-64, 160 MB)"
	@echo "make bench   side by side with other tools, as ratios (needs more packages; half an hour, and less the next time)"
	@echo "make docs    write the generated parts of docs/ and README.md again"
	@echo "make clean   remove the environment and everything in artifacts/"

# The ONNX half comes first: llama.cpp compiles for minutes, and there is something to see meanwhile.
demo: onnx
	@if ! $(HAS_LLAMA); then \
		echo; echo "== the ONNX half, before llama.cpp is compiled =="; \
		$(BIN)/edgeml run $(RECIPE); \
		$(MAKE) --no-print-directory gguf || true; \
	fi
	@echo; echo "== $(RECIPE) =="
	@$(BIN)/edgeml run $(RECIPE)

test: dev gguf
	$(BIN)/python -m pytest -q -n auto --dist loadgroup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadgroup -m real

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: dev
	$(BIN)/python docs/generate.py $(if $(DEMO),--demo-output $(DEMO)) $(if $(TEST),--test-output $(TEST))

bench: dev gguf $(PARSER)
	@for file in $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)); do echo; echo "== $$file =="; $(BIN)/python $$file || exit 1; done

# Data and training are kept where they are: made once, and taken up where they ended.
$(PARSER): | dev
	@echo "training the address parser, once: about 6 minutes on 2 cores ..."
	@$(BIN)/python recipes/address-parser/prepare.py
	@$(BIN)/python recipes/address-parser/train.py

# Correctness on the Pi's own processor, libraries and Python; speed is not emulated.
pi-lab: $(VENV)/.onnx
	@echo "fetching what emulates a Raspberry Pi, once: about 160 MB, 300 MB on disk, under a minute ..."
	@$(BIN)/edgeml download --emulator --target pi4
	@$(BIN)/edgeml download --emulator --target pi5
	@$(BIN)/edgeml download --emulator --count-instructions --target pi5 || echo "Instructions are not counted."
	@for target in pi4 pi5; do \
		$(BIN)/edgeml download --emulator --runtime gguf --target $$target || echo "GGUF is left out for $$target."; \
	done

onnx: $(VENV)/.onnx
dev: $(VENV)/.dev

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit("edgeml needs Python 3.11 or newer: make PYTHON=python3.12 demo" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.onnx: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing edgeml and its ONNX half (torch, transformers, onnxruntime) ..."
	@$(PIP) --editable '.[onnx,report]'
	@touch $@

$(VENV)/.dev: $(VENV)/.onnx
	@echo "installing the development tools ..."
	@$(PIP) --editable '.[onnx,report,dev]'
	@touch $@

gguf: $(VENV)/.onnx
	@if ! $(HAS_LLAMA); then $(MAKE) --no-print-directory compile-llama; fi
	@$(PIP) --editable '.[onnx,report,gguf]'

# Shows the compiler's own count, e.g. [68/140]; pip keeps the result, so this happens once a machine.
compile-llama:
	@if ! command -v c++ g++ clang++ >/dev/null; then \
		echo "GGUF is left out: there is no C++ compiler."; \
		echo "Debian, Ubuntu, Raspberry Pi OS: sudo apt install g++   macOS: xcode-select --install   then: make gguf"; \
		exit 1; \
	fi
	@echo "compiling llama.cpp, once: about 9 minutes on 2 cores (pip keeps the result) ..."
	@set -o pipefail; CMAKE_ARGS="$(LLAMA_FLAGS)" $(BIN)/python -m pip install --verbose --disable-pip-version-check \
		--constraint constraints.txt llama-cpp-python 2>&1 | tee $(VENV)/llama.log \
		| awk 'match($$0, /\[[0-9]+\/[0-9]+\]/) { printf "\r%s", substr($$0, RSTART, RLENGTH); fflush() } END { print "" }' \
		|| { echo "GGUF is left out: llama.cpp did not compile."; tail -n 5 $(VENV)/llama.log; echo "The whole log: $(VENV)/llama.log; then: make gguf"; exit 1; }

clean:
	rm -rf $(VENV) artifacts/*/ .mypy_cache .ruff_cache .pytest_cache
