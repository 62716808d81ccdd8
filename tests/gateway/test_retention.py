"""Promise: the record is kept for as long as it is to be kept, and no longer. What is older than otp_gateway.retention goes by
itself, in small parts; nothing goes that a limit, an idempotency key or a call on its way still needs. A person who asks for it
is forgotten, everywhere in the record, and what is known of the bill stays known. By number one finds one's own."""

import contextlib
import threading
import uuid

import psycopg2
import pytest

from conftest import FLOWS, Gateway, Running, until
from vendors import spelled

DAY = 86400


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@contextlib.contextmanager
def acting_as(gateway, name, *grants):
    """A session of a role of this name."""
    gateway.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN")
    for grant in grants:
        gateway.execute(grant)
    session = gateway.connect(user=name)
    try:
        yield session
    finally:
        session.close()
        gateway.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def usage(server, *roles):
    return f"GRANT USAGE ON FOREIGN SERVER {server} TO {', '.join(roles)}"


def aged(gateway, ids, days):
    """Makes verifications, and all that is on record of them, that many days older: their ids, which hold the time, too."""
    old = {}
    for id in ids:
        value = id.int
        older = uuid.UUID(int=(((value >> 80) - int(days * DAY * 1000)) << 80) | (value & ((1 << 80) - 1)))
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET id = %s, created_at = created_at - %s * interval '1 day' WHERE id = %s",
            (older, days, id),
        )
        gateway.execute(
            "UPDATE otp_gateway_internal.attempt_record SET verification_id = %s, started_at = started_at - %s * interval '1 day',"
            " finished_at = finished_at - %s * interval '1 day' WHERE verification_id = %s",
            (older, days, days, id),
        )
        gateway.execute(
            "UPDATE otp_gateway_internal.reference SET verification_id = %s WHERE verification_id = %s", (older, id)
        )
        old[id] = older
    return [old[id] for id in ids]


def sent(gateway, count=1, provider="ideamart", **payload):
    return [gateway.send(provider, vendor="ideamart", **payload)["verification_id"] for _ in range(count)]


def on_record(gateway):
    """Ids of verifications, attempts' verifications, references' verifications."""
    return [
        {id for (id,) in gateway.execute(f"SELECT {column} FROM otp_gateway_internal.{table}")}
        for table, column in [
            ("verification_record", "id"),
            ("attempt_record", "verification_id"),
            ("reference", "verification_id"),
        ]
    ]


@contextlib.contextmanager
def retention(gateway, value):
    gateway.execute(f"ALTER SYSTEM SET otp_gateway.retention = '{value}'")
    gateway.cluster.reload()
    try:
        yield
    finally:
        gateway.execute("ALTER SYSTEM RESET otp_gateway.retention")
        gateway.cluster.reload()


# retention


def test_the_default(gateway):
    assert gateway.execute("SHOW otp_gateway.retention") == [("90d",)]


def test_what_is_too_old_goes_by_itself(gateway):
    """With its attempts and references; what is not, stays."""
    old, new = aged(gateway, sent(gateway, 3), 31), aged(gateway, sent(gateway, 3), 29)
    now = sent(gateway, 2)
    with retention(gateway, "30d"):
        until(lambda: not on_record(gateway)[0] & set(old), "they are deleted")
        assert on_record(gateway) == [set(new + now)] * 3


def test_a_backlog_goes_in_parts(gateway):
    """More than one part takes; calls are served meanwhile."""
    gateway.execute(
        "WITH v AS (INSERT INTO otp_gateway_internal.verification_record (id, provider, vendor, status, created_by, created_at, send_count,"
        " check_count, max_checks) SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'ideamart', 'ideamart',"
        " 'approved', 'postgres', now() - interval '100 days', 1, 1, 3 FROM generate_series(1, 20000) AS n RETURNING id)"
        " INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, provider)"
        " SELECT gen_random_uuid(), id, 'send', 'sent', now() - interval '100 days', 'ideamart' FROM v"
    )
    with retention(gateway, "80d"):
        new = sent(gateway, 5)
        until(
            lambda: gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.attempt_record") == [(5,)],
            "they are deleted",
            60,
        )
        assert on_record(gateway) == [set(new)] * 3


