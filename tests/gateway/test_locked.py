"""Promise: a row of the record that somebody has locked holds up what needs that row, and nothing else; a table that somebody
has locked holds up calls, but nothing goes out minutes later for somebody who gave up long ago. Who locks the record and then
calls waits for themselves, and is told so within seconds."""

import time

import psycopg2
import pytest

from conftest import Running, until
from test_at_most_once import at


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@pytest.fixture
def locker(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        yield session
        session.rollback()


def lock(gateway, locker, id, table="verification"):
    column = "id" if table == "verification" else "verification_id"
    gateway.execute(f"UPDATE otp_gateway_internal.{table}_record SET id = id WHERE {column} = %s", (id,), locker)


def verify(gateway, id, code):
    return Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, %s)", (id, code))


def everything_else_goes(gateway, simulator):
    """Sends and checks, immediate and queued, ten of each, with at most one wait for the lock among them."""
    began = time.monotonic()
    for _ in range(10):
        to = gateway.number()
        id = gateway.send(to=to)["verification_id"]
        assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
        assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"
    assert time.monotonic() - began < 4


def test_a_check_of_a_locked_row(gateway, simulator, locker):
    """It waits, and those after it at the same row; all others go by."""
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    right, wrong = simulator.code("ideamart", to), simulator.wrong("ideamart", to)
    lock(gateway, locker, id)
    first = verify(gateway, id, wrong)
    everything_else_goes(gateway, simulator)
    second = verify(gateway, id, right)
    everything_else_goes(gateway, simulator)
    assert first.ended_at is None and second.ended_at is None
    locker.rollback()
    assert (first.row()["outcome"], second.row()["outcome"]) == ("invalid_code", "approved")
    assert gateway.attempts(id) == [("send", "sent"), ("verify", "invalid_code"), ("verify", "approved")]


def test_a_check_by_number_of_a_locked_row(gateway, simulator, locker):
    """The row is found by the worker."""
    to = gateway.number("hyperverge")
    id = gateway.send("hyperverge", to)["verification_id"]
    lock(gateway, locker, id)
    call = "SELECT * FROM otp_verify('hyperverge'::text, %s, jsonb_build_object('mobile', %s))"
    running = Running(gateway.connect(), call, (simulator.code("hyperverge", to), to))
    everything_else_goes(gateway, simulator)
    assert running.ended_at is None
    locker.rollback()
    row = running.row()
    assert (row["outcome"], row["verification_id"]) == ("approved", id)


@pytest.mark.parametrize("table", ["verification", "attempt"])
def test_an_answer_to_a_locked_row(gateway, simulator, locker, table):
    """What the vendor said of others is on record, and told, meanwhile."""
    at(gateway, "ideamart", timeout="30s")
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send", recipient=to)
    body = "SELECT * FROM otp_send('ideamart', jsonb_build_object('mobile', %s))"
    held = Running(gateway.connect(), body, (to,))
    simulator.held(1)
    [(id,)] = gateway.execute("SELECT id FROM otp_gateway.verification WHERE status = 'sending'")
    lock(gateway, locker, id, table)
    simulator.clear_faults()
    simulator.release()
    everything_else_goes(gateway, simulator)
    assert held.ended_at is None
    locker.rollback()
    assert held.row()["outcome"] == "sent"
    assert gateway.attempts(id) == [("send", "sent")]


def test_who_waits_for_themselves(gateway, simulator, locker):
    at(gateway, "ideamart", timeout="1s")
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    code = simulator.code("ideamart", to)
    for how in ("row", "table"):
        if how == "row":
            gateway.execute(
                "SELECT FROM otp_gateway_internal.verification_record WHERE id = %s FOR UPDATE", (id,), locker
            )
        else:
            gateway.execute("LOCK TABLE otp_gateway_internal.verification_record", session=locker)
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.LockNotAvailable) as raised:
            gateway.verify(id, code, locker)
        assert 1 < time.monotonic() - began < 10
        assert "locked by another transaction, or by your own; nothing was sent" in str(raised.value)
        assert "HINT" in str(raised.value) and code not in str(raised.value)
        locker.rollback()
    assert gateway.verify(id, code)["outcome"] == "approved"
    assert simulator.count("ideamart", "verify") == 1


