"""Promise: who has enqueued can follow it. otp_gateway.wait comes back once the send has an outcome, or when its time is
over, can be interrupted at any moment, and does not wait for what can never come. With otp_gateway.notify on, every
change of a verification's status is announced, in order, with no more than id, provider and status."""

import contextlib
import json
import os
import re
import select
import signal
import time

import psycopg2
import pytest

from cluster import free_port, kill
from conftest import FLOWS, Gateway, Running, until

WAIT = "SELECT * FROM otp_gateway.wait(%s, %s::interval)"
UNKNOWN = "01980000-0000-7000-8000-000000000000"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


class Listener:
    """A session that listens to what the gateway announces, in its database, of what its role began, or that one."""

    def __init__(self, gateway, role=None, **who):
        self.session = gateway.connect(**who)
        asked = "SELECT otp_gateway.channel(coalesce(%s, current_user))"
        [(self.channel,)] = gateway.execute(asked, (role,), self.session)
        gateway.execute(f"LISTEN {self.channel}", session=self.session)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def payloads(self, count, timeout=30):
        """What came by the time that so many came."""
        end = time.monotonic() + timeout
        while len(self.session.notifies) < count:
            left = end - time.monotonic()
            heard = [notify.payload for notify in self.session.notifies]
            assert left > 0, f"heard no more than {heard}"
            select.select([self.session], [], [], left)
            self.session.poll()
        return [notify.payload for notify in self.session.notifies]

    def hear(self, count):
        return [json.loads(payload) for payload in self.payloads(count)]

    def statuses(self, verification_id, count):
        return [news["status"] for news in self.hear(count) if news["id"] == str(verification_id)]

    def all(self, gateway):
        """What was announced up to now, by verification."""
        gateway.execute(f"NOTIFY {self.channel}, 'the end'")
        heard = []
        while "the end" not in heard:
            heard = self.payloads(len(heard) + 1)
        by_id = {}
        for payload in heard[: heard.index("the end")]:
            news = json.loads(payload)
            by_id.setdefault(news["id"], []).append(news["status"])
        return by_id


@contextlib.contextmanager
def setting(cluster, name, value):
    """A setting of the server for a while: who is asked for something after this has it."""

    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    cluster.reload()
    try:
        yield
    finally:
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM RESET {name}")
        cluster.reload()


@pytest.fixture
def announced(gateway):
    with setting(gateway.cluster, "otp_gateway.notify", "on"), Listener(gateway) as listener:
        yield listener


@contextlib.contextmanager
def waiters(gateway, ids, timeout="60s"):
    """A session for each id that waits for it, once all of them do."""
    sessions = [gateway.connect() for _ in ids]
    try:
        running = [Running(session, WAIT, (id, timeout)) for session, id in zip(sessions, ids)]
        until(lambda: all_wait(gateway, sessions) or any(one.ended_at for one in running), "all of them wait", 60)
        assert [one.ended_at for one in running] == [None] * len(ids)
        yield running
    finally:
        for session in sessions:
            session.close()


def all_wait(gateway, sessions):
    return gateway.execute(
        "SELECT count(*)::int FROM pg_stat_activity WHERE pid = ANY (%s) AND state = 'active' AND wait_event_type = 'Extension'",
        ([session.info.backend_pid for session in sessions],),
    ) == [(len(sessions),)]


# wait


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_wait_for_a_queued_one(gateway, simulator, vendor):
    simulator.fault("hold", vendor, "send")
    id = gateway.enqueue(vendor)["verification_id"]
    simulator.held(1)
    with waiters(gateway, [id]) as [waiter]:
        simulator.release()
        row = waiter.row()
    assert (row["verification_id"], row["status"], row["outcome"], row["retryable"]) == (id, "pending", "sent", False)
    [(attempt,)] = gateway.execute("SELECT id FROM otp_gateway.attempt")
    assert row["attempt_id"] == attempt
    stored = gateway.verification(id)
    assert (row["reference"], row["expires_at"]) == (stored["reference"], stored["expires_at"])
    assert row["attempts_left"] == stored["max_checks"]


