"""Promise: with a key of one's own choice a send is made once. For 24 hours the same key at the same provider is the same
verification and has its result, however often, from however many sessions at once, after whatever was canceled, rolled
back or restarted meanwhile. Nobody else's key is answered, no other payload is taken for the same, and neither key nor
payload can be read in the record."""

import contextlib
import json

import psycopg2
import pytest

from cluster import Cluster
from conftest import Gateway, Running, until
from test_limits import AtOnce, play, sandbox
from test_misuse import role as role

ENQUEUE = "SELECT * FROM otp_enqueue(%s, %s::jsonb, %s)"
KEYED = "SELECT * FROM otp_send(%s, %s::jsonb, %s)"
KEY = "request-4711"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def send(gateway, to, key=KEY, provider="ideamart", session=None, **more):
    return gateway.row(KEYED, (provider, json.dumps({"mobile": to, **more}), key), session)


def enqueue(gateway, to, key=KEY, provider="ideamart", session=None):
    return gateway.row(ENQUEUE, (provider, json.dumps({"mobile": to}), key), session)


def verifications(gateway):
    return [id for (id,) in gateway.execute("SELECT id FROM otp_gateway.verification ORDER BY id")]


@contextlib.contextmanager
def refused(state, *words):
    with pytest.raises(psycopg2.Error) as error:
        yield
    assert error.value.pgcode == state, error.value
    text = f"{error.value.diag.message_primary} {error.value.diag.message_hint}"
    for word in words:
        assert word in text, text


def waits_for_lock(gateway, session):
    return lambda: gateway.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (session.info.backend_pid,)
    )


# the same again


