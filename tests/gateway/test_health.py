"""Promise: one query says what is wrong, when all else is stuck: otp_gateway.health() has a row for each check, raises no error,
waits for nobody, and takes milliseconds, however long the record is. Each check fails for its real cause here, and recovers."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import psycopg2
import pytest

from canaries import RUN
from cluster import BINDIR, Cluster, standby_of
from conftest import FLOWS, Gateway, Running, make_fail, until
from test_network import Authority
from test_retention import DAY, acting_as, aged
from test_standbys import wants

OF_ALL = [
    "library",
    "version",
    "paused",
    "key_file",
    "worker",
    "queue",
    "retention",
    "certificate",
    "credentials",
    "provider",
    "unknown",
    "refusals",
    "conversion",
    "pumping",
]
# Nobody waits so long for it.
AT_ONCE = "SET statement_timeout = '2s'"


@pytest.fixture
def gateway(gateway):
    gateway.execute(AT_ONCE)
    yield gateway
    gateway.execute("RESET statement_timeout")
    gateway.drain()


@pytest.fixture
def own(own_cluster, simulator):
    """A gateway in a cluster of its own."""
    with own_cluster.database() as name, Gateway(own_cluster, name, simulator) as gateway:
        gateway.create_providers()
        yield gateway


def health(gateway, session=None):
    """The rows by name, the worst of each."""
    rows = gateway.execute(
        "SELECT name, level, status, value, since, detail, hint FROM otp_gateway.health() ORDER BY level", None, session
    )
    return {name: dict(zip(("level", "status", "value", "since", "detail", "hint"), rest)) for name, *rest in rows}


def level(gateway, name, session=None):
    row = health(gateway, session)[name]
    assert row["status"] == ["ok", "warning", "critical", "unknown"][row["level"]]
    assert (row["hint"] is None) == (row["level"] == 0)
    return row["level"]


def becomes(gateway, name, wanted, timeout=20):
    until(lambda: level(gateway, name) == wanted, f"{name} is at level {wanted}", timeout)
    return health(gateway)[name]


def a_send(gateway, provider="ideamart"):
    return "SELECT outcome FROM otp_send(%s, %s)", (provider, json.dumps(FLOWS["ideamart"]["send"](gateway.number())))


def worker_pid(gateway):
    [(pid,)] = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    return pid


def test_all_is_well(gateway):
    assert gateway.send()["outcome"] == "sent"
    # Which version runs.
    [(title,)] = gateway.execute("SELECT application_name FROM pg_stat_activity WHERE pid = %s", (worker_pid(gateway),))
    assert title == "otp_gateway worker " + gateway.execute("SELECT library FROM otp_gateway.version()")[0][0]
    # The record is looked through for what is old in the first idle moment.
    until(lambda: list(health(gateway)) and "retention" in health(gateway), "the worker has looked")
    rows = gateway.execute("SELECT name, level, hint FROM otp_gateway.health()")
    assert rows == [(name, 0, None) for name in OF_ALL]
    found = health(gateway)
    assert "1 sends" in found["unknown"]["detail"] and found["unknown"]["value"] == 0
    assert found["worker"]["since"] is not None


def test_a_worker_that_hangs(gateway):
    """It is there, and does nothing: calls wait for it."""
    gateway.send()
    pid = worker_pid(gateway)
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Running(gateway.connect(), *a_send(gateway))
        row = becomes(gateway, "worker", 2)
        # It may have been stopped in the middle of something.
        assert (
            re.search("calls wait for the worker|at one step", row["detail"])
            and row["value"] > 5
            and row["since"] is not None
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    call.wait()
    becomes(gateway, "worker", 0)


def test_a_worker_that_hangs_with_a_queue(gateway):
    """Nobody waits for an answer, and nothing is sent."""
    gateway.send()
    pid = worker_pid(gateway)
    os.kill(pid, signal.SIGSTOP)
    try:
        id = gateway.enqueue()["verification_id"]
        row = becomes(gateway, "worker", 2)
        assert re.search("enqueued and committed|at one step", row["detail"]) and row["value"] > 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert gateway.wait(id)["outcome"] == "sent"
    becomes(gateway, "worker", 0)


def test_a_worker_that_cannot_write(gateway):
    """What somebody has locked stops calls, and no look."""
    gateway.send()
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("LOCK otp_gateway_internal.attempt_record", None, locker)
        call = Running(gateway.connect(), *a_send(gateway))
        row = becomes(gateway, "worker", 2)
        assert "could not put on record" in row["detail"] and row["value"] > 5
        gateway.execute("LOCK otp_gateway_internal.breaker, otp_gateway_internal.sealing_key", None, locker)
        gateway.session.notices.clear()
        found = health(gateway)
        # It gives back no lock that it did not get.
        assert gateway.session.notices == []
        assert {name for name, row in found.items() if row["level"] == 3} == {
            "key_file",
            "provider",
            "unknown",
            "refusals",
        }
        locker.rollback()
    call.wait()
    found = until(
        lambda: (found := health(gateway)) and not any(row["level"] for row in found.values()) and found, "all is well"
    )
    assert found["worker"]["detail"] == "running"


def test_a_locked_index(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("REINDEX INDEX otp_gateway_internal.attempt_pkey", None, locker)
        assert (level(gateway, "unknown"), level(gateway, "refusals"), level(gateway, "provider")) == (3, 3, 0)
        locker.rollback()
    assert level(gateway, "unknown") == 0


def test_a_worker_that_is_terminated(gateway):
    """Another one comes."""
    gateway.send()
    before = health(gateway)["worker"]["since"]
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_pid(gateway),))
    assert gateway.send()["outcome"] == "sent"
    after = becomes(gateway, "worker", 0)
    assert after["detail"] == "running" and after["since"] > before


def test_a_worker_that_dies(mortal_cluster, simulator):
    """By an error: it is said why, until another one has come."""
    with mortal_cluster.database() as name, Gateway(mortal_cluster, name, simulator) as mortal:
        mortal.create_providers()
        mortal.send()
        make_fail(mortal_cluster, worker_pid(mortal))
        # It goes to sleep again.
        call = Running(mortal.connect(), *a_send(mortal))
        row = until(lambda: (row := health(mortal)["worker"])["level"] == 2 and row, "it is said")
        call.wait()
        assert row["detail"].startswith("it has died: ") and len(row["detail"]) > 20 and row["value"] >= 1
        becomes(mortal, "worker", 0)
        assert mortal.send()["outcome"] == "sent"


def test_an_outcome_that_cannot_be_put_on_record(gateway, simulator):
    """As with a full disk."""
    simulator.fault("hold", "ideamart", "send", times=1)
    call = Running(gateway.connect(), *a_send(gateway))
    simulator.held(1)
    gateway.execute(
        "ALTER TABLE otp_gateway_internal.attempt_record ADD CONSTRAINT disk_full CHECK (outcome <> 'sent') NOT VALID"
    )
    simulator.release()
    row = becomes(gateway, "worker", 2)
    assert "could not put on record" in row["detail"] and call.ended_at is None
    gateway.execute("ALTER TABLE otp_gateway_internal.attempt_record DROP CONSTRAINT disk_full")
    assert call.row()["outcome"] == "sent"
    becomes(gateway, "worker", 0)


@pytest.fixture
def small(own_cluster, simulator):
    """A gateway in a database on a disk of its own, of 24 MB."""
    disk = own_cluster.directory / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a file system of a test's own takes root")
    try:
        shutil.chown(disk, "postgres", "postgres")
        (disk / "space").mkdir()
        shutil.chown(disk / "space", "postgres", "postgres")
        with own_cluster.session() as admin:
            admin.cursor().execute(f"CREATE TABLESPACE small LOCATION '{disk}/space'")
            admin.cursor().execute("CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
        with own_cluster.session("small") as admin:
            admin.cursor().execute("CREATE EXTENSION otp_gateway")
        with Gateway(own_cluster, "small", simulator) as gateway:
            gateway.create_provider("ideamart")
            yield gateway, disk
    finally:
        own_cluster.stop()
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small):
    """Calls are refused, it is said why, and all goes on as soon as there is room."""
    gateway, disk = small
    assert gateway.send()["outcome"] == "sent"
    with open(disk / "filler", "wb") as filler, contextlib.suppress(OSError):
        while True:
            os.write(filler.fileno(), bytes(1 << 12))
    # There is room in the pages that there are.
    until(lambda: is_refused(gateway), "there is none any more", 60)
    until(lambda: is_refused(gateway) and level(gateway, "worker") == 2, "it is seen", 20)
    row = health(gateway)["worker"]
    assert "could not be put on record" in row["detail"] and "full disk" in row["hint"] and row["value"] > 5
    assert "No space left on device" in gateway.cluster.log()
    began = time.monotonic()
    assert set(OF_ALL) - {"retention"} <= set(health(gateway))
    assert time.monotonic() - began < 0.5
    (disk / "filler").unlink()
    assert gateway.send()["outcome"] == "sent"
    becomes(gateway, "worker", 0)


def is_refused(gateway):
    try:
        assert gateway.send()["outcome"] == "sent"
    except psycopg2.Error as error:
        assert "could not be put on record, so that nothing was sent" in str(error), error
        return True
    return False


def test_a_commit_that_waits_for_a_standby(own):
    """The worker's, for one that is away."""
    wants(own, "away")
    call = Running(own.connect(), *a_send(own))
    row = becomes(own, "worker", 2)
    assert "at one step" in row["detail"] and row["value"] > 5
    wants(own, "")
    assert call.row()["outcome"] == "sent"
    becomes(own, "worker", 0)