def test_its_row_has_the_columns_of_otp_send(gateway):
    sent = gateway.send()
    waited = gateway.wait(sent["verification_id"])
    assert list(waited) == list(sent)
    # And it says the same, as far as the record knows it.
    assert {**waited, "response": None} == {**sent, "response": None}


@pytest.mark.parametrize("timeout", ["0", "1min"])
def test_what_has_an_outcome_is_answered_at_once(gateway, simulator, timeout):
    """However short the time given; whatever became of it since."""
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    assert gateway.wait(id, timeout)["outcome"] == "sent"
    gateway.verify(id, simulator.wrong("ideamart", to))
    row = gateway.wait(id, timeout)
    assert (row["outcome"], row["status"], row["attempts_left"]) == ("sent", "pending", 2)
    gateway.verify(id, simulator.code("ideamart", to))
    row = gateway.wait(id, timeout)
    assert (row["outcome"], row["status"]) == ("sent", "approved")


def test_the_latest_of_several_sends(gateway, simulator):
    id = gateway.enqueue()["verification_id"]
    first = gateway.wait(id)
    simulator.fault("status", "ideamart", "send", status=503, times=1)
    again = gateway.row("SELECT * FROM otp_resend(%s)", (id,))
    row = gateway.wait(id)
    assert row["attempt_id"] == again["attempt_id"] != first["attempt_id"]
    assert row["outcome"] == again["outcome"] == "provider_error"


def test_an_immediate_send_can_be_waited_for_too(gateway, simulator):
    """By another session, while its own waits."""
    simulator.fault("hold", "ideamart", "send")
    caller = Running(
        gateway.connect(), "SELECT * FROM otp_send('ideamart', %s::jsonb)", (json.dumps({"mobile": gateway.number()}),)
    )
    simulator.held(1)
    [(id,)] = gateway.execute("SELECT id FROM otp_gateway.verification")
    with waiters(gateway, [id]) as [waiter]:
        simulator.release()
        assert caller.row()["outcome"] == "sent"
        assert waiter.row()["outcome"] == "sent"
    caller.session.close()


@pytest.mark.parametrize("operation", ["verify", "resend"])
def test_while_something_else_is_under_way(gateway, simulator, operation):
    """Its send has an outcome, and had it before: a verify or a resend that hangs is none of the waiter's business."""
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    # Ideamart's resend is a send.
    simulator.fault("hold", "ideamart", "send" if operation == "resend" else "verify")
    statement = (
        "SELECT * FROM otp_verify(%s::uuid, '123456')" if operation == "verify" else "SELECT * FROM otp_resend(%s)"
    )
    caller = Running(gateway.connect(), statement, (id,))
    simulator.held(1)
    waiter = Running(gateway.connect(), WAIT, (id, "60s"))
    if operation == "resend":
        # Of the two the latest counts, once it has an outcome.
        simulator.release()
    row = waiter.row()
    assert (row["status"], row["outcome"]) == ("pending", "sent")
    simulator.release()
    caller.row()
    caller.session.close()
    waiter.session.close()


def test_when_the_time_is_over(gateway, simulator):
    """The row as it is then: one that is at the vendor, and one that waits for its turn."""
    sending = gateway.full()["verification_id"]
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    for id, status in ((sending, "sending"), (queued, "queued")):
        for timeout, least in (("300ms", 0.3), ("0", 0)):
            began = time.monotonic()
            row = gateway.wait(id, timeout)
            assert (row["verification_id"], row["status"], row["outcome"], row["retryable"]) == (
                id,
                status,
                None,
                False,
            )
            assert time.monotonic() - began >= least
    simulator.release()
    assert [row["outcome"] for row in gateway.settle()] == ["sent"] * 2


