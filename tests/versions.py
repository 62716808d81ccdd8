#!/usr/bin/python3
"""Promise: every supported version of Postgres is run. For each: its server (postgres.sh), the extension built for it
and installed there, the demo, and the gateway tests; at the end a table. One after the other is built, in the dev
profile (nothing is measured here, and it takes a third of the time), in one target directory, where only what knows
Postgres is compiled anew; two are tested at once, since most of a test's time is waiting.

    tests/versions.py [MAJOR...]    all of the gateway tests, on every version
    tests/versions.py --core        the core of them, on each version that is not PG_CONFIG's

OTP_SERVERS names the directory of the servers. What the demo and pytest say is in target/versions/MAJOR.log, and the end
of it here if something fails.
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
SERVERS = pathlib.Path(os.environ["OTP_SERVERS"])
MAJORS = re.findall(r"^pg(\d+) = ", (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
# Where versions differ: what psql shows, triggers, processes, rights, the log, the catalog; and the way from one to the next.
CORE = "regress flow trigger crash rights logs upgrade pg_upgrade"
AT_ONCE = 2


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


class Version:
    def __init__(self, major):
        self.major = major
        self.config = str(SERVERS / major / "bin/pg_config")
        self.log = BUILDS / f"{major}.log"
        self.times = {}
        self.passed = self.failed = self.skipped = 0
        self.trouble = ""

    def build(self):
        began = time.monotonic()
        run(ROOT / "tests/postgres.sh", SERVERS, self.major)
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

    def test(self, files, built):
        began = time.monotonic()
        pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", "--durations=15", *files]
        with self.log.open("w") as log:
            for command, place in [([sys.executable, "demo/demo.py"], ROOT), (pytest, ROOT / "tests/gateway")]:
                done = subprocess.run(
                    command,
                    cwd=place,
                    env=os.environ | {"PG_CONFIG": self.config, "OTP_BUILT": built, "PYTHONDONTWRITEBYTECODE": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                )
                if done.returncode != 0:
                    break
        self.times["tests"] = time.monotonic() - began
        text = self.log.read_text(errors="replace")
        last = text.rstrip().rsplit("\n", 1)[-1]
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
        self.passed, self.skipped = counts.get("passed", 0), counts.get("skipped", 0)
        self.failed = counts.get("failed", 0) + counts.get("error", 0)
        if done.returncode != 0 or not self.passed:
            self.trouble = text[-6000:]

    def row(self):
        build, tests = (f"{self.times.get(what, 0) / 60:.1f} min" for what in ("build", "tests"))
        return f"{self.major:>8} {build:>9} {self.passed:>7} {self.failed:>7} {self.skipped:>8} {tests:>9}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--core", action="store_true")
    arguments.add_argument("majors", nargs="*")
    wanted = arguments.parse_args()
    mine = re.match(r"PostgreSQL (\d+)", subprocess.check_output([os.environ["PG_CONFIG"], "--version"], text=True))[1]
    others = [major for major in MAJORS if major != mine]
    files = [f"test_{name}.py" for name in CORE.split()] if wanted.core else []
    BUILDS.mkdir(parents=True, exist_ok=True)
    versions = [Version(major) for major in wanted.majors or (others if wanted.core else MAJORS)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        tests, built = [], []
        for version in versions:
            version.build()
            print(f"   {version.major}: built in {version.times['build']:.0f} s", flush=True)
            built.append(version.major)
            tests.append(pool.submit(version.test, files, " ".join(built)))
        for test in tests:
            test.result()
    for version in versions:
        if version.trouble:
            print(f"\n== PostgreSQL {version.major}, the end of {version.log}\n{version.trouble}")
    print("\nPostgres     build  passed  failed  skipped     tests")
    print(*[version.row() for version in versions], sep="\n")
    print(f"{sum(version.passed for version in versions)} passed, {sum(version.failed for version in versions)} failed")
    sys.exit(any(version.trouble for version in versions))


main()