def test_zero_keeps_all(gateway):
    old = aged(gateway, sent(gateway, 2), 4000)
    with retention(gateway, "0"):
        # A round of the worker after it has read the setting.
        new = sent(gateway)
        assert on_record(gateway)[0] == set(old + new)


def test_what_limits_look_back_on_stays(gateway, simulator):
    """However short the retention: a day for idempotency keys, and as long as the longest window."""
    gateway.create_provider("limited", "ideamart", send_limit="2 per 20 days")
    to = gateway.number()
    for _ in range(2):
        id = gateway.send("limited", to, vendor="ideamart")["verification_id"]
        aged(gateway, [id], 19)
    gone = aged(gateway, sent(gateway), 21)
    with retention(gateway, "1s"):
        until(lambda: not on_record(gateway)[0] & set(gone), "the older one is deleted")
        assert gateway.send("limited", to, vendor="ideamart")["reason"] == "send_limit"


def test_what_is_on_its_way_or_was_lately_used_stays(gateway, simulator):
    """A verification of long ago that was checked today; one whose check is at the vendor."""
    to = gateway.number("hyperverge")
    checked, flying = (aged(gateway, [gateway.send("hyperverge", to)["verification_id"]], 100)[0] for _ in range(2))
    # Sealed for the ids that they had.
    gateway.execute("UPDATE otp_gateway_internal.verification_record SET expires_at = NULL, sealed = NULL")
    assert gateway.verify(checked, "000000", mobile=to)["outcome"] == "invalid_code"
    gone = aged(gateway, sent(gateway), 101)
    simulator.fault("hold", "hyperverge", "verify", times=1)
    with gateway.cluster.session(gateway.database) as session:
        running = Running(
            session, "SELECT * FROM otp_verify(%s::uuid, '111111', %s::jsonb)", (flying, f'{{"mobile": "{to}"}}')
        )
        simulator.held(1)
        with retention(gateway, "90d"):
            until(lambda: not on_record(gateway)[0] & set(gone), "the other one is deleted")
            assert on_record(gateway)[0] == {checked, flying}
        simulator.release()
        running.wait()


def test_queued_ones_stay(gateway, simulator):
    gateway.full()
    queued = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    gone = aged(gateway, sent(gateway), 100)
    with retention(gateway, "90d"):
        until(lambda: not on_record(gateway)[0] & set(gone), "the other one is deleted")
        assert queued in on_record(gateway)[0]


def test_after_a_restart(own_cluster, simulator):
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart")
        old, new = aged(gateway, sent(gateway, 2), 91), sent(gateway)
        gateway.session.close()
        own_cluster.restart()
        gateway.session = gateway.connect()
        until(lambda: not on_record(gateway)[0] & set(old), "they are deleted")
        assert on_record(gateway)[0] == set(new)


# what is sealed


COPIES = """
INSERT INTO otp_gateway_internal.verification_record (id, provider, vendor, status, recipient_key, created_by, created_at, expires_at,
    send_count, check_count, max_checks, sealed, is_test, provider_id, role_id)
SELECT (substr(v.id::text, 1, 18) || '-' || substr(md5(n::text), 1, 4) || '-' || substr(md5(n::text), 5, 12))::uuid, v.provider,
    v.vendor, 'pending', v.recipient_key, v.created_by, v.created_at, now() + %s::interval, 1, 0, 3, v.sealed, false,
    v.provider_id, v.role_id
FROM otp_gateway_internal.verification_record AS v, generate_series(1, 5000) AS n WHERE v.id = %s
"""