def test_the_same_is_one_message(gateway, simulator):
    to = gateway.number()
    first = send(gateway, to)
    assert first["outcome"] == "sent"
    for _ in range(3):
        assert send(gateway, to) == first
    assert simulator.count("ideamart", "send") == 1
    assert verifications(gateway) == [first["verification_id"]]
    assert gateway.attempts(first["verification_id"]) == [("send", "sent")]
    # The result is still the send's when the flow has gone on.
    assert gateway.verify(first["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"
    again = send(gateway, to)
    assert (again["verification_id"], again["attempt_id"]) == (first["verification_id"], first["attempt_id"])
    assert (again["outcome"], again["status"]) == ("sent", "approved")
    assert simulator.count("ideamart", "send") == 1


def test_no_key_is_no_promise(gateway, simulator):
    to = gateway.number()
    ids = {send(gateway, to, None)["verification_id"] for _ in range(2)}
    ids.add(gateway.send(to=to)["verification_id"])
    assert len(ids) == simulator.count("ideamart", "send") == 3


@pytest.mark.parametrize("how", ["unreachable", "provider_error", "unknown", "refused"])
def test_a_failure_is_the_result_too(gateway, how):
    """What the key stands for is not tried again on the quiet: a new try is a new key."""
    sandbox(gateway)
    first = send(gateway, "0771234567", provider="sandbox", outcome=how)
    again = send(gateway, "0771234567", provider="sandbox", outcome=how)
    assert first["outcome"] == again["outcome"] == how
    assert first["attempt_id"] == again["attempt_id"]
    assert gateway.attempts(first["verification_id"]) == [("send", how)]
    assert send(gateway, "0771234567", "another", "sandbox", outcome=how)["verification_id"] != first["verification_id"]


def test_a_refusal_is_the_result_too(gateway):
    sandbox(gateway, send_limit="1 per hour")
    play(gateway)
    first, again = (send(gateway, "+94771234567", provider="sandbox") for _ in range(2))
    assert (again["outcome"], again["reason"], again["attempt_id"]) == ("blocked", "send_limit", first["attempt_id"])


def test_a_repeated_call_is_no_second_send(gateway, simulator):
    """With the key the answer of the first call, without it the wait."""
    gateway.create_provider("usual", "ideamart", resend_after=None)
    to = gateway.number()
    first = send(gateway, to, provider="usual")
    assert send(gateway, to, provider="usual")["attempt_id"] == first["attempt_id"]
    assert send(gateway, to, None, "usual")["reason"] == "resend_after"
    assert simulator.count("ideamart", "send") == 1


def test_in_one_statement_and_in_one_transaction(gateway, simulator):
    to = gateway.number()
    body = json.dumps({"mobile": to})
    ids = gateway.execute(
        "SELECT verification_id FROM generate_series(1, 5) AS n, otp_send('ideamart', %s::jsonb, left('request' || n, 7))",
        (body,),
    )
    assert len(set(ids)) == 1
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class", session=session
        )
        first, again = (send(gateway, to, session=session) for _ in range(2))
        assert first == again
        assert send(gateway, to)["verification_id"] == first["verification_id"]
    assert simulator.count("ideamart", "send") == 2


def test_rolled_back_it_is_still_sent(gateway, simulator):
    """otp_send is not undone by a rollback, and so is what its key stands for."""
    to = gateway.number()
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        first = send(gateway, to, session=session)
        session.rollback()
        again = send(gateway, to, session=session)
    assert again == first
    assert simulator.count("ideamart", "send") == 1


# other things


@pytest.mark.parametrize("other", [{"mobile": "0779999999"}, {"metadata": {"client": "x"}}, {"metadata": None}])
def test_another_payload(gateway, simulator, other):
    to = gateway.number()
    send(gateway, to)
    body = {"mobile": to, **other}
    with refused("22023", "idempotency_key", "another payload"):
        gateway.row(KEYED, ("ideamart", json.dumps(body), KEY))
    with refused("22023", "idempotency_key", "another payload"):
        gateway.row(ENQUEUE, ("ideamart", json.dumps(body), KEY))
    assert simulator.count("ideamart", "send") == 1


def test_another_spelling_of_the_payload(gateway, simulator):
    """Of jsonb: the order of members, white space, escapes, and a member that is given twice."""
    spellings = [
        '{"mobile":"0771234567","metadata":{"client":"a","device":"b"}}',
        '{ "metadata" : {"device":"b" , "client":"a"},\n "mobile" : "0771234567" }',
        '{"metadata": {"client": "\\u0061", "device": "b"}, "mobile": "0771234567"}',
        '{"mobile": "1", "metadata": {"client": "a", "device": "b"}, "mobile": "0771234567"}',
    ]
    rows = [gateway.row(KEYED, ("ideamart", spelling, KEY)) for spelling in spellings]
    assert len({row["attempt_id"] for row in rows}) == 1
    assert simulator.count("ideamart", "send") == 1


def test_another_provider(gateway, simulator):
    gateway.create_provider("another", "ideamart")
    to = gateway.number()
    one, other = send(gateway, to), send(gateway, to, provider="another")
    assert one["verification_id"] != other["verification_id"]
    assert [send(gateway, to, provider=name)["verification_id"] for name in ("ideamart", "another")] == [
        one["verification_id"],
        other["verification_id"],
    ]
    assert simulator.count("ideamart", "send") == 2


def test_another_key(gateway, simulator):
    to = gateway.number()
    keys = [KEY, KEY + " ", KEY.upper(), "'; --", "ü" * 128, "k" * 256, "\t", "0"]
    ids = [send(gateway, to, key)["verification_id"] for key in keys]
    assert len(set(ids)) == len(keys)
    assert [send(gateway, to, key)["verification_id"] for key in keys] == ids
    assert simulator.count("ideamart", "send") == len(keys)


@pytest.mark.parametrize(
    "key, word", [("", "empty"), ("k" * 257, "256"), ("ü" * 129, "256")], ids=["empty", "long", "long in bytes"]
)
def test_no_key_at_all(gateway, simulator, key, word):
    for call in (send, enqueue):
        with refused("22023", "idempotency_key", word):
            call(gateway, "0771234567", key)
    assert (simulator.count(), verifications(gateway)) == (0, [])


def test_another_role(gateway, simulator, role):
    """Keys are a role's own: of another's it learns nothing, not even that it is there, and it cannot take one away. Who
    SETs ROLE does as the role does; a superuser, too."""
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    to = gateway.number()
    first = send(gateway, to)
    own = send(gateway, gateway.number(), session=session)
    assert own["outcome"] == "sent" and own["attempt_id"] != first["attempt_id"]
    assert send(gateway, to)["attempt_id"] == first["attempt_id"]
    for call in (send, enqueue):
        with refused("22023", "idempotency_key"):
            call(gateway, to, session=session)
    alone = enqueue(gateway, to, "request-4712", session=session)
    gateway.wait(alone["verification_id"])
    assert send(gateway, to, "request-4712")["verification_id"] != alone["verification_id"]
    gateway.execute(f"SET ROLE {name}")
    try:
        assert send(gateway, to, "request-4712")["verification_id"] == alone["verification_id"]
    finally:
        gateway.execute("RESET ROLE")
    assert simulator.count("ideamart", "send") == 4


def test_without_usage_a_key_tells_nothing(gateway, simulator, role):
    _, session = role
    to = gateway.number()
    send(gateway, to)
    for key in (KEY, "never used"):
        with refused("42501"):
            send(gateway, to, key, session=session)


def test_another_roles_open_transaction_holds_up_nobody(gateway, simulator, role):
    """The key is in use by a transaction that stays open: by its own role one waits for it, by another never."""
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    gateway.execute("SET lock_timeout = '200ms'")
    try:
        with gateway.cluster.session(gateway.database, user=name, autocommit=False) as holder:
            held = enqueue(gateway, gateway.number(), session=holder)["verification_id"]
            for call in (send, enqueue):
                assert call(gateway, gateway.number(), KEY + call.__name__)["verification_id"] != held
            assert send(gateway, gateway.number())["outcome"] == "sent"
            gateway.execute("SET lock_timeout = '200ms'", session=session)
            with refused("55P03"):
                send(gateway, gateway.number(), session=session)
            holder.rollback()
    finally:
        gateway.execute("RESET lock_timeout")


def test_a_key_in_use_does_not_show_without_usage(gateway, role):
    """42501 at once, whether or not somebody holds the key, and of a route as of a provider."""
    _, session = role
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, hyperverge')")
    gateway.execute("SET lock_timeout = '200ms'", session=session)
    with gateway.cluster.session(gateway.database, autocommit=False) as holder:
        for provider in ("ideamart", "either"):
            enqueue(gateway, gateway.number(), provider=provider, session=holder)
            for call, key in [(call, key) for call in (send, enqueue) for key in (KEY, "never used")]:
                with refused("42501", "permission denied for foreign server"):
                    call(gateway, gateway.number(), key, provider, session)
        with refused("42704"):
            send(gateway, gateway.number(), provider="nowhere", session=session)
        holder.rollback()


def test_a_prepared_transaction_holds_its_own_roles_key_alone(simulator):
    cluster = Cluster(settings={"max_prepared_transactions": 4}).create()
    try:
        with cluster.start().database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("ideamart")
            gateway.execute("CREATE ROLE b LOGIN; GRANT USAGE ON FOREIGN SERVER ideamart TO b")
            to = gateway.number()
            with cluster.session(name, user="b", autocommit=False) as session:
                id = enqueue(gateway, to, session=session)["verification_id"]
                gateway.execute("PREPARE TRANSACTION 'held'", session=session)
            gateway.execute("SET lock_timeout = '200ms'")
            assert send(gateway, gateway.number())["outcome"] == "sent"
            with cluster.session(name, user="b") as session:
                gateway.execute("SET lock_timeout = '200ms'", session=session)
                with refused("55P03"):
                    send(gateway, to, session=session)
                gateway.execute("COMMIT PREPARED 'held'", session=session)
                assert send(gateway, to, session=session)["verification_id"] == id
            assert simulator.count("ideamart", "send", to) == 1
    finally:
        cluster.remove()


def test_a_day_later(gateway, simulator):
    to = gateway.number()
    first = send(gateway, to)["verification_id"]
    age = "UPDATE otp_gateway_internal.verification_record SET created_at = now() - %s::interval WHERE id = %s"
    gateway.execute(age, ("23 hours 59 minutes", first))
    assert send(gateway, to)["verification_id"] == first
    gateway.execute(age, ("24 hours", first))
    # Another payload may come with it now, too.
    second = send(gateway, to, metadata={"client": "x"})["verification_id"]
    assert second != first
    assert send(gateway, to, metadata={"client": "x"})["verification_id"] == second
    third = enqueue(gateway, gateway.number(), "queued")["verification_id"]
    gateway.wait(third)
    gateway.execute(age, ("24 hours", third))
    assert enqueue(gateway, to, "queued")["verification_id"] != third
    gateway.settle()
    assert simulator.count("ideamart", "send") == 4


# at the same time


SESSIONS = 50


@pytest.fixture(scope="module")
def crowd(shared_cluster, module_database):
    sessions = [shared_cluster.connect(module_database) for _ in range(SESSIONS)]
    yield sessions
    for session in sessions:
        session.close()


def test_fifty_sessions_one_message(gateway, simulator, crowd):
    """All of them have asked before the vendor has answered the first."""
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send")
    asking = AtOnce(crowd, lambda _, session: send(gateway, to, session=session))
    simulator.held(1)
    until(
        lambda: (
            gateway.execute(
                "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
                " AND wait_event_type IN ('Lock', 'Extension') AND query LIKE '%%otp_send%%' AND pid <> pg_backend_pid()"
            )
            == [(SESSIONS,)]
        ),
        "all of them wait",
    )
    simulator.release()
    rows = asking.results()
    assert rows == rows[:1] * SESSIONS
    assert rows[0]["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 1
    assert verifications(gateway) == [rows[0]["verification_id"]]


def test_fifty_sessions_now_and_after_commit(gateway, simulator, crowd):
    """Half of them enqueue, some roll back: one message, whoever came first."""
    to = gateway.number()

    def work(n, session):
        if n % 2:
            return send(gateway, to, session=session)["verification_id"]
        session.autocommit = False
        try:
            id = enqueue(gateway, to, session=session)["verification_id"]
            if n % 4:
                session.rollback()
                return None
            session.commit()
            return id
        finally:
            session.autocommit = True

    ids = set(AtOnce(crowd, work).results()) - {None}
    gateway.settle()
    assert list(ids) == verifications(gateway)
    assert simulator.count("ideamart", "send") == 1


def test_canceled_and_called_again(gateway, simulator):
    """The caller went, the call went on: with the key one finds it again."""
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send")
    with gateway.cluster.session(gateway.database) as first, gateway.cluster.session(gateway.database) as second:
        running = Running(first, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY))
        simulator.held(1)
        first.cancel()
        assert running.wait().error.pgcode == "57014"
        again = Running(second, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY))
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'",
                (second.info.backend_pid,),
            ),
            "the second waits for the first one's answer",
        )
        # Whoever stops waiting is told of what.
        second.cancel()
        id = verifications(gateway)[0]
        says_where(again.wait().error, id)
        again = Running(second, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY))
        simulator.release()
        row = again.row()
    assert row["outcome"] == "sent"
    assert verifications(gateway) == [row["verification_id"]]
    assert send(gateway, to) == row
    assert simulator.count("ideamart", "send") == 1


