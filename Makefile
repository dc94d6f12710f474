# Two commands: `make demo` runs the main job end to end, `make test` passes everything CI holds.
SHELL := /bin/bash
PY := .venv/bin/python
export PYTHONPATH := tools:tests
STAMP := .venv/.seiops-setup

.PHONY: setup dev check test cluster demo clean-demo replay bench fmt generate

setup: $(STAMP)

$(STAMP): requirements-dev.txt pyproject.toml Cargo.toml $(shell find native -name '*.rs' -o -name 'Cargo.toml' 2>/dev/null)
	@command -v cargo >/dev/null || { echo "cargo not found: install Rust 1.85 or newer (rustup.rs) and run again" >&2; exit 1; }
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/maturin develop --quiet --release
	@touch $@

# Recorded cases of the Go programs against ours: make replay [GOLDEN=DIR] [ONLY=area] [CASE=glob]
replay: $(STAMP)
	$(PY) -m replay $(if $(GOLDEN),--golden "$(GOLDEN)") $(foreach area,$(ONLY),--only $(area)) $(if $(CASE),--case "$(CASE)")