def test_what_is_sealed_is_erased_within_a_minute(gateway, simulator):
    """However many end at the same time, those that a worker found at its start and those that began since; no others."""
    gateway.create_provider("brief", "ideamart", code_lifetime="1s")
    id = gateway.send()["verification_id"]
    gateway.execute(COPIES, ("1 second", id))
    gateway.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    for _ in range(20):
        gateway.send("brief", vendor="ideamart")
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        locked = gateway.send("brief", vendor="ideamart")["verification_id"]
        locker.cursor().execute(
            "SELECT FROM otp_gateway_internal.verification_record WHERE id = %s FOR UPDATE", (locked,)
        )
        moved = gateway.send("brief", vendor="ideamart")["verification_id"]
        gateway.execute("ALTER SERVER brief OPTIONS (SET code_lifetime '1h')")
        assert gateway.row("SELECT * FROM otp_resend(%s)", (moved,))["outcome"] == "sent"
        left = "SELECT id, status::text FROM otp_gateway_internal.verification_record WHERE sealed IS NOT NULL"
        open_ones = {(id, "pending"), (moved, "pending"), (locked, "pending")}
        until(lambda: set(gateway.execute(left)) == open_ones, "all others are erased", 75)
    until(lambda: set(gateway.execute(left)) == open_ones - {(locked, "pending")}, "what was locked is, too", 75)
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.verification WHERE status = 'expired'") == [(5021,)]


# purge


def purge(gateway, age, session=None):
    return gateway.execute("SELECT otp_gateway.purge(%s::interval)", (age,), session)[0][0]


def test_purge(gateway):
    old, new = aged(gateway, sent(gateway, 4), 11), aged(gateway, sent(gateway, 2), 9)
    assert purge(gateway, "10 days") == 4
    assert on_record(gateway) == [set(new)] * 3
    assert purge(gateway, "10 days") == 0
    assert old


def test_purge_of_many(gateway):
    """In more than one part, also where most of what is looked at is somebody else's."""
    gateway.create_provider("mine", "ideamart")
    sent(gateway), sent(gateway, provider="mine")
    gateway.execute(
        "INSERT INTO otp_gateway_internal.verification_record (id, provider, provider_id, vendor, status, created_by, created_at,"
        " send_count, check_count, max_checks) SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,"
        " i.name, i.id, 'ideamart', 'approved', 'postgres', now() - interval '20 days', 1, 1, 3"
        " FROM generate_series(1, 3000) AS n JOIN otp_gateway_internal.identity AS i ON i.object IN (SELECT oid FROM pg_foreign_server)"
        " AND i.name = CASE WHEN n %% 100 = 0 THEN 'mine' ELSE 'ideamart' END",
        (),
    )
    with acting_as(gateway, "keeper", "ALTER SERVER mine OWNER TO keeper") as session:
        assert purge(gateway, "10 days", session) == 30
        assert purge(gateway, "10 days", session) == 0
    assert purge(gateway, "10 days") == 2970


def test_a_rollback_brings_nothing_back(gateway):
    aged(gateway, sent(gateway, 2), 11)
    session = gateway.connect(autocommit=False)
    assert purge(gateway, "10 days", session) == 2
    session.rollback()
    session.close()
    assert on_record(gateway) == [set()] * 3


@pytest.mark.parametrize("age", ["23 hours", "0", "1 month"])
def test_purge_of_what_is_still_needed(gateway, age):
    gateway.create_provider("limited", "ideamart", provider_limit="100 per 31 days")
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="limits and idempotency keys look back") as caught:
        purge(gateway, age)
    assert "2678400 s" in caught.value.diag.message_primary and caught.value.diag.message_hint
    assert purge(gateway, "31 days") == 0


@pytest.mark.parametrize("age", ["-1 day", None])
def test_purge_of_nonsense(gateway, age):
    if age is None:
        assert purge(gateway, age) is None
    else:
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="older_than is negative"):
            purge(gateway, age)


def test_who_may_purge_and_forget(gateway):
    """The owner of a provider what went through it, a superuser everything, others nothing."""
    gateway.create_provider("mine", "ideamart")
    gateway.execute("CREATE SERVER theirs FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, mine')")
    to = gateway.number()
    ids = [
        gateway.send(provider, to, vendor="ideamart")["verification_id"] for provider in ("ideamart", "mine", "theirs")
    ]
    ideamarts, mine, theirs = aged(gateway, ids, 11)
    with acting_as(gateway, "sender", usage("ideamart", "sender")) as session:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="you own none"):
            purge(gateway, "10 days", session)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="must be owner of foreign server ideamart"):
            gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), session)
    with acting_as(gateway, "keeper", "ALTER SERVER mine OWNER TO keeper") as session:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="must be owner"):
            gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), session)
        assert gateway.execute("SELECT otp_gateway.forget('mine', %s)", (to,), session) == [(1,)]
        assert purge(gateway, "10 days", session) == 1
        assert on_record(gateway)[0] == {ideamarts, theirs}
    # The owner of a route keeps what was asked of the route, whoever sent it.
    with acting_as(gateway, "keeper", "ALTER SERVER theirs OWNER TO keeper") as session:
        assert purge(gateway, "10 days", session) == 1
    assert on_record(gateway)[0] == {ideamarts}
    assert purge(gateway, "10 days") == 1


