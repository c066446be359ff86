# The commands of a checkout. Everything is installed into .venv, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BUILT := .venv/.built
ENGINE_SOURCES := engine/Cargo.toml engine/Cargo.lock $(wildcard engine/src/*.rs)

.PHONY: setup demo test check lint rust types unit integration docs licenses format bench chaos soak kill-plot clean

setup: $(BUILT)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed: install it, or name it as in: make PYTHON=python3.12"; exit 1; }
	@command -v cargo >/dev/null \
		|| { echo "Rust 1.85 or newer with cargo is needed to build the engine: see https://rustup.rs"; exit 1; }
	@cargo --version | $(PYTHON) -c 'import re, sys; \
		found = re.search(r"(\d+)\.(\d+)", sys.stdin.read()); \
		sys.exit(0 if found and tuple(map(int, found.groups())) >= (1, 85) else "Rust 1.85 or newer is needed: rustup update")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		click dramatiq 'redis[hiredis]' rich setproctitle tenacity
	@touch $@

$(BUILT): $(INSTALLED) $(ENGINE_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(CURDIR)/.venv PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin develop --release --quiet --locked
	@touch $@

demo: setup
	$(BIN)/rhai-tasks demo

test: check

check: lint rust types unit integration

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

rust: setup
	cd engine && cargo fmt --check && cargo clippy --release --locked --all-targets -- -D warnings
	cd bench/native && cargo fmt --check
	cd tests/conformance/oracle && cargo fmt --check && cargo clippy --release --locked --quiet -- -D warnings

types: setup
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rhai_tasks._engine

unit: setup
	$(BIN)/python -m pytest tests/unit tests/conformance

integration: setup
	$(BIN)/python -m pytest tests/integration tests/faults

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

licenses: setup
	$(BIN)/python engine/licenses.py

# make chaos ARGS="--minutes 5 --seed 7 --only kill-worker"
chaos: setup
	$(BIN)/python -m tests.chaos $(ARGS)

# make soak ARGS="--minutes 10"
soak: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group soak
	$(BIN)/python -m tests.chaos.soak $(ARGS)

# draws docs/images/kill.svg, or make kill-plot ARGS="--output kill.svg"
kill-plot: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group soak
	$(BIN)/python -m tests.chaos.kill_plot $(ARGS)

# make bench ARGS="--rounds 1 --only ours,reference"
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group bench
	$(BIN)/python -m bench all $(ARGS)
	$(BIN)/python -m bench growth
	$(BIN)/python -m bench report --docs

format: setup
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; cd engine && cargo fmt ; cd ../bench/native && cargo fmt ; cd ../../tests/conformance/oracle && cargo fmt

clean:
	rm -rf .venv bench/.venvs dist site engine/target