def says_where(error, id, sqlstate="57014"):
    """Who waited for another one's call is told of which, and where its outcome is."""
    assert error.pgcode == sqlstate
    assert error.diag.message_detail.startswith("It waited for another call, and sent nothing itself")
    assert "same idempotency_key" in error.diag.message_hint
    for text, has in (
        (error.diag.message_detail, f"verification {id}"),
        (error.diag.message_hint, f"otp_gateway.wait('{id}')"),
    ):
        assert (has in text) == (id is not None), text


@contextlib.contextmanager
def one_behind_another(gateway, to):
    """Two calls with one key: the vendor holds the first, and the second waits for it, in a session of its own."""
    gateway.simulator.fault("hold", "ideamart", "send")
    with gateway.cluster.session(gateway.database) as first, gateway.cluster.session(gateway.database) as second:
        running = Running(first, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY))
        gateway.simulator.held(1)
        waiting = Running(second, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY))
        until(waits_for_lock(gateway, second), "the second waits for the first")
        yield running, waiting, second


def test_who_waits_hears_nothing_of_it(gateway, simulator):
    """Neither the client nor the log: a lock that was not got at once is no fault."""
    to = gateway.number()
    with one_behind_another(gateway, to) as (running, waiting, second):
        simulator.release()
        assert waiting.row() == running.row()
        assert second.notices == []
    assert "own a lock" not in gateway.cluster.log()


