#!/usr/bin/env python3
"""Promise: every supported version of Postgres is run. For each of these majors: its server (postgres.sh), the extension built
for it and installed there, and the gateway tests on it; at the end a table. One after the other is built, in the dev profile
(nothing is measured here, and it takes a third of the time), in one target directory, where only what knows Postgres is
compiled anew; two are tested at once, since most of a test's time is waiting.

    tests/versions.py [--core] [MAJOR...]       all of the gateway tests, or the core of them

OTP_SERVERS names the directory of the servers. What pytest says is in target/versions/MAJOR.log, and the end of it here if
something fails.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILDS = TARGET / "versions"
# The server's system user must be able to read it.
SERVERS = pathlib.Path(os.environ.get("OTP_SERVERS") or ("/opt/otp_gateway/postgres" if os.geteuid() == 0 else TARGET / "postgres"))
MAJORS = re.findall(r"^pg(\d+) = ", (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
CORE = "regress flow enqueue trigger record crash rights upgrade logs"
AT_ONCE = 2


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


class Version:
    def __init__(self, major):
        self.major = major
        self.log = BUILDS / f"{major}.log"
        self.times = {}
        self.passed = self.failed = 0
        self.trouble = ""

    def pg_config(self):
        """Debian's own server is used where it is of this version; a wheel's is ours to install into."""
        default = os.environ.get("PG_CONFIG") or shutil.which("pg_config")
        if default and re.match(rf"PostgreSQL {self.major}\b", subprocess.check_output([default, "--version"], text=True)):
            return default
        run(ROOT / "tests/postgres.sh", SERVERS, self.major)
        return str(SERVERS / self.major / "bin/pg_config")

    def build(self):
        began = time.monotonic()
        self.config = self.pg_config()
        run(
            *"cargo build --quiet --locked -p otp_gateway --no-default-features --features".split(),
            f"pg{self.major}",
            cwd=ROOT,
            env=os.environ | {"PGRX_PG_CONFIG_PATH": self.config, "CARGO_TARGET_DIR": str(BUILDS)},
        )
        place = {
            what: pathlib.Path(subprocess.check_output([self.config, f"--{what}"], text=True).strip())
            for what in ("pkglibdir", "sharedir")
        }
        extension = place["sharedir"] / "extension"
        for old in extension.glob("otp_gateway*"):
            old.unlink()
        for file in [ROOT / "otp_gateway.control", *ROOT.glob("sql/*/*.sql")]:
            shutil.copyfile(file, extension / file.name)
        # A running server has the old file mapped: the new one takes its name, not its place.
        new = place["pkglibdir"] / "otp_gateway.so.new"
        shutil.copyfile(BUILDS / "debug/libotp_gateway.so", new)
        new.chmod(0o755)
        new.rename(new.with_suffix(""))
        self.times["build"] = time.monotonic() - began

    def test(self, files):
        began = time.monotonic()
        with self.log.open("w") as log:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", "--durations=15", *files],
                cwd=ROOT / "tests/gateway",
                env=os.environ | {"PG_CONFIG": self.config, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.times["tests"] = time.monotonic() - began
        text = self.log.read_text(errors="replace")
        last = text.rstrip().rsplit("\n", 1)[-1]
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", last)}
        self.passed = counts.get("passed", 0)
        self.failed = counts.get("failed", 0) + counts.get("error", 0)
        if done.returncode != 0 or not self.passed:
            self.trouble = text[-6000:]

    def row(self):
        build, tests = (f"{self.times.get(what, 0) / 60:.1f} min" for what in ("build", "tests"))
        return f"{self.major:>8} {build:>9} {self.passed:>7} {self.failed:>7} {tests:>9}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--core", action="store_true")
    arguments.add_argument("majors", nargs="*", default=MAJORS)
    wanted = arguments.parse_args()
    files = [f"test_{name}.py" for name in CORE.split()] if wanted.core else []
    BUILDS.mkdir(parents=True, exist_ok=True)
    versions = [Version(major) for major in wanted.majors]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        tests = []
        for version in versions:
            version.build()
            print(f"   {version.major}: built in {version.times['build']:.0f} s", flush=True)
            tests.append(pool.submit(version.test, files))
        for test in tests:
            test.result()
    for version in versions:
        if version.trouble:
            print(f"\n== PostgreSQL {version.major}, the end of {version.log}\n{version.trouble}")
    print("\nPostgres     build  passed  failed     tests")
    print(*[version.row() for version in versions], sep="\n")
    print(f"{sum(version.passed for version in versions)} passed, {sum(version.failed for version in versions)} failed")
    sys.exit(any(version.trouble for version in versions))


main()
