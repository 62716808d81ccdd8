# The front door. `make demo` shows it, `make test` tests it; both install what they need (as root or with sudo). `make
# install` installs the extension, and nothing else.
#
#   make help       this list
#   make demo       a throwaway cluster, the vendor simulator, and six scenes in psql; ALL=1: those of every vendor, too
#   make install    the extension, into the Postgres of PG_CONFIG (DESTDIR=/... puts the files there); says what building
#                   lacks, and installs none of it
#   make uninstall  takes the extension's files away again
#   make setup      on a Debian machine, what building and testing need; a Postgres only where there is none
#   make test       everything: format, lints, pure tests, golden files, gateway tests, and the core of these on each
#                   other version of Postgres; make test PG=17: all of it on that version
#   make test-versions   demo, pure and all gateway tests on every version, and a table
#   make gateway T=test_limits K=resend   one file of the gateway tests, and of it what is called so
#   make test-clients   the drivers, ORMs and poolers of docs/clients.md, and a table of what passed
#   make test-monitoring   the alerts, through Debian's exporter and Prometheus; dashboards and their queries; pictures
#   make examples   the applications of examples/, each with its own tests, against the sandbox
#   make bench      what a call costs, as ratios; ROW="http find": these rows of the table alone
#   make bench-scale     the same with ROWS (a million) attempts on record
#   make bench-retention how ROWS old attempts go: deleted from one table, or with their partition
#   make soak       MINUTES (10) of load and trouble: nothing sent twice, nothing lost, nothing that grows
#   make fuzz       RUNS generated vendor answers (ten million) through the readers
#   make package    a .deb and a .tar.gz into dist/ for each Postgres that PACKAGE_FOR names (a major, or a pg_config)
#   make dist       the sources into dist/, as PGXN takes them
#   make test-packages   installs, uses, upgrades and removes the packages in Debian 12, 13 and sid; as root
#   make simulator  the vendor simulator, to develop against
#   make clean      takes away what was built
#
# Not on a production server: demo, test, gateway, test-clients, test-monitoring, examples, bench, bench-scale,
# bench-retention and soak set up what they need and install this version OVER the extension of PG_CONFIG's server, which
# runs it from its next restart on. (PG=15, ... takes a server of its own.)
# The simulator needs Rust alone.
#
# PG_CONFIG names the Postgres to build for; by default the one that Debian installs. PG=14, ... is one of PyPI's instead,
# which lies in OTP_SERVERS.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo)
# Where the servers of other versions lie: the system user that runs them must be able to read it.
OTP_SERVERS ?= $(if $(SUDO),$(CURDIR)/target,/opt/otp_gateway)/postgres
ifdef PG
PG_CONFIG := $(OTP_SERVERS)/$(PG)/bin/pg_config
else
PG_CONFIG ?= $(shell command -v pg_config || echo /usr/bin/pg_config)
endif
# What the tests of packages keep: they are root's.
OTP_PACKAGES ?= /opt/otp_gateway/packages
export PG PG_CONFIG OTP_SERVERS OTP_PACKAGES
# Expanded when used: `make setup` may have to install Postgres first.
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Debian's Python, for which Debian has the packages; not one that a version manager put first.
PYTHON := /usr/bin/python3
CARGO = PGRX_PG_CONFIG_PATH="$(PG_CONFIG)" cargo
PG_FEATURES = --no-default-features --features pg$(PG_MAJOR)
PURE = -p dialect -p policy -p http_client -p seqlock -p simulator
# What cargo-fuzz sets, without it and without a nightly compiler.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cdebug-assertions -Coverflow-checks
RUNS = 10000000
ROWS = 1000000
MINUTES = 10
# What a package is made for.
PACKAGE_FOR = $(PG_CONFIG)
# Where the extension goes; what is staged is one's own.
LIBRARY = $(DESTDIR)$(shell $(PG_CONFIG) --pkglibdir)/otp_gateway.so
EXTENSION = $(DESTDIR)$(shell $(PG_CONFIG) --sharedir)/extension
INTO = $(if $(DESTDIR),,$(SUDO))
STEP = @printf '\n\033[1m== %s\033[0m\n'

.PHONY: all help setup ready build build-simulator install uninstall demo test test-versions versions format lint pure gateway \
	fuzz fuzz-briefly setup-clients test-clients setup-monitoring test-monitoring examples bench bench-scale \
	bench-retention soak package packages setup-packages test-packages dist simulator clean
# What is set up comes before what needs it; cargo builds in parallel by itself.
.NOTPARALLEL:

all: build

help:
	@sed -n '/^# The front door/,/^$$/s/^# \{0,1\}//p' Makefile

setup:
	$(STEP) "set-up: Debian packages and Rust (nothing to do where they are there)"
	@./setup.sh

# Says what is missing, and installs nothing.
ready:
	@./setup.sh check

build: ready
	$(STEP) "building the extension (the first time takes about five minutes on two cores)"
	@$(CARGO) build --release --locked $(PG_FEATURES) -p otp_gateway

# Of all that building needs, cargo alone.
build-simulator:
	@command -v cargo >/dev/null || { echo "   the simulator needs Rust, which is not here: https://rustup.rs, or make setup. Nothing was installed."; exit 1; }
	@cargo build --release --locked -p simulator