def test_a_waiting_one_can_be_canceled(gateway, simulator):
    to = gateway.number()
    with one_behind_another(gateway, to) as (running, waiting, second):
        second.cancel()
        says_where(waiting.wait().error, verifications(gateway)[0])
        gateway.execute("SET lock_timeout = '50ms'", session=second)
        says_where(
            Running(second, KEYED, ("ideamart", json.dumps({"mobile": to}), KEY)).wait().error,
            verifications(gateway)[0],
            "55P03",
        )
        gateway.execute("RESET lock_timeout", session=second)
        simulator.release()
        assert running.row()["outcome"] == "sent"
        assert send(gateway, to, session=second)["attempt_id"] == running.rows[0]["attempt_id"]
    assert simulator.count("ideamart", "send") == 1


def test_an_error_lets_go_of_the_key(gateway, simulator):
    """What was refused has not used it up, and keeps nobody waiting."""
    for payload in ({"mobile": "1"}, {"moblie": "0771234567"}):
        with refused("22023"):
            gateway.row(KEYED, ("ideamart", json.dumps(payload), KEY))
    with gateway.cluster.session(gateway.database) as other:
        gateway.execute("SET statement_timeout = '20s'", session=other)
        assert send(gateway, "0771234567", session=other)["outcome"] == "sent"


