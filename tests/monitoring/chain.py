"""From the server to an alert: postgres_exporter and Prometheus, as Debian has them, each a process of the test."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/gateway"))

from cluster import free_port  # noqa: E402

MONITORING = ROOT / "monitoring"
PLACE = pathlib.Path(os.environ.get("OTP_MONITORING", ROOT / "target/monitoring"))
PROGRAMS = PLACE / "usr/bin"
# What it puts down is searched.
NO_COMPRESSION = "--no-storage.tsdb.wal-compression"


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def promtool(*arguments, text=None):
    """Its complaints, nothing if there is none."""
    done = subprocess.run(
        [PROGRAMS / "promtool", *map(str, arguments)],
        input=text,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return "" if done.returncode == 0 else done.stdout or f"ended with {done.returncode}"


class Program:
    """A process with a port and a log, that is there once it answers."""

    def __init__(self, directory, name, arguments, environment=None, answers="/"):
        self.log_path = directory / f"{name}.log"
        self.port = free_port()
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / name, *map(str, arguments), f"--web.listen-address=127.0.0.1:{self.port}"],
                env=os.environ | (environment or {}),
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        end = time.monotonic() + 30
        while not self.is_there(answers):
            assert self.process.poll() is None and time.monotonic() < end, self.log_path.read_text()
            time.sleep(0.02)

    def is_there(self, path):
        try:
            return fetched(f"http://127.0.0.1:{self.port}{path}") is not None
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Exporter(Program):
    """As docs/operations.md starts it."""

    def __init__(self, directory, cluster, database, role):
        source = f"host={cluster.directory} port={cluster.port} user={role} dbname={database} sslmode=disable"
        queries = f"--extend.query-path={MONITORING / 'queries.yaml'}"
        super().__init__(directory, "prometheus-postgres-exporter", [queries], {"DATA_SOURCE_NAME": source})

    def metrics(self):
        """What it shows of ours, as text."""
        return fetched(f"http://127.0.0.1:{self.port}/metrics")

    def ours(self):
        lines = self.metrics().splitlines()
        return "".join(f"{line}\n" for line in lines if re.match(r"(# (HELP|TYPE) )?otp_gateway", line))


class Prometheus(Program):
    """It scrapes and judges every second; `hasty` says what is changed in the rules."""

    def __init__(self, directory, target, hasty):
        rules = (MONITORING / "alerts.yml").read_text()
        for pattern, replacement in hasty:
            rules, found = re.subn(pattern, replacement, rules)
            assert found, f"{pattern} is nowhere in alerts.yml"
        (directory / "alerts.yml").write_text(rules)
        configuration = directory / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "rule_files: [alerts.yml]\n"
            f"scrape_configs:\n- job_name: otp_gateway\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
        )
        assert not promtool("check", "config", configuration)
        arguments = [f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'tsdb'}", NO_COMPRESSION]
        super().__init__(directory, "prometheus", arguments, answers="/-/ready")

    def ask(self, path, **query):
        answer = json.loads(fetched(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        """The series that an expression has now: labels, and the value."""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]

    def firing(self):
        """The labels of each alert that fires, by name."""
        found = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found


class Chain:
    """The server's database, watched: role, exporter, Prometheus."""

    def __init__(self, cluster, database, role, hasty):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="otp_monitoring_", dir="/tmp"))
        self.exporter = Exporter(self.directory, cluster, database, role)
        self.prometheus = Prometheus(self.directory, self.exporter.port, hasty)
        end = time.monotonic() + 60
        while not self.prometheus.query("otp_gateway_up"):
            assert time.monotonic() < end, "Prometheus has scraped nothing"
            time.sleep(0.05)

    def stop(self):
        self.prometheus.stop()
        self.exporter.stop()

    def remove(self):
        self.stop()
        shutil.rmtree(self.directory)
