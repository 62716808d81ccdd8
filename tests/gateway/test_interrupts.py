"""Promise: a session that waits for a vendor can be interrupted at any moment and is free at once, while the call and
its outcome stay on record; the server stops, and gives calls that hang two seconds at most; one vendor that stalls holds up nobody else;
and an answer reaches its caller whole, however large it is."""

import json
import os
import re
import signal
import statistics
import time
import uuid

import psycopg2
import pytest

from cluster import Cluster
from conftest import FLOWS, Gateway, Running, complaints, until
from test_crash import worker_pid

# From the request to the error, at the client.
AT_ONCE = 0.05
SEND = "SELECT * FROM otp_send('ideamart', %s::jsonb)"
WAITING = (
    "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    " AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()"
)


def payload(gateway):
    return (json.dumps({"mobile": gateway.number()}),)


def all_wait(gateway, count):
    until(lambda: gateway.execute(WAITING) == [(count,)], f"{count} sessions wait")


def hanging(gateway, simulator, provider="ideamart"):
    """A send that the vendor has and never answers."""
    before = simulator.count("ideamart", "send")
    running = Running(gateway.connect(), SEND.replace("'ideamart'", f"'{provider}'"), payload(gateway))
    simulator.count("ideamart", "send", atleast=before + 1, wait=10000)
    all_wait(gateway, 1)
    return running


# libpq loses the FATAL of a connection that closes at once, now and then: for that one the server's log is asked.
CANCELED = "canceling statement due to user request"
TERMINATED = "terminating connection due to administrator command"


def by_cancel(gateway, pid):
    gateway.execute("SELECT pg_cancel_backend(%s)", (pid,))


def by_terminate(gateway, pid):
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))


@pytest.mark.parametrize(
    "interrupt, sqlstate, says", [(by_cancel, "57014", CANCELED), (by_terminate, "57P01", TERMINATED)]
)
def test_cancel_and_terminate_are_at_once(gateway, simulator, interrupt, sqlstate, says):
    before = len(gateway.cluster.log())
    simulator.fault("never", operation="send")
    gateway.create_provider("patient", "ideamart", timeout="60s")
    took = []
    for _ in range(7):
        running = hanging(gateway, simulator, "patient")
        began = time.monotonic()
        interrupt(gateway, running.session.info.backend_pid)
        running.wait()
        took.append(running.ended_at - began)
        assert running.error.pgcode in (sqlstate, None if interrupt is by_terminate else sqlstate)
        running.session.close()
    assert statistics.median(took) < AT_ONCE, took
    assert gateway.cluster.log()[before:].count(says) == 7


def test_with_a_developers_wish_for_backtraces(simulator):
    """In the server's environment: no error has frames of ours for a detail, and none is late for them."""
    cluster = Cluster(environment={"RUST_BACKTRACE": "full", "RUST_LIB_BACKTRACE": "1"}).create()
    try:
        with cluster.start().database() as name, Gateway(cluster, name, simulator) as gateway:
            simulator.fault("never", operation="send")
            gateway.create_provider("patient", "ideamart", timeout="60s")
            took, errors = [], []
            for _ in range(5):
                running = hanging(gateway, simulator, "patient")
                began = time.monotonic()
                by_cancel(gateway, running.session.info.backend_pid)
                running.wait()
                took.append(running.ended_at - began)
                errors.append(running.error)
                running.session.close()
            # Ours, and one of Postgres' that passes through us.
            for statement in (
                "SELECT otp_send('nowhere', '{}')",
                "SELECT otp_gateway_internal.iserveu_validator(ARRAY[NULL], 0)",
            ):
                with pytest.raises(psycopg2.Error) as caught:
                    gateway.execute(statement)
                errors.append(caught.value)
            assert statistics.median(took) < AT_ONCE, took
        for error in errors:
            assert ".rs" not in (error.diag.message_detail or ""), error.diag.message_detail
        assert ".rs:" not in cluster.log()
    finally:
        cluster.remove()


def test_statement_timeout_is_at_once(gateway, simulator):
    simulator.fault("never", operation="send")
    gateway.create_provider("patient", "ideamart", timeout="60s")
    # The session has its connection to the catalog warm, and the worker its own to the vendor.
    gateway.execute("SET statement_timeout = '300ms'")
    took = []
    for _ in range(7):
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.QueryCanceled) as error:
            gateway.send("patient", vendor="ideamart")
        took.append(time.monotonic() - began - 0.3)
        assert error.value.pgcode == "57014"
    assert statistics.median(took) < AT_ONCE, took
    assert simulator.count("ideamart", "send") == 7


