# Everything a contributor types. `make` alone lists the targets; each one sets up what it needs, once.

ifneq ($(firstword $(sort 3.81 $(MAKE_VERSION))),3.81)
$(error GNU make 3.81 or newer is needed, this is make $(MAKE_VERSION))
endif

# PYTHON= chooses the interpreter that .venv is made from; else the first of python3, python3.14 … that is new enough.
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
LOCKED := $(if $(CI),--locked)
MINUTES := 1
FUZZ_FILES := $(shell grep -l '^fn fuzz_' $$(find rust -name fuzz.rs))
RUST_SOURCES := Cargo.toml Cargo.lock .cargo/config.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two cargo processes in one target directory only wait for each other.
.NOTPARALLEL:
.PHONY: help demo develop test test-rust test-python nats relay lint lint-rust lint-python format bench bench-check model fuzz compare soak soak-real drills clean prerequisites

help: ## list these targets
	@echo 'make demo: watch five nodes find each other. make test: all tests. All targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS=@ read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.extension-release ## build the package (release) into .venv and watch five nodes find each other
	$(BIN)/iroh-gossip-discovery demo

develop: $(VENV)/.extension-dev $(VENV)/.group-dev ## build the package (dev profile) into .venv, with all tools for working on it

test: test-rust test-python ## run all tests: cargo test, then pytest (ARGS="-k name" goes to pytest)

test-rust: $(VENV)/.made ## run the Rust tests
	cargo test $(LOCKED)

nats: $(VENV)/.extension-dev $(VENV)/.group-test relay ## try all pairs of NATs: who reaches whom directly (minutes)
	IGD_TEST_NATS=all $(BIN)/python -m pytest -s tests/test_relays.py -k nats_let $(ARGS)

relay: $(VENV)/.made ## build the relay that the tests run
	cargo build $(LOCKED) --package iroh-gossip-discovery-relay

test-python: $(VENV)/.extension-dev $(VENV)/.group-test relay ## run the Python tests on the extension in the dev profile
	$(BIN)/python -m pytest $(ARGS)

lint: lint-rust lint-python ## check format, lints and types of everything

lint-rust: $(VENV)/.made ## rustfmt and clippy (pedantic)
	cargo fmt --all --check
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings

lint-python: $(VENV)/.extension-dev $(VENV)/.group-lint ## ruff, mypy (strict), stubtest, tombi, typos, the house's own rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest iroh_gossip_discovery --mypy-config-file pyproject.toml --allowlist tests/stubtest-allowlist.txt
	$(BIN)/tombi lint --offline --quiet .
	$(BIN)/tombi format --offline --check --quiet .
	$(BIN)/typos
	$(BIN)/python scripts/house.py

format: $(VENV)/.group-lint ## put everything into the house's format
	cargo fmt --all
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/tombi format --offline --quiet .

bench: $(VENV)/.extension-release $(VENV)/.group-bench ## measure convergence, median and worst of 20 (release; takes minutes)
	$(if $(ARGS),,cargo bench $(LOCKED) --package iroh-gossip-discovery-proto --bench protocol)
	$(if $(ARGS),,cargo bench $(LOCKED) --package iroh-gossip-discovery --bench book)
	cargo run $(LOCKED) --release --package iroh-gossip-discovery --example convergence -- $(ARGS)
	$(if $(ARGS),,cargo run $(LOCKED) --release --package iroh-gossip-discovery --example liveness)
	$(if $(ARGS),,cargo run $(LOCKED) --release --package iroh-gossip-discovery-sim --example promises -- --nodes 300 --seeds 10)
	$(if $(ARGS),,$(BIN)/python benchmarks/processes.py)
	$(if $(ARGS),,$(BIN)/python benchmarks/imports.py)
	$(if $(ARGS),,cargo build $(LOCKED) --release --package iroh-gossip-discovery --example streams --example burst)
	$(if $(ARGS),,$(BIN)/python benchmarks/streams.py)
	$(if $(ARGS),,$(BIN)/python benchmarks/latency.py)
	$(if $(ARGS),,$(BIN)/python -m pytest benchmarks/bench_python.py)