def test_on_a_standby(own, own_cluster):
    own.send()
    with standby_of(own_cluster) as standby, standby.session(own.database) as there:
        found = health(own, there)
        assert {name: row["level"] for name, row in found.items()} == dict.fromkeys(
            set(OF_ALL) - {"queue", "retention"}, 0
        )
        assert "standby" in found["worker"]["detail"] and "1 sends" in found["unknown"]["detail"]
        # A promotion needs the key.
        (standby.data / "otp_gateway.key").unlink()
        assert level(own, "key_file", there) == 2


def test_no_place_for_a_worker(own, own_cluster):
    """The launcher is a worker, too: there is no room for another."""
    own_cluster.configure({"max_worker_processes": 1, "max_parallel_workers": 0, "max_logical_replication_workers": 0})
    own.session.close()
    own_cluster.restart()
    own.session = own.connect()
    call = Running(own.connect(), *a_send(own))
    row = becomes(own, "worker", 2)
    assert "max_worker_processes" in row["detail"]
    assert isinstance(call.wait().error, psycopg2.Error)
    own_cluster.configure({"max_worker_processes": 8})
    own.session.close()
    own_cluster.restart()
    own.session = own.connect()
    assert own.send()["outcome"] == "sent"
    assert level(own, "worker") == 0


