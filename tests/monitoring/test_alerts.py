"""Promise: what monitoring/queries.yaml exports reaches Prometheus through Debian's postgres_exporter, which asks as a role
with pg_monitor and no more; each alert of monitoring/alerts.yml fires for its real cause, and is silent again when that is
mended; and no label, no log and no file of the chain holds a number, a credential or a role's name.

The rules run as they are written but for what HASTY changes: nothing is waited for before an alert fires."""

import json
import os
import re
import shutil
import signal
import sys

import pytest

from chain import MONITORING, ROOT, Chain, promtool

from canaries import RUN, search
from conftest import FLOWS, Gateway, Running, until
from conftest import credential_files, shared_cluster, simulator, simulator_program  # noqa: F401

ROLE = "watcher"
# `for`, and the age of the queue.
HASTY = [(r"for: \w+", "for: 0s"), (r"> 60\b", "> 2")]


@pytest.fixture(scope="module")
def watched(shared_cluster, simulator_program):  # noqa: F811
    """A gateway in a database that is watched, and the chain."""
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        gateway.execute(f"CREATE ROLE {ROLE} LOGIN; GRANT pg_monitor TO {ROLE}")
        gateway.create_provider("ideamart")
        gateway.send()
        chain = Chain(shared_cluster, name, ROLE, HASTY)
        try:
            yield gateway, chain
            chain.stop()
            leaks = search(chain.directory, RUN)
            assert not leaks, leaks
            shutil.rmtree(chain.directory)
        finally:
            chain.stop()
            gateway.drain()
            gateway.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def gateway(watched, simulator):  # noqa: F811
    return watched[0]


@pytest.fixture
def chain(watched):
    return watched[1]


def fires(chain, name, **labels):
    return until(
        lambda: any(labels.items() <= alert.items() for alert in chain.prometheus.firing().get(name, [])), f"{name} fires", 60
    )


def is_silent(chain, timeout=60):
    until(lambda: not chain.prometheus.firing(), f"silence after {sorted(chain.prometheus.firing())}", timeout)


def test_promtool_finds_no_fault():
    assert not promtool("check", "rules", MONITORING / "alerts.yml")
    assert not promtool("test", "rules", ROOT / "tests/monitoring/alerts_test.yml")


def test_each_alert_has_a_card():
    text = (MONITORING / "alerts.yml").read_text()
    cards = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.M)
    anchors = {re.sub(r"[^\w -]", "", card.lower()).replace(" ", "-") for card in cards}
    alerts, books = re.findall(r"- alert: (\w+)", text), re.findall(r"runbook_url: docs/operations.md#(\S+)", text)
    assert len(alerts) == len(books)
    [checks] = re.findall(r'check=~"([a-z_|]+)"} == 1', text)
    assert {*books, *checks.split("|")} - {"{{"} <= anchors


def test_what_is_exported(gateway, chain):
    gateway.send()
    text = chain.exporter.ours()
    assert not promtool("check", "metrics", text=text), text
    datname = gateway.database
    assert re.search(rf'^otp_gateway_up{{datname="{datname}",server=".*"}} 1$', text, re.M), text
    assert re.search(r'^otp_gateway_health_status{check="worker",.*} 0$', text, re.M)
    assert "pg_exporter_user_queries_load_error" in chain.exporter.metrics()
    assert not re.search("user_queries_load_error.* 1$", chain.exporter.metrics(), re.M)
    assert ROLE not in text


def test_down(gateway, chain):
    """The worker hangs."""
    gateway.send()
    [(pid,)] = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    is_silent(chain)
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Running(gateway.connect(), "SELECT outcome FROM otp_send('ideamart', %s)", (json.dumps(FLOWS["ideamart"]["send"](gateway.number())),))
        fires(chain, "OtpGatewayDown")
    finally:
        os.kill(pid, signal.SIGCONT)
    call.wait()
    is_silent(chain)