bench-check: $(VENV)/.made ## count the instructions of pieces of the work, compare with what is kept (dev profile; ARGS=--keep)
	cargo build $(LOCKED) --package iroh-gossip-discovery-sim --example instructions
	$(BIN)/python benchmarks/instructions.py target/debug/examples/instructions $(ARGS)

model: $(VENV)/.made ## try all that several faults may do to three nodes (FAULTS=2 OVERTAKES=0 FIRST=1 THEN=10 MINUTES=60)
	FAULTS=$(or $(FAULTS),2) FIRST=$(or $(FIRST),1) \
		cargo test $(LOCKED) --package iroh-gossip-discovery-sim --test model -- --nocapture no_faults_break

fuzz: target/tools/bin/cargo-bolero ## let libFuzzer look for input that breaks a decoder or the state machine (MINUTES=1 for each target; ARGS=tickets for one)
	@set -e; grep -Ho '^fn fuzz_[a-z_]*' $(FUZZ_FILES) | grep -- '$(ARGS)' | while IFS=: read -r file target; do \
		crate=$$(sed -n '/^name/{s/.*"\(.*\)"/\1/p;q;}' "$${file%%/src/*}/Cargo.toml"); \
		module=$$(echo "$${file#*/src/}" | sed 's/\.rs$$//;s,/,::,g'); \
		echo "== $$crate $${target#fn }: $(MINUTES) min"; \
		PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo bolero test --package "$$crate" "$$module::$${target#fn }" \
			--engine libfuzzer --rustc-bootstrap --sanitizer NONE --target-dir target/fuzz -T $(MINUTES)m </dev/null; done

compare: $(VENV)/.extension-release $(VENV)/.group-compare ## measure beside kinship, casty, memberlist, serf (release; hours; ARGS="--only converge --sizes 10 --runs 5")
	PYTHONPATH=benchmarks $(BIN)/python -m compare $(ARGS)

soak: $(VENV)/.made ## simulate random faults for as long as asked (release; ARGS="--minutes 10 --nodes 30"; --seeds, --from)
	cargo run $(LOCKED) --release --package iroh-gossip-discovery-sim --example simulate -- soak $(ARGS)

soak-real: $(VENV)/.extension-release ## run 50 real processes under churn for 20 minutes (release; ARGS="--processes 8 --minutes 1")
	$(BIN)/python benchmarks/soak.py $(ARGS)

drills: $(VENV)/.extension-release ## real faults on real hosts, promise and measurement of each (release; root; ARGS="--only crash")
	$(BIN)/python benchmarks/drills.py $(ARGS)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) target LICENSE-THIRD-PARTY LICENSE-RUST-STANDARD-LIBRARY.html python/iroh_gossip_discovery/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis

prerequisites: ## check that Python, Rust, make and a C compiler are there and new enough
	@python=$$(scripts/prerequisites) && echo "all there; .venv is made from $$python"

target/tools/bin/cargo-bolero:
	cargo install --quiet --locked --version 0.13.5 --root target/tools cargo-bolero

# Stamps: what they stand for is done once, and again when what it depends on changes.

$(VENV)/.made:
	@python=$$(scripts/prerequisites) && echo "making $(VENV) from $$python" && "$$python" -m venv $(VENV)
	@# --group came with pip 25.1.
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	@touch $@

$(VENV)/.group-%: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

$(VENV)/.extension-%: $(RUST_SOURCES) pyproject.toml scripts/develop.py $(VENV)/.group-build
	$(BIN)/python scripts/develop.py --profile $* $(LOCKED)
	@rm -f $(VENV)/.extension-*
	@touch $@

.PRECIOUS: $(VENV)/.group-%