# forget


def forget(gateway, to, provider="ideamart"):
    return gateway.execute("SELECT otp_gateway.forget(%s, %s)", (provider, to))[0][0]


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_forget(gateway, simulator, vendor):
    """In any spelling; of other people everything stays."""
    to, other = gateway.number(vendor), gateway.number(vendor)
    ended = gateway.send(vendor, to)["verification_id"]
    assert gateway.verify(ended, simulator.code(vendor, to), **FLOWS[vendor]["verify"])["outcome"] == "approved"
    fresh = {"order_id": "ANOTHER", "token": "another"} if vendor == "paytm" else {}
    open_ = gateway.send(vendor, to, **fresh)["verification_id"]
    others = gateway.send(vendor, other, **({"order_id": "OTHER"} if vendor == "paytm" else {}))["verification_id"]
    spelling = spelled(vendor, to)[-1]
    before = gateway.row("SELECT * FROM otp_gateway_internal.verification_record WHERE id = %s", (others,))
    facts = "SELECT id, operation, outcome, http_status, vendor_code, started_at FROM otp_gateway.attempt WHERE verification_id = ANY (%s) ORDER BY id"
    known = gateway.execute(facts, ([ended, open_],))

    assert forget(gateway, spelling, vendor) == 2

    for id, status in ((ended, "approved"), (open_, "canceled")):
        row = gateway.verification(id)
        assert row["status"] == status
        gone = ("recipient_masked", "recipient_key", "reference", "idempotency_key", "payload_hash", "sealed")
        assert {name: row[name] for name in gone} == dict.fromkeys(gone)
    assert gateway.execute(
        "SELECT DISTINCT vendor_message, response, recipient_key FROM otp_gateway_internal.attempt_record WHERE verification_id = ANY (%s)",
        ([ended, open_],),
    ) in ([(None, None, memoryview(b""))], [(None, None, None)])
    assert gateway.execute(facts, ([ended, open_],)) == known and len(known) >= 3
    assert (
        gateway.execute(
            "SELECT verification_id FROM otp_gateway_internal.reference WHERE verification_id = ANY (%s)",
            ([ended, open_],),
        )
        == []
    )
    assert gateway.row("SELECT * FROM otp_gateway_internal.verification_record WHERE id = %s", (others,)) == before
    assert gateway.execute("SELECT id FROM otp_gateway.find(%s, %s)", (vendor, to)) == []
    # What is known of it answers: no call.
    calls = simulator.count()
    row = gateway.verify(open_, "123456", **FLOWS[vendor]["verify"])
    assert (row["status"], row["outcome"]) == ("canceled", "not_found")
    assert simulator.count() == calls
    assert forget(gateway, to, vendor) == 0


def test_forget_at_a_route(gateway, simulator):
    """Also at the providers that were tried on the way."""
    gateway.create_provider("second", "ideamart")
    gateway.execute("CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, second')")
    simulator.fault("status", "ideamart", "send", times=1, status=503)
    to = gateway.number()
    id = gateway.send("route", to, vendor="ideamart")["verification_id"]
    assert [outcome for _, outcome in gateway.attempts(id)] == ["provider_error", "sent"]
    assert forget(gateway, to, "route") == 1
    assert gateway.execute("SELECT DISTINCT recipient_key FROM otp_gateway_internal.attempt_record") == [
        (memoryview(b""),)
    ]


