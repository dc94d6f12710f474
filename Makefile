# Two commands: `make demo` runs the main job end to end, `make test` passes everything CI holds.
SHELL := /bin/bash
PY := .venv/bin/python
export PYTHONPATH := tools:tests
STAMP := .venv/.seiops-setup
RECORDINGS := $(or $(GOLDEN),../shared/golden)

.PHONY: force setup dev check test cluster demo clean-demo replay fmt generate

setup: $(STAMP)

# The kernel stands beside the sources: where it was cleaned away, the stamp alone says nothing.
$(STAMP): requirements-dev.txt pyproject.toml Cargo.toml $(shell find native -name '*.rs' -o -name 'Cargo.toml' 2>/dev/null) \
    $(if $(wildcard src/seiops/_native*.so),,force)
	@command -v cargo >/dev/null || { echo "cargo not found: install Rust 1.89 or newer (rustup.rs) and run again" >&2; exit 1; }
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@echo "building the native kernel"
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -e . >.venv/kernel.log 2>&1 \
	    || { cat .venv/kernel.log >&2; echo "the native kernel does not build: see above" >&2; exit 1; }
	@touch $@

# Recorded cases of the Go programs against ours: make replay [GOLDEN=DIR] [ONLY=area] [CASE=glob]
replay: $(STAMP)
	$(PY) -m replay $(if $(GOLDEN),--golden "$(GOLDEN)") $(foreach area,$(ONLY),--only $(area)) $(if $(CASE),--case "$(CASE)")

# What a day begins with: everything built, so that all other targets start at once.
dev: $(STAMP)
	$(PY) -m seidev.build

# Formatting, types, layers, generated files and the Rust kernel: no servers needed.
check: $(STAMP)
	.venv/bin/ruff check
	.venv/bin/ruff format --check --quiet
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(MAKE) --no-print-directory generate
	git diff --exit-code -- deploy/crd docs/contracts docs/configuration.md
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo test --quiet

# What is generated from the models and checked in.
generate: $(STAMP)
	$(PY) -m seiops.api.crd --out deploy/crd
	$(PY) -m seiops.sidecar.openapi > docs/contracts/sidecar-openapi.json
	$(PY) -m seiops.controller.settings --markdown > docs/configuration.md

fmt: $(STAMP)
	.venv/bin/ruff check --fix --quiet || true
	.venv/bin/ruff format --quiet
	cargo fmt

# Everything CI holds. The servers are built beside the checks: both need minutes on a fresh machine.
test: $(STAMP)
	@$(PY) -m seidev.build & build=$$!; $(MAKE) --no-print-directory check; checked=$$?; wait $$build && exit $$checked
	.venv/bin/pytest -n 2 -rs tests
	@if [ -d "$(RECORDINGS)" ]; then $(MAKE) --no-print-directory replay; \
	    else echo "replay: no recordings at $(RECORDINGS); make replay GOLDEN=DIR runs them from elsewhere"; fi

# A Kubernetes API on loopback with our CRDs, until Ctrl-C.
cluster: setup
	@$(PY) -m seidev.build >/dev/null
	@$(PY) -m seidev.cluster

# The main job once, from an empty cluster to a running node and a sealed digest. KEEP=1 leaves everything running.
demo: setup
	@$(PY) -m seidev.demo $(if $(KEEP),--keep) $(if $(SVG),--svg "$(SVG)")

clean-demo: setup
	@$(PY) -m seidev.demo --clean
