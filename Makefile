# Everything a person or CI does here. `make demo` and `make test` set themselves up on a fresh machine.
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) 2>/dev/null || command -v python3)
BIN := .venv/bin
RUN ?= run
RATE ?= 50
# Debian packages that tests use; installed by `make test` where this user may, else those tests are skipped aloud.
DEBIAN := prometheus prometheus-alertmanager chromium-headless-shell jq redis-server postgresql etcd-server dpkg-dev openssl systemd iproute2 iptables

.PHONY: help demo test lint bench render format clean debian kubelab
help:             ## Print this.
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

# `--no-compile`: modules are compiled when they are first imported; most of torch never is.
.venv/target: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[target]'
	@touch $@

.venv/dev: .venv/target
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[target,quantised,tracing,dev]'
	@touch $@

demo: .venv/target  ## Run the product's main job on a real fleet on this machine (KEEP=1 leaves it running).
	$(BIN)/controlplane demo --run-dir $(RUN) --rate $(RATE) $(if $(KEEP),--keep)

# What only the slow tests need is built beside the fast ones, which leave a core idle.
test: .venv/dev debian  ## Run the tests, fast ones first; ARGS are passed to pytest.
	@nice -n 19 bash tests/support/kube_lab/build.sh & lab=$$!; \
	$(BIN)/python -m pytest $(ARGS) tests/architecture tests/unit tests/properties tests/golden || { kill $$lab 2>/dev/null; exit 1; }; \
	wait $$lab
	$(BIN)/python -m pytest $(ARGS) tests/conformance tests/journeys

lint: .venv/dev  ## Check style, types, strata and rendered files.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/controlplane render --check controlplane.yaml

format: .venv/dev  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev  ## Measure; ONLY=name runs one bench.
	$(BIN)/python -m bench $(ONLY)

render: .venv/target  ## Render alerts, dashboards and runbooks from controlplane.yaml.
	$(BIN)/controlplane render controlplane.yaml

debian:
	@sh tests/support/debian.sh $(DEBIAN)

# Two real API servers and what nodes with real pods need, from Debian's packages: once a machine, into ~/.cache/kube-lab;
# 10 minutes at most.
kubelab: debian
	@bash tests/support/kube_lab/build.sh

clean:            ## Remove what was made here.
	rm -rf .venv build bench/out run *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
