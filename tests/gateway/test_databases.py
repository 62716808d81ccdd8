"""Promise: every database of a server can use the gateway, also one created while the server runs; each can be dropped,
renamed and copied, and the extension dropped and created again, idle or in the middle of a call, without waiting for
it, without a restart and without a complaint in the server's log; after a restart every one of them works at once."""

import contextlib
import json
import secrets
import time

import psycopg2
import pytest

from conftest import Gateway, Running, complaints, until

# How long a statement may take that needs a database free of the gateway.
AT_ONCE = 2.0

# One that is on its way is in none yet.
WORKERS = "SELECT datname FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname IS NOT NULL"
SEND = "SELECT * FROM otp_send('ideamart', %s::jsonb)"


def workers(cluster):
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute(WORKERS)
        return sorted(name for (name,) in cursor.fetchall())


def run(cluster, statement, database="postgres"):
    with cluster.session(database) as admin, admin.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def timed(cluster, statement, database="postgres"):
    began = time.monotonic()
    run(cluster, statement, database)
    assert time.monotonic() - began < AT_ONCE, f"{statement} was held up"


def payload(to):
    return (json.dumps({"mobile": to}),)


@contextlib.contextmanager
def quiet(cluster, *provoked):
    """The server log holds no complaint but those that the test provokes."""
    before = len(cluster.log())
    yield
    unexpected = [line for line in complaints(cluster.log()[before:]) if not any(text in line for text in provoked)]
    assert unexpected == []


@contextlib.contextmanager
def opened(cluster, database, simulator, install=False):
    with Gateway(cluster, database, simulator) as gateway:
        if install:
            gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart")
        yield gateway


@pytest.fixture
def name(cluster):
    """The name of a database that is not there yet; dropped at the end if it came."""
    name = f"test_{secrets.token_hex(4)}"
    yield name
    run(cluster, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    run(cluster, f"DROP DATABASE IF EXISTS {name}_b WITH (FORCE)")


def works(gateway, simulator):
    to = gateway.number()
    sent = gateway.send(to=to)
    assert sent["outcome"] == "sent"
    assert gateway.verify(sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"


def test_two_databases_at_once(cluster, gateway, simulator, name):
    with quiet(cluster):
        run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
        with opened(cluster, name, simulator, install=True) as other:
            simulator.fault("hold", operation="send")
            mine, others = gateway.number(), other.number()
            first = Running(gateway.connect(), SEND, payload(mine))
            second = Running(other.connect(), SEND, payload(others))
            simulator.held(2)
            assert {gateway.database, name} <= set(workers(cluster))
            simulator.release()
            for running, at, to in ((first, gateway, mine), (second, other, others)):
                row = running.row()
                assert row["outcome"] == "sent"
                assert at.attempts(row["verification_id"]) == [("send", "sent")]
            # What one did is nowhere in the other.
            assert gateway.execute("SELECT count(*) FROM otp_gateway.attempt") == [(1,)]
            assert other.execute("SELECT count(*) FROM otp_gateway.attempt") == [(1,)]
            first.session.close()
            second.session.close()


def test_a_verification_of_another_database_is_not_known(cluster, gateway, simulator, name):
    sent = gateway.send()
    run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
    with opened(cluster, name, simulator, install=True) as other:
        with pytest.raises(psycopg2.Error) as error:
            other.verify(sent["verification_id"], "123456")
        assert error.value.pgcode == "42704"


def test_drop_extension_idle(cluster, gateway, simulator):
    works(gateway, simulator)
    with quiet(cluster):
        timed(cluster, "DROP EXTENSION otp_gateway CASCADE", gateway.database)
        until(lambda: gateway.database not in workers(cluster), "the worker leaves")


# Forty end in more than one round.
@pytest.mark.parametrize("calls", [1, 40])
def test_drop_extension_during_calls(cluster, gateway, simulator, calls):
    simulator.fault("hold", operation="send")
    callers = [Running(gateway.connect(), SEND, payload(gateway.number())) for _ in range(calls)]
    simulator.held(calls)
    with quiet(cluster):
        timed(cluster, "DROP EXTENSION otp_gateway CASCADE", gateway.database)
        # They cannot be on record any more: the callers hear that nobody knows.
        assert [caller.row(AT_ONCE)["outcome"] for caller in callers] == ["unknown"] * calls
        until(lambda: gateway.database not in workers(cluster), "the worker leaves")
    for caller in callers:
        caller.session.close()


def test_drop_extension_with_requests_waiting_for_their_turn(cluster, gateway, simulator):
    sent = gateway.send()
    simulator.fault("hold", operation="verify")
    callers = [
        Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, '000000')", (sent["verification_id"],))
        for _ in range(3)
    ]
    simulator.held(1)
    until(
        lambda: (
            gateway.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%%otp_verify%%' AND datname = current_database() AND pid <> pg_backend_pid()"
            )
            == [(3,)]
        ),
        "all of them wait",
    )
    with quiet(cluster, "the background worker stopped", "the extension is not"):
        timed(cluster, "DROP EXTENSION otp_gateway CASCADE", gateway.database)
        for caller in callers:
            caller.wait(AT_ONCE)
    # One was under way; of the others nothing was sent, and they are told so.
    assert [caller.rows[0]["outcome"] for caller in callers if caller.error is None] == ["unknown"]
    assert {caller.error.pgcode for caller in callers if caller.error is not None} <= {"55000", "42704"}
    for caller in callers:
        caller.session.close()


