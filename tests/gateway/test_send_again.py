"""Promise: a sign-up whose code never left, or is over, is no dead end. One UPDATE, which any ORM can write, has a new code
sent for the row as it is, under the same limits; while a code is on its way it changes nothing, however often it is asked.
And whoever asks what became of a code is told why it was refused and how long to wait, whenever they ask."""

import datetime
import uuid

import pytest

from conftest import Running, until
from test_documented_functions import DOCUMENTED, bank
from test_trigger import IDEAMART, check_sent, customers, ids_in_rows, insert, trigger
from test_trigger import gateway as gateway

AGAIN = "UPDATE customer SET verification_id = otp_gateway.send_again(verification_id)"
ZERO = datetime.timedelta(0)


@pytest.fixture
def table(gateway):
    customers(gateway, "phone text, name text, verification_id uuid")
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    return gateway


def link(gateway):
    return gateway.execute("SELECT verification_id FROM customer ORDER BY id")[0][0]


def over(gateway, simulator, how, to):
    """The verification of the customer's row, which is over."""
    id = link(gateway)
    gateway.wait(id)
    if how == "canceled":
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET status = 'canceled', sealed = NULL WHERE id = %s",
            (id,),
        )
    elif how == "approved":
        assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    elif how == "max_attempts_reached":
        for _ in range(3):
            gateway.verify(id, simulator.wrong("ideamart", to))
    elif how == "expired":
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET status = 'expired', sealed = NULL WHERE id = %s", (id,)
        )
    elif how == "too old":
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET expires_at = now() - interval '1 s' WHERE id = %s",
            (id,),
        )
    elif how == "unknown to us":
        gateway.execute("UPDATE customer SET verification_id = gen_random_uuid()")
    elif how == "NULL":
        gateway.execute(
            "ALTER TABLE customer DISABLE TRIGGER ALL; UPDATE customer SET verification_id = NULL; ALTER TABLE customer ENABLE TRIGGER ALL"
        )
    return id


@pytest.mark.parametrize(
    "how", ["canceled", "approved", "max_attempts_reached", "expired", "too old", "unknown to us", "NULL"]
)
def test_once_it_is_over(table, simulator, how):
    to = table.number()
    insert(table, to)
    before = over(table, simulator, how, to)
    table.execute(AGAIN)
    id = link(table)
    assert id != before and table.wait(id)["outcome"] == "sent"
    assert simulator.count("ideamart", "send", to) == 2
    # The same person: what was wrong before counts on.
    if how != "max_attempts_reached":
        assert table.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"


EARLY = {
    # How the row is mapped, and what has the vendor say that the code is over, long before we thought so.
    "hyperverge": ('{"mobile": "phone", "template_id": "=tpl-1", "otp_expiry": "=1"}', "verify"),
    "msg91": ('{"mobile": "phone", "template_id": "=0123456789abcdef01234567", "otp_expiry": "=1"}', "resend"),
}


@pytest.mark.parametrize("vendor, asked", [("hyperverge", "verify"), ("msg91", "resend"), ("msg91", "verify")])
def test_once_the_vendor_says_so(gateway, simulator, vendor, asked):
    """Before the time that we have on record: the vendor counts from another moment, or by another setting."""
    customers(gateway, "phone text, name text, verification_id uuid")
    trigger(gateway, "BEFORE INSERT OR UPDATE", vendor, EARLY[vendor][0], "verification_id")
    to = gateway.number(vendor)
    insert(gateway, to)
    before = link(gateway)
    assert gateway.wait(before)["outcome"] == "sent"
    simulator.advance(61)
    if asked == "resend":
        simulator.fault(
            "status", vendor, "resend", times=1, status=200, body={"type": "error", "message": "OTP expired"}
        )
        row = gateway.row("SELECT * FROM otp_resend(%s)", (before,))
    else:
        row = gateway.verify(before, simulator.code(vendor, to))
    # No page of HyperVerge's has the words: they end no verification, but nobody waits for its end.
    assert (row["outcome"], row["status"]) == ("expired", "pending" if vendor == "hyperverge" else "expired")
    assert gateway.verification(before)["status"] == row["status"]
    gateway.execute(AGAIN)
    id = link(gateway)
    assert id != before and gateway.wait(id)["outcome"] == "sent"
    assert gateway.verify(id, simulator.code(vendor, to, atleast=2))["outcome"] == "approved"