def test_a_lost_key(own, own_cluster):
    own.send()
    assert level(own, "key_file") == 0
    key = own_cluster.data / "otp_gateway.key"
    key.rename(key.with_suffix(".away"))
    assert level(own, "key_file") == 2
    key.with_suffix(".away").rename(key)
    assert level(own, "key_file") == 0
    key.chmod(0o644)
    assert level(own, "key_file") == 2
    key.chmod(0o600)
    assert level(own, "key_file") == 0
    # Another server's key.
    text = key.read_text()
    (own_cluster.data / "otp_gateway.key_id").unlink()
    key.write_text("ab" * 32 + "\n")
    row = health(own)["key_file"]
    assert row["level"] == 2 and "does not hold" in row["detail"]
    key.write_text(text)
    assert level(own, "key_file") == 0


def test_paused(own, own_cluster):
    own.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    assert level(own, "paused") == 1 and "ideamart" in health(own)["paused"]["detail"]
    own.execute("ALTER SERVER ideamart OPTIONS (SET paused 'off')")
    assert level(own, "paused") == 0
    own.execute("ALTER SYSTEM SET otp_gateway.pause = on")
    own_cluster.reload()
    becomes(own, "paused", 1)
    own.execute("ALTER SYSTEM RESET otp_gateway.pause")
    own_cluster.reload()
    becomes(own, "paused", 0)


def test_a_queue_that_stands(own, own_cluster, simulator):
    """A quarter of queue_max_age is a warning, half of it is critical."""
    own.execute("ALTER SYSTEM SET otp_gateway.queue_max_age = '16s'")
    own_cluster.reload()
    first = own.full()
    second = own.enqueue("narrow", vendor="ideamart")
    row = becomes(own, "queue", 1)
    assert row["value"] > 4 and "1 may go now" in row["detail"]
    assert becomes(own, "queue", 2)["since"] is not None
    simulator.release()
    assert [own.wait(row["verification_id"])["outcome"] for row in (first, second)] == ["sent", "sent"]
    assert becomes(own, "queue", 0)["value"] == 0


def test_a_provider_that_fails(gateway, simulator):
    gateway.create_provider("flaky", "ideamart")
    gateway.create_provider("spare", "ideamart")
    simulator.fault("status", "ideamart", "send", status=503)
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    row = becomes(gateway, "provider", 2)
    assert row["detail"].startswith(
        "flaky failed several times in a row: nothing is sent through it; the last call ended as "
    )
    assert row["since"] is not None
    # Where a route has another way it is no more than a warning.
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'flaky, spare')")
    assert level(gateway, "provider") == 1
    simulator.clear_faults()
    # When its time is over the next send is a probe, and closes it.
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "sent", "a probe goes through", 60)
    assert becomes(gateway, "provider", 0)["detail"] == "no breaker is open"


def test_sends_that_may_have_gone(gateway, simulator):
    gateway.create_provider("hasty", "ideamart", timeout="1s")
    simulator.fault("hold", "ideamart", "send", times=3)
    calls = [Running(gateway.connect(), *a_send(gateway, "hasty")) for _ in range(3)]
    assert [call.row()["outcome"] for call in calls] == ["unknown"] * 3
    simulator.release()
    row = health(gateway)["unknown"]
    assert (row["level"], row["value"], row["detail"][:22]) == (1, 1.0, "3 of the 3 sends of th")
    assert level(gateway, "refusals") == 0
    # An hour later.
    an_hour_later(gateway)
    row = health(gateway)["unknown"]
    assert (row["level"], row["value"]) == (0, 0)