def test_rolled_back_drop_extension_changes_nothing(cluster, gateway, simulator):
    sent = gateway.send(to="0771111111")
    with quiet(cluster), cluster.session(gateway.database, autocommit=False) as session:
        session.cursor().execute("DROP EXTENSION otp_gateway CASCADE")
        session.rollback()
        code = simulator.code("ideamart", "0771111111")
        assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"


def test_dropping_another_extension_leaves_calls_alone(cluster, gateway, simulator):
    gateway.execute("CREATE EXTENSION hstore")
    simulator.fault("hold", operation="send")
    caller = Running(gateway.connect(), SEND, payload(gateway.number()))
    simulator.held(1)
    with quiet(cluster):
        timed(cluster, "DROP EXTENSION hstore", gateway.database)
        simulator.release()
        assert caller.row()["outcome"] == "sent"
    caller.session.close()


def test_drop_and_create_extension_again(cluster, gateway, simulator):
    with quiet(cluster):
        works(gateway, simulator)
        # The same session goes on, and so does one that had not called yet.
        for session in (gateway.session, gateway.connect()):
            gateway.execute("DROP EXTENSION otp_gateway CASCADE")
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart")
            row = gateway.send(session=session)
            assert row["outcome"] == "sent"
            assert gateway.execute("SELECT count(*) FROM otp_gateway.attempt") == [(1,)]


def test_drop_and_create_extension_in_one_transaction(cluster, gateway, simulator):
    works(gateway, simulator)
    with quiet(cluster):
        with cluster.session(gateway.database, autocommit=False) as session:
            session.cursor().execute("DROP EXTENSION otp_gateway CASCADE")
            session.cursor().execute("CREATE EXTENSION otp_gateway")
            session.commit()
        gateway.create_provider("ideamart")
        works(gateway, simulator)