@pytest.mark.parametrize("interrupt", [by_cancel, by_terminate])
def test_what_was_interrupted_ends_in_its_own_time(gateway, simulator, interrupt):
    simulator.fault("never", operation="send")
    gateway.create_provider("hasty", "ideamart", timeout="1s")
    running = hanging(gateway, simulator, "hasty")
    [(attempt, outcome)] = gateway.execute("SELECT id, outcome FROM otp_gateway.attempt")
    interrupt(gateway, running.session.info.backend_pid)
    running.wait()
    assert outcome is None
    row = gateway.settled(attempt)
    assert row["outcome"] == "unknown"
    assert 0.9 <= (row["finished_at"] - row["started_at"]).total_seconds() < 3
    assert gateway.verification(row["verification_id"])["status"] == "unknown"
    running.session.close()


def test_a_session_goes_on_after_a_cancel(gateway, simulator):
    simulator.fault("hold", operation="send", times=1)
    session = gateway.connect()
    mine, other = gateway.number(), gateway.number()
    running = Running(session, SEND, (json.dumps({"mobile": mine}),))
    simulator.held(1)
    by_cancel(gateway, session.info.backend_pid)
    assert running.wait().error.pgcode == "57014"
    # The answer to the first call comes while the second one waits: it must not be taken for the second one's.
    simulator.fault("hold", operation="send", times=1)
    running = Running(session, SEND, (json.dumps({"mobile": other}),))
    simulator.held(2)
    simulator.release()
    row = running.row()
    assert row["outcome"] == "sent"
    assert gateway.verify(row["verification_id"], simulator.code("ideamart", other), session)["outcome"] == "approved"
    until(
        lambda: gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome = 'sent'") == [(2,)],
        "both are on record",
    )
    session.close()


