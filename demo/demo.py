"""`make demo`: a throwaway cluster, the vendor simulator, and the scenes of demo/scenes played in psql, one after the
other, without ever waiting for a key; with ALL=1 those of demo/more, too. A scene is a file: its first comment line is its
title, the next one what it shows. Ends with 0 only if every statement did what it is there for, and what was verified ended
approved."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/gateway"))

from cluster import BINDIR, Cluster  # noqa: E402
from simulator import VENDORS, Simulator  # noqa: E402

# The vendors that were asked for a code, and have approved none, or not all that were shown to them.
NOT_APPROVED = """SELECT DISTINCT v.vendor FROM otp_gateway.verification AS v
WHERE v.check_count > 0 AND v.status <> 'approved' OR NOT EXISTS (
  SELECT FROM otp_gateway.verification AS a WHERE a.vendor = v.vendor AND a.status = 'approved')"""


class Failed(Exception):
    pass


def scenes(plays_all):
    story = sorted((ROOT / "demo/scenes").glob("*.sql"))
    return [*story, *(sorted((ROOT / "demo/more").glob("*.sql")) if plays_all else [])]


def play(scene, number, of, psql, environment):
    text = scene.read_text()
    title, shows = re.match(r"-- (.+)\n-- (.+)\n", text).groups()
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}### {number} of {of}. {title}{plain}\n{shows}\n", flush=True)
    # As standard input: psql puts the name of a file and a line before what fails.
    script = (ROOT / "demo/prelude.sql").read_text() + text
    if subprocess.run(psql, input=script, text=True, cwd=ROOT, env=environment).returncode != 0:
        raise Failed(f"{scene.relative_to(ROOT)} does not play")
    left = subprocess.run([*psql, "-Atc", NOT_APPROVED], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if left:
        raise Failed(f"{scene.relative_to(ROOT)} ends without an approved code of {', '.join(left)}")


def play_all(cluster, simulator, plays_all):
    with cluster.session() as session:
        session.cursor().execute("CREATE DATABASE demo")
    urls = [word for vendor in VENDORS for word in ("-v", f"{vendor}_url={simulator.url(vendor)}")]
    psql = [
        BINDIR / "psql",
        "-Xq",
        "-h",
        cluster.directory,
        "-p",
        str(cluster.port),
        "-U",
        "postgres",
        "-d",
        "demo",
        *urls,
    ]
    environment = {**os.environ, "OTP_SIMULATOR_CONTROL": simulator.at["control"]}
    played = scenes(plays_all)
    for number, scene in enumerate(played, 1):
        play(scene, number, len(played), psql, environment)


def main(arguments):
    plays_all = "--all" in arguments
    print("\nA throwaway cluster and a simulator of the vendors: both are gone at the end.", flush=True)
    simulator = Simulator()
    cluster = Cluster().create()
    try:
        play_all(cluster.start(), simulator, plays_all)
    except Failed as failed:
        print(f"\nThe demo failed: {failed}.", file=sys.stderr)
        return 1
    finally:
        cluster.remove()
        simulator.stop()
    print("\nThat was all, and every code that was typed in right was approved.")
    print("" if plays_all else "`make demo ALL=1` plays the other vendors, too. ", end="")
    print("README.md goes on from here.")
    return 0


sys.exit(main(sys.argv[1:]))