# with the queue


def test_enqueued_twice(gateway, simulator):
    to = gateway.number()
    ids = {enqueue(gateway, to)["verification_id"] for _ in range(3)}
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        ids.update(enqueue(gateway, to, session=session)["verification_id"] for _ in range(2))
        session.commit()
    (id,) = ids
    assert gateway.wait(id)["outcome"] == "sent"
    assert enqueue(gateway, to)["verification_id"] == id
    assert (gateway.settle()[0]["outcome"], simulator.count("ideamart", "send")) == ("sent", 1)
    assert verifications(gateway) == [id]


def test_twice_in_one_transaction(gateway, simulator):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        first, again = (enqueue(gateway, "0771234567", session=session) for _ in range(2))
        assert first["verification_id"] == again["verification_id"]
        assert (again["status"], again["outcome"]) == ("queued", None)
        with refused("22023", "another payload"):
            enqueue(gateway, "0771234568", session=session)
        session.rollback()
    assert verifications(gateway) == []


@pytest.mark.parametrize("undo", ["rollback", "savepoint", "exception"])
def test_rolled_back_the_key_is_free(gateway, simulator, undo):
    """What was enqueued never was, and another payload may have its key."""
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        if undo == "exception":
            gateway.execute(
                f"DO $do$ BEGIN PERFORM otp_enqueue('ideamart', '{{\"mobile\": \"0771234567\"}}', '{KEY}');"
                " RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END $do$",
                session=session,
            )
        else:
            gateway.execute("SAVEPOINT a", session=session)
            enqueue(gateway, "0771234567", session=session)
            gateway.execute("ROLLBACK TO a" if undo == "savepoint" else "ROLLBACK", session=session)
        id = enqueue(gateway, "0771234568", session=session)["verification_id"]
        session.commit()
    assert gateway.wait(id)["outcome"] == "sent"
    assert verifications(gateway) == [id]
    assert [simulator.count("ideamart", "send", to) for to in ("0771234567", "0771234568")] == [0, 1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("call", [ENQUEUE, KEYED], ids=["enqueue", "send"])
def test_the_second_waits_for_the_first_one_s_transaction(gateway, simulator, call, end):
    """Only its end tells whether there is anything that the key stands for; who waits can be interrupted."""
    to = gateway.number()
    arguments = ("ideamart", json.dumps({"mobile": to}), KEY)
    with (
        gateway.cluster.session(gateway.database, autocommit=False) as first,
        gateway.cluster.session(gateway.database) as second,
    ):
        id = enqueue(gateway, to, session=first)["verification_id"]
        interrupted = Running(second, call, arguments)
        until(waits_for_lock(gateway, second), "the second waits")
        second.cancel()
        # There may be none: the other transaction's end tells.
        says_where(interrupted.wait().error, None)
        # Also by a timeout of its own.
        gateway.execute("SET statement_timeout = '100ms'", session=second)
        with refused("57014"):
            gateway.row(call, arguments, second)
        gateway.execute("RESET statement_timeout", session=second)
        waiting = Running(second, call, arguments)
        until(waits_for_lock(gateway, second), "the second waits")
        # Another key goes right by.
        assert send(gateway, gateway.number(), "another")["outcome"] == "sent"
        getattr(first, end)()
        row = waiting.row()
    assert (row["verification_id"] == id) == (end == "commit")
    assert row["outcome"] == (None if call == ENQUEUE else "sent")
    assert gateway.wait(row["verification_id"])["outcome"] == "sent"
    assert simulator.count("ideamart", "send", to) == 1
    assert len(verifications(gateway)) == 2


def test_a_send_waits_for_the_queued_one_s_result(gateway, simulator):
    gateway.full()
    to = gateway.number()
    id = enqueue(gateway, to, provider="narrow")["verification_id"]
    with gateway.cluster.session(gateway.database) as session:
        waiting = Running(session, KEYED, ("narrow", json.dumps({"mobile": to}), KEY))
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'",
                (session.info.backend_pid,),
            ),
            "it waits",
        )
        assert gateway.verification(id)["status"] == "queued"
        simulator.release()
        row = waiting.row()
    assert (row["verification_id"], row["outcome"], row["status"]) == (id, "sent", "pending")
    assert row == gateway.wait(id)
    assert simulator.count("ideamart", "send", to) == 1


