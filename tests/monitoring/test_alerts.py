"""Promise: what monitoring/queries.yaml exports reaches Prometheus through Debian's postgres_exporter, which asks as a role
with pg_monitor and no more; each alert of monitoring/alerts.yml fires for its real cause, and is silent again when that is
mended; otp_gateway.collector.yml has the same series for sql_exporter; and no label, no log and no file of the chain holds
a number, a credential or a role's name.

The rules run as they are written but for what HASTY changes: nothing is waited for before an alert fires. sql_exporter
itself is in no registry that is reached: its file is held against what its source takes, and its queries are run."""

import json
import os
import re
import signal

import pytest
import yaml

import collector
from chain import MONITORING, ROOT, Chain, promtool

from canaries import RUN, Canaries, search
from conftest import FLOWS, Gateway, Running, until
from test_health import an_hour_later, authority, https_vendor  # noqa: F401
from test_ranges import HOME, PUMPED, REGULAR, age, attacked, pump, said, send, stop, type_in

pytest_plugins = ["conftest"]

# Who asks, and who sends.
ROLE, SENDER = "watcher", "zwicky_sends"
# `for`, and the age of the queue.
HASTY = [(r"for: \w+", "for: 0s"), (r"> 60\b", "> 2")]
SEND = "SELECT outcome FROM otp_send(%s, %s)"
# Ranges of numbers: with ten codes each they are enough to tell.
FIVE = REGULAR[:5]


@pytest.fixture(scope="module")
def watched(shared_cluster, simulator_program):
    """A gateway in a database that is watched, and the chain; what the chain has put down is searched at the end."""
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        gateway.execute(f"CREATE ROLE {ROLE} LOGIN; GRANT pg_monitor TO {ROLE}; CREATE ROLE {SENDER}")
        gateway.create_provider("ideamart")
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {SENDER}; SET ROLE {SENDER}")
        assert gateway.send()["outcome"] == "sent"
        gateway.execute("RESET ROLE")
        chain = Chain(shared_cluster, name, ROLE, HASTY)
        try:
            yield gateway, chain
            chain.stop()
            names = Canaries()
            names.text(SENDER)
            control = Canaries()
            control.text("otp_gateway_attempts_total")
            assert search(chain.directory, control), "the search is blind"
            leaks = search(chain.directory, RUN) + search(chain.directory, names)
            assert not leaks, leaks
        finally:
            chain.remove()
            gateway.drain()
            gateway.execute(f"DROP ROLE {ROLE}; DROP OWNED BY {SENDER}; DROP ROLE {SENDER}")


@pytest.fixture
def gateway(watched, simulator):
    return watched[0]


@pytest.fixture
def chain(watched):
    return watched[1]


def firing(chain, name, **labels):
    return any(labels.items() <= alert.items() for alert in chain.prometheus.firing().get(name, []))


def fires(chain, name, **labels):
    until(lambda: firing(chain, name, **labels), f"{name} fires", 60)


def is_silent(chain, name, **labels):
    until(lambda: not firing(chain, name, **labels), f"{name} is silent", 60)


def test_promtool_finds_no_fault():
    assert not promtool("check", "rules", MONITORING / "alerts.yml")
    assert not promtool("test", "rules", ROOT / "tests/monitoring/alerts_test.yml")


def rules():
    [group] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_each_alert_has_a_card():
    for name, rule in rules().items():
        page, _, card = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.M)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        named = (
            re.search(r'check=~"([a-z_|]+)"', rule["expr"])[1].split("|") if card == "{{ $labels.check }}" else [card]
        )
        assert set(named) <= anchors, name


def test_each_alert_is_tested_by_promtool():
    tests = yaml.safe_load((ROOT / "tests/monitoring/alerts_test.yml").read_text())["tests"]
    fired = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    assert set(fired) == {(name, fires) for name in rules() for fires in (True, False)}


def series(text):
    """Name and labels of each series of an exporter's page, but for the label `server`, which is the exporter's own."""
    found = {}
    for name, labels, value in re.findall(r"^(otp_gateway\w*){(.*)} (\S+)$", text, re.M):
        labels = {key: value for key, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels) if value}
        labels.pop("server", None)
        found[name, frozenset(labels.items())] = float(value)
    return found