install: build
	$(STEP) "installing into PostgreSQL $(PG_MAJOR): $(LIBRARY), $(EXTENSION)"
	@$(INTO) install -d "$(dir $(LIBRARY))" "$(EXTENSION)"
	@# A running server has the old file mapped: the new one takes its name, not its place.
	@$(INTO) install -m 755 "$${CARGO_TARGET_DIR:-target}/release/libotp_gateway.so" "$(LIBRARY).new"
	@$(INTO) mv -f "$(LIBRARY).new" "$(LIBRARY)"
	@$(INTO) install -m 644 otp_gateway.control sql/install/*.sql sql/upgrade/*.sql "$(EXTENSION)/"
	@$(if $(filter install,$(MAKECMDGOALS)),echo "   Next: shared_preload_libraries = 'otp_gateway' (after what is there, separated by a comma); restart; CREATE EXTENSION.")

uninstall:
	@[ -x "$(PG_CONFIG)" ] || { echo "   $(PG_CONFIG) is not there: name the Postgres by PG_CONFIG=/path/to/pg_config"; exit 1; }
	$(STEP) "taking the extension's files out of PostgreSQL $(PG_MAJOR)"
	@$(INTO) rm -f "$(LIBRARY)" "$(EXTENSION)"/otp_gateway.control "$(EXTENSION)"/otp_gateway--*.sql
	@echo "   A server that has otp_gateway in shared_preload_libraries does not start without them: take it out there."

demo: setup build-simulator install
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) demo/demo.py $(if $(ALL),--all)

# A version that was asked for stands for all.
test: setup format lint pure fuzz-briefly packages gateway test-clients test-monitoring $(if $(PG),,versions)

test-versions: setup pure build build-simulator
	$(STEP) "every version of Postgres: demo, golden files and gateway tests"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/versions.py

versions: setup build build-simulator
	$(STEP) "every other version of Postgres: demo, golden files and the core of the gateway tests"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/versions.py --core

# First, because it takes seconds.
format: setup
	$(STEP) "cargo fmt --check, ruff format --check, and whether every gateway test can be imported"
	@cargo fmt --all --check
	@tests/ruff.sh
	@cd tests/gateway; said=$$(PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider --collect-only -qq) \
		|| { echo "$$said"; exit 1; }

lint: setup build
	$(STEP) "layers, documents, pgspot on the SQL scripts, and cargo clippy"
	@tests/layers.py
	@tests/documents.py
	@tests/pgspot.sh
	@$(CARGO) clippy --locked --all-targets $(PURE) -- -D warnings
	@# Nothing is linked, so libFuzzer's C++ need not be compiled.
	@CUSTOM_LIBFUZZER_PATH=none/libnone.a $(CARGO) clippy --locked -p fuzz -- -D warnings
	@$(CARGO) clippy --locked --all-targets $(PG_FEATURES) -p otp_gateway -- -D warnings

pure: setup
	$(STEP) "dialect, policy, http_client, seqlock and simulator: cargo test"
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

gateway: setup build-simulator install
	$(STEP) "golden files and gateway tests: a cluster of their own"
	@cd tests/gateway && PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -ra --durations=10 $(if $(T),$(addsuffix .py,$(T))) $(if $(K),-k "$(K)")

setup-clients: setup
	$(STEP) "set-up: Node, Java, PHP, Ruby, Chromium, the clients of Python, Node and Rust, and formatters"
	@tests/clients/setup.sh target/clients

test-clients: setup-clients build-simulator install
	$(STEP) "clients: drivers, ORMs and poolers send, verify, roll back, cancel, are refused, listen and decode"
	@cd tests/clients && PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -q

setup-monitoring: setup
	$(STEP) "set-up: Prometheus, its exporter, and what makes the dashboards, in target/monitoring"
	@tests/monitoring/setup.sh target/monitoring

test-monitoring: setup-monitoring build-simulator install
	$(STEP) "monitoring: server, exporter, Prometheus, alerts; the dashboards and their queries"
	@cd tests/monitoring && PYTHONDONTWRITEBYTECODE=1 ../../target/monitoring/python/bin/python -m pytest -p no:cacheprovider -q

examples: setup-clients install
	$(STEP) "examples: each an application with its own tests, against the sandbox, and its community's formatter"
	@cd tests/clients && PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -q test_examples.py test_page.py

# Without a network their rows say that they are not there.
bench: setup build-simulator install
	$(STEP) "bench: ratios measured side by side"
	@PG_CONFIG="$(PG_CONFIG)" tests/bench/peers.sh "$${OTP_PEERS:-/tmp/otp_gateway_peers}" || echo "   pgsql-http or pg_net cannot be had: not measured"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/bench.py $(ROW)

bench-scale: setup build-simulator install
	$(STEP) "bench-scale: a record of $(ROWS) attempts"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/scale.py $(ROWS)

bench-retention: setup build-simulator install
	$(STEP) "bench-retention: $(ROWS) attempts, in one table and in partitions"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/retention.py $(ROWS)

soak: setup build-simulator install
	$(STEP) "soak: $(MINUTES) minutes of load and trouble"
	@PYTHONDONTWRITEBYTECODE=1 MINUTES=$(MINUTES) $(PYTHON) tests/soak/soak.py

package: ready
	$(STEP) "packages into dist/, for $(PACKAGE_FOR)"
	@packaging/package.sh $(PACKAGE_FOR)

dist:
	$(STEP) "the sources of the last commit, as PGXN takes them"
	@packaging/dist.sh

packages: setup build
	$(STEP) "packages: what is in them, made of what make build has built"
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -q packaging/test_contents.py

setup-packages: setup
	$(STEP) "set-up: what making Debian folders and looking at packages needs"
	@packaging/setup.sh "$(OTP_PACKAGES)/tools"

test-packages: setup-packages
	$(STEP) "packages: made twice and compared, installed, used, upgraded and removed in Debian 12, 13 and sid"
	@packaging/test.sh $(T)

simulator: build-simulator
	@exec target/release/simulator

clean:
	@cargo clean