def test_forget_one_that_is_queued(gateway, simulator):
    """It is not sent any more, and who waits for it hears so."""
    gateway.full()
    to = gateway.number()
    id = gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"]
    with gateway.cluster.session(gateway.database) as session:
        waiting = Running(session, "SELECT * FROM otp_gateway.wait(%s, '30s')", (id,))
        assert forget(gateway, to, "narrow") == 1
        assert waiting.row()["status"] == "canceled"
    simulator.release()
    last = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    assert gateway.wait(last)["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2


def test_forget_one_that_is_in_flight(gateway, simulator):
    """Once it has ended: what comes back later would be on record again."""
    to = gateway.number("hyperverge")
    simulator.fault("hold", "hyperverge", "send", times=1)
    with gateway.cluster.session(gateway.database) as session, gateway.cluster.session(gateway.database) as another:
        sending = Running(
            session, "SELECT * FROM otp_send('hyperverge', %s::jsonb)", (f'{{"mobile": "{to}", "template_id": "t"}}',)
        )
        simulator.held(1)
        forgetting = Running(another, "SELECT otp_gateway.forget('hyperverge', %s)", (to,))
        until(
            lambda: (
                gateway.execute(
                    "SELECT count(*)::int FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND wait_event_type = 'Extension'",
                    (another.info.backend_pid,),
                )
                == [(1,)]
            ),
            "it waits",
        )
        simulator.release()
        id = sending.row()["verification_id"]
        assert forgetting.row()["forget"] == 1
    row = gateway.verification(id)
    assert (row["status"], row["recipient_key"], row["sealed"]) == ("canceled", None, None)
    assert gateway.execute("SELECT outcome::text, response FROM otp_gateway.attempt") == [("sent", None)]


def test_a_forgotten_number_begins_anew_and_the_bill_does_not(gateway, simulator):
    gateway.create_provider("billed", "ideamart", send_limit="1 per hour", provider_limit="3 per day")
    to = gateway.number()
    assert gateway.send("billed", to, vendor="ideamart")["outcome"] == "sent"
    assert gateway.send("billed", to, vendor="ideamart")["reason"] == "send_limit"
    assert forget(gateway, to, "billed") == 2
    assert gateway.send("billed", to, vendor="ideamart")["outcome"] == "sent"
    assert gateway.send("billed", vendor="ideamart")["outcome"] == "sent"
    # A worker that counts from the record alone.
    gateway.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    assert gateway.send("billed", vendor="ideamart")["reason"] == "provider_limit"


# find


def find(gateway, to, provider="ideamart", session=None):
    return [id for (id,) in gateway.execute("SELECT id FROM otp_gateway.find(%s, %s)", (provider, to), session)]


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_find(gateway, vendor):
    """In any spelling, the newest first, at this provider alone; the row is the view's."""
    gateway.create_provider("second", vendor)
    to = gateway.number(vendor)
    first = gateway.send(vendor, to)["verification_id"]
    again = gateway.send(vendor, to, **({"order_id": "SECOND"} if vendor == "paytm" else {}))["verification_id"]
    gateway.send("second", to, vendor=vendor, **({"order_id": "THIRD"} if vendor == "paytm" else {}))
    gateway.send(vendor, **({"order_id": "FOURTH"} if vendor == "paytm" else {}))
    for spelling in spelled(vendor, to):
        assert find(gateway, spelling, vendor) == [again, first]
    assert gateway.row("SELECT * FROM otp_gateway.find(%s, %s)", (vendor, to)) == gateway.row(
        "SELECT * FROM otp_gateway.verification WHERE id = %s", (again,)
    )


def test_find_at_a_route(gateway):
    gateway.execute("CREATE SERVER route FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, hyperverge')")
    lankan, indian = gateway.number(), gateway.number("hyperverge")
    one = gateway.row("SELECT * FROM otp_send('route', %s::jsonb)", (f'{{"mobile": "{lankan}"}}',))["verification_id"]
    other = gateway.row(
        "SELECT * FROM otp_send('route', %s::jsonb)", (f'{{"mobile": "{indian}", "template_id": "t"}}',)
    )["verification_id"]
    assert (find(gateway, lankan, "route"), find(gateway, indian, "route")) == ([one], [other])
    # The provider's, too: it is where it went.
    assert find(gateway, lankan) == [one]


def test_one_finds_ones_own(gateway):
    to = gateway.number()
    with (
        acting_as(gateway, "one", usage("ideamart", "one")) as one,
        acting_as(gateway, "other", usage("ideamart", "other")) as other,
    ):
        mine, theirs = (gateway.send("ideamart", to, session)["verification_id"] for session in (one, other))
        assert find(gateway, to, session=one) == [mine]
        assert find(gateway, to, session=other) == [theirs]
        assert find(gateway, to) == [theirs, mine]


def test_find_sees_what_its_statement_sees(gateway):
    """As the view does: in one transaction of REPEATABLE READ the same, whatever is sent meanwhile."""
    to = gateway.number()
    first = gateway.send("ideamart", to)["verification_id"]
    with contextlib.closing(gateway.connect()) as session:
        session.set_session(isolation_level="REPEATABLE READ", autocommit=False)
        assert find(gateway, to, session=session) == [first]
        again = gateway.send("ideamart", to)["verification_id"]
        assert find(gateway, to, session=session) == [first]
        session.rollback()
        assert find(gateway, to, session=session) == [again, first]


def test_find_knows_names_of_now(gateway):
    """Of what was renamed, and of what was dropped the last one."""
    gateway.create_provider("shop", "ideamart")
    to = gateway.number()
    id = gateway.send("shop", to, vendor="ideamart")["verification_id"]
    gateway.execute("ALTER SERVER shop RENAME TO store")
    until(lambda: gateway.execute("SELECT provider FROM otp_gateway.find(%s)", (to,)) == [("store",)], "the new name")
    gateway.execute("DROP SERVER store CASCADE")
    assert gateway.execute("SELECT id, provider FROM otp_gateway.find(%s)", (to,)) == [(id, "store")]


def test_find_leaves_nothing(gateway):
    before = on_record(gateway)
    assert find(gateway, gateway.number()) == []
    assert on_record(gateway) == before


@pytest.mark.parametrize(
    "provider, mobile, state, words",
    [
        ("nowhere", "0771234567", "42704", ["nowhere"]),
        ("ideamart", "12", "22023", ["mobile", "ideamart", "Sri Lanka"]),
        ("ideamart", "", "22023", ["mobile"]),
        ("hyperverge", "0112345678x", "22023", ["mobile", "hyperverge"]),
        ("iserveu", "+94771234567", "22023", ["mobile"]),
    ],
)
def test_find_of_nonsense(gateway, provider, mobile, state, words):
    for function in ("find", "forget"):
        with pytest.raises(psycopg2.Error) as caught:
            gateway.execute(f"SELECT otp_gateway.{function}(%s, %s)", (provider, mobile))
        said = f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
        assert caught.value.pgcode == state and all(word in said for word in words), said
        assert len(mobile) < 3 or mobile not in said
    assert gateway.execute("SELECT * FROM otp_gateway.find(NULL, '1')") == []


def test_find_on_a_standby_or_read_only(gateway):
    """It reads."""
    session = gateway.connect(options="-c default_transaction_read_only=on")
    to = gateway.number()
    id = gateway.send("ideamart", to)["verification_id"]
    assert find(gateway, to, session=session) == [id]
    for statement in (
        "SELECT otp_gateway.purge('100 days')",
        "SELECT otp_gateway.forget('ideamart', '0771234567')",
        "SELECT otp_gateway.rotate_key()",
    ):
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            gateway.execute(statement, None, session)
    session.close()


def test_many_purge_and_forget_and_send_at_once(gateway, simulator):
    """Nobody waits for ever, and nothing of it is lost or done twice."""
    numbers = [gateway.number() for _ in range(8)]
    faults = []

    def run(to):
        session = gateway.connect()
        try:
            for _ in range(5):
                assert gateway.send("ideamart", to, session)["outcome"] == "sent"
                assert gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,), session) == [(1,)]
                purge(gateway, "10 days", session)
        except Exception as error:
            faults.append(error)
        finally:
            session.close()

    threads = [threading.Thread(target=run, args=(to,)) for to in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert gateway.execute("SELECT count(*)::int, count(recipient_masked)::int FROM otp_gateway.verification") == [
        (40, 0)
    ]
    assert simulator.count("ideamart", "send") == 40