def test_what_is_exported(gateway, chain):
    gateway.send()
    text = chain.exporter.ours()
    assert not promtool("check", "metrics", text=text), text
    found, datname = series(text), ("datname", gateway.database)
    assert found["otp_gateway_up", frozenset([datname])] == 1
    assert found["otp_gateway_health_status", frozenset([datname, ("check", "worker")])] == 0
    sent = frozenset([datname, ("provider", "ideamart"), ("operation", "send"), ("outcome", "sent")])
    assert found["otp_gateway_attempts_total", sent] >= 2
    call = {datname, ("provider", "ideamart"), ("operation", "send")}
    assert found["otp_gateway_attempt_duration_seconds_bucket", frozenset({*call, ("le", "30")})] >= 2
    names = {
        f"{name}_{column}"
        for name, _, columns in collector.exported()
        for column, usage, _ in columns
        if usage not in ("LABEL", "HISTOGRAM")
    }
    assert names <= {name for name, _ in found}
    assert all(value == value or name == "otp_gateway_health_value" for (name, _), value in found.items())
    assert re.search("^pg_exporter_user_queries_load_error{.*} 0$", chain.exporter.metrics(), re.M)
    assert "level=error" not in chain.exporter.log_path.read_text()


METRIC = {"metric_name", "type", "help", "key_labels", "values", "query_ref"}


def test_the_same_for_sql_exporter(gateway, chain):
    """What config/metric_config.go and query.go of sql_exporter ask of a collector; and each series that postgres_exporter has."""
    assert collector.PATH.read_text() == collector.text(), "tests/monitoring/collector.py write"
    file = yaml.safe_load(collector.PATH.read_text())
    queries = {query["query_name"]: query["query"] for query in file["queries"]}
    found, rows = {}, {}
    with gateway.cluster.session(gateway.database, user=ROLE) as session:
        for name, query in queries.items():
            with session.cursor() as cursor:
                cursor.execute(query)
                columns = [column.name for column in cursor.description]
                rows[name] = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    for metric in file["metrics"]:
        assert (
            set(metric) == METRIC
            and metric["type"] in ("counter", "gauge")
            and len(set(metric["key_labels"])) == len(metric["key_labels"])
        )
        [value] = metric["values"]
        assert value not in metric["key_labels"]
        for row in rows[metric["query_ref"]]:
            labels = {label: row[label] for label in metric["key_labels"]}
            assert all(isinstance(label, str) for label in labels.values())
            found[metric["metric_name"], frozenset((key, label) for key, label in labels.items() if label)] = row[value]
    # A check without a value has no series there.
    wanted = {key: value for key, value in series(chain.exporter.ours()).items() if value == value}
    assert {key for key, value in found.items() if value is not None} == set(wanted)
    assert all(value is None or float(value) >= 0 for value in found.values())


def test_down(gateway, chain):
    """The worker hangs."""
    gateway.send()
    [(pid,)] = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    is_silent(chain, "OtpGatewayDown")
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
        fires(chain, "OtpGatewayDown", datname=gateway.database)
    finally:
        os.kill(pid, signal.SIGCONT)
    call.wait()
    is_silent(chain, "OtpGatewayDown")


def test_an_exporter_that_hangs(chain):
    os.kill(chain.exporter.process.pid, signal.SIGSTOP)
    try:
        fires(chain, "OtpGatewayDown")
    finally:
        os.kill(chain.exporter.process.pid, signal.SIGCONT)
    is_silent(chain, "OtpGatewayDown")


def test_an_old_queue(gateway, chain, simulator):
    """The one place of the provider is taken."""
    first = gateway.full()
    second = gateway.enqueue("narrow", vendor="ideamart")
    fires(chain, "OtpGatewayQueueOld", provider="narrow")
    simulator.release()
    assert [gateway.wait(row["verification_id"])["outcome"] for row in (first, second)] == ["sent", "sent"]
    is_silent(chain, "OtpGatewayQueueOld")


def test_a_provider_that_fails(gateway, chain, simulator):
    gateway.create_provider("flaky", "ideamart")
    simulator.fault("status", "ideamart", "send", status=503)
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    fires(chain, "OtpGatewayProviderFailing", provider="flaky")
    simulator.clear_faults()
    # Whoever mends its options closes its breaker.
    gateway.execute("ALTER SERVER flaky OPTIONS (ADD max_in_flight '8')")
    assert gateway.send("flaky", vendor="ideamart")["outcome"] == "sent"
    is_silent(chain, "OtpGatewayProviderFailing")


def test_a_budget(gateway, chain):
    gateway.create_provider("dear", "ideamart", provider_limit="5 per 20 seconds")
    assert {gateway.send("dear", vendor="ideamart")["outcome"] for _ in range(5)} == {"sent"}
    assert gateway.send("dear", vendor="ideamart")["reason"] == "provider_limit"
    fires(chain, "OtpGatewayBudgetNearlySpent", provider="dear")
    gateway.execute("ALTER SERVER dear OPTIONS (SET provider_limit '50 per 20 seconds')")
    gateway.send("dear", vendor="ideamart")
    is_silent(chain, "OtpGatewayBudgetNearlySpent")