def test_sends_that_are_refused(gateway, simulator):
    simulator.fault("status", "ideamart", "send", status=401)
    for _ in range(3):
        gateway.send()
    row = health(gateway)["refusals"]
    assert (row["level"], row["value"]) == (1, 1.0), gateway.execute("SELECT outcome FROM otp_gateway.attempt")
    an_hour_later(gateway)
    assert level(gateway, "refusals") == 0


def test_what_the_vendor_said_of_a_refusal(gateway, simulator):
    """A template that somebody changed: pg_monitor has the vendor's own code and words, without the number in them."""
    to = gateway.number()
    said = {
        "ideamart": {"statusCode": "E1312", "statusDetail": f"Template T7 is not registered | for tel:94{to[-9:]}"},
        "hyperverge": {"status": "failure", "statusCode": 400, "error": "sender id unknown", "metaData": {}},
    }
    for vendor, body in said.items():
        simulator.fault("reply", vendor, "send", body=body, status=200 if vendor == "ideamart" else 400)
    outcomes = {vendor: gateway.send(vendor, to if vendor == "ideamart" else None)["outcome"] for vendor in said}
    row = health(gateway)["refusals"]
    # Two are few, and are told.
    assert row["level"] == 0 and row["detail"].startswith("2 of the 2 sends of the last hour were refused")
    ours, theirs = row["detail"].index("; the last of ideamart: "), row["detail"].index("; the last of hyperverge: ")
    # The latest first.
    assert theirs < ours
    assert row["detail"][ours:].startswith(
        f"; the last of ideamart: {outcomes['ideamart']}, vendor_code E1312, Template T7 is not registered | for"
    )
    [(code, words)] = gateway.execute(
        "SELECT vendor_code, vendor_message FROM otp_gateway.attempt WHERE provider = 'hyperverge'"
    )
    assert (
        ", ".join(filter(None, [outcomes["hyperverge"], code and f"vendor_code {code}", words[:120]])) in row["detail"]
    )
    # The number is in none of it,
    assert to[-9:] not in row["detail"] and "redacted" in row["detail"]
    with acting_as(gateway, "monitor", "GRANT pg_monitor TO monitor") as monitor:
        assert health(gateway, monitor)["refusals"]["detail"] == row["detail"]
    with acting_as(gateway, "sender") as sender:
        assert "E1312" not in str(health(gateway, sender)["refusals"])
    # nor of a line that a monitoring system splits.
    for _ in range(2):
        gateway.send("ideamart", to)
    assert level(gateway, "refusals") == 1
    code, line = nagios(gateway)
    assert code == 1 and "E1312, Template T7 is not registered / for" in line and line.count("|") == 1
    # It goes by today's name, and a provider that is no more has none.
    gateway.execute("ALTER SERVER ideamart RENAME TO renamed; DROP SERVER hyperverge CASCADE")
    found = until(lambda: (d := health(gateway)["refusals"]["detail"]) and "hyperverge" not in d and d, "it is noticed")
    assert "; the last of renamed: " in found and "ideamart" not in found
    # A later one takes its place.
    simulator.clear_faults()
    simulator.fault("reply", "ideamart", "send", body={"statusCode": "E1323", "statusDetail": "barred"})
    assert gateway.send("renamed", vendor="ideamart")["outcome"] == "refused"
    assert "; the last of renamed: refused, vendor_code E1323, barred" in health(gateway)["refusals"]["detail"]
    an_hour_later(gateway)
    assert health(gateway)["refusals"]["detail"].endswith("for who sends them")


def an_hour_later(gateway):
    """The time of an attempt is in its id."""
    gateway.execute("""
        UPDATE otp_gateway_internal.attempt_record SET id = overlay(id::text PLACING left(otp_gateway.id_at(
            started_at - interval '61 minutes')::text, 13) FROM 1 FOR 13)::uuid
    """)


def test_a_record_that_is_not_purged(own, own_cluster):
    """A row that somebody has locked stays."""
    id = own.send()["verification_id"]
    [old] = aged(own, [id], 10)
    with own_cluster.session(own.database, autocommit=False) as locker:
        own.execute("SELECT FROM otp_gateway_internal.verification_record WHERE id = %s FOR UPDATE", (old,), locker)
        own.execute("ALTER SYSTEM SET otp_gateway.retention = '3d'")
        own_cluster.reload()
        row = becomes(own, "retention", 1)
        assert 6.9 * DAY < row["value"] < 7.1 * DAY and "7 days behind" in row["detail"]
        locker.rollback()
    # A reload has it looked again.
    own_cluster.reload()
    becomes(own, "retention", 0)
    assert own.execute("SELECT count(*) FROM otp_gateway.verification") == [(0,)]