def give_up(gateway, count):
    """So many that stop waiting after a moment."""
    for _ in range(count):
        with gateway.cluster.session(gateway.database, options="-c statement_timeout=200") as session:
            with pytest.raises(psycopg2.errors.QueryCanceled):
                gateway.send(session=session)


def test_what_those_who_gave_up_had_asked_for(gateway, simulator, locker):
    """Nothing of it was on record yet: once it is older than its own timeout, it is as if it had never been asked."""
    at(gateway, "ideamart", timeout="1s")
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN SHARE MODE", session=locker)
    give_up(gateway, 5)
    # The last of them grows older than its timeout.
    time.sleep(1.2)
    locker.rollback()
    assert gateway.send()["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 1
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt") == [(1,)]


def test_what_was_asked_for_a_moment_ago(gateway, simulator, locker):
    """It goes, as it does without a lock: a statement that is canceled takes nothing back."""
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN SHARE MODE", session=locker)
    give_up(gateway, 1)
    locker.rollback()
    assert simulator.count("ideamart", "send", atleast=1, wait=10000) == 1
    assert [row["outcome"] for row in gateway.settle()] == ["sent"]


def test_forget_of_a_locked_row(gateway, simulator, locker):
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    lock(gateway, locker, id)
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    everything_else_goes(gateway, simulator)
    locker.rollback()
    assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,)) == [(1,)]


# what the log says


def test_one_line_for_each_change(gateway, simulator):
    """What cannot be put on record is tried again and again, and said once; and once more when it is over."""
    at(gateway, "ideamart", timeout="30s")
    before = len(gateway.cluster.log())
    simulator.fault("hold", "ideamart", "send")
    body = "SELECT * FROM otp_send('ideamart', jsonb_build_object('mobile', %s))"
    calls = [Running(gateway.connect(), body, (gateway.number(),)) for _ in range(20)]
    simulator.held(20)
    gateway.execute(
        "ALTER TABLE otp_gateway_internal.attempt_record ADD CONSTRAINT disk_full CHECK (outcome <> 'sent') NOT VALID"
    )
    simulator.clear_faults()
    simulator.release()
    said = "an outcome could not be put on record yet"
    until(lambda: said in gateway.cluster.log()[before:], "it is said")
    # Several rounds of it.
    time.sleep(1)
    assert gateway.cluster.log()[before:].count(said) == 1
    assert not any(call.ended_at for call in calls)
    gateway.execute("ALTER TABLE otp_gateway_internal.attempt_record DROP CONSTRAINT disk_full")
    assert {call.row()["outcome"] for call in calls} == {"sent"}
    until(lambda: f"times: {said}" in gateway.cluster.log()[before:], "it is said that it is over")
    assert gateway.cluster.log()[before:].count(said) == 2


def waits(gateway, running):
    """The session has handed its call over."""
    pid = running.session.info.backend_pid
    until(
        lambda: gateway.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,)) == [("Extension",)],
        "it waits for the worker",
    )


def test_a_check_that_was_prepared_before_a_resend(gateway, simulator, locker):
    """It is prepared again: with the old reference it would be about the old code, and end the new one."""
    to = gateway.number("relid")
    id = gateway.send("relid", to)["verification_id"]
    old = simulator.code("relid", to)
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN SHARE MODE", session=locker)
    resend = Running(gateway.connect(), "SELECT * FROM otp_resend(%s)", (id,))
    waits(gateway, resend)
    check = verify(gateway, id, old)
    waits(gateway, check)
    locker.rollback()
    assert resend.row()["outcome"] == "sent"
    assert check.row()["outcome"] == "invalid_code"
    assert gateway.verify(id, simulator.code("relid", to, atleast=2))["outcome"] == "approved"