def test_without_a_timeout(gateway, simulator):
    """As the function's declaration says: 30 seconds at most."""
    held = gateway.full()
    with gateway.connect() as session:
        running = Running(session, "SELECT * FROM otp_gateway.wait(%s)", (held["verification_id"],))
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'",
                (session.info.backend_pid,),
            ),
            "it waits",
        )
        simulator.release()
        assert running.row()["outcome"] == "sent"
    ((default,),) = gateway.execute(
        "SELECT pg_get_expr(proargdefaults, 0)::text FROM pg_proc WHERE oid = 'otp_gateway.wait(uuid, interval)'::regprocedure"
    )
    assert default == "'00:00:30'::interval"


def test_waiting_through_the_retries(gateway, simulator):
    """A try that failed is no outcome yet."""
    simulator.fault("status", "ideamart", "send", status=503, times=1)
    simulator.fault("hold", "ideamart", "send", times=1)
    id = gateway.enqueue()["verification_id"]
    with waiters(gateway, [id]) as [waiter]:
        simulator.held(1)
        assert waiter.ended_at is None
        simulator.release()
        row = waiter.row()
    assert (row["outcome"], row["status"]) == ("sent", "pending")
    assert gateway.attempts(id) == [("send", "provider_error"), ("send", "sent")]


def test_one_that_failed(gateway, simulator):
    simulator.fault("status", "ideamart", "send", status=404)
    id = gateway.enqueue()["verification_id"]
    row = gateway.wait(id)
    assert (row["outcome"], row["status"], row["attempts_left"]) == ("refused", "failed", 0)
    assert "404" in row["vendor_message"]


def test_one_that_is_canceled_meanwhile(gateway, simulator):
    gateway.full()
    id = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    with waiters(gateway, [id]) as [waiter]:
        gateway.execute("SELECT otp_cancel(%s)", (id,))
        assert waiter.row()["status"] == "canceled"


@pytest.mark.parametrize("timeout", ["0", "10min"])
def test_one_that_was_never_sent_is_not_waited_for(gateway, simulator, timeout):
    """Blocked, canceled in the queue, begun elsewhere: answered at once, with words that say that nothing will come."""
    to = gateway.number()
    gateway.create_provider("once", "ideamart", resend_after="1h")
    gateway.send("once", to, vendor="ideamart")
    gateway.full()
    ids = {
        "blocked": gateway.send("once", to, vendor="ideamart")["verification_id"],
        "blocked in the queue": gateway.enqueue("once", to, vendor="ideamart")["verification_id"],
        "canceled": gateway.enqueue("narrow", vendor="ideamart")["verification_id"],
        "begun elsewhere": gateway.verify_at("ideamart", "123456", reference=os.urandom(8).hex())["verification_id"],
    }
    gateway.execute("SELECT otp_cancel(%s)", (ids["canceled"],))
    gateway.wait(ids["blocked in the queue"])
    count = simulator.count("ideamart", "send")
    gateway.execute("SET statement_timeout = '20s'")
    rows = {name: gateway.wait(id, timeout) for name, id in ids.items()}
    gateway.execute("RESET statement_timeout")
    for name in ("blocked", "blocked in the queue"):
        row = rows[name]
        assert (row["status"], row["outcome"], row["reason"]) == ("blocked", "blocked", "resend_after")
        assert "nothing was sent" in row["vendor_message"] and row["retry_after"] is not None
    # There is no send of these: the outcome is null, as of one that is queued, and the words tell them apart.
    assert [rows[name]["outcome"] for name in ("canceled", "begun elsewhere")] == [None, None]
    assert [rows[name]["status"] for name in ("canceled", "begun elsewhere")] == ["canceled", "failed"]
    for name in ("canceled", "begun elsewhere"):
        assert "no send to wait for" in rows[name]["vendor_message"]
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    assert (gateway.wait(queued, "0")["status"], gateway.wait(queued, "0")["vendor_message"]) == ("queued", None)
    assert simulator.count("ideamart", "send") == count
    gateway.drain()