def test_a_send_that_failed(table, simulator):
    to = table.number()
    simulator.fault("status", "ideamart", "send", status=404)
    insert(table, to)
    assert table.wait(link(table))["status"] == "failed"
    simulator.clear_faults()
    table.execute(AGAIN)
    assert table.wait(link(table))["outcome"] == "sent"


def test_while_it_is_open_nothing_changes(table, simulator):
    """Queued, in the transaction that enqueued it and after it; sent; of an unknown end."""
    to = table.number()
    table.execute(f"BEGIN; INSERT INTO customer (phone) VALUES ('{to}'); {AGAIN}; {AGAIN}; COMMIT")
    id = link(table)
    assert table.wait(id)["outcome"] == "sent"
    table.execute(AGAIN)
    table.execute("UPDATE otp_gateway_internal.verification_record SET status = 'unknown'")
    table.execute(AGAIN)
    assert link(table) == id
    assert simulator.count("ideamart", "send", to) == 1
    # The way to send an open one again.
    assert table.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "sent"


def test_an_object_that_is_older_than_its_row(table, simulator):
    """An ORM saves all columns as it read them: the id that it knows does not take the place of the one that came since.
    An id that is no older one is written as it is."""
    to = table.number()
    insert(table, to)
    before = over(table, simulator, "expired", to)
    table.execute(AGAIN)
    id = link(table)
    table.execute("UPDATE customer SET phone = %s, name = 'Asha', verification_id = %s", (to, before))
    assert link(table) == id
    table.wait(id)
    another = table.send(to=to)["verification_id"]
    for given in (another, uuid.uuid4()):
        table.execute("UPDATE customer SET verification_id = %s", (given,))
        assert link(table) == given
    # One that is not ours is no younger than anything.
    table.execute("UPDATE customer SET verification_id = %s", (before,))
    assert link(table) == before


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_two_clicks_at_once(table, simulator, level):
    """One message: the second finds the first one's, or has to try again."""
    to = table.number()
    insert(table, to)
    over(table, simulator, "expired", to)
    one, two = table.connect(autocommit=False), table.connect(autocommit=False)
    try:
        for session in (one, two):
            session.set_session(isolation_level=level)
        table.execute(AGAIN, session=one)
        running = Running(two, AGAIN)
        until(
            lambda: table.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s", (two.info.backend_pid,)
            ),
            "the second waits for the first",
        )
        one.commit()
        assert (running.wait().error is None) == (level == "READ COMMITTED")
        two.commit()
        table.execute(AGAIN, session=two)
        two.commit()
    finally:
        one.close()
        two.close()
    assert table.wait(link(table))["outcome"] == "sent"
    assert simulator.count("ideamart", "send", to) == 2


def test_rolled_back(table, simulator):
    to = table.number()
    insert(table, to)
    before = over(table, simulator, "expired", to)
    table.execute(f"BEGIN; {AGAIN}; ROLLBACK")
    assert link(table) == before
    assert [row["status"] for row in table.settle()] == ["expired"] and simulator.count() == 1


def test_a_row_with_no_number_stays_as_it_is(table, simulator):
    table.execute("INSERT INTO customer (name) VALUES ('Asha')")
    table.execute(AGAIN)
    assert link(table) is None
    # As a value of an INSERT, it is a row like any other.
    to = table.number()
    table.execute(
        "DELETE FROM customer; INSERT INTO customer (phone, verification_id) VALUES (%s, otp_gateway.send_again(NULL))",
        (to,),
    )
    assert list(ids_in_rows(table).values()) == [to]
    check_sent(table, simulator, to)


def test_a_changed_number_and_again(table, simulator):
    """Together they are one."""
    one, two = table.number(), table.number()
    insert(table, one)
    over(table, simulator, "expired", one)
    table.execute(f"UPDATE customer SET phone = '{two}', verification_id = otp_gateway.send_again(verification_id)")
    assert table.wait(link(table))["outcome"] == "sent"
    assert [simulator.count("ideamart", "send", to) for to in (one, two)] == [1, 1]