def test_a_drop_that_is_not_committed(gateway):
    gateway.send()
    with gateway.cluster.session(gateway.database, autocommit=False) as dropper:
        gateway.execute("DROP EXTENSION otp_gateway CASCADE", None, dropper)
        found = health(gateway)
        assert {name for name, row in found.items() if row["level"] == 3} == {
            "key_file",
            "provider",
            "unknown",
            "refusals",
            "conversion",
            "pumping",
        }
        dropper.rollback()
    assert gateway.send()["outcome"] == "sent"


def test_without_preload(simulator):
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            found = health(gateway)
            assert {name: row["level"] for name, row in found.items()} == {
                "library": 2,
                "version": 0,
                "provider": 0,
                "unknown": 0,
                "refusals": 0,
                "conversion": 0,
                "pumping": 0,
            }
            assert "shared_preload_libraries" in found["library"]["hint"]
    finally:
        cluster.remove()


def test_another_schema(gateway):
    gateway.execute("UPDATE pg_extension SET extversion = '0.5.9' WHERE extname = 'otp_gateway'")
    try:
        found = health(gateway)
        assert found["version"]["level"] == 2 and "0.5.9" in found["version"]["detail"]
        assert not {"provider", "unknown", "refusals", "conversion", "pumping", "key_file"} & set(found)
    finally:
        gateway.execute(
            "UPDATE pg_extension SET extversion = default_version FROM pg_available_extensions WHERE name = extname AND name = 'otp_gateway'"
        )
    assert level(gateway, "version") == 0