def test_many_wait(gateway, simulator):
    """For one, and each for its own."""
    simulator.fault("hold", "ideamart", "send")
    ids = gateway.enqueue_many(40)
    simulator.held(40)
    with waiters(gateway, ids + ids[:1] * 40) as running:
        simulator.release()
        rows = [one.row(60) for one in running]
    assert [row["verification_id"] for row in rows] == ids + ids[:1] * 40
    assert {row["outcome"] for row in rows} == {"sent"}
    assert simulator.count("ideamart", "send") == 40


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_wait_with_an_old_snapshot(gateway, simulator, isolation):
    """The transaction's snapshot says `sending` for ever; the wait knows better."""
    simulator.fault("hold", "ideamart", "send")
    id = gateway.enqueue()["verification_id"]
    simulator.held(1)
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}", session=session)
        gateway.execute("SELECT count(*) FROM otp_gateway.verification", session=session)
        running = Running(session, WAIT, (id, "60s"))
        until(lambda: all_wait(gateway, [session]), "it waits")
        simulator.release()
        assert running.row()["outcome"] == "sent"


def test_enqueue_commit_and_wait_in_a_procedure(gateway, simulator):
    gateway.execute("CREATE TABLE heard (outcome text)")
    try:
        gateway.execute(f"""DO $$ DECLARE id uuid; BEGIN
            id := (otp_enqueue('ideamart', '{{"mobile": "{gateway.number()}"}}')).verification_id;
            COMMIT;
            INSERT INTO heard SELECT outcome FROM otp_gateway.wait(id, '30s');
        END $$""")
        assert gateway.execute("SELECT * FROM heard") == [("sent",)]
    finally:
        gateway.execute("DROP TABLE heard")


# interrupts


def by_cancel(gateway, running):
    gateway.execute("SELECT pg_cancel_backend(%s)", (running.session.info.backend_pid,))


def by_terminate(gateway, running):
    gateway.execute("SELECT pg_terminate_backend(%s)", (running.session.info.backend_pid,))


@pytest.mark.parametrize("interrupt, sqlstate", [(by_cancel, "57014"), (by_terminate, "57P01")])
@pytest.mark.parametrize("status", ["sending", "queued"])
def test_interrupted(gateway, simulator, interrupt, sqlstate, status):
    """At once, long before its time is over; what is followed goes on."""
    id = gateway.full()["verification_id"]
    if status == "queued":
        id = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    with waiters(gateway, [id], "10min") as [waiter]:
        interrupt(gateway, waiter)
        waiter.wait(15)
        # libpq loses the FATAL of a connection that closes at once, now and then.
        assert waiter.error.pgcode in (sqlstate, None if sqlstate == "57P01" else sqlstate)
        if interrupt is by_cancel:
            assert gateway.wait(id, "0", waiter.session)["status"] == status
    simulator.release()
    assert gateway.wait(id)["outcome"] == "sent"


def test_statement_timeout(gateway, simulator):
    id = gateway.full()["verification_id"]
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute("SET statement_timeout = '200ms'", session=session)
        for _ in range(5):
            with pytest.raises(psycopg2.errors.QueryCanceled):
                gateway.wait(id, "10min", session)
        gateway.execute("RESET statement_timeout", session=session)
        simulator.release()
        assert gateway.wait(id, session=session)["outcome"] == "sent"
        assert gateway.send(session=session)["outcome"] == "sent"


def test_the_client_goes(gateway, simulator):
    """The slot that a waiter held is free again, however it went."""
    id = gateway.full()["verification_id"]
    for _ in range(3):
        with waiters(gateway, [id] * 20, "10min") as running:
            for one in running:
                by_terminate(gateway, one)
            for one in running:
                one.wait(30)
    simulator.release()
    assert gateway.wait(id)["outcome"] == "sent"