# limits, and what one is told of them


@pytest.fixture
def slow(gateway):
    """A provider with a wait between two sends, and its registration table."""
    gateway.create_provider("slow", "ideamart", resend_after="2s")
    customers(gateway, "phone text, name text, verification_id uuid")
    trigger(gateway, "BEFORE INSERT OR UPDATE", "slow", IDEAMART[1], "verification_id")
    return gateway


def test_two_rows_of_one_phone(slow, simulator):
    """A form that was sent twice: the first row has the code, and the second is told when it may have one of its own."""
    to = slow.number()
    insert(slow, to, to)
    first, second = [id for (id,) in slow.execute("SELECT verification_id FROM customer ORDER BY id")]
    rows = {id: slow.wait(id) for id in (first, second)}
    sent, blocked = sorted(rows, key=lambda id: rows[id]["outcome"], reverse=True)
    assert (rows[sent]["outcome"], rows[blocked]["outcome"]) == ("sent", "blocked")
    # Whenever one asks, and however.
    for ask in (
        "SELECT * FROM otp_gateway.wait(%s, '1s')",
        "SELECT * FROM otp_resend(%s)",
        "SELECT * FROM otp_verify(%s::uuid, '000000')",
    ):
        row = slow.row(ask, (blocked,))
        assert (row["status"], row["outcome"], row["reason"]) == ("blocked", "blocked", "resend_after"), ask
        assert ZERO <= row["retry_after"] <= datetime.timedelta(seconds=2), ask
        assert row["vendor_message"], ask
    assert "otp_gateway.send_again" in slow.row("SELECT * FROM otp_resend(%s)", (blocked,))["vendor_message"]
    # The first row's person types the code there.
    assert slow.verify(sent, simulator.code("ideamart", to))["outcome"] == "approved"
    # The second one's waits, and asks again.
    again = f"{AGAIN} WHERE verification_id = %s RETURNING verification_id"
    until(lambda: slow.wait(blocked)["retry_after"] == ZERO, "the wait is over")
    [(id,)] = slow.execute(again, (blocked,))
    assert slow.wait(id)["outcome"] == "sent"
    assert slow.verify(id, simulator.code("ideamart", to, atleast=2))["outcome"] == "approved"


def test_too_soon(slow, simulator):
    """The same limits: it is blocked like any other send, and can be asked for again."""
    to = slow.number()
    insert(slow, to)
    over(slow, simulator, "expired", to)
    slow.execute(AGAIN)
    row = slow.wait(link(slow))
    assert (row["outcome"], row["reason"], row["retryable"]) == ("blocked", "resend_after", True)
    until(lambda: slow.wait(link(slow))["retry_after"] == ZERO, "the wait is over")
    slow.execute(AGAIN)
    assert slow.wait(link(slow))["outcome"] == "sent"
    assert simulator.count("ideamart", "send", to) == 2


def test_whoever_waits_and_whoever_asks_later_hear_the_same(slow):
    to = slow.number()
    slow.send("slow", to, vendor="ideamart")
    row = slow.send("slow", to, vendor="ideamart")
    later = slow.wait(row["verification_id"])
    for name in ("outcome", "reason", "retryable", "vendor_message"):
        assert later[name] == row[name], name
    assert later["retry_after"] <= row["retry_after"]


def test_an_idempotency_key_of_what_was_blocked(slow):
    to = slow.number()
    slow.send("slow", to, vendor="ideamart")
    call = "SELECT * FROM otp_enqueue('slow', jsonb_build_object('mobile', %s::text), 'key')"
    id = slow.row(call, (to,))["verification_id"]
    slow.wait(id)
    row = slow.row(call, (to,))
    assert (row["verification_id"], row["outcome"], row["reason"]) == (id, "blocked", "resend_after")
    assert row["retry_after"] is not None


def test_what_the_vendor_says_of_a_wait(gateway, simulator):
    simulator.fault("status", "ideamart", "send", status=429, headers={"Retry-After": "7"})
    row = gateway.send(to=gateway.number())
    later = gateway.wait(row["verification_id"])
    assert row["outcome"] == later["outcome"] == "rate_limited"
    assert datetime.timedelta(seconds=1) < later["retry_after"] <= row["retry_after"] == datetime.timedelta(seconds=7)


