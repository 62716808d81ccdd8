"""Promise: `make install` puts the extension's files in place and nothing else on the machine; what building lacks it says,
with where that comes from. `make uninstall` takes the same files away. `make setup` installs no Postgres on a machine that
has one. `make simulator` needs Rust alone. `make help` knows every target, and which of them install over a server."""

import os
import pathlib
import re
import subprocess

import pytest

from cluster import PG_CONFIG

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What would change the machine leaves a note here, and does nothing.
INSTALLERS = ("apt-get", "curl", "sudo", "rustup", "pip")
WANTED = re.search(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


class Machine:
    """Where the commands that install are watched, and cargo is of a version of our choice; it builds nothing, for what it
    would build is there."""

    def __init__(self, directory, rust=WANTED):
        self.notes = directory / "notes"
        self.path = directory / "path"
        self.home = directory / "home"
        for place in (self.path, self.home / ".cargo/bin"):
            place.mkdir(parents=True)
        for name in INSTALLERS:
            self.program(self.path / name, f'echo "{name} $*" >>{self.notes}')
        if rust:
            self.program(self.home / ".cargo/bin/cargo", f'[ "$1" != --version ] || echo "cargo {rust}.0 (a date)"')

    def program(self, path, script):
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *command, **environment):
        done = subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "HOME": str(self.home),
                "PATH": f"{self.path}:/usr/bin:/bin",
                "PG_CONFIG": PG_CONFIG_PATH,
                **environment,
            },
        )
        return done.returncode, done.stdout

    def installed(self):
        return self.notes.read_text() if self.notes.exists() else ""


def directory_of(what, pg_config=None):
    return subprocess.check_output([pg_config or PG_CONFIG, f"--{what}"], text=True).strip()


PG_CONFIG_PATH = subprocess.check_output(["sh", "-c", 'command -v "$0"', PG_CONFIG], text=True).strip()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_the_extension_and_nothing_else(machine, tmp_path):
    staged = tmp_path / "staged"
    code, said = machine.run("make", "install", f"DESTDIR={staged}")
    assert code == 0, said
    files = {str(path)[len(str(staged)) :] for path in staged.rglob("*") if path.is_file()}
    extension = f"{directory_of('sharedir')}/extension"
    scripts = {f"{extension}/{path.name}" for path in ROOT.glob("sql/*/*.sql")}
    assert files == {f"{directory_of('pkglibdir')}/otp_gateway.so", f"{extension}/otp_gateway.control", *scripts}
    assert "shared_preload_libraries" in said and machine.installed() == ""
    # Another's stays.
    other = staged / extension.lstrip("/") / "otp_gatewayish--1.0.sql"
    other.write_text("")
    code, said = machine.run("make", "uninstall", f"DESTDIR={staged}")
    assert code == 0 and [path for path in staged.rglob("*") if path.is_file()] == [other], said
    assert "shared_preload_libraries" in said


LACKS = {
    "the pg_config": (
        {"PG_CONFIG": "/nonexistent"},
        WANTED,
        "/nonexistent, which names the Postgres to build for",
        "PG_CONFIG=",
    ),
    "Rust": ({}, None, f"Rust {WANTED} or newer", "https://rustup.rs"),
    "a newer Rust": ({}, "1.60", f"Rust {WANTED} or newer (here is 1.60.0)", "https://rustup.rs"),
}


@pytest.mark.parametrize("what", LACKS)
def test_what_is_missing_is_said(tmp_path, what):
    environment, rust, lack, where = LACKS[what]
    machine, staged = Machine(tmp_path, rust), tmp_path / "staged"
    code, said = machine.run("make", "install", f"DESTDIR={staged}", **environment)
    assert code != 0 and f"- {lack}" in said and where in said, said
    assert "Nothing was installed" in said and "make setup" in said
    assert not staged.exists() and machine.installed() == ""


def test_headers_that_are_missing(machine, tmp_path):
    """A Postgres without its headers is named by its version, and so is the package."""
    fake = tmp_path / "pg_config"
    machine.program(fake, 'case $1 in --version) echo "PostgreSQL 15.4 (Debian 15.4-1)" ;; *) echo /nowhere ;; esac')
    code, said = machine.run("make", "install", f"DESTDIR={tmp_path}/staged", PG_CONFIG=str(fake))
    assert code != 0 and "the headers of PostgreSQL 15.4" in said and "postgresql-server-dev-15" in said, said
    assert machine.installed() == ""


def test_set_up_brings_no_postgres_where_there_is_one(machine):
    """Of Debian's packages none is there: all that is needed is installed, but for a server."""
    machine.program(machine.path / "dpkg-query", "exit 1")
    code, said = machine.run("make", "setup")
    assert code == 0, said
    packages = set(re.findall(r"[\w.+-]+", machine.installed()))
    assert {"build-essential", "clang", "python3-pytest"} <= packages, machine.installed()
    assert [one for one in packages if re.fullmatch(r"postgresql(-\d+)?", one)] == []
    assert "rustup" not in machine.installed()


def test_a_slip_in_pg_config_installs_nothing(machine):
    code, said = machine.run("make", "setup", PG_CONFIG="/nonexistent/pg_config")
    assert code != 0 and "PG_CONFIG is /nonexistent/pg_config, which is not there" in said and "line" not in said, said
    code, said = machine.run("make", "uninstall", PG_CONFIG="/nonexistent/pg_config")
    assert code != 0 and "/nonexistent/pg_config is not there" in said, said
    assert machine.installed() == ""


def test_the_simulator_needs_rust_alone(machine, tmp_path):
    """No Postgres, no headers, no Debian packages; without Rust it says so."""
    machine.program(machine.path / "dpkg-query", "exit 1")
    # It would not end: what is started in its place.
    code, said = machine.run("make", "simulator", "--dry-run", PG_CONFIG="/nonexistent")
    assert code == 0 and "setup.sh" not in said and "exec target/release/simulator" in said, said
    code, said = machine.run("make", "build-simulator", PG_CONFIG="/nonexistent")
    assert code == 0 and machine.installed() == "", said
    bare = Machine(tmp_path / "bare", rust=None)
    code, said = bare.run("make", "build-simulator")
    assert code != 0 and "https://rustup.rs" in said and bare.installed() == "", said


def test_help_warns_of_what_installs_over_a_server(machine):
    """Each target that has `install` among what comes before it, but for that itself."""
    _, said = machine.run("make", "help")
    (warned,) = re.findall(r"Not on a production server: (.*?)\s+set up", said, re.DOTALL)
    rules = {
        target: needs.split()
        for target, needs in re.findall(r"^([\w-]+):(?!=) ?(.*)$", (ROOT / "Makefile").read_text(), re.M)
    }

    def installs(target):
        return any(need == "install" or installs(need) for need in rules.get(target, []))

    assert {target for target in rules if installs(target)} == set(re.findall(r"[\w-]+", warned)) - {"and"}


def test_help_knows_every_target(machine):
    """But for the parts of others, which nobody calls for themselves."""
    code, said = machine.run("make", "help")
    assert code == 0
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.M)
    parts = {
        "all",
        "ready",
        "build",
        "build-simulator",
        "versions",
        "format",
        "lint",
        "pure",
        "fuzz-briefly",
        "packages",
        "setup-packages",
        "setup-clients",
        "setup-monitoring",
    }
    targets = set(phony.replace("\\\n", " ").split()) - parts
    assert targets == set(re.findall(r"^  make ([\w-]+)", said, re.M))