def test_the_worker_goes(gateway, simulator):
    """What was at the vendor is unknown, and its waiter hears it; what was queued is waited for on."""
    id = gateway.full()["verification_id"]
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    with waiters(gateway, [id, queued]) as [first, second]:
        gateway.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
        )
        assert first.row(30)["outcome"] == "unknown"
        # Nobody calls: who waits is enough to bring a new worker.
        assert second.row(60)["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2


def test_the_worker_goes_before_it_has_read_the_question(gateway, simulator):
    """It is asked of the next one."""
    id = gateway.full()["verification_id"]
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    [(worker,)] = gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    kill(worker, signal.SIGSTOP)
    try:
        with waiters(gateway, [id, queued]) as [first, second]:
            gateway.execute("SELECT pg_terminate_backend(%s)", (worker,))
            kill(worker, signal.SIGCONT)
            assert first.row(30)["outcome"] == "unknown"
            assert second.row(60)["outcome"] == "sent"
    finally:
        with contextlib.suppress(ProcessLookupError):
            kill(worker, signal.SIGCONT)


def test_the_worker_is_killed(own_cluster, simulator):
    """That is a crash of the server: who waited is told by the end of the connection, and may wait again."""
    with own_cluster.database() as name, Gateway(own_cluster, name, simulator) as gateway:
        gateway.create_provider("ideamart")
        id = gateway.full()["verification_id"]
        queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
        with waiters(gateway, [id, queued]) as running:
            kill(
                gateway.execute(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
                )[0][0]
            )
            for one in running:
                assert isinstance(one.wait(30).error, psycopg2.Error)
        gateway.session.close()

        def connected():
            try:
                gateway.session = gateway.connect()
                return True
            except psycopg2.OperationalError:
                return False

        until(connected, "the server is back", 60)
        assert gateway.wait(queued)["outcome"] == "sent"
        assert (gateway.wait(id)["outcome"], gateway.wait(id)["status"]) == ("unknown", "unknown")
        assert simulator.count("ideamart", "send") == 2


def test_drop_extension_while_somebody_waits(gateway, cluster, simulator):
    with cluster.database() as name, Gateway(cluster, name, simulator) as other:
        id = other.full()["verification_id"]
        with waiters(other, [id], "10min") as [waiter]:
            other.execute("SET statement_timeout = '30s'")
            other.execute("DROP EXTENSION otp_gateway CASCADE")
            waiter.wait(30)
            assert waiter.error is not None or waiter.rows[0]["outcome"] in (None, "unknown")


# what is refused


def test_what_cannot_be_waited_for(gateway):
    id = gateway.send()["verification_id"]
    for arguments, sqlstate, word in [
        ((UNKNOWN, "1s"), "42704", "no verification"),
        ((id, None), "22023", "timeout"),
        ((id, "-1s"), "22023", "timeout"),
        ((id, "1 day -25 hours"), "22023", "timeout"),
        ((None, "1s"), "22023", "verification_id"),
    ]:
        with pytest.raises(psycopg2.Error) as error:
            gateway.execute(WAIT, arguments)
        assert (error.value.pgcode, word in error.value.diag.message_primary) == (sqlstate, True), error.value
        assert error.value.diag.message_hint


def test_what_was_rolled_back_is_not_known(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SAVEPOINT s", session=session)
        id = gateway.enqueue(session=session)["verification_id"]
        gateway.execute("ROLLBACK TO s", session=session)
        with pytest.raises(psycopg2.errors.UndefinedObject):
            gateway.wait(id, "1min", session)
    with pytest.raises(psycopg2.errors.UndefinedObject):
        gateway.wait(id, "1min")


def test_whose_it_is(gateway):
    """Of the role that enqueued it, and of who is a member of that role."""
    owner, member, stranger = (f"{name}_{os.urandom(4).hex()}" for name in ("owner", "member", "stranger"))
    gateway.execute(f"CREATE ROLE {owner}; CREATE ROLE {member} LOGIN IN ROLE {owner}; CREATE ROLE {stranger} LOGIN")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {owner}")
    try:
        with gateway.cluster.session(gateway.database, user=member) as session:
            gateway.execute(f"SET ROLE {owner}", session=session)
            id = gateway.enqueue(session=session)["verification_id"]
            gateway.execute("RESET ROLE", session=session)
            assert gateway.wait(id, session=session)["outcome"] == "sent"
        with gateway.cluster.session(gateway.database, user=stranger) as session:
            with pytest.raises(psycopg2.errors.UndefinedObject):
                gateway.wait(id, "1min", session)
    finally:
        gateway.execute(f"DROP OWNED BY {owner}; DROP ROLE {member}; DROP ROLE {owner}; DROP ROLE {stranger}")


# notify


def test_off_by_default(gateway):
    assert gateway.execute("SHOW otp_gateway.notify") == [("off",)]
    with Listener(gateway) as listener:
        gateway.wait(gateway.enqueue()["verification_id"])
        gateway.send()
        gateway.execute(f"NOTIFY {listener.channel}, 'by somebody else'")
        assert listener.payloads(1) == ["by somebody else"]


def test_a_queued_one_is_announced(gateway, simulator, announced):
    to = gateway.number()
    id = gateway.enqueue(to=to)["verification_id"]
    gateway.wait(id)
    assert announced.hear(3) == [
        {"id": str(id), "provider": "ideamart", "status": status} for status in ("queued", "sending", "pending")
    ]
    # A wrong code changes no status.
    gateway.verify(id, simulator.wrong("ideamart", to))
    gateway.verify(id, simulator.code("ideamart", to))
    assert announced.statuses(id, 4) == ["queued", "sending", "pending", "approved"]
    assert to not in str(announced.payloads(4))


def test_an_immediate_one_is_announced(gateway, simulator, announced):
    to = gateway.number("relid")
    sent = gateway.send("relid", to)
    for _ in range(sent["attempts_left"]):
        gateway.verify(sent["verification_id"], simulator.wrong("relid", to))
    assert announced.hear(3) == [
        {"id": str(sent["verification_id"]), "provider": "relid", "status": status}
        for status in ("sending", "pending", "max_attempts_reached")
    ]
    canceled = gateway.send("relid")["verification_id"]
    gateway.execute("SELECT otp_cancel(%s)", (canceled,))
    assert announced.statuses(canceled, 6) == ["sending", "pending", "canceled"]


def test_an_odd_name_is_announced_as_it_is(gateway, announced):
    odd = 'Ideamart "two" \\ é'
    gateway.create_provider('"Ideamart ""two"" \\ é"', "ideamart")
    id = gateway.enqueue(odd, vendor="ideamart")["verification_id"]
    assert [news["provider"] for news in announced.hear(3)] == [odd] * 3
    assert gateway.wait(id)["outcome"] == "sent"


def test_what_is_rolled_back_is_not_announced(gateway, announced):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.enqueue(session=session)
        session.rollback()
    id = gateway.enqueue()["verification_id"]
    assert {news["id"] for news in announced.hear(3)} == {str(id)}


def test_retries_are_announced(gateway, simulator, announced):
    simulator.fault("status", "ideamart", "send", status=503, times=1)
    id = gateway.enqueue()["verification_id"]
    assert announced.statuses(id, 5) == ["queued", "sending", "queued", "sending", "pending"]


@pytest.mark.parametrize(
    "status, fault", [("failed", {"kind": "status", "status": 404}), ("unknown", {"kind": "close_after_read"})]
)
def test_how_it_failed_is_announced(gateway, simulator, announced, status, fault):
    simulator.fault(vendor="ideamart", operation="send", **fault)
    id = gateway.enqueue()["verification_id"]
    assert announced.statuses(id, 3) == ["queued", "sending", status]


def test_a_code_that_is_too_old_is_announced(gateway, simulator, announced):
    gateway.create_provider("brief", "ideamart", code_lifetime="1s")
    to = gateway.number()
    sent = gateway.send("brief", to, vendor="ideamart")
    until(
        lambda: gateway.execute("SELECT clock_timestamp() >= %s", (sent["expires_at"],)) == [(True,)],
        "the end of its time",
    )
    gateway.verify(sent["verification_id"], simulator.code("ideamart", to))
    assert announced.statuses(sent["verification_id"], 3) == ["sending", "pending", "expired"]


def test_what_leaves_the_queue_unsent_is_announced(gateway, simulator, announced):
    """Too old, canceled, or spoilt: and nothing of a `sending` that never was."""
    first = gateway.full()["verification_id"]
    old, canceled, spoilt = (gateway.enqueue("narrow", vendor="ideamart")["verification_id"] for _ in range(3))
    gateway.execute("SELECT otp_cancel(%s)", (canceled,))
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET created_at = created_at - interval '1 day' WHERE id = %s",
        (old,),
    )
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET sealed = '\\x00'::bytea || sealed WHERE id = %s", (spoilt,)
    )
    simulator.release()
    gateway.settle()
    by_id = announced.all(gateway)
    # Canceled before the worker had come to it, it was never announced as queued.
    assert by_id.pop(str(canceled)) in (["queued", "canceled"], ["canceled"])
    assert by_id == {
        str(first): ["queued", "sending", "pending"],
        str(old): ["queued", "expired"],
        str(spoilt): ["queued", "failed"],
    }