ENDS = ["approved", "canceled", "expired", "max_attempts_reached"]


@pytest.mark.parametrize("how", ENDS)
def test_a_resend_of_what_is_over_says_what_to_do(table, simulator, how):
    to = table.number()
    insert(table, to)
    id = over(table, simulator, how, to)
    row = table.row("SELECT * FROM otp_resend(%s)", (id,))
    assert (
        row["status"] == how
        and "otp_send" in row["vendor_message"]
        and "otp_gateway.send_again" in row["vendor_message"]
    )
    recorded = table.row("SELECT vendor_message FROM otp_gateway.attempt ORDER BY id DESC LIMIT 1")
    assert recorded["vendor_message"] == row["vendor_message"]


def test_a_resend_of_what_is_queued_says_what_to_do(gateway):
    gateway.full()
    id = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    row = gateway.row("SELECT * FROM otp_resend(%s)", (id,))
    assert row["outcome"] == "not_found" and "otp_gateway.wait" in row["vendor_message"]


# the documented function


# It stands beside the one that verifies.
WHERE = [where for where, made in DOCUMENTED.items() if any("public.send_code_again(" in one for one in made)]


@pytest.mark.parametrize("where", WHERE)
def test_the_documented_function(cluster, simulator, where):
    """By the application: the verification is its own, so that it can wait for it."""
    with bank(cluster, simulator, DOCUMENTED[where]) as registry:
        ((phone, before),) = registry.execute(
            "SELECT phone, verification_id FROM public.customer WHERE id = %s", (registry.victim,)
        )
        again, which = (
            "SELECT outcome FROM public.send_code_again(%s)",
            "SELECT verification_id FROM public.customer WHERE id = %s",
        )
        # While it is open its code is sent once more.
        assert registry.as_app(again, (registry.victim,)) == [("sent",)]
        assert registry.as_app(which, (registry.victim,)) == [(before,)]
        registry.execute("UPDATE otp_gateway_internal.verification_record SET status = 'expired', sealed = NULL")
        assert registry.as_app(again, (registry.victim,)) == [("queued",)]
        [(id,)] = registry.as_app(which, (registry.victim,))
        registry.as_app("SET search_path = public, otp")
        assert id != before and registry.gateway.wait(id, session=registry.session)["outcome"] == "sent"
        code = simulator.code("ideamart", phone, atleast=3)
        assert registry.as_app("SELECT outcome FROM public.verify_customer(%s, %s)", (registry.victim, code)) == [
            ("approved",)
        ]
        # Who is active needs none.
        assert registry.as_app(again, (registry.victim,)) == [("verified",)]
        assert simulator.count("ideamart", "send", phone) == 3


@pytest.mark.parametrize("where", WHERE)
def test_two_clicks_are_one_message(cluster, simulator, where):
    """The second waits for the first one's transaction, and sees what it has begun."""
    with bank(cluster, simulator, DOCUMENTED[where]) as registry:
        ((phone,),) = registry.execute("SELECT phone FROM public.customer WHERE id = %s", (registry.victim,))
        registry.execute("UPDATE otp_gateway_internal.verification_record SET status = 'expired', sealed = NULL")
        again = "SELECT outcome FROM public.send_code_again(%s)"
        database, user = registry.gateway.database, registry.app
        with cluster.session(database, user=user, autocommit=False) as one, cluster.session(database, user=user) as two:
            assert registry.execute(again, (registry.victim,), one) == [("queued",)]
            second = Running(two, again, (registry.victim,))
            until(
                lambda: registry.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s",
                    (two.info.backend_pid,),
                ),
                "it waits for the row",
            )
            simulator.fault("hold", "ideamart", "send", times=1)
            one.commit()
            assert second.row()["outcome"] == "queued"
            simulator.held(1)
            simulator.release()
        simulator.code("ideamart", phone, atleast=2)
        registry.gateway.settle()
        assert simulator.count("ideamart", "send", phone) == 2


def test_they_are_found():
    assert "sign_up.sql public.verify_customer" in WHERE