def test_read_only_and_in_a_transaction_that_has_begun_earlier(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        session.set_session(isolation_level="SERIALIZABLE", readonly=True)
        assert "0 sends" in health(gateway, session)["unknown"]["detail"]
        gateway.send()
        # It says how things are now.
        assert "1 sends" in health(gateway, session)["unknown"]["detail"]


@pytest.mark.parametrize("grants, sees", [([], False), (["GRANT pg_monitor TO looker"], True)])
def test_who_sees_numbers(gateway, simulator, grants, sees):
    gateway.create_provider("flaky", "ideamart")
    simulator.fault("status", "ideamart", "send", status=503)
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    simulator.clear_faults()
    with acting_as(gateway, "looker", *grants) as session:
        found = health(gateway, session)
        assert set(OF_ALL) - {"retention"} <= set(found)
        assert found["provider"]["level"] == 2 and ("ended as" in found["provider"]["detail"]) == sees
        for name in ("key_file", "worker", "queue", "unknown", "refusals"):
            assert ("pg_monitor" in found[name]["detail"]) != sees
        for name in ("queue", "unknown", "refusals"):
            assert (found[name]["value"] is not None) == sees


def test_it_takes_milliseconds(gateway):
    """Of a hundred thousand attempts it looks at the latest thousand."""
    gateway.send()
    gateway.execute("RESET statement_timeout")
    gateway.execute("""
        INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, finished_at, provider)
        SELECT overlay(otp_gateway.id_at(t)::text PLACING right(gen_random_uuid()::text, 22) FROM 15)::uuid,
            gen_random_uuid(), 'send', 'sent', t, t, 'ideamart'
        FROM generate_series(1, 100000) AS n, LATERAL (SELECT clock_timestamp() - n * interval '30 milliseconds' AS t) AS at
    """)
    # And says so: there are many more in the hour.
    assert health(gateway)["unknown"]["detail"].startswith("0 of the latest 1000 sends may")
    took = []
    for _ in range(20):
        began = time.monotonic()
        gateway.execute("SELECT count(*) FROM otp_gateway.health()")
        took.append(time.monotonic() - began)
    # The best of many: the machine is shared.
    assert min(took) < 0.01, took


@pytest.mark.parametrize(
    "time_",
    [
        "now",
        "1970-01-01 00:00:00+00",
        "2026-11-29 02:17:00.1239+00",
        "1969-01-01",
        "infinity",
        "-infinity",
        "9999-12-31",
    ],
)
def test_ids_of_a_time(gateway, time_):
    [(id,)] = gateway.execute("SELECT otp_gateway.id_at(%s)", (time_,))
    if time_ == "infinity":
        assert id.int == (1 << 128) - 1
    elif time_ in ("-infinity", "1969-01-01"):
        assert id.int == 0
    else:
        [(millis,)] = gateway.execute("SELECT floor(extract(epoch FROM %s::timestamptz) * 1000)::bigint", (time_,))
        assert time_ == "now" or (id.int >> 80, id.int & ((1 << 80) - 1)) == (millis, 0)
    assert gateway.execute("SELECT otp_gateway.id_at(NULL)") == [(None,)]


def test_the_record_by_time(gateway):
    """Read through the index, and all of it."""
    [(before,)] = gateway.execute("SELECT clock_timestamp()")
    id = gateway.send()["attempt_id"]
    where = "FROM otp_gateway.attempt WHERE id >= otp_gateway.id_at(%s)"
    assert gateway.execute(f"SELECT id {where}", (before,)) == [(id,)]
    assert gateway.execute(f"SELECT id {where}", ("infinity",)) == []
    gateway.execute("SET enable_seqscan = off")
    plan = "\n".join(line for (line,) in gateway.execute(f"EXPLAIN SELECT id {where}", (before,)))
    gateway.execute("RESET enable_seqscan")
    assert "Index Cond: (id >= " in plan, plan


def nagios(gateway, *arguments, **environment):
    """The exit code and the line of the script."""
    at = ["-h", gateway.cluster.directory, "-p", str(gateway.cluster.port), "-U", "postgres", "-d", gateway.database]
    script = pathlib.Path(__file__).resolve().parents[2] / "monitoring/check_otp_gateway"
    path = f"{BINDIR}:{os.environ['PATH']}"
    done = subprocess.run(
        [script, *map(str, at), *arguments],
        env={**os.environ, "PATH": path, **environment},
        text=True,
        capture_output=True,
    )
    [line] = done.stdout.splitlines()
    assert done.stderr == ""
    return done.returncode, line


def test_the_script(gateway, simulator):
    gateway.send()
    code, line = nagios(gateway)
    assert code == 0 and line.startswith("OTP_GATEWAY OK - ") and " | " not in line.partition(" |")[0]
    assert re.fullmatch(r"(?: \w+=\d+\.\d+)+", line.partition(" |")[2]), line
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    assert nagios(gateway)[0] == 1 and "paused: option paused: nothing is sent through ideamart" in nagios(gateway)[1]
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("LOCK otp_gateway_internal.attempt_record", None, locker)
        # What could not be looked at is worse than a warning,
        code, line = nagios(gateway)
        assert code == 3 and "unknown: not looked at" in line and "paused:" in line
        # and less than what is known to be bad.
        gateway.execute("UPDATE pg_extension SET extversion = '0.5.9' WHERE extname = 'otp_gateway'")
        try:
            assert nagios(gateway)[0] == 2
        finally:
            gateway.execute(
                "UPDATE pg_extension SET extversion = default_version FROM pg_available_extensions WHERE name = extname AND name = 'otp_gateway'"
            )
        locker.rollback()
    code, line = nagios(gateway, "-p", "1")
    assert code == 3 and line.startswith("OTP_GATEWAY UNKNOWN - ")
    # A server that takes the connection, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = str(mute.getsockname()[1])
        said = nagios(gateway, "-h", "127.0.0.1", "-p", port, CHECK_TIMEOUT="1")
        assert said == (3, "OTP_GATEWAY UNKNOWN - no answer within 1 s ")


def test_the_script_begins_with_the_cause(gateway, simulator):
    """The worker hangs: that a provider fails, too, may wait."""
    gateway.create_provider("flaky", "ideamart")
    simulator.fault("status", "ideamart", "send", status=503)
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    simulator.clear_faults()
    # No probe comes in between.
    gateway.execute("UPDATE otp_gateway_internal.breaker SET open_until = now() + interval '1 minute'")
    pid = worker_pid(gateway)
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Running(gateway.connect(), *a_send(gateway))
        becomes(gateway, "worker", 2)
        code, line = nagios(gateway)
        assert code == 2 and re.match("OTP_GATEWAY CRITICAL - worker: .*; provider: flaky failed", line), line
    finally:
        os.kill(pid, signal.SIGCONT)
    call.wait()


@contextlib.contextmanager
def https_vendor(certificate):
    """Answers every call, over TLS."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def authority(simulator_program):
    return Authority(pathlib.Path(simulator_program.directory.name) / "authority_of_health")


def test_certificates(gateway, authority):
    """That end soon, as the calls have seen them."""
    assert health(gateway)["certificate"]["detail"] == "none was seen yet"
    gateway.send()
    # Without TLS there is none.
    assert health(gateway)["certificate"]["detail"] == "none was seen yet"
    gateway.create_provider(
        "secure", "ideamart", base_url="https://127.0.0.1:1", ca_file=authority.ca, allow_plain_http=None
    )
    gateway.send("secure", vendor="ideamart")
    assert level(gateway, "certificate") == 0
    for days, wanted, said in (
        (400.5, 0, "none of 1 ends within 14 days"),
        (13.5, 1, "ends in 13 days"),
        (1.53, 2, "ends in 36 hours"),
        (40.5, 0, "none of 1"),
    ):
        with https_vendor(authority.certificate(f"ends{days}", days=(-1, days))) as url:
            gateway.execute(f"ALTER SERVER secure OPTIONS (SET base_url '{url}')")
            assert gateway.send("secure", vendor="ideamart")["outcome"] != "unreachable"
            row = health(gateway)["certificate"]
            assert row["level"] == wanted and said in row["detail"] and abs(row["value"] - days * DAY) < 300, days
            assert wanted == 0 or "secure" in row["detail"]
            [(ends_at,)] = gateway.execute(
                "SELECT EXTRACT(epoch FROM certificate_ends_at)::float8 FROM otp_gateway.stat_provider WHERE provider = 'secure'"
            )
            assert abs(ends_at - time.time() - days * DAY) < 300
    # The last one seen is over.
    with https_vendor(authority.certificate("short", days=(-1, 4 / DAY))) as url:
        gateway.execute(f"ALTER SERVER secure OPTIONS (SET base_url '{url}')")
        assert gateway.send("secure", vendor="ideamart")["outcome"] != "unreachable"
        until(lambda: "has ended" in health(gateway)["certificate"]["detail"], "its time is over")
        assert level(gateway, "certificate") == 2


def with_files(gateway, name, files, **options):
    """A provider whose credentials are in these files."""
    credentials = {f"{option}_file": file for option, file in files.items()}
    gateway.create_provider(name, "ideamart", credentials=credentials, **options)


@pytest.fixture
def files():
    return {option: RUN.in_file(option) for option in ("application_id", "password")}


def test_a_credential_that_cannot_be_read(gateway, files):
    """It is known before anybody signs up, to whoever watches, and the file's place to nobody."""
    with_files(gateway, "ours", files)
    assert level(gateway, "credentials") == 0
    path = files["password"]
    away = path.with_suffix(".away")
    for how, undo, why in (
        (lambda: path.rename(away), lambda: away.rename(path), "no such file or directory"),
        (lambda: path.chmod(0), lambda: path.chmod(0o600), "permission denied"),
        (lambda: path.write_text("\n"), lambda: path.write_text("password\n"), "is empty"),
        (lambda: path.write_bytes(b"\xff\n"), lambda: path.write_text("password\n"), "cannot be read"),
    ):
        how()
        row = health(gateway)["credentials"]
        assert (row["level"], row["value"]) == (2, 1) and why in row["detail"]
        assert row["detail"].startswith("ours: the file of user mapping option password_file ")
        assert str(path) not in str(row) and path.name not in str(row)
        # As a call has it.
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as error:
            gateway.send("ours", vendor="ideamart")
        assert error.value.diag.message_primary.removeprefix("otp_gateway: ") in row["detail"]
        undo()
        assert level(gateway, "credentials") == 0
    assert gateway.send("ours", vendor="ideamart")["outcome"] == "sent"


def test_a_credential_that_is_a_pipe(gateway, files):
    """Nobody waits for its other end: neither who looks, nor who calls, nor the worker."""
    with_files(gateway, "ours", files)
    queued = [gateway.enqueue("ours", vendor="ideamart")["verification_id"]]
    assert gateway.wait(queued[0])["outcome"] == "sent"
    path = files["password"]
    path.unlink()
    os.mkfifo(path)
    os.chown(path, path.parent.stat().st_uid, -1)
    path.chmod(0o666)
    row = health(gateway)["credentials"]
    assert row["level"] == 2 and "it is no regular file" in row["detail"]
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="it is no regular file"):
        gateway.send("ours", vendor="ideamart")
    found = gateway.execute(
        "SELECT detail FROM otp_gateway.check('ours') WHERE item = 'credential_file' AND status = 'error'"
    )
    assert found == [("the file of password_file cannot be read: it is no regular file",)]


