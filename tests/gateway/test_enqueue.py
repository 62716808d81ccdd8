"""Promise: otp_enqueue has a message sent if, and only if, the transaction that called it commits: one message, and not
before the commit. It refuses what otp_send refuses, at once, and more than an honest transaction would ask for; what is
queued can be canceled, and nothing can be checked or sent again that nobody has been sent yet."""

import collections
import json
import os
import socket
import threading

import psycopg2
import pytest

from cluster import Cluster
from conftest import FLOWS, Gateway, Running, until
from simulator import VENDORS
from test_follow import Listener
from test_misuse import CANARIES, PAYLOADS, Refused, with_
from test_misuse import role as role
from test_record import exception_block, rollback, rollback_to_savepoint


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@pytest.fixture(scope="module")
def preparing_cluster():
    """With prepared transactions, and with everything announced: the two must bear one another."""
    cluster = Cluster(settings={"max_prepared_transactions": 10, "otp_gateway.notify": "on"}).create()
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.fixture
def preparing(preparing_cluster, simulator):
    with preparing_cluster.database() as name, Gateway(preparing_cluster, name, simulator) as gateway:
        gateway.create_provider("ideamart")
        yield gateway


def call(gateway):
    return f"""SELECT * FROM otp_enqueue('ideamart', '{{"mobile": "{gateway.number()}"}}')"""


def recorded(gateway):
    return {id for (id,) in gateway.execute("SELECT id FROM otp_gateway.verification")}


def arrived(simulator, vendor="ideamart"):
    """The verifications whose messages arrived, with how many each."""
    return collections.Counter(simulator.keys(vendor, "send"))


def once(ids):
    return collections.Counter(str(id) for id in ids)


# a commit sends


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_commit_sends_one_message(gateway, simulator, vendor):
    to, elsewhere = gateway.number(vendor), gateway.number(vendor)
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        row = gateway.enqueue(vendor, to, session)
        id = row["verification_id"]
        assert (row["status"], row["outcome"], row["attempt_id"], row["retryable"]) == ("queued", None, None, False)
        # To its own transaction it is there, to others it is not.
        seen = gateway.row(
            "SELECT status::text, send_count, provider, enqueued = pg_current_xact_id() AS mine"
            " FROM otp_gateway_internal.verification_record WHERE id = %s",
            (id,),
            session,
        )
        assert seen == {"status": "queued", "send_count": 0, "provider": vendor, "mine": True}
        assert recorded(gateway) == set()
        # What others send meanwhile goes its way; of this one nothing leaves.
        assert gateway.send(vendor, elsewhere)["outcome"] == "sent"
        assert (simulator.count(vendor, "send"), simulator.count(vendor, "send", to)) == (1, 0)
        session.commit()
    sent = gateway.wait(id)
    assert (sent["verification_id"], sent["status"], sent["outcome"]) == (id, "pending", "sent")
    assert sent["attempts_left"] == row["attempts_left"] > 0

    payload = FLOWS[vendor]["verify"]
    wrong = gateway.verify(id, simulator.wrong(vendor, to), **payload)
    assert (wrong["outcome"], wrong["attempts_left"]) == ("invalid_code", sent["attempts_left"] - 1)
    right = gateway.verify(id, simulator.code(vendor, to), **payload)
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert gateway.attempts(id) == [("send", "sent"), ("verify", "invalid_code"), ("verify", "approved")]
    stored = gateway.verification(id)
    assert (stored["send_count"], stored["sealed"]) == (1, None)
    assert (simulator.count(vendor, "send"), simulator.count(vendor, "send", to)) == (2, 1)
    assert {entry["complaint"] for entry in simulator.log(vendor)} == {None}


