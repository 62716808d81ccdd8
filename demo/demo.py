"""`make demo`: a throwaway cluster, the vendor simulator, and demo.sql played in psql. Exits 0 only if all five
verifications ended approved."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/gateway"))

from cluster import BINDIR, Cluster  # noqa: E402
from simulator import VENDORS, Simulator  # noqa: E402


def main():
    print("\n== starting a throwaway cluster and the vendor simulator", flush=True)
    simulator = Simulator()
    cluster = Cluster().create()
    try:
        cluster.start()
        with cluster.session() as session:
            session.cursor().execute("CREATE DATABASE demo")
        urls = [word for vendor in VENDORS for word in ("-v", f"{vendor}_url={simulator.url(vendor)}")]
        psql = [BINDIR / "psql", "-X", "-h", cluster.directory, "-p", str(cluster.port), "-U", "postgres", "-d", "demo"]
        played = subprocess.run(
            [*psql, "-v", "ON_ERROR_STOP=1", *urls, "-f", "demo/demo.sql"],
            cwd=ROOT,
            env={**os.environ, "OTP_SIMULATOR_CONTROL": simulator.at["control"]},
        )
        approved = (
            "SELECT count(DISTINCT vendor) FROM otp_gateway.verification WHERE status = 'approved' AND vendor <> 'sandbox'"
        )
        counted = subprocess.run([*psql, "-Atc", approved], stdout=subprocess.PIPE, text=True).stdout.strip()
        if played.returncode != 0 or counted != str(len(VENDORS)):
            print(f"\nThe demo failed: {counted or 0} of {len(VENDORS)} vendors ended approved.", file=sys.stderr)
            return 1
        print("\nAll five vendors ended approved. README.md goes on from here; `make simulator` gives you vendors to play with.")
        return 0
    finally:
        cluster.remove()
        simulator.stop()


sys.exit(main())
