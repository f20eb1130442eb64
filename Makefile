# `make` tells what there is. Needs make and Python 3.11 or newer, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# uv only writes the locks; installing them takes pip alone.
UV := uv==0.13.9

.DEFAULT_GOAL := help
.PHONY: help demo test check fix lock clean

help: ## tell what there is
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

demo: $(VENV)/.runtime ## a mock rack under load on this machine; options go in ARGS="..."
	@$(BIN)/loadstone demo $(ARGS)

test: check ## check, then every test; options for pytest go in ARGS="..."
	$(BIN)/pytest $(ARGS)

check: $(VENV)/.dev ## format, lint, types, arrows, locks
	$(BIN)/ruff format --check --output-format concise .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --quiet -k lock tests/test_repository.py

fix: $(VENV)/.dev ## let ruff mend what it can: format, imports, simple findings
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: $(VENV)/.locker ## write the locks anew; ARGS=--upgrade takes new releases
	$(COMPILE) --group dev --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

clean: ## remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The build group is in both locks: an install builds loadstone with pinned tools too.
COMPILE = $(VENV)/locker/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --annotation-style line $(ARGS)

# Tell in plain words what is missing, then make a new .venv unless a working one is there.
define venv
	@command -v $(PYTHON) >/dev/null || \
	  { echo "No $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 is the oldest that will do; name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV)$(1), about a minute the first time" >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
endef

# `make demo` needs only what runs; the tools that check come with the first `make test`.
$(VENV)/.runtime: requirements.lock pyproject.toml
	$(call venv)
	@$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	$(call venv, with the tools)
	@$(PIP) install --no-deps --require-hashes --requirement requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.runtime $@

$(VENV)/.locker: Makefile
	$(call venv, with the resolver)
	@$(PYTHON) -m venv $(VENV)/locker
	@$(VENV)/locker/bin/python -m pip -qq --disable-pip-version-check install $(UV)
	@touch $@