def test_its_row_has_the_columns_of_otp_send(gateway):
    assert list(gateway.enqueue()) == list(gateway.send())
    assert gateway.execute(
        "SELECT count(*)::int, count(enqueued)::int FROM otp_gateway_internal.verification_record"
    ) == [(2, 1)]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_queued_one_keeps_what_a_resend_needs(gateway, simulator, vendor):
    to = gateway.number(vendor)
    id = gateway.enqueue(vendor, to)["verification_id"]
    first = gateway.wait(id)
    again = gateway.row("SELECT * FROM otp_resend(%s)", (id,))
    assert (again["outcome"], again["status"]) == ("sent", "pending")
    assert again["attempts_left"] == first["attempts_left"]
    code = simulator.code(vendor, to, atleast=2)
    assert gateway.verify(id, code, **FLOWS[vendor]["verify"])["outcome"] == "approved"
    assert {entry["complaint"] for entry in simulator.log(vendor)} == {None}


def committed(gateway, call):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(call, session=session)
        session.commit()


def autocommitted(gateway, call):
    gateway.execute(call)


def released(gateway, call):
    gateway.execute(f"BEGIN; SAVEPOINT a; SAVEPOINT b; {call}; RELEASE b; RELEASE a; COMMIT")


def after_a_savepoint_was_rolled_back(gateway, call):
    gateway.execute(f"BEGIN; SAVEPOINT a; CREATE TABLE gone (); ROLLBACK TO a; {call}; COMMIT")


def chained(gateway, call):
    gateway.execute(f"BEGIN; {call}; COMMIT AND CHAIN; ROLLBACK")


def beside_an_exception(gateway, call):
    gateway.execute(f"""DO $do$ BEGIN
        PERFORM * FROM ({call}) AS x;
        BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
    END $do$""")


def in_a_block_with_an_exception_clause(gateway, call):
    gateway.execute(f"""DO $do$ BEGIN
        PERFORM * FROM ({call}) AS x; EXCEPTION WHEN division_by_zero THEN NULL;
    END $do$""")


def committed_by_a_procedure(gateway, call):
    gateway.execute(f"DO $do$ BEGIN PERFORM * FROM ({call}) AS x; COMMIT; PERFORM 1; ROLLBACK; END $do$")


def serializable(gateway, call):
    gateway.execute(f"BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM pg_class; {call}; COMMIT")


def deferred_checks_done(gateway, call):
    gateway.execute(f"BEGIN; SET CONSTRAINTS ALL DEFERRED; {call}; SET CONSTRAINTS ALL IMMEDIATE; COMMIT")


@pytest.mark.parametrize(
    "way",
    [
        committed,
        autocommitted,
        released,
        after_a_savepoint_was_rolled_back,
        chained,
        beside_an_exception,
        in_a_block_with_an_exception_clause,
        committed_by_a_procedure,
        serializable,
        deferred_checks_done,
    ],
    ids=lambda way: way.__name__,
)
def test_whatever_way_it_commits(gateway, simulator, way):
    """The commit itself wakes the worker: nobody asks for anything after it."""
    way(gateway, call(gateway))
    assert simulator.count("ideamart", "send", atleast=1, wait=20000) == 1
    [row] = gateway.settle()
    assert row["outcome"] == "sent"
    assert arrived(simulator) == once([row["verification_id"]])


# what is rolled back never was


def released_in_a_rolled_back_savepoint(gateway, call):
    gateway.execute(f"BEGIN; SAVEPOINT a; SAVEPOINT b; {call}; RELEASE b; ROLLBACK TO a; COMMIT")


def exception_around_a_block(gateway, call):
    gateway.execute(f"""DO $do$ BEGIN
        BEGIN PERFORM * FROM ({call}) AS x; EXCEPTION WHEN division_by_zero THEN NULL; END;
        RAISE EXCEPTION 'changed my mind';
        EXCEPTION WHEN raise_exception THEN NULL;
    END $do$""")


def rolled_back_by_a_procedure(gateway, call):
    gateway.execute(f"DO $do$ BEGIN PERFORM * FROM ({call}) AS x; ROLLBACK; PERFORM 1; COMMIT; END $do$")


def error_in_the_statement(gateway, call):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        gateway.execute(f"SELECT 1 / (x.outcome IS NOT NULL)::int FROM ({call}) AS x")


def error_later_in_the_message(gateway, call):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        gateway.execute(f"{call}; SELECT 1 / 0")