def test_files_of_the_server(gateway, authority, files):
    """Those of the server's own options, too; and for each user mapping that there is."""
    key = RUN.in_file("key")
    with_files(gateway, "ours", files, ca_file=authority.ca, client_cert_file=authority.ca, client_key_file=key)
    gateway.execute("CREATE ROLE member; CREATE ROLE other")
    try:
        gateway.execute(
            "CREATE USER MAPPING FOR member SERVER ours OPTIONS (application_id 'one', password_file '/none')"
        )
        row = health(gateway)["credentials"]
        assert (row["level"], row["value"]) == (2, 1) and "password_file" in row["detail"]
        key.unlink()
        row = health(gateway)["credentials"]
        assert (row["level"], row["value"]) == (2, 2)
        assert row["detail"] == (
            "ours: the file of option client_key_file cannot be read: no such file or directory (and 1 more such faults)"
        )
        # What an owner may not have read is not opened, and no call is made with it.
        gateway.execute("DROP USER MAPPING FOR member SERVER ours; ALTER SERVER ours OWNER TO other")
        row = health(gateway)["credentials"]
        assert row["level"] == 2 and "option ca_file does not hold: the owner of foreign server ours" in row["detail"]
    finally:
        gateway.execute("ALTER SERVER ours OWNER TO postgres; DROP SERVER ours CASCADE; DROP ROLE member, other")
    assert level(gateway, "credentials") == 0


