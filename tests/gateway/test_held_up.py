"""Promise: what the worker reads of its own accord (the names of servers and roles after a rename, the queue after a
commit) does not come before its calls: while somebody's lock keeps it from that, calls that need nothing of what is
locked are made and recorded, and those that do need it are told so in seconds. So is whoever locks a table and
then waits for the worker themselves, whatever they ask it for."""

import contextlib
import time
import uuid

import psycopg2
import pytest

from conftest import Running, until
from test_at_most_once import at
from test_enqueue import prepared, preparing, preparing_cluster  # noqa: F401
from test_locked import locker  # noqa: F401

SEND = "SELECT * FROM otp_send('ideamart', jsonb_build_object('mobile', %s))"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@pytest.fixture
def role(gateway):
    name = f"role_{uuid.uuid4().hex[:8]}"
    gateway.execute(f"CREATE ROLE {name}; GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    yield name
    with contextlib.closing(gateway.connect()) as session:
        for (present,) in gateway.execute("SELECT rolname FROM pg_roles WHERE rolname ^@ %s", (name,), session):
            gateway.execute(f"DROP OWNED BY {present}; DROP ROLE {present}", session=session)


def somebody_waits_for(gateway, table):
    asked = f"SELECT true FROM pg_locks WHERE relation = 'otp_gateway_internal.{table}'::regclass AND NOT granted"
    until(lambda: gateway.execute(asked), f"somebody waits for {table}")


# what the worker reads of its own accord


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE {role} RENAME TO {role}_2",
        "DROP OWNED BY {role}; DROP ROLE {role}",
        "ALTER SERVER relid RENAME TO relid_2",
        "DROP SERVER relid CASCADE",
    ],
    ids=["renamed role", "dropped role", "renamed server", "dropped server"],
)
def test_names_that_cannot_be_put_on_record(gateway, simulator, locker, role, statement):  # noqa: F811
    """Of servers and roles that nobody calls with: what is on record already is called, checked and queued as ever."""
    at(gateway, "ideamart", timeout="30s")
    known, to = gateway.number(), gateway.number()
    id = gateway.send(to=known)["verification_id"]
    simulator.fault("hold", "ideamart", "send", recipient=to)
    in_flight = Running(gateway.connect(), SEND, (to,))
    simulator.held(1)
    gateway.execute("LOCK TABLE otp_gateway_internal.identity IN SHARE MODE", session=locker)
    gateway.execute(statement.format(role=role))
    somebody_waits_for(gateway, "identity")
    simulator.clear_faults()
    simulator.release()
    assert in_flight.row(timeout=5)["outcome"] == "sent"
    assert Running(gateway.connect(), SEND, (gateway.number(),)).row(timeout=5)["outcome"] == "sent"
    check = "SELECT * FROM otp_verify(%s::uuid, %s)"
    checked = Running(gateway.connect(), check, (id, simulator.code("ideamart", known)))
    assert checked.row(timeout=5)["outcome"] == "approved"
    assert gateway.wait(gateway.enqueue()["verification_id"], "5s")["outcome"] == "sent"
    # It is tried again all the while, and done when the lock is gone.
    somebody_waits_for(gateway, "identity")
    locker.rollback()
    if "relid_2" in statement:
        named = "SELECT true FROM otp_gateway_internal.identity WHERE name = 'relid_2'"
        gateway.send("relid_2", vendor="relid")
        until(lambda: gateway.execute(named), "it is on record under its new name")


@pytest.mark.parametrize("how", ["COMMIT", "COMMIT PREPARED"])
def test_a_queue_that_cannot_be_read(preparing, simulator, how):  # noqa: F811
    """Whoever locks the record waits for a transaction that has enqueued, and has the lock as soon as that commits.
    Calls are told of the lock; when it is gone they are made, and so is what was queued."""
    at(preparing, "ideamart", timeout="1s")
    assert preparing.send()["outcome"] == "sent"
    with contextlib.ExitStack() as sessions:

        def open_session(**options):
            return sessions.enter_context(preparing.cluster.session(preparing.database, **options))

        locker = open_session(autocommit=False, options="-c lock_timeout=20s")  # noqa: F811
        owner = open_session(autocommit=False)
        if how == "COMMIT":
            id = preparing.enqueue(session=owner)["verification_id"]
        else:
            id = prepared(preparing, "held_up")
        locking = Running(locker, "LOCK TABLE otp_gateway_internal.verification_record")
        somebody_waits_for(preparing, "verification_record")
        if how == "COMMIT":
            owner.commit()
        else:
            preparing.execute("COMMIT PREPARED 'held_up'")
        assert locking.wait().error is None
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.LockNotAvailable, match="the record is locked"):
            preparing.send(session=open_session(options="-c statement_timeout=30s"))
        assert time.monotonic() - began < 10
        locker.rollback()
        assert preparing.send()["outcome"] == "sent"
        assert preparing.wait(id)["outcome"] == "sent"
        assert simulator.count("ideamart", "send") == 3


# whoever waits for themselves


def told_in_time(gateway, locker, statement, arguments):  # noqa: F811
    """The locker hears of the lock, and not of the statement's own timeout."""
    gateway.execute("SET LOCAL statement_timeout = '30s'", session=locker)
    with pytest.raises(psycopg2.errors.LockNotAvailable) as raised:
        gateway.execute(statement, arguments, locker)
    assert "locked" in str(raised.value) and "HINT" in str(raised.value)
    locker.rollback()


@pytest.mark.parametrize("new", ["server", "role"])
def test_an_enqueue_with_what_is_not_on_record_yet(gateway, simulator, locker, role, new):  # noqa: F811
    """The first of a server or role: the worker is to put that on record, in a table that the session has locked."""
    gateway.create_provider("unused", "ideamart")
    assert gateway.send()["outcome"] == "sent"
    gateway.execute("LOCK TABLE otp_gateway_internal.identity IN SHARE MODE", session=locker)
    if new == "role":
        gateway.execute(f"SET LOCAL ROLE {role}", session=locker)
    enqueue = "SELECT * FROM otp_enqueue(%s, jsonb_build_object('mobile', %s))"
    provider = "unused" if new == "server" else "ideamart"
    told_in_time(gateway, locker, enqueue, (provider, gateway.number()))
    assert simulator.count("ideamart", "send") == 1
    row = gateway.row(enqueue, (provider, gateway.number()), locker)
    locker.commit()
    assert gateway.wait(row["verification_id"])["outcome"] == "sent"


def test_a_wait_for_what_cannot_be_read(gateway, locker):  # noqa: F811
    """Its send has ended long ago, so that no timeout of its own ends the wait."""
    id = gateway.send()["verification_id"]
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record", session=locker)
    told_in_time(gateway, locker, "SELECT * FROM otp_gateway.wait(%s, '1s')", (id,))
    assert gateway.wait(id)["outcome"] == "sent"