def test_a_listener_elsewhere_hears_of_its_own_database_alone(cluster, gateway, announced, simulator):
    with cluster.database() as name, Gateway(cluster, name, simulator) as other, Listener(other) as theirs:
        gateway.wait(gateway.enqueue()["verification_id"])
        other.execute(f"NOTIFY {theirs.channel}, 'last'")
        assert theirs.payloads(1) == ["last"]
        announced.hear(3)


@pytest.fixture
def neighbours(gateway):
    """Two applications that share a database, and a role that is a member of the first without its rights."""
    shop, bank, heir, guest = names = [f"{name}_{os.urandom(3).hex()}" for name in ("shop", "bank", "heir", "guest")]
    gateway.execute(f"CREATE ROLE {shop} LOGIN; CREATE ROLE {bank} LOGIN; CREATE ROLE {heir} LOGIN IN ROLE {shop}")
    gateway.execute(f"CREATE ROLE {guest} LOGIN NOINHERIT IN ROLE {shop}")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {shop}, {bank}")
    try:
        yield names
    finally:
        for name in names[::-1]:
            gateway.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def sent_by(gateway, role):
    with gateway.cluster.session(gateway.database, user=role) as session:
        id = gateway.enqueue(session=session)["verification_id"]
        assert gateway.wait(id, session=session)["outcome"] == "sent"
        return str(id)