def test_create_extension_and_send_in_one_transaction(cluster, simulator):
    with cluster.database(extension=False) as name, cluster.session(name, autocommit=False) as session:
        with Gateway(cluster, name, simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway", session=session)
            gateway.session, own = session, gateway.session
            gateway.create_provider("ideamart")
            gateway.session = own
            began = time.monotonic()
            with pytest.raises(psycopg2.Error) as error:
                gateway.send(session=session)
            assert time.monotonic() - began < AT_ONCE
            assert error.value.pgcode == "55000"
            assert "COMMIT" in error.value.diag.message_hint
            assert simulator.count("ideamart", "send") == 0
            session.rollback()
            # Committed, it works at once.
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart")
            works(gateway, simulator)


def test_the_extension_in_another_schema(cluster, simulator):
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.execute("CREATE SCHEMA one_time; CREATE EXTENSION otp_gateway SCHEMA one_time")
        gateway.create_provider("ideamart")
        to = gateway.number()
        with pytest.raises(psycopg2.errors.UndefinedFunction):
            gateway.send(to=to)
        # A search path that has none of our schemas, and impostors of our names in front.
        gateway.execute(
            "CREATE SCHEMA mine; CREATE TYPE mine.result AS (a text); CREATE TYPE mine.outcome AS ENUM ('x')"
        )
        gateway.execute("SET search_path = mine")
        sent = gateway.row(f"SELECT * FROM one_time.otp_send('ideamart', '{json.dumps({'mobile': to})}')")
        assert sent["outcome"] == "sent"
        right = gateway.row(
            "SELECT * FROM one_time.otp_verify(%s::uuid, %s)", (sent["verification_id"], simulator.code("ideamart", to))
        )
        assert right["outcome"] == "approved"
        assert gateway.attempts(sent["verification_id"]) == [("send", "sent"), ("verify", "approved")]


def test_drop_database_idle(cluster, simulator, name):
    with quiet(cluster):
        run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
        with opened(cluster, name, simulator, install=True) as gateway:
            works(gateway, simulator)
        assert name in workers(cluster)
        timed(cluster, f"DROP DATABASE {name}")
        assert name not in workers(cluster)
        nothing_comes_later(cluster, simulator)


def test_drop_database_during_a_call(cluster, simulator, name):
    run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
    with opened(cluster, name, simulator, install=True) as gateway:
        simulator.fault("hold", operation="send")
        caller = Running(gateway.connect(), SEND, payload(gateway.number()))
        simulator.held(1)
        # The sessions are the test's own to be thrown out.
        with quiet(cluster, "terminating connection due to administrator command"):
            timed(cluster, f"DROP DATABASE {name} WITH (FORCE)")
            caller.wait(AT_ONCE)
            nothing_comes_later(cluster, simulator)


def test_drop_database_whose_caller_was_canceled(cluster, simulator, name):
    """The call goes on in the worker alone: nobody is connected, and the database goes at once."""
    run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
    with quiet(cluster, "canceling statement"):
        with opened(cluster, name, simulator, install=True) as gateway:
            simulator.fault("never", operation="send")
            caller = Running(gateway.connect(), SEND, payload(gateway.number()))
            simulator.count("ideamart", "send", atleast=1, wait=10000)
            caller.session.cancel()
            caller.wait()
            caller.session.close()
        timed(cluster, f"DROP DATABASE {name}")
        nothing_comes_later(cluster, simulator)


def nothing_comes_later(cluster, simulator):
    """What the launcher was told to do by then, it has done: a worker that it starts after it is up."""
    with cluster.database() as name, opened(cluster, name, simulator) as gateway:
        simulator.release()
        simulator.clear_faults()
        works(gateway, simulator)


def test_rename_database(cluster, simulator, name):
    with quiet(cluster):
        run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
        with opened(cluster, name, simulator, install=True) as gateway:
            sent = gateway.send(to="0772222222")
        assert name in workers(cluster)
        timed(cluster, f"ALTER DATABASE {name} RENAME TO {name}_b")
        with Gateway(cluster, f"{name}_b", simulator) as gateway:
            code = simulator.code("ideamart", "0772222222")
            assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"
        until(lambda: f"{name}_b" in workers(cluster), "the worker is back")
        nothing_comes_later(cluster, simulator)


def test_copy_database(cluster, simulator, name):
    with quiet(cluster):
        run(cluster, f"CREATE DATABASE {name} TEMPLATE template0")
        with opened(cluster, name, simulator, install=True) as gateway:
            sent = gateway.send(to="0773333333")
        assert name in workers(cluster)
        timed(cluster, f"CREATE DATABASE {name}_b TEMPLATE {name}")
        # Both work, each on a record of its own.
        with Gateway(cluster, f"{name}_b", simulator) as copy:
            code = simulator.code("ideamart", "0773333333")
            assert copy.verify(sent["verification_id"], code)["outcome"] == "approved"
        with Gateway(cluster, name, simulator) as gateway:
            assert gateway.attempts(sent["verification_id"]) == [("send", "sent")]
            works(gateway, simulator)
        until(lambda: {name, f"{name}_b"} <= set(workers(cluster)), "both have a worker")


def test_copying_rights_do_not_reach_the_workers_of_others(cluster, gateway):
    """A statement that fails for want of rights stops nobody's worker."""
    gateway.send()
    pid = worker_pid(gateway)
    run(cluster, "DROP ROLE IF EXISTS stranger")
    run(cluster, "CREATE ROLE stranger LOGIN")
    try:
        with cluster.session(user="stranger") as stranger:
            for statement in (
                f"DROP DATABASE {gateway.database}",
                f"ALTER DATABASE {gateway.database} RENAME TO stolen",
                f"CREATE DATABASE stolen TEMPLATE {gateway.database}",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    stranger.cursor().execute(statement)
    finally:
        run(cluster, "DROP ROLE stranger")
    gateway.send()
    assert worker_pid(gateway) == pid


def worker_pid(gateway):
    return gateway.execute(WORKERS.replace("datname", "pid") + " AND datname = current_database()")


def test_restart_with_several_databases(own_cluster, simulator):
    names = ["postgres", "alpha", "beta", "gamma"]
    sent = {}
    for at, name in enumerate(names):
        if name != "postgres":
            run(own_cluster, f"CREATE DATABASE {name} TEMPLATE template0")
        with opened(own_cluster, name, simulator, install=True) as gateway:
            sent[name] = (gateway.send(to=f"07700000{at:02}")["verification_id"], f"07700000{at:02}")
    run(own_cluster, "CREATE DATABASE without TEMPLATE template0")
    own_cluster.restart()
    # Of itself: nobody has called yet, and none stays where the extension is not.
    until(lambda: workers(own_cluster) == sorted(names), f"a worker in each of {names}, and in no other")
    for name in names:
        with Gateway(own_cluster, name, simulator) as gateway:
            verification, to = sent[name]
            assert gateway.verify(verification, simulator.code("ideamart", to))["outcome"] == "approved"
    assert complaints(own_cluster.log()) == []


def test_the_first_call_after_a_restart(own_cluster, simulator):
    """As soon as a session can connect, it can call."""
    with opened(own_cluster, "postgres", simulator, install=True) as gateway:
        gateway.send()
    own_cluster.restart()
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        began = time.monotonic()
        assert gateway.send()["outcome"] == "sent"
        assert time.monotonic() - began < AT_ONCE
    assert complaints(own_cluster.log()) == []


def test_a_template_with_the_extension(own_cluster, simulator):
    """CREATE DATABASE without a word about templates copies template1, where many put what every database shall have."""
    run(own_cluster, "CREATE EXTENSION otp_gateway", "template1")
    own_cluster.restart()
    until(lambda: workers(own_cluster) == ["template1"], "a worker in template1")
    timed(own_cluster, "CREATE DATABASE child")
    with opened(own_cluster, "child", simulator) as gateway:
        works(gateway, simulator)
    assert complaints(own_cluster.log()) == []


def test_errors_of_other_statements_are_as_they_were(cluster, database):
    """The library is loaded in every session: what fails there for reasons of its own says all that it would say."""

    def diagnosis(statement):
        with cluster.session(database) as session, pytest.raises(psycopg2.Error) as error:
            session.cursor().execute(statement)
        return error.value.diag

    assert diagnosis("CREATE TABLE t (a nosuchtype)").statement_position == "19"
    run(cluster, "CREATE TABLE u (a int); INSERT INTO u VALUES (1)", database)
    violated = diagnosis("ALTER TABLE u ADD CONSTRAINT positive CHECK (a > 5)")
    assert (violated.schema_name, violated.table_name, violated.constraint_name) == ("public", "u", "positive")
    duplicate = diagnosis("DO $$ BEGIN CREATE TABLE v (a int); CREATE TABLE v (a int); END $$")
    assert "PL/pgSQL function inline_code_block" in duplicate.context
    assert diagnosis("DROP DATABASE nowhere").message_detail is None
