# `make` tells what there is. Needs make and Python 3.11 or newer, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
# uv only writes the locks; installing them takes pip alone.
UV := uv==0.13.9

.DEFAULT_GOAL := help
.PHONY: help demo test pythons check soak fix lock wheel tools tools-compose tools-pythons up down docker \
  secrets clean

help: ## tell what there is
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

demo: $(VENV)/.runtime ## a mock rack under load on this machine; options go in ARGS="..."
	@$(BIN)/loadstone demo $(ARGS)

test: check tools tools-compose tools-pythons ## check, then every test; options for pytest go in ARGS="..."
	$(shipped)
	$(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(ARGS)

BUILD = rm -rf dist && $(BIN)/python -m hatchling build --directory dist

# Tests are of the tree as it lies there; with WHEEL=1 of what is shipped, the built wheel. The stamps
# go, so that the next `make` installs the tree again.
ifdef WHEEL
shipped = @$(BUILD) --target wheel && $(PIP) install --no-deps --no-index --force-reinstall dist/*.whl \
  && rm -f $(VENV)/.runtime $(VENV)/.dev
endif

pythons: $(VENV)/.dev ## the wheel and the quick half of the tests on each supported Python that is here
	@.ci/pythons $(BIN)/python requirements-dev.lock
	@$(BUILD) --target wheel >&2
	@failed=; for python in .tools/pythons/3.*/bin/python; do \
	  [ -x $$python ] || continue; $$python -V; \
	  $$python -m pip -qq --disable-pip-version-check install --no-deps --no-index --force-reinstall dist/*.whl && \
	  WHEEL=1 $$python -P -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder --quiet \
	    --ignore tests/e2e --ignore tests/dashboards --ignore tests/deploy $(ARGS) || \
	    failed="$$failed $$python"; done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

# Once a day, and when the lock changes: it asks about each package.
AUDITED = $(VENV)/.audited-$(shell date +%F)
$(AUDITED): requirements-dev.lock .ci/audit | $(VENV)/.dev
	$(BIN)/python .ci/audit
	@touch $@

check: $(VENV)/.dev $(AUDITED) ## format, lint, types, arrows, dashboards, locks, known vulnerabilities
	$(BIN)/ruff format --check --output-format concise .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/loadstone dashboards check
	$(BIN)/pytest --quiet -k lock tests/test_repository.py

soak: $(VENV)/.runtime ## an hour of load with churn; what grew? ARGS="--minutes 10"
	@$(BIN)/python bench/soak.py $(ARGS)

fix: $(VENV)/.dev ## let ruff mend what it can: format, imports, simple findings
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: $(VENV)/.locker ## write the locks anew; ARGS=--upgrade takes new releases
	$(COMPILE) --group dev --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

tools: ## what tests need besides Python: Prometheus and Chromium; quick when there
	@.ci/tools

tools-compose:
	@.ci/compose

tools-pythons: $(VENV)/.dev
	@.ci/pythons $(BIN)/python requirements.lock

wheel: $(VENV)/.runtime ## what a release is: the wheel and the source archive, in dist
	@$(BUILD) --target sdist --target wheel

# TRACING=1 brings the trace store with it, and has every tenth request traced.
COMPOSE = $(if $(TRACING),OTEL_TRACES_SAMPLER_ARG=$${OTEL_TRACES_SAMPLER_ARG:-0.1}) \
	docker compose $(if $(TRACING),--profile tracing)

up: docker secrets ## the whole stack in containers (docs/stack.md); TRACING=1 with a trace store
	@$(COMPOSE) build mock
	@$(COMPOSE) up --detach --wait $(ARGS)
	@echo "The load     http://127.0.0.1:$${LOCUST_PORT:-$$(sed -n 's/^LOCUST_PORT=//p' .env)}, user admin," \
	  "password in deploy/secrets/locust_password"
	@echo "Dashboards   http://127.0.0.1:$${GRAFANA_PORT:-$$(sed -n 's/^GRAFANA_PORT=//p' .env)}, user admin," \
	  "password in deploy/secrets/grafana_admin_password"

down: docker ## stop the stack; its data stays, unless ARGS=--volumes
	@docker compose --profile tracing down $(ARGS)

docker:
	@command -v docker >/dev/null || \
	  { echo "No docker here: the stack needs Docker Engine 25 or newer with Compose 2 or newer. \"make demo\" does without." >&2; exit 1; }
	@docker compose version >/dev/null 2>&1 || \
	  { echo "docker is here, but not its Compose plugin: install docker-compose-plugin (Docker's own packages)," \
	    "docker-compose-v2 (Ubuntu) or docker-compose (Debian 13 and newer)" >&2; exit 1; }
	@docker info >/dev/null 2>&1 || \
	  { echo "docker is here, but its engine does not answer: start it, or join the group that may use it" >&2; exit 1; }

# Containers read these as users of their own, so the files are open; the folder is not.
PASSWORDS := deploy/secrets/grafana_admin_password deploy/secrets/locust_password
secrets: $(PASSWORDS) deploy/secrets/api_key

deploy/secrets:
	@mkdir -m 700 $@

$(PASSWORDS): | deploy/secrets
	@umask 022; od -An -N18 -tx1 /dev/urandom | tr -d ' \n' >$@

deploy/secrets/api_key: | deploy/secrets
	@umask 022; : >$@

clean: ## remove .venv, tools, caches and builds; runs/ stays
	rm -rf $(VENV) .tools build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
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