def test_each_role_hears_of_its_own_alone(gateway, announced, neighbours):
    """Of what it began, and who has its rights may listen there, too; nobody hears of a neighbour's."""
    shop, bank, heir, _ = neighbours
    with (
        Listener(gateway, user=shop) as at_shop,
        Listener(gateway, user=bank) as at_bank,
        Listener(gateway, shop, user=heir) as at_heir,
        Listener(gateway, shop) as superuser,
        Listener(gateway, user=heir) as of_heir,
    ):
        assert len({at_shop.channel, at_bank.channel, of_heir.channel, announced.channel}) == 4
        assert at_shop.channel == at_heir.channel == superuser.channel
        ids = [sent_by(gateway, role) for role in (shop, bank)]
        for listener, id in zip((at_shop, at_bank, at_heir, superuser), (ids[0], ids[1], ids[0], ids[0]), strict=True):
            assert [(one["id"], one["status"]) for one in listener.hear(3)] == [
                (id, s) for s in ("queued", "sending", "pending")
            ]
        mine = str(gateway.send()["verification_id"])
        for listener in (at_shop, at_bank, at_heir, of_heir, announced):
            heard = listener.all(gateway)
            wanted = {announced: {mine}, at_bank: {ids[1]}, of_heir: set()}.get(listener, {ids[0]})
            assert set(heard) == wanted