def commit_that_fails(gateway, call):
    gateway.execute("CREATE TABLE late (a int, UNIQUE (a) DEFERRABLE INITIALLY DEFERRED)")
    try:
        with gateway.cluster.session(gateway.database, autocommit=False) as session:
            gateway.execute(f"INSERT INTO late VALUES (1), (1); {call}", session=session)
            with pytest.raises(psycopg2.errors.UniqueViolation):
                session.commit()
    finally:
        gateway.execute("DROP TABLE late")


def open_session(gateway, call):
    session = gateway.connect(autocommit=False)
    gateway.execute(call, session=session)
    return session


def gone(gateway, pid):
    until(lambda: not gateway.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)), "the session ends")


def client_leaves(gateway, call):
    session = open_session(gateway, call)
    pid = session.info.backend_pid
    session.close()
    gone(gateway, pid)


def client_vanishes(gateway, call):
    session = open_session(gateway, call)
    with socket.socket(fileno=os.dup(session.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
    gone(gateway, session.info.backend_pid)


def terminated(gateway, call):
    session = open_session(gateway, call)
    pid = session.info.backend_pid
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
    gone(gateway, pid)


def canceled(gateway, call):
    session = gateway.connect()
    running = Running(session, f"{call}; SELECT pg_sleep(600)")
    until(
        lambda: gateway.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %s", (session.info.backend_pid,)
        ),
        "it sleeps",
    )
    session.cancel()
    assert running.wait().error.pgcode == "57014"
    session.close()


@pytest.mark.parametrize(
    "way",
    [
        rollback,
        rollback_to_savepoint,
        released_in_a_rolled_back_savepoint,
        exception_block,
        exception_around_a_block,
        rolled_back_by_a_procedure,
        error_in_the_statement,
        error_later_in_the_message,
        commit_that_fails,
        client_leaves,
        client_vanishes,
        terminated,
        canceled,
    ],
    ids=lambda way: way.__name__,
)
def test_what_is_rolled_back_never_was(gateway, simulator, way):
    way(gateway, call(gateway))
    # Whatever that had left for the worker goes before this one.
    kept = gateway.enqueue()["verification_id"]
    assert gateway.wait(kept)["outcome"] == "sent"
    assert recorded(gateway) == {kept}
    assert arrived(simulator) == once([kept])
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt") == [(1,)]


def test_of_one_transaction_what_was_kept(gateway, simulator):
    kept = []
    with gateway.cluster.session(gateway.database, autocommit=False) as session:

        def run(statement):
            gateway.execute(statement, session=session)

        def enqueue():
            return gateway.enqueue(session=session)["verification_id"]

        kept.append(enqueue())
        run("SAVEPOINT a")
        enqueue()
        run("SAVEPOINT b")
        enqueue()
        run("RELEASE b")
        run("ROLLBACK TO a")
        kept.append(enqueue())
        run("SAVEPOINT c")
        kept.append(enqueue())
        run("RELEASE c")
        run("RELEASE a")
        run("SAVEPOINT d")
        enqueue()
        run("ROLLBACK TO d")
        run(f"""DO $do$ BEGIN
            PERFORM * FROM ({call(gateway)}) AS x; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL;
        END $do$""")
        kept.append(enqueue())
        session.commit()
    assert simulator.count("ideamart", "send", atleast=4, wait=20000) == 4
    assert [row["outcome"] for row in gateway.settle()] == ["sent"] * 4
    assert recorded(gateway) == set(kept)
    assert arrived(simulator) == once(kept)


def test_many_sessions(gateway, simulator):
    """Sessions that commit and roll back at once: of each exactly what it committed."""
    kept, lock = [], threading.Lock()

    def run(n):
        with gateway.cluster.session(gateway.database, autocommit=False) as session:
            for turn in range(12):
                with lock:
                    to = [gateway.number() for _ in range(2)]
                one = gateway.enqueue(to=to[0], session=session)["verification_id"]
                gateway.execute("SAVEPOINT s", session=session)
                other = gateway.enqueue(to=to[1], session=session)["verification_id"]
                if turn % 2:
                    gateway.execute("ROLLBACK TO s", session=session)
                if (n + turn) % 3:
                    session.commit()
                    with lock:
                        kept.extend([one] if turn % 2 else [one, other])
                else:
                    session.rollback()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert len(kept) == 12 * 8 * 3 // 2
    assert {row["outcome"] for row in gateway.settle()} == {"sent"}
    assert recorded(gateway) == set(kept)
    assert arrived(simulator) == once(kept)


def test_one_statement_is_one_call(gateway, simulator):
    payload = json.dumps({"mobile": gateway.number()})
    [(id, status)] = gateway.execute(
        "SELECT (e).verification_id, (e).status FROM (SELECT (otp_enqueue('ideamart', %s::jsonb)) AS e) AS x",
        (payload,),
    )
    assert status == "queued"
    assert gateway.wait(id)["outcome"] == "sent"
    expanded = gateway.row("SELECT (otp_enqueue('ideamart', %s::jsonb)).*", (payload,))
    assert gateway.wait(expanded["verification_id"])["outcome"] == "sent"
    assert arrived(simulator) == once([id, expanded["verification_id"]])


# prepared transactions


def prepared(gateway, name):
    """Enqueued in a transaction that was prepared and left to others."""
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        id = gateway.enqueue(session=session)["verification_id"]
        gateway.execute(f"PREPARE TRANSACTION '{name}'", session=session)
    return id


def test_commit_prepared(preparing, simulator):
    with Listener(preparing) as listener:
        id = prepared(preparing, "one")
        other = preparing.enqueue()["verification_id"]
        assert preparing.wait(other)["outcome"] == "sent"
        assert (arrived(simulator), recorded(preparing)) == (once([other]), {other})
        # In a session that has enqueued nothing itself.
        preparing.execute("COMMIT PREPARED 'one'")
        assert simulator.count("ideamart", "send", atleast=2, wait=20000) == 2
        assert preparing.wait(id)["outcome"] == "sent"
        assert arrived(simulator) == once([id, other])
        heard = listener.hear(6)
        assert [news["status"] for news in heard if news["id"] == str(id)] == ["queued", "sending", "pending"]


def test_rollback_prepared(preparing, simulator):
    prepared(preparing, "two")
    with preparing.cluster.session(preparing.database) as other:
        preparing.execute("ROLLBACK PREPARED 'two'", session=other)
    kept = preparing.enqueue()["verification_id"]
    assert preparing.wait(kept)["outcome"] == "sent"
    assert (arrived(simulator), recorded(preparing)) == (once([kept]), {kept})


def test_prepared_over_a_crash(preparing, simulator):
    kept, _ = prepared(preparing, "kept"), prepared(preparing, "lost")
    preparing.session.close()
    preparing.cluster.restart("immediate")
    preparing.session = preparing.connect()
    other = preparing.enqueue()["verification_id"]
    assert preparing.wait(other)["outcome"] == "sent"
    assert arrived(simulator) == once([other])
    preparing.execute("COMMIT PREPARED 'kept'")
    preparing.execute("ROLLBACK PREPARED 'lost'")
    assert simulator.count("ideamart", "send", atleast=2, wait=20000) == 2
    assert preparing.wait(kept)["outcome"] == "sent"
    assert (arrived(simulator), recorded(preparing)) == (once([kept, other]), {kept, other})


def test_the_limit_counts_in_a_prepared_transaction(preparing, simulator):
    """What was prepared does not count against what its session does next."""
    with preparing.cluster.session(preparing.database, autocommit=False) as session:
        preparing.execute("SET otp_gateway.max_sends_per_transaction = 2", session=session)
        session.commit()
        for name in ("a", "b"):
            [preparing.enqueue(session=session) for _ in range(2)]
            preparing.execute(f"PREPARE TRANSACTION '{name}'", session=session)
            session.rollback()
    preparing.execute("COMMIT PREPARED 'a'")
    preparing.execute("COMMIT PREPARED 'b'")
    assert simulator.count("ideamart", "send", atleast=4, wait=20000) == 4
    assert [row["outcome"] for row in preparing.settle()] == ["sent"] * 4


# a crash


def test_a_crash_before_the_commit(preparing, simulator):
    sent = preparing.enqueue()["verification_id"]
    assert preparing.wait(sent)["outcome"] == "sent"
    sessions = [open_session(preparing, call(preparing)) for _ in range(3)]
    # On disk it may well be; committed it is not.
    preparing.execute("CHECKPOINT")
    preparing.cluster.restart("immediate")
    [session.close() for session in (*sessions, preparing.session)]
    preparing.session = preparing.connect()
    kept = preparing.enqueue()["verification_id"]
    assert preparing.wait(kept)["outcome"] == "sent"
    assert (arrived(simulator), recorded(preparing)) == (once([sent, kept]), {sent, kept})


# what is queued


def test_nothing_to_check_yet(gateway, simulator):
    gateway.full()
    to = gateway.number()
    id = gateway.enqueue("narrow", to, vendor="ideamart")["verification_id"]
    for row in (gateway.verify(id, "123456"), gateway.row("SELECT * FROM otp_resend(%s)", (id,))):
        assert (row["outcome"], row["status"], row["retryable"]) == ("not_found", "queued", False)
    stored = gateway.verification(id)
    assert (stored["status"], stored["check_count"], stored["send_count"]) == ("queued", 0, 0)
    assert (simulator.count("ideamart", "send"), simulator.count("ideamart", "verify")) == (1, 0)
    simulator.release()
    sent = gateway.wait(id)
    assert (sent["outcome"], sent["status"]) == ("sent", "pending")
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    assert simulator.count("ideamart", "send", to) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_cancel_before_it_is_sent(gateway, simulator, vendor):
    """Of any vendor, for none has heard of it."""
    gateway.full(vendor=vendor)
    canceled, kept = (gateway.enqueue("narrow", vendor=vendor)["verification_id"] for _ in range(2))
    row = gateway.row("SELECT * FROM otp_cancel(%s)", (canceled,))
    assert (row["outcome"], row["status"]) == ("canceled", "canceled")
    assert gateway.wait(canceled)["status"] == "canceled"
    simulator.release()
    assert gateway.wait(kept)["outcome"] == "sent"
    stored = gateway.verification(canceled)
    assert (stored["status"], stored["sealed"], stored["send_count"]) == ("canceled", None, 0)
    assert ("send", "sent") not in gateway.attempts(canceled)
    assert simulator.count(vendor) == 2
    # It has ended, and answers so.
    assert gateway.verify(canceled, "123456", **FLOWS[vendor]["verify"])["outcome"] == "not_found"
    assert simulator.count(vendor) == 2


def test_cancel_and_send_at_once(gateway, simulator):
    """Whoever comes first: canceled and not sent, or sent and, by a vendor without cancel, not canceled."""
    gateway.full()
    ids = [gateway.enqueue("narrow", vendor="ideamart")["verification_id"] for _ in range(40)]
    simulator.release()
    for id in reversed(ids):
        try:
            assert gateway.row("SELECT * FROM otp_cancel(%s)", (id,))["outcome"] == "canceled"
        except psycopg2.errors.InvalidParameterValue:
            pass
    gateway.settle()
    statuses = dict(gateway.execute("SELECT id, status::text FROM otp_gateway.verification"))
    assert {statuses[id] for id in ids} <= {"canceled", "pending"}
    assert arrived(simulator) == once(id for id, status in statuses.items() if status == "pending")


def test_in_its_own_transaction_it_cannot_be_followed(gateway, simulator):
    for statement in (
        "SELECT otp_verify(%s::uuid, '123456')",
        "SELECT otp_resend(%s)",
        "SELECT otp_cancel(%s)",
        "SELECT otp_gateway.wait(%s, '1s')",
    ):
        with gateway.cluster.session(gateway.database, autocommit=False) as session:
            id = gateway.enqueue(session=session)["verification_id"]
            with pytest.raises(psycopg2.Error) as error:
                gateway.execute(statement, (id,), session)
            assert error.value.pgcode == "55000"
            assert "COMMIT" in f"{error.value.diag.message_primary} {error.value.diag.message_hint}"
    assert simulator.count() == 0


def test_in_a_savepoint_of_its_own_transaction_neither(gateway):
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SAVEPOINT a", session=session)
        id = gateway.enqueue(session=session)["verification_id"]
        gateway.execute("RELEASE a", session=session)
        with pytest.raises(psycopg2.Error) as error:
            gateway.verify(id, "123456", session)
        assert error.value.pgcode == "55000"


# what is refused


def enqueue(provider, payload):
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return f"SELECT * FROM otp_enqueue('{provider}', '{text}')"


@pytest.mark.parametrize(
    "provider, payload, words", [case[1:] for case in PAYLOADS], ids=[case[0] for case in PAYLOADS]
)
def test_payload(gateway, provider, payload, words):
    """At once, as by otp_send, and not when its turn has come."""
    statement = f"SELECT * FROM otp_enqueue('{provider}', NULL)" if payload is None else enqueue(provider, payload)
    Refused(gateway, statement).says("22023", *words)


def test_unknown_things(gateway):
    Refused(gateway, enqueue("nowhere", with_("ideamart"))).says("42704", "nowhere", "CREATE SERVER")
    Refused(gateway, "SELECT otp_enqueue(NULL, '{}')").says("22023", "provider is null")
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER ideamart")
    Refused(gateway, enqueue("ideamart", with_("ideamart"))).says("42704", "user mapping", "ideamart")


def test_no_usage(gateway, simulator, role):
    name, session = role
    Refused(gateway, enqueue("ideamart", with_("ideamart")), session=session).says("42501", "ideamart", "GRANT USAGE")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    # USAGE is all that it takes: the role sees its own in the views, and none of the tables is its to read.
    id = gateway.enqueue(session=session)["verification_id"]
    assert gateway.wait(id, session=session)["outcome"] == "sent"
    assert gateway.verification(id)["created_by"] == name
    assert gateway.execute("SELECT id, created_by::text FROM otp_gateway.verification", session=session) == [(id, name)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        gateway.execute("SELECT * FROM otp_gateway_internal.verification_record", session=session)


def test_a_right_that_is_taken_away(gateway, simulator, role):
    """Before the commit: nothing is sent of what was allowed when it was enqueued. After it: nothing is enqueued."""
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    session.autocommit = False
    id = gateway.enqueue(session=session)["verification_id"]
    gateway.execute(f"REVOKE USAGE ON FOREIGN SERVER ideamart FROM {name}")
    session.commit()
    assert gateway.wait(id, session=session)["outcome"] == "auth_failed"
    session.commit()
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        gateway.enqueue(session=session)
    session.rollback()
    session.autocommit = True
    assert simulator.count() == 0


def test_of_others_nothing_is_known(gateway, role):
    _, session = role
    gateway.full()
    id = gateway.enqueue("narrow", vendor="ideamart")["verification_id"]
    for statement in ("otp_verify(%s::uuid, '1')", "otp_resend(%s)", "otp_cancel(%s)", "otp_gateway.wait(%s, '1s')"):
        with pytest.raises(psycopg2.errors.UndefinedObject):
            gateway.execute(f"SELECT {statement}", (id,), session)
    assert gateway.verification(id)["status"] == "queued"


def test_read_only_transaction(gateway):
    session = gateway.connect(options="-c default_transaction_read_only=on")
    Refused(gateway, enqueue("ideamart", with_("ideamart")), session=session).says("25006", "read-only transaction")
    session.close()


def test_not_preloaded():
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.session() as session, session.cursor() as cursor:
            cursor.execute("CREATE EXTENSION otp_gateway")
            cursor.execute("CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart")
            cursor.execute("CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'a', password 'b')")
            cursor.execute("CREATE TABLE customer (phone text)")
            cursor.execute(
                "CREATE TRIGGER send_code AFTER INSERT ON customer FOR EACH ROW"
                " EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{\"mobile\": \"phone\"}')"
            )
            for statement in (
                enqueue("ideamart", with_("ideamart")),
                # Of a table of the user's own, whose rows stand in the WAL, also of a statement that fails: no number.
                "INSERT INTO customer VALUES (repeat('7', 10))",
                "SELECT otp_gateway.wait('01980000-0000-7000-8000-000000000000', '1s')",
            ):
                with pytest.raises(psycopg2.Error) as error:
                    cursor.execute(statement)
                assert error.value.pgcode == "55000"
                assert "shared_preload_libraries = 'otp_gateway'" in error.value.diag.message_hint
                assert CANARIES["lk"] not in str(error.value)
    finally:
        cluster.remove()


def test_a_statement_that_fails_later_is_not_logged(gateway):
    before = len(gateway.cluster.log())
    for statement in (
        f"SELECT 1 / (x.outcome IS NOT NULL)::int FROM ({enqueue('ideamart', with_('ideamart'))}) AS x",
        f"BEGIN; {enqueue('ideamart', with_('ideamart'))}; SELECT 1 / 0; COMMIT",
        f"DO $$ BEGIN PERFORM otp_enqueue('ideamart', '{json.dumps(with_('ideamart'))}'); RAISE EXCEPTION 'no'; END $$",
        enqueue("ideamart", json.dumps(with_("ideamart"))[:-1]),
        f"SELECT nothing FROM otp_enqueue('ideamart', '{json.dumps(with_('ideamart'))}')",
    ):
        with pytest.raises(psycopg2.Error):
            gateway.execute(statement)
        gateway.execute("ROLLBACK")
    log = gateway.cluster.log()[before:]
    assert log.count("ERROR") == 5
    assert CANARIES["lk"] not in log and CANARIES["lk"][1:] not in log


# the limit


MANY = """SELECT count(*) FROM generate_series(1, {}) AS n, otp_enqueue('ideamart',
    jsonb_build_object('mobile', '079' || lpad(n::text, 7, '0')))"""


def test_a_thousand_and_no_more(gateway, simulator):
    assert gateway.execute("SHOW otp_gateway.max_sends_per_transaction") == [("1000",)]
    Refused(gateway, MANY.format(1001)).says("54000", "1000", "otp_gateway.max_sends_per_transaction")
    # A thousand are allowed, and of the thousand and one nothing goes out before them.
    ids = gateway.enqueue_many(1000)
    until(
        lambda: (
            gateway.execute("SELECT count(*)::int FROM otp_gateway.verification WHERE status = 'pending'") == [(1000,)]
        ),
        "all are sent",
        timeout=60,
    )
    assert arrived(simulator) == once(ids)


@pytest.fixture
def limited(gateway):
    """A session that may enqueue three in a transaction."""
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SET otp_gateway.max_sends_per_transaction = 3", session=session)
        session.commit()
        yield session


def refused_as_too_many(gateway, session):
    with pytest.raises(psycopg2.Error) as error:
        gateway.enqueue(session=session)
    assert error.value.pgcode == "54000"
    assert "otp_gateway.max_sends_per_transaction" in error.value.diag.message_hint


def test_the_limit_is_the_transaction_s(gateway, simulator, limited):
    """Not the statement's; and the next transaction begins anew."""
    kept = [gateway.enqueue(session=limited)["verification_id"] for _ in range(3)]
    limited.commit()
    [gateway.enqueue(session=limited) for _ in range(3)]
    refused_as_too_many(gateway, limited)
    limited.rollback()
    kept.append(gateway.enqueue(session=limited)["verification_id"])
    limited.commit()
    gateway.settle()
    assert (arrived(simulator), recorded(gateway)) == (once(kept), set(kept))


def test_what_a_savepoint_takes_back_does_not_count(gateway, simulator, limited):
    def run(statement):
        gateway.execute(statement, session=limited)

    kept = [gateway.enqueue(session=limited)["verification_id"]]
    run("SAVEPOINT a")
    gateway.enqueue(session=limited)
    run("SAVEPOINT b")
    gateway.enqueue(session=limited)
    run("RELEASE b")
    # The error itself is taken back, too.
    refused_as_too_many(gateway, limited)
    run("ROLLBACK TO a")
    run("SAVEPOINT c")
    kept += [gateway.enqueue(session=limited)["verification_id"] for _ in range(2)]
    run("RELEASE c")
    run("SAVEPOINT d")
    refused_as_too_many(gateway, limited)
    run("ROLLBACK TO d")
    limited.commit()
    gateway.settle()
    assert (arrived(simulator), recorded(gateway)) == (once(kept), set(kept))


def test_an_ordinary_role_may_not_raise_the_limit(gateway, role):
    _, session = role
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        gateway.execute("SET otp_gateway.max_sends_per_transaction = 5000", session=session)
    for name in ("max_tries", "queue_max_age", "notify"):
        # Of the whole server, for the worker serves all sessions.
        with pytest.raises(psycopg2.Error):
            gateway.execute(f"SET otp_gateway.{name} = DEFAULT")


# databases and workers


def test_of_one_database_nothing_is_sent_for_another(cluster, gateway, simulator):
    with cluster.database() as name, Gateway(cluster, name, simulator) as other:
        other.create_provider("ideamart")
        ids = {at: [at.enqueue()["verification_id"] for _ in range(5)] for at in (gateway, other)}
        for at in (gateway, other):
            assert [row["outcome"] for row in at.settle()] == ["sent"] * 5
            assert recorded(at) == set(ids[at])
        assert arrived(simulator) == once(ids[gateway] + ids[other])


WORKER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"


def test_the_first_call_in_a_database(cluster, simulator):
    """Nobody has called anything there before: the commit brings the worker."""
    with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
        gateway.create_provider("ideamart")
        committed(gateway, call(gateway))
        assert simulator.count("ideamart", "send", atleast=1, wait=20000) == 1
        assert [row["outcome"] for row in gateway.settle()] == ["sent"]


def test_commit_while_there_is_no_worker(gateway, simulator):
    gateway.enqueue()
    gateway.settle()
    [(pid,)] = gateway.execute(WORKER)
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        id = gateway.enqueue(session=session)["verification_id"]
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        gone(gateway, pid)
        session.commit()
    assert simulator.count("ideamart", "send", atleast=2, wait=20000) == 2
    assert gateway.wait(id)["outcome"] == "sent"


def test_create_extension_and_enqueue_in_one_transaction(cluster, simulator):
    """Either it is refused at once, as otp_send is, or it is sent after the commit: it is not lost."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        with cluster.session(name, autocommit=False) as session:
            gateway.session, own = session, gateway.session
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart")
            try:
                gateway.enqueue()
                session.commit()
                wanted = 1
            except psycopg2.Error as error:
                assert error.pgcode == "55000"
                session.rollback()
                wanted = 0
            gateway.session = own
        if not wanted:
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart")
        gateway.enqueue()
        assert simulator.count("ideamart", "send", atleast=wanted + 1, wait=20000) == wanted + 1


def test_in_a_security_definer_function(gateway, simulator):
    """The owner's rights count, and the owner is on record."""
    gateway.execute("""
        CREATE ROLE queue_owner; CREATE ROLE queue_caller LOGIN;
        GRANT USAGE ON FOREIGN SERVER ideamart TO queue_owner;
        GRANT CREATE ON SCHEMA public TO queue_owner;
        SET ROLE queue_owner;
        CREATE FUNCTION queue_code(mobile text) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT verification_id FROM otp_enqueue('ideamart', jsonb_build_object('mobile', mobile)) $$;
        RESET ROLE;
    """)
    try:
        to = gateway.number()
        with gateway.cluster.session(gateway.database, user="queue_caller") as caller:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                gateway.enqueue(to=to, session=caller)
            [(id,)] = gateway.execute("SELECT queue_code(%s)", (to,), caller)
        assert gateway.wait(id)["outcome"] == "sent"
        assert gateway.verification(id)["created_by"] == "queue_owner"
    finally:
        gateway.execute("DROP OWNED BY queue_owner; DROP ROLE queue_owner; DROP ROLE queue_caller")