def test_a_pause_that_is_forgotten(gateway, chain):
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    fires(chain, "OtpGatewayWarning", check="paused")
    gateway.execute("ALTER SERVER ideamart OPTIONS (DROP paused)")
    is_silent(chain, "OtpGatewayWarning", check="paused")


@pytest.fixture
def counting_anew(gateway):
    """What other tests have sent is no range's."""
    gateway.execute("DELETE FROM otp_gateway_internal.number_range; DELETE FROM otp_gateway_internal.low_conversion")
    stop(gateway)
    return gateway


def test_pumping(counting_anew, chain):
    """Codes for numbers of one range are asked for, and nobody types them in."""
    attacked(counting_anew)
    send(counting_anew, PUMPED)
    fires(chain, "OtpGatewayPumping", datname=counting_anew.database)
    assert counting_anew.execute("SELECT otp_gateway.release('ideamart', %s)", (PUMPED,)) == [(True,)]
    is_silent(chain, "OtpGatewayPumping")


def test_codes_that_do_not_arrive(counting_anew, chain):
    """The vendor says sent, of all ranges, and nobody has a code to type in."""
    for prefix in FIVE:
        for _ in range(10):
            type_in(counting_anew, prefix)
    age(counting_anew, dict.fromkeys(FIVE, "2 hours"))
    for prefix in FIVE:
        pump(counting_anew, 10, prefix)
    age(counting_anew, dict.fromkeys(FIVE, "15 minutes"))
    send(counting_anew, HOME)
    # A worker that leaves puts down at once what it has found.
    stop(counting_anew)
    fires(chain, "OtpGatewayConversionLow", datname=counting_anew.database)
    assert not firing(chain, "OtpGatewayPumping")
    # They arrive again.
    age(counting_anew, dict.fromkeys(FIVE, "70 minutes"))
    for _ in range(10):
        type_in(counting_anew, "+94719")
    age(counting_anew, {"+94719": "15 minutes"})
    assert said(send(counting_anew, HOME)) == ("sent", None)
    stop(counting_anew)
    is_silent(chain, "OtpGatewayConversionLow")


def test_a_certificate_that_ends(gateway, chain, authority):  # noqa: F811
    gateway.create_provider(
        "secure", "ideamart", ca_file=authority.ca, allow_plain_http=None, base_url="https://127.0.0.1:1"
    )
    for days in (13, 300):
        with https_vendor(authority.certificate(f"ends{days}", days=(-1, days))) as url:
            gateway.execute(f"ALTER SERVER secure OPTIONS (SET base_url '{url}')")
            assert gateway.send("secure", vendor="ideamart")["outcome"] == "provider_error"
        (fires if days < 14 else is_silent)(chain, "OtpGatewayCertificateEnds")


def test_a_credential_file_that_is_gone(gateway, chain):
    """A deployment has taken it away."""
    files = {name: RUN.in_file(name) for name in ("application_id", "password")}
    gateway.create_provider("ours", "ideamart", {f"{name}_file": file for name, file in files.items()})
    files["password"].unlink()
    fires(chain, "OtpGatewayCredentialsUnreadable")
    gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER ours OPTIONS (SET password_file '{RUN.in_file('new')}')")
    is_silent(chain, "OtpGatewayCredentialsUnreadable")


def test_sends_that_may_have_gone(gateway, chain, simulator):
    gateway.create_provider("hasty", "ideamart", timeout="1s")
    simulator.fault("hold", "ideamart", "send", times=3)
    for _ in range(3):
        assert gateway.send("hasty", vendor="ideamart")["outcome"] == "unknown"
    simulator.release()
    fires(chain, "OtpGatewayWarning", check="unknown")
    an_hour_later(gateway)
    is_silent(chain, "OtpGatewayWarning", check="unknown")


def test_sends_that_are_refused(gateway, chain, simulator):
    """The credentials have been changed at the vendor."""
    gateway.create_provider("stale", "ideamart")
    simulator.fault("status", "ideamart", "send", status=401)
    for _ in range(3):
        gateway.send("stale", vendor="ideamart")
    fires(chain, "OtpGatewayWarning", check="refusals")
    an_hour_later(gateway)
    is_silent(chain, "OtpGatewayWarning", check="refusals")
