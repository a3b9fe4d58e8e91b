# Every target does its own set-up: what is missing is found or fetched by scripts/ensure-*, the first time it is needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# CI starts from a clean clone, so what it builds has to outlive the clone. On a desk, cargo's own default stays.
SLUICE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
export SLUICE_CACHE
ifeq ($(CI),true)
CARGO_TARGET_DIR ?= $(SLUICE_CACHE)/target
export CARGO_TARGET_DIR
endif

# rustup puts cargo here; a shell that is no login shell may not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Packages of their own, which the workspace's commands do not see.
PEERS := tests/peers/ldk-node-peer tests/peers/hostile-peer

# More arguments for `run`, `test` and `bench`, as in: make test ARGS='-- reorg', make bench ARGS='-- assets'
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: rust
rust:
	@scripts/ensure-system

## --- use

.PHONY: run
run: rust ## Build, then run a gateway on a private regtest, ready to try; stop it with Ctrl-C
	cargo build --locked --workspace --bins
	exec scripts/with-tools bitcoind cargo run --quiet --locked --bin sluice -- regtest $(ARGS)

## --- check

# A program that runs the test binaries, instead of cargo itself.
TEST_RUNNER ?=
with_runner := $(if $(TEST_RUNNER),--config "target.'cfg(unix)'.runner = '$(TEST_RUNNER)'")

# All test binaries run, also when one fails: one run of CI says everything that is wrong.
.PHONY: test
test: rust ## Run every test, against a real bitcoind, PostgreSQL, Lightning peer and RGB wallets
	exec scripts/with-tools bitcoind,embit,hostile-peer,ldk-peer,postgres,rgb-wallet,schemathesis cargo test --locked --workspace --no-fail-fast $(with_runner) $(ARGS)

.PHONY: check
check: locked fmt-check deny clippy tidy openapi-check ## Run everything that needs no server: lock, format, licences, lints, house rules, API drift

.PHONY: locked
locked: rust
	cargo metadata --locked --all-features --format-version 1 >/dev/null

.PHONY: fmt-check
fmt-check: rust
	cargo fmt --all --check
	for peer in $(PEERS); do cargo fmt --manifest-path $$peer/Cargo.toml --check || exit; done

.PHONY: clippy
clippy: rust
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: tidy
tidy: rust
	exec scripts/with-tools cargo-deny cargo test --locked --test tidy

# deny.toml says what is banned, and why.
.PHONY: deny
deny: rust
	deny=$$(scripts/ensure-cargo-deny) && \
	"$$deny" --locked check bans && \
	"$$deny" --locked --all-features check licenses sources

.PHONY: openapi-check
openapi-check: rust
	cargo run --quiet --locked --bin sluice -- openapi --check

.PHONY: advisories
advisories: rust ## Ask the RustSec database about known vulnerabilities (needs a network)
	deny=$$(scripts/ensure-cargo-deny) && \
	"$$deny" --locked --all-features check advisories

# A soak test has "soak" in its name and returns at once where SLUICE_SOAK_SECONDS is not set.
.PHONY: soak
soak: rust ## Run every soak test, each for SLUICE_SOAK_SECONDS (default 600)
	export SLUICE_SOAK_SECONDS=$${SLUICE_SOAK_SECONDS:-600}; \
	exec scripts/with-tools bitcoind,hostile-peer,ldk-peer,postgres,rgb-wallet cargo test --locked --test it -- soak --nocapture

.PHONY: bench
bench: rust ## Measure throughput and latency, optimised build; writes docs/BENCHMARKS.md
	export SLUICE_BENCH_WRITE=$(CURDIR)/docs/BENCHMARKS.md; \
	exec scripts/with-tools bitcoind,postgres cargo bench --locked --bench report $(ARGS)

## --- regenerate what is committed

.PHONY: openapi
openapi: rust ## Write openapi/sluice.json again
	cargo run --quiet --locked --bin sluice -- openapi --write

# The clock of the tests is put far ahead, and cargo's is not: tests/fixtures/README.md says why.
.PHONY: fixture
fixture: rust ## Keep a gateway of this program with everything in it, in the folder FOLDER; needs faketime
	export SLUICE_WRITE_FIXTURE=$(abspath $(FOLDER)) FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1; \
	exec scripts/with-tools bitcoind,ldk-peer,postgres cargo test --locked --test it \
		--config "target.'cfg(unix)'.runner = 'faketime -f +23y'" -- fixture::make

.PHONY: states
states: rust ## Write docs/STATES.md again from the state machines
	SLUICE_WRITE_STATES=1 cargo test --locked --lib states

.PHONY: fmt
fmt: rust ## Format the code
	cargo fmt --all
	for peer in $(PEERS); do cargo fmt --manifest-path $$peer/Cargo.toml || exit; done