def test_a_send_in_the_transaction_that_enqueued(gateway, simulator):
    """Nothing is sent before the COMMIT, so that it would wait for ever."""
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        enqueue(gateway, "0771234567", session=session)
        with refused("55000", "COMMIT"):
            send(gateway, "0771234567", session=session)
    assert simulator.count() == 0


def test_enqueued_after_it_was_sent(gateway, simulator):
    to = gateway.number()
    sent = send(gateway, to)
    row = enqueue(gateway, to)
    assert (row["verification_id"], row["status"]) == (sent["verification_id"], "pending")
    assert simulator.count("ideamart", "send") == 1


def test_a_key_takes_no_place_in_the_transaction(gateway):
    """max_sends_per_transaction counts what is enqueued, and the same again is not."""
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SET otp_gateway.max_sends_per_transaction = 1", session=session)
        ids = {enqueue(gateway, "0771234567", session=session)["verification_id"] for _ in range(3)}
        assert len(ids) == 1
        session.commit()
    assert [row["outcome"] for row in gateway.settle()] == ["sent"]


# on record


def test_neither_key_nor_payload_can_be_read(gateway, simulator):
    key, to, words = "kEy-Zq81xV-canary", "0771239876", "pAyLoad-7Hx2-canary"
    send(gateway, to, key, metadata={"client": words})
    gateway.full()
    gateway.row(ENQUEUE, ("narrow", json.dumps({"mobile": to, "metadata": {"client": words}}), key))
    tables = gateway.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'otp_gateway_internal'::regnamespace AND relkind = 'r'"
    )
    text = "\n".join(row for (table,) in tables for (row,) in gateway.execute(f"SELECT t::text FROM {table} AS t"))
    assert "narrow" in text
    for secret in (key, to, to[1:], words):
        assert secret not in text
        assert secret.encode().hex() not in text
    kept = gateway.execute(
        "SELECT octet_length(idempotency_key), octet_length(payload_hash) FROM otp_gateway_internal.verification_record"
        " WHERE idempotency_key IS NOT NULL"
    )
    assert kept == [(32, 32)] * 2
    # The same payload under another key does not look alike in the columns of the key, and a short key is as long as any.
    send(gateway, "0771239877", "k")
    assert gateway.execute(
        "SELECT count(DISTINCT idempotency_key)::int FROM otp_gateway_internal.verification_record"
    ) == [(3,)]


def test_across_a_restart_and_a_crash(own_cluster, simulator):
    """Sent, queued or cut off: the key knows it, and nothing is sent a second time."""
    cluster = own_cluster
    with cluster.session() as admin:
        admin.cursor().execute("CREATE EXTENSION otp_gateway")
    gateway = Gateway(cluster, "postgres", simulator)
    sent_to, queued_to, cut_to = "0770000001", "0770000002", "0770000003"
    with gateway:
        gateway.create_provider("ideamart", timeout="60s")
        gateway.full("narrow")
        sent = send(gateway, sent_to)
        queued = enqueue(gateway, queued_to, "queued", "narrow")["verification_id"]
        simulator.fault("hold", "ideamart", "send", recipient=cut_to)
        with cluster.session() as session:
            cut = Running(session, KEYED, ("ideamart", json.dumps({"mobile": cut_to}), "cut"))
            simulator.held(2)
            cluster.stop("immediate")
            assert cut.wait().error is not None
    simulator.clear_faults()
    simulator.release()
    cluster.start()
    for how in ("fast", "immediate"):
        with gateway:
            assert send(gateway, sent_to) == sent
            row = send(gateway, queued_to, "queued", "narrow")
            assert (row["verification_id"], row["outcome"]) == (queued, "sent")
            row = send(gateway, cut_to, "cut")
            assert (row["outcome"], row["status"]) == ("unknown", "unknown")
            with refused("22023", "another payload"):
                send(gateway, queued_to)
        cluster.restart(how)
    assert [simulator.count("ideamart", "send", to) for to in (sent_to, queued_to, cut_to)] == [1, 1, 1]