def test_who_sees_that_a_file_is_gone(gateway, files):
    with_files(gateway, "ours", files)
    files["password"].unlink()
    with (
        acting_as(gateway, "monitor", "GRANT pg_monitor TO monitor") as monitor,
        acting_as(
            gateway, "keeper", "GRANT pg_read_server_files TO keeper", "ALTER SERVER ours OWNER TO keeper"
        ) as keeper,
        acting_as(gateway, "sender", "GRANT USAGE ON FOREIGN SERVER ours TO sender") as sender,
    ):
        for session, sees in ((monitor, 2), (keeper, 2), (sender, 0)):
            assert level(gateway, "credentials", session) == sees
            assert ("ours" in health(gateway, session)["credentials"]["detail"]) == bool(sees)
        assert "that this role owns" in health(gateway, sender)["credentials"]["detail"]


def test_options_that_do_not_hold(gateway):
    """Written past the validator, or in a file that is not there: a row, and no error."""
    gateway.execute("UPDATE pg_foreign_server SET srvoptions = '{timeout=soon}' WHERE srvname = 'ideamart'")
    row = health(gateway)["credentials"]
    assert row["level"] == 2 and row["detail"].startswith("ideamart: option timeout ")
    gateway.execute("UPDATE pg_foreign_server SET srvoptions = NULL WHERE srvname = 'ideamart'")
    gateway.execute(
        "UPDATE pg_user_mapping SET umoptions = '{nonsense=1}' WHERE umserver = (SELECT oid FROM pg_foreign_server WHERE srvname = 'ideamart')"
    )
    row = health(gateway)["credentials"]
    assert row["level"] == 2 and row["detail"].startswith("ideamart: ")
    gateway.execute("DROP SERVER ideamart CASCADE")
    assert level(gateway, "credentials") == 0
    gateway.execute(
        "CREATE SERVER own FOREIGN DATA WRAPPER otp_rest OPTIONS (base_url 'https://127.0.0.1:9', description_file '/none')"
    )
    assert health(gateway)["credentials"]["detail"] == (
        "own: the file of option description_file cannot be read: no such file or directory"
    )


def test_our_own_certificate(gateway, authority, files):
    """The one that a vendor asks for: read from its file, before any call."""
    with_files(
        gateway, "ours", files, ca_file=authority.ca, client_cert_file=authority.ca, client_key_file=RUN.in_file("key")
    )
    for days, wanted, said in (
        (400.5, 0, "none of 1 ends within 14 days"),
        (13.5, 1, "the client certificate of ours ends in 13 days"),
        (1.53, 2, "the client certificate of ours ends in 36 hours"),
        (-0.5, 2, "the client certificate of ours has ended"),
    ):
        file = authority.certificate(f"own{days}", days=(-1, days))
        gateway.execute(f"ALTER SERVER ours OPTIONS (SET client_cert_file '{file}')")
        row = health(gateway)["certificate"]
        assert row["level"] == wanted and said in row["detail"] and abs(row["value"] - max(days, 0) * DAY) < 300, row
        found = "SELECT status, detail FROM otp_gateway.check('ours') WHERE item = 'certificate'"
        assert f"the certificate of client_cert_file ends in {int(days // 1)} days" in str(gateway.execute(found)), days
        assert gateway.execute(found)[0][0] == ("warning" if days < 30 else "ok")
    # A chain begins with its own; a file that holds none has no end.
    chain = RUN.in_file(authority.certificate("own5", days=(-1, 5.5)).read_text() + authority.ca.read_text())
    gateway.execute(f"ALTER SERVER ours OPTIONS (SET client_cert_file '{chain}')")
    assert "ends in 5 days" in health(gateway)["certificate"]["detail"]
    chain.write_text("nonsense\n")
    assert level(gateway, "certificate") == 0
    with acting_as(gateway, "sender", "GRANT USAGE ON FOREIGN SERVER ours TO sender") as sender:
        gateway.execute(f"ALTER SERVER ours OPTIONS (SET client_cert_file '{file}')")
        assert level(gateway, "certificate") == 2 and level(gateway, "certificate", sender) == 0