def test_what_a_superuser_begins_for_a_role_is_that_roles(gateway, announced, neighbours):
    """SET ROLE, and a SECURITY DEFINER function: the role that is in force."""
    shop, bank, *_ = neighbours
    with Listener(gateway, user=shop) as listener, gateway.cluster.session(gateway.database) as session:
        gateway.execute(f"SET ROLE {shop}", session=session)
        assert gateway.execute("SELECT otp_gateway.channel()", session=session) == [(listener.channel,)]
        id = str(gateway.send(session=session)["verification_id"])
        assert listener.statuses(id, 2) == ["sending", "pending"]
        # And who becomes another role does not become its listener.
        gateway.execute(f"SET ROLE {bank}", session=session)
        assert gateway.execute("SELECT otp_gateway.channel()", session=session) != [(listener.channel,)]


def test_nobody_is_told_of_a_neighbours_channel(gateway, neighbours):
    shop, bank, _, guest = neighbours
    for role in (bank, guest):
        with gateway.cluster.session(gateway.database, user=role) as session:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="you may not listen to what"):
                gateway.execute("SELECT otp_gateway.channel(%s)", (shop,), session)
    with pytest.raises(psycopg2.errors.UndefinedObject, match="role nobody_of_that_name does not exist"):
        gateway.execute("SELECT otp_gateway.channel('nobody_of_that_name')")
    with pytest.raises(psycopg2.errors.InvalidParameterValue):
        gateway.execute("SELECT otp_gateway.channel(NULL)")
    # No more than a name that every client takes, and cannot be guessed.
    assert re.fullmatch("otp_gateway_[0-9a-f]{32}", gateway.execute("SELECT otp_gateway.channel()")[0][0])


def test_a_role_of_a_name_that_was_is_another(gateway, announced):
    """Who takes a dropped role's name does not hear what is announced to the one before."""
    name = f"temp_{os.urandom(3).hex()}"
    gateway.execute(f"CREATE ROLE {name} LOGIN")
    before = Listener(gateway, name).channel
    gateway.execute(f"ALTER ROLE {name} RENAME TO {name}_renamed")
    with Listener(gateway, f"{name}_renamed") as renamed:
        assert renamed.channel == before
    gateway.execute(f"DROP ROLE {name}_renamed; CREATE ROLE {name} LOGIN")
    with Listener(gateway, name) as another:
        assert another.channel != before
    gateway.execute(f"DROP ROLE {name}")


def test_with_a_dead_provider_every_try_is_announced(gateway, announced):
    with setting(gateway.cluster, "otp_gateway.max_tries", "2"):
        gateway.create_provider("dead", "ideamart", base_url=f"http://127.0.0.1:{free_port()}/ideamart")
        id = gateway.enqueue("dead", vendor="ideamart")["verification_id"]
        assert announced.statuses(id, 5) == ["queued", "sending", "queued", "sending", "failed"]


def test_what_another_session_asks_meanwhile_is_not_what_is_waited_for(gateway, simulator):
    """A verify or a resend of what is still queued is `not_found`, for whoever asked; the send goes on, and so does the wait."""
    gateway.full()
    id = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    waiting = Running(gateway.connect(), WAIT, (id, "30s"))
    pid = waiting.session.get_backend_pid()
    asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'"
    until(lambda: gateway.execute(asleep, (pid,)), "it waits")
    assert gateway.verify(id, "123456")["outcome"] == "not_found"
    assert gateway.verify(id, "")["outcome"] == "not_found"
    assert gateway.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "not_found"
    gateway.drain()
    row = waiting.row()
    waiting.session.close()
    assert (row["outcome"], row["status"]) == ("sent", "pending")
