# The front door. `make demo` shows it, `make test` tests it; both install what they need (as root or with sudo).
#
#   make demo       a throwaway cluster, the vendor simulator, and five vendors' flows played in psql
#   make test       everything: format, lints, pure tests, golden files, gateway tests
#   make install    the extension, into the Postgres of PG_CONFIG
#   make bench      what a call costs, as ratios
#   make gateway T=test_limits K=resend   one file of the gateway tests, and of it what is called so
#   make soak       MINUTES (10) of load and trouble: nothing sent twice, nothing lost, nothing that grows
#   make fuzz       RUNS generated vendor answers (ten million) through the readers
#   make package   a .deb and a .tar.gz for each pg_config in PACKAGE_FOR; make dist: the sources as PGXN takes them
#   make test-packages   installs them in Debian 12, 13 and sid (debootstrap, as root)
#   make simulator  the vendor simulator, to develop against
#
# PG_CONFIG names the Postgres to build for; by default the one that Debian installs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo)
PG_CONFIG ?= $(shell command -v pg_config || echo /usr/bin/pg_config)
export PG_CONFIG
# Expanded when used: `make setup` may have to install Postgres first.
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Debian's Python, for which Debian has the packages; not one that a version manager put first.
PYTHON := /usr/bin/python3
CARGO = PGRX_PG_CONFIG_PATH="$(PG_CONFIG)" cargo
PG_FEATURES = --no-default-features --features pg$(PG_MAJOR)
PURE = -p dialect -p policy -p http_client -p simulator
# What cargo-fuzz sets, without it and without a nightly compiler.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cdebug-assertions -Coverflow-checks
RUNS = 10000000
MINUTES = 10
STEP = @printf '\n\033[1m== %s\033[0m\n'

.PHONY: all setup build install demo test format lint pure gateway fuzz fuzz-briefly bench soak simulator package dist test-packages install-files clean

all: build

setup:
	$(STEP) "set-up: Debian packages and Rust (nothing to do where they are there)"
	@PG_CONFIG="$(PG_CONFIG)" ./setup.sh

build: setup
	$(STEP) "building the extension and the simulator (the first time takes about five minutes on two cores)"
	@$(CARGO) build --release --locked $(PG_FEATURES) -p otp_gateway
	@$(CARGO) build --release --locked -p simulator

install: build
	$(STEP) "installing into PostgreSQL $(PG_MAJOR) ($$($(PG_CONFIG) --sharedir)/extension)"
	@$(MAKE) --no-print-directory install-files

# Into DESTDIR for a package, which then is no place that takes root's rights.
LIBRARY = target/release/libotp_gateway.so
install-files: AS_ROOT = $(if $(DESTDIR),,$(SUDO))
install-files:
	@$(AS_ROOT) install -d "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"
	@# A running server has the old file mapped: the new one takes its name, not its place.
	@$(AS_ROOT) install -m 755 "$(LIBRARY)" "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/otp_gateway.so.new"
	@$(AS_ROOT) mv -f "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/otp_gateway.so.new" "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/otp_gateway.so"
	@$(AS_ROOT) install -m 644 otp_gateway.control sql/install/*.sql sql/upgrade/*.sql "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"

# PACKAGE_FOR: the pg_config of each Postgres to make a package for.
PACKAGE_FOR = $(PG_CONFIG)
package: setup
	$(STEP) "packages into dist/, for $(PACKAGE_FOR)"
	@packaging/package.sh $(PACKAGE_FOR)

dist:
	$(STEP) "the sources of the last commit as PGXN takes them, into dist/"
	@packaging/dist.sh

test-packages:
	$(STEP) "packages: installed, used, upgraded and removed in Debian 12, 13 and sid; built twice and compared"
	@packaging/test.sh

demo: install
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) demo/demo.py

test: format lint pure fuzz-briefly gateway

# First, because it takes a second.
format: setup
	$(STEP) "cargo fmt --check"
	@cargo fmt --all --check

lint: build
	$(STEP) "layers, documents, pgspot on the SQL scripts, cargo clippy, and every version of Postgres"
	@tests/layers.py
	@tests/documents.py
	@tests/pgspot.sh
	@$(CARGO) clippy --locked --all-targets $(PURE) -- -D warnings
	@# Nothing is linked, so libFuzzer's C++ need not be compiled.
	@CUSTOM_LIBFUZZER_PATH=none/libnone.a $(CARGO) clippy --locked -p fuzz -- -D warnings
	@$(CARGO) clippy --locked --all-targets $(PG_FEATURES) -p otp_gateway -- -D warnings
	@tests/versions.sh

pure: setup
	$(STEP) "dialect, policy, http_client and simulator: cargo test"
	@$(CARGO) test --locked $(PURE)

# --target keeps the flags away from build scripts, and the directory of its own keeps other builds warm.
define FUZZ
host=$$(rustc -vV | sed -n 's/^host: //p'); \
RUSTFLAGS="$(FUZZ_FLAGS)" cargo build -q --release --locked -p fuzz --target $$host --target-dir "$${CARGO_TARGET_DIR:-target}/fuzz"; \
cd "$${CARGO_TARGET_DIR:-target}/fuzz"; mkdir -p corpus; \
"$$host/release/fuzz" -max_len=1024 -timeout=10 -print_final_stats=1
endef

fuzz: setup
	$(STEP) "fuzz: $(RUNS) vendor answers, coverage-guided; a find is left in target/fuzz"
	@$(FUZZ) -runs=$(RUNS) corpus

fuzz-briefly: setup
	$(STEP) "fuzz: the first of the vendor answers that make fuzz goes on with"
	@$(FUZZ) -runs=150000 -seed=1 >brief.log 2>&1 || { tail -n 40 brief.log; exit 1; }; grep -E 'DONE|^stat::number' brief.log

gateway: install
	$(STEP) "golden files and gateway tests: a cluster of their own"
	@cd tests/gateway && PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -ra --durations=10 $(if $(T),$(addsuffix .py,$(T))) $(if $(K),-k "$(K)")

bench: install
	$(STEP) "bench: ratios measured side by side"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/bench.py

soak: install
	$(STEP) "soak: $(MINUTES) minutes of load and trouble"
	@PYTHONDONTWRITEBYTECODE=1 MINUTES=$(MINUTES) $(PYTHON) tests/soak/soak.py

simulator: setup
	@cargo build --release --locked -p simulator
	@exec target/release/simulator

clean:
	@cargo clean