def test_interrupted_again_and_again(gateway, simulator):
    """A slot that its owner took back is good for the next call, however often."""
    simulator.fault("never", operation="send", times=30)
    gateway.execute("SET statement_timeout = '20ms'")
    for _ in range(30):
        with pytest.raises(psycopg2.errors.QueryCanceled):
            gateway.send()
    gateway.execute("RESET statement_timeout")
    simulator.clear_faults()
    to = gateway.number()
    sent = gateway.send(to=to)
    assert sent["outcome"] == "sent"
    assert gateway.verify(sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"


def test_a_stalled_call_delays_no_other(gateway, simulator):
    simulator.fault("latency", operation="send", recipient="0779999999", ms=5000, times=1)
    sessions = [gateway.connect() for _ in range(200)]
    try:
        # Warm: what is measured is waiting for one another.
        gateway.send()
        began = time.monotonic()
        stalled = Running(sessions[0], SEND, (json.dumps({"mobile": "0779999999"}),))
        simulator.count("ideamart", "send", atleast=2, wait=10000)
        others = [Running(session, SEND, payload(gateway)) for session in sessions[1:]]
        assert [one.row()["outcome"] for one in others] == ["sent"] * 199
        assert stalled.ended_at is None, "it is the last"
        assert max(one.ended_at for one in others) - began < 4.5
        assert stalled.row()["outcome"] == "sent"
        assert stalled.ended_at - began >= 5
    finally:
        for session in sessions:
            session.close()


@pytest.mark.parametrize("kilobytes", [6, 8, 9, 60, 500])
def test_a_large_answer_reaches_the_caller_whole(gateway, simulator, kilobytes):
    to = gateway.number("paytm")
    sent = gateway.send("paytm", to)
    options = {f"option{number:06}": f"{number:x}" * 20 + "é" for number in range(kilobytes * 1000 // 160)}
    body = {
        "head": {"responseTimestamp": "1"},
        "body": {
            "resultInfo": {"resultStatus": "S", "resultCode": "0000", "resultMsg": "Success"},
            "authenticated": True,
            "payOptionsInfo": options,
        },
    }
    simulator.fault("reply", "paytm", "verify", body=body)
    row = gateway.verify(sent["verification_id"], "123456")
    assert row["outcome"] == "approved"
    assert row["response"]["body"]["payOptionsInfo"] == options


def test_large_answers_to_many_at_once(gateway, simulator):
    """Each gets its own, in parts that come between those of others; one that leaves midway disturbs nobody."""
    options = {f"option{number:06}": "x" * 80 for number in range(4000)}
    body = {
        "body": {
            "resultInfo": {"resultStatus": "S", "resultCode": "0000", "resultMsg": "Success"},
            "authenticated": True,
            "payOptionsInfo": options,
        }
    }
    sent = [gateway.send("paytm")["verification_id"] for _ in range(8)]
    simulator.fault("reply", "paytm", "verify", body=body)
    sessions = [gateway.connect() for _ in sent]
    running = [
        Running(session, "SELECT * FROM otp_verify(%s::uuid, '123456')", (verification,))
        for session, verification in zip(sessions, sent)
    ]
    rows = [one.row() for one in running]
    assert [row["verification_id"] for row in rows] == sent
    assert all(row["response"]["body"]["payOptionsInfo"] == options for row in rows)
    for session in sessions:
        session.close()


def test_a_large_payload_reaches_the_vendor_whole(gateway, simulator):
    message = "Ä" * 3000 + " $$OTP$$"
    to = gateway.number("relid")
    msg = [{"lng": f"Language {number}", "subject": "s", "message": message, "label": {}} for number in range(9)]
    sent = gateway.send("relid", to, msg=msg)
    assert sent["outcome"] == "sent"
    [entry] = simulator.log("relid", "send")
    assert entry["complaint"] is None
    assert gateway.verify(sent["verification_id"], simulator.code("relid", to))["outcome"] == "approved"


def worker(gateway):
    return gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )


def test_the_worker_is_terminated_during_calls(gateway, simulator):
    simulator.fault("hold", operation="send")
    sessions = [gateway.connect() for _ in range(5)]
    running = [Running(session, SEND, payload(gateway)) for session in sessions]
    simulator.held(5)
    [(pid,)] = worker(gateway)
    before = len(gateway.cluster.log())
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
    rows = [one.row() for one in running]
    assert {row["outcome"] for row in rows} == {"unknown"}
    for row in rows:
        # On record as the callers heard it, and nothing was sent a second time.
        assert gateway.attempts(row["verification_id"]) == [("send", "unknown")]
        assert gateway.verification(row["verification_id"])["status"] == "unknown"
    simulator.release()
    simulator.clear_faults()
    began = time.monotonic()
    for session in sessions:
        assert gateway.send(session=session)["outcome"] == "sent"
        session.close()
    assert time.monotonic() - began < 3
    assert simulator.count("ideamart", "send") == 10
    [(after,)] = worker(gateway)
    assert after != pid
    assert complaints(gateway.cluster.log()[before:]) == []


def test_requests_that_wait_when_the_worker_is_terminated(gateway, simulator):
    """One verify is at the vendor, others wait behind it: the first is unknown, of the others nothing was sent."""
    verification = gateway.send()["verification_id"]
    simulator.fault("hold", operation="verify")
    sessions = [gateway.connect() for _ in range(3)]
    call = "SELECT * FROM otp_verify(%s::uuid, '000000')"
    running = [Running(session, call, (verification,)) for session in sessions]
    simulator.held(1)
    all_wait(gateway, 3)
    gateway.execute("SELECT pg_terminate_backend(%s)", worker(gateway)[0])
    for one in running:
        one.wait()
    assert [one.rows[0]["outcome"] for one in running if one.error is None] == ["unknown"]
    assert {one.error.pgcode for one in running if one.error is not None} == {"55000"}
    assert simulator.count("ideamart", "verify") == 1
    for session in sessions:
        session.close()


def test_a_worker_that_cannot_write_at_its_end_leaves_nobody_waiting(gateway, simulator):
    """Somebody locks the record, and the worker is ended in the middle of a call."""
    simulator.fault("hold", operation="send")
    running = Running(gateway.connect(), SEND, payload(gateway))
    simulator.held(1)
    [(pid,)] = worker(gateway)
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        gateway.execute("LOCK otp_gateway.attempt IN EXCLUSIVE MODE", session=locker)
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda: (pid,) not in worker(gateway), "the worker ends")
        locker.rollback()
    row = running.row(5)
    assert row["outcome"] == "unknown"
    # The next worker finds it in flight.
    simulator.clear_faults()
    assert gateway.send()["outcome"] == "sent"
    assert gateway.settled(row["attempt_id"])["outcome"] == "unknown"
    running.session.close()


def test_a_fast_stop_waits_two_seconds_at_most(own_cluster, simulator):
    own_cluster.psql("postgres", "-c", "CREATE EXTENSION otp_gateway")
    simulator.fault("never", operation="send")
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.create_provider("ideamart", timeout="60s")
        sessions = [gateway.connect() for _ in range(20)]
        running = [Running(session, SEND, payload(gateway)) for session in sessions]
        simulator.count("ideamart", "send", atleast=20, wait=10000)
        all_wait(gateway, 20)
        began = time.monotonic()
        own_cluster.stop("fast")
        assert time.monotonic() - began < 3.5
        for one in running:
            one.wait(5)
    own_cluster.start()
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        assert gateway.execute("SELECT outcome::text, count(*)::int FROM otp_gateway.attempt GROUP BY outcome") == [
            ("unknown", 20)
        ]
    lines = [
        line for line in complaints(own_cluster.log()) if "terminating connection due to administrator" not in line
    ]
    assert lines == []


# What goes on without its caller.

ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
GOES_ON = {
    # The call, of a verification at its vendor; the operation; what the hint speaks of.
    "send": (None, "SELECT otp_send('relid', %(payload)s)", "send", "one idempotency_key"),
    "send with a key": (None, "SELECT otp_send('relid', %(payload)s, 'key')", "send", "same idempotency_key"),
    "resend": ("hyperverge", "SELECT otp_resend(%(id)s)", "resend", "otp_gateway.wait"),
    "verify": ("relid", "SELECT otp_verify(%(id)s, '000000')", "verify", "otp_gateway.attempt"),
    "verify by reference": (
        "relid",
        "SELECT otp_verify('relid', '000000', jsonb_build_object('reference', %(reference)s))",
        "verify",
        "otp_gateway.attempt",
    ),
    "cancel": ("relid", "SELECT otp_cancel(%(id)s)", "cancel", "otp_gateway.attempt"),
    "in PL/pgSQL": (
        None,
        "DO $body$ BEGIN PERFORM otp_send('relid', %(payload)s); END $body$",
        "send",
        "otp_gateway.wait",
    ),
}


@pytest.mark.parametrize("vendor, call, operation, says", GOES_ON.values(), ids=GOES_ON)
def test_what_goes_on_is_named(gateway, simulator, vendor, call, operation, says):
    sent = gateway.send(vendor, vendor=vendor) if vendor else {}
    body = json.dumps(FLOWS["relid"]["send"](gateway.number("relid")))
    values = {"id": sent.get("verification_id"), "reference": sent.get("reference"), "payload": body}
    before = simulator.ask("GET", "/held")["held"]
    simulator.fault("hold", vendor or "relid", operation, times=1)
    with gateway.connect() as session:
        if "DO" in call:
            gateway.execute("SET statement_timeout = '500ms'", session=session)
        running = Running(session, call, values)
        simulator.held(before + 1)
        if "DO" not in call:
            gateway.execute("SELECT pg_cancel_backend(%s)", (session.info.backend_pid,))
        diag = running.wait().error.diag
    assert diag.sqlstate == "57014"
    assert diag.message_primary.startswith("canceling statement due to ")
    found = re.fullmatch(
        rf"The {operation} was handed over and goes on: (?:verification ({ID}), )?attempt ({ID})\.", diag.message_detail
    )
    assert found, diag.message_detail
    verification, attempt = found.groups()
    assert says in diag.message_hint, diag.message_hint
    assert (verification is None) == ("reference" in call)
    simulator.release()
    row = gateway.settled(attempt)
    assert row["operation"] == operation and verification in (None, str(row["verification_id"]))
    # As the hint says.
    (told,) = re.findall(r"(SELECT .*?(?:\)|'))(?: has| *:|:)", diag.message_hint) or [None]
    assert told, diag.message_hint
    assert gateway.row(told)["outcome"] == row["outcome"]
    if "key" in call:
        assert gateway.row("SELECT * FROM otp_send('relid', %(payload)s, 'key')", values)["attempt_id"] == row["id"]


def test_what_was_not_handed_over_is_not_sent(gateway, simulator):
    gateway.send()
    pid = worker_pid(gateway, gateway.session)
    os.kill(pid, signal.SIGSTOP)
    try:
        gateway.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg2.errors.QueryCanceled) as caught:
            gateway.send()
        assert caught.value.diag.message_detail == "The send was not handed over; nothing was sent."
    finally:
        os.kill(pid, signal.SIGCONT)
        gateway.execute("RESET statement_timeout")
    assert gateway.send()["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt") == [(2,)]


