# The commands of a checkout. Everything is installed into .venv, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
CREATED := .venv/.created
BUILT := .venv/.built
DEVELOPED := .venv/.developed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TESTS := $(BIN)/python -m pytest
ENGINE_SOURCES := engine/Cargo.toml engine/Cargo.lock $(wildcard engine/src/*.rs engine/src/*/*.rs)

unexport PYTHONDONTWRITEBYTECODE # hundreds of tests start processes

.PHONY: setup demo test check lint rust types tests tests-again unit integration reference docs licenses format bench chaos soak kill-plot clean

setup: $(BUILT) $(DEVELOPED)

$(CREATED): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed: install it, or name it as in: make PYTHON=python3.12"; exit 1; }
	@command -v cargo >/dev/null \
		|| { echo "Rust 1.85 or newer with cargo is needed to build the engine: see https://rustup.rs"; exit 1; }
	@cargo --version | $(PYTHON) -c 'import re, sys; \
		found = re.search(r"(\d+)\.(\d+)", sys.stdin.read()); \
		sys.exit(0 if found and tuple(map(int, found.groups())) >= (1, 85) else "Rust 1.85 or newer is needed: rustup update")'
	@echo "Creating .venv ..."
	@$(PYTHON) -m venv .venv
	@$(INSTALL) maturin
	@touch $@

$(BUILT): $(CREATED) $(ENGINE_SOURCES) pyproject.toml
	@echo "Building the engine, and installing it with its packages: one to three minutes at first ..."
	@PATH="$(CURDIR)/$(BIN):$$PATH" MATURIN_PEP517_ARGS=--locked $(INSTALL) --no-build-isolation --editable '.[demo,web]'
	@touch $@

$(DEVELOPED): pyproject.toml constraints.txt | $(BUILT)
	@echo "Installing the development tools ..."
	@$(INSTALL) 'pip>=25.1' # it knows groups
	@$(INSTALL) --group dev
	@touch $@

# make demo ARGS=--web
demo: $(BUILT)
	@$(BIN)/rhai-tasks demo $(ARGS)

test: check

check: lint rust types tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.style
	@if command -v luacheck >/dev/null; then luacheck --quiet rhai_tasks bridge; \
		elif [ -n "$$CI" ]; then echo "CI has no luacheck"; exit 1; \
		else echo "The Lua scripts are not checked: luacheck is not installed (apt-get install lua-check)"; fi

rust: setup
	cd engine && cargo fmt --check && cargo clippy --release --locked --all-targets -- -D warnings
	cd bench/native && cargo fmt --check
	cd bench/rivals && cargo fmt --check --all
	cd tests/conformance/oracle && cargo fmt --check && cargo clippy --release --locked --quiet -- -D warnings

types: setup
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rhai_tasks.engine._engine

tests: setup
	$(TESTS) -n auto tests/faults tests/integration tests/unit tests/conformance

tests-again: setup # those that have failed, alone; an error if none has
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none tests

unit: setup
	$(TESTS) -n logical tests/unit tests/conformance

integration: setup
	$(TESTS) -n auto tests/faults tests/integration

reference: setup # the parts of the pages that repeat the code
	$(BIN)/python -m docs.reference

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

licenses: setup
	$(BIN)/python engine/licenses.py

# make chaos ARGS="--minutes 5 --seed 7 --only kill-worker"
chaos: setup
	$(BIN)/python -m tests.chaos $(ARGS)

# make soak ARGS="--minutes 10"
soak: setup
	$(INSTALL) --group soak
	$(BIN)/python -m tests.chaos.soak $(ARGS)

# draws docs/images/kill.svg, or make kill-plot ARGS="--output kill.svg"
kill-plot: setup
	$(INSTALL) --group soak
	$(BIN)/python -m tests.chaos.kill_plot $(ARGS)

# make bench ARGS="--rounds 1 --only ours,reference"
bench: setup
	$(INSTALL) --group bench
	$(BIN)/python -m bench all $(ARGS)
	$(BIN)/python -m bench growth
	$(BIN)/python -m bench report --docs

format: setup
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; cd engine && cargo fmt ; cd ../bench/native && cargo fmt ; cd ../../tests/conformance/oracle && cargo fmt

clean:
	rm -rf .venv bench/.venvs dist site engine/target