def test_who_catches_the_cancel_can_go_on(gateway, simulator):
    """In PL/pgSQL the id is there for the asking, and the session as free as before."""
    gateway.execute(
        """
        CREATE FUNCTION pg_temp.patient(first jsonb, second jsonb, OUT told text, OUT outcome text) LANGUAGE plpgsql AS $body$
        BEGIN
          BEGIN
            PERFORM otp_send('hyperverge', first);
          EXCEPTION WHEN query_canceled THEN
            GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL;
          END;
          SELECT s.outcome INTO outcome FROM otp_send('hyperverge', second) AS s;
        END $body$
        """
    )
    before = simulator.ask("GET", "/held")["held"]
    simulator.fault("hold", "hyperverge", "send", times=1)
    bodies = [json.dumps(FLOWS["hyperverge"]["send"](gateway.number("hyperverge"))) for _ in range(2)]
    running = Running(gateway.session, "SELECT * FROM pg_temp.patient(%s, %s)", bodies)
    simulator.held(before + 1)
    with gateway.connect() as other:
        gateway.execute("SELECT pg_cancel_backend(%s)", (gateway.session.info.backend_pid,), other)
        row = running.row()
        assert row["outcome"] == "sent"
        (verification, attempt) = re.findall(ID, row["told"])
        simulator.release()
        assert gateway.settled(attempt)["verification_id"] == uuid.UUID(verification)
