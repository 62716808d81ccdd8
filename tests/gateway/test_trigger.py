"""Promise: a trigger on a table of one's own has a code sent for each row that is really there, and for no other: over
COPY, many rows at once, ON CONFLICT, partitions and replication as Postgres users expect of a row trigger. On UPDATE it
acts only if what is mapped has changed. Used wrongly, it says what is wrong by the names of trigger, table and column, and
no value of a row gets into an error or the log."""

import io
import json
import os

import psycopg2
import pytest

from canaries import RUN
from conftest import FLOWS, Gateway, Running, until
from test_enqueue import gone
from test_enqueue import preparing as preparing
from test_enqueue import preparing_cluster as preparing_cluster
from test_misuse import Refused, literal

IDEAMART = ("ideamart", '{"mobile": "phone"}')
NAMED = 'otp_gateway: trigger "send_code" on table public.customer: '


@pytest.fixture
def gateway(quick_gateway):
    gateway = quick_gateway
    gateway.keeps_numbers = True
    drop_tables(gateway)
    yield gateway
    gateway.execute("RESET ALL")
    gateway.drain()
    drop_tables(gateway)


def drop_tables(gateway):
    for (table,) in gateway.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    ):
        gateway.execute(f"DROP TABLE IF EXISTS {table} CASCADE")


def customers(gateway, columns="phone text UNIQUE, name text, verification_id uuid", table="customer"):
    gateway.execute(f"CREATE TABLE {table} (id int GENERATED ALWAYS AS IDENTITY, {columns})")


def trigger(gateway, when, *arguments, table="customer", name="send_code", on_condition=""):
    arguments = ", ".join(map(literal, arguments or IDEAMART))
    gateway.execute(
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW {on_condition}"
        f" EXECUTE FUNCTION otp_gateway.send_after_commit({arguments})"
    )


# Those that know whether the row is there in the end.
can_tell = pytest.mark.parametrize("kind", ["after", "before, with the id"], indirect=True)

# How the trigger may be written: when, and what it takes besides provider and mapping.
KINDS = {"after": ("AFTER", ()), "before": ("BEFORE", ()), "before, with the id": ("BEFORE", ("verification_id",))}


@pytest.fixture(params=list(KINDS))
def kind(request, gateway):
    """A table of customers with the trigger; the kind of it."""
    when, more = KINDS[request.param]
    customers(gateway)
    trigger(gateway, f"{when} INSERT OR UPDATE", *IDEAMART, *more)
    return request.param


def check_sent(gateway, simulator, *numbers, vendor="ideamart"):
    """These are sent, one message each time that a number is named, and nothing else."""
    settled = [row for row in gateway.settle() if row["status"] == "pending"]
    assert [simulator.count(vendor, "send", to) for to in numbers] == [numbers.count(to) for to in numbers]
    assert simulator.count() == len(numbers) == len(settled)
    assert {entry["complaint"] for entry in simulator.log()} <= {None}


def insert(gateway, *numbers, session=None):
    values = ", ".join(f"('{to}')" for to in numbers)
    gateway.execute(f"INSERT INTO customer (phone) VALUES {values}", session=session)


def ids_in_rows(gateway):
    """The verifications that the rows name, with the phone of each row."""
    return dict(gateway.execute("SELECT verification_id, phone FROM customer WHERE verification_id IS NOT NULL"))


def check_ids(gateway, simulator, kind):
    """Where the trigger writes ids, each row has that of its own message."""
    rows = ids_in_rows(gateway)
    if kind != "before, with the id":
        assert rows == {}
        return
    assert gateway.execute(
        "SELECT count(*)::int FROM customer WHERE verification_id IS NULL AND phone IS NOT NULL"
    ) == [(0,)]
    for id, to in rows.items():
        assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"


# rows that are there, and rows that are not


def test_insert(gateway, simulator, kind):
    to = gateway.number()
    insert(gateway, to)
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, kind)


def test_many_rows(gateway, simulator, kind):
    """Each row is a message, also where two rows have one number."""
    gateway.execute("ALTER TABLE customer DROP CONSTRAINT customer_phone_key")
    numbers = [gateway.number() for _ in range(20)]
    insert(gateway, *numbers, numbers[0])
    check_sent(gateway, simulator, *numbers, numbers[0])


def test_insert_from_a_query(gateway, simulator, kind):
    numbers = [gateway.number() for _ in range(5)]
    gateway.execute(
        "WITH new AS (INSERT INTO customer (phone) SELECT unnest(%s) RETURNING phone) SELECT count(*) FROM new",
        (numbers,),
    )
    check_sent(gateway, simulator, *numbers)
    check_ids(gateway, simulator, kind)


def test_copy(gateway, simulator, kind):
    numbers = [gateway.number() for _ in range(50)]
    with gateway.session.cursor() as cursor:
        cursor.copy_expert("COPY customer (phone) FROM STDIN", io.StringIO("\n".join(numbers)))
    check_sent(gateway, simulator, *numbers)
    check_ids(gateway, simulator, kind)


def test_copy_that_fails(gateway, simulator, kind):
    """All of it or nothing."""
    numbers = [gateway.number() for _ in range(3)]
    with gateway.session.cursor() as cursor, pytest.raises(psycopg2.Error):
        cursor.copy_expert("COPY customer (phone) FROM STDIN", io.StringIO("\n".join([*numbers, numbers[0]])))
    if kind == "after":
        RUN.visible(numbers[0])
    insert(gateway, last := gateway.number())
    check_sent(gateway, simulator, last)


@pytest.mark.parametrize("undo", ["ROLLBACK", "ROLLBACK TO s; COMMIT"])
def test_rolled_back(gateway, simulator, kind, undo):
    to, lost = gateway.number(), gateway.number()
    gateway.execute(f"BEGIN; SAVEPOINT s; INSERT INTO customer (phone) VALUES ('{lost}'); {undo}")
    insert(gateway, to)
    check_sent(gateway, simulator, to)


def test_caught_in_plpgsql(gateway, simulator, kind):
    to, lost = gateway.number(), gateway.number()
    gateway.execute(f"""DO $$ BEGIN
        BEGIN
            INSERT INTO customer (phone) VALUES ('{lost}'); PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN NULL;
        END;
        INSERT INTO customer (phone) VALUES ('{to}');
    END $$""")
    check_sent(gateway, simulator, to)


def test_nothing_before_the_commit(gateway, simulator, kind):
    to, other = gateway.number(), gateway.number()
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        insert(gateway, to, session=session)
        assert gateway.send(to=other)["outcome"] == "sent"
        assert simulator.count() == 1
        session.commit()
    check_sent(gateway, simulator, to, other)


@pytest.mark.parametrize("kind", ["before"], indirect=True)
def test_a_trigger_that_cannot_tell_says_so(gateway, simulator, kind):
    """BEFORE, and without a column for the id: whether the row is left out nobody could find out."""
    with pytest.raises(psycopg2.errors.TriggerProtocolViolated) as conflict:
        gateway.execute(f"INSERT INTO customer (phone) VALUES ('{gateway.number()}') ON CONFLICT DO NOTHING")
    assert "AFTER trigger" in conflict.value.diag.message_hint
    gateway.execute("CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    gateway.execute("CREATE TRIGGER zzz BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION later()")
    with pytest.raises(psycopg2.errors.TriggerProtocolViolated):
        insert(gateway, gateway.number())
    gateway.execute("DROP TRIGGER zzz ON customer")
    to = gateway.number()
    insert(gateway, to)
    check_sent(gateway, simulator, to)


@can_tell
def test_on_conflict_do_nothing(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute(f"INSERT INTO customer (phone) VALUES ('{one}'), ('{two}') ON CONFLICT DO NOTHING")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


@can_tell
def test_on_conflict_do_update_of_another_column(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute(
        f"INSERT INTO customer (phone) VALUES ('{one}'), ('{two}') ON CONFLICT (phone) DO UPDATE SET name = 'again'"
    )
    assert gateway.execute("SELECT phone FROM customer WHERE name = 'again'") == [(one,)]
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


@can_tell
def test_on_conflict_do_update_of_the_mapped_column(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute(f"INSERT INTO customer (phone) VALUES ('{one}') ON CONFLICT (phone) DO UPDATE SET phone = '{two}'")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


@can_tell
def test_on_conflict_in_the_transaction_that_inserted(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (phone) VALUES ('{one}');
        INSERT INTO customer (phone) VALUES ('{one}'), ('{two}') ON CONFLICT DO NOTHING;
        COMMIT""")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


@pytest.mark.parametrize("first", ["commit", "rollback"])
@can_tell
def test_two_sessions_insert_the_same_row(gateway, simulator, kind, first):
    """The one that had to wait finds the row there, or it is the one that inserts it."""
    to = gateway.number()
    with (
        gateway.cluster.session(gateway.database, autocommit=False) as one,
        gateway.cluster.session(gateway.database) as two,
    ):
        insert(gateway, to, session=one)
        running = Running(two, f"INSERT INTO customer (phone) VALUES ('{to}') ON CONFLICT DO NOTHING")
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s", (two.info.backend_pid,)
            ),
            "the second waits for the first",
        )
        getattr(one, first)()
        assert running.wait().error is None
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, kind)


@pytest.mark.parametrize("on", ["INSERT", "UPDATE"])
@can_tell
def test_a_later_trigger_that_says_no(gateway, simulator, kind, on):
    """A BEFORE trigger that returns NULL takes the row back that ours has seen before."""
    one, two, changed = (gateway.number() for _ in range(3))
    gateway.execute("""
        CREATE OR REPLACE FUNCTION say_no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RETURN CASE WHEN NEW.name = 'no' THEN NULL ELSE NEW END; END $$;
        CREATE TRIGGER zz_later BEFORE INSERT OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION say_no();
    """)
    insert(gateway, one)
    if on == "INSERT":
        gateway.execute(f"INSERT INTO customer (phone, name) VALUES ('{changed}', 'no'), ('{two}', 'yes')")
    else:
        insert(gateway, two)
        gateway.execute(f"UPDATE customer SET phone = '{changed}', name = 'no' WHERE phone = '{one}'")
    assert gateway.execute("SELECT count(*)::int FROM customer WHERE phone = %s", (changed,)) == [(0,)]
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


WRITTEN = {
    "in a WITH": "WITH new AS (INSERT INTO customer (phone) VALUES ({}) ON CONFLICT DO NOTHING RETURNING *) SELECT * FROM new",
    "beside another": "WITH a AS (INSERT INTO customer (phone) VALUES ({}) ON CONFLICT DO NOTHING) INSERT INTO other VALUES (1)",
    "in PL/pgSQL": "DO $$ BEGIN INSERT INTO customer (phone) VALUES ({}) ON CONFLICT DO NOTHING; END $$",
    "in EXECUTE": "DO $$ BEGIN EXECUTE format('INSERT INTO customer (phone) VALUES (%L) ON CONFLICT DO NOTHING', {}); END $$",
    "through a view": "INSERT INTO shown (phone) VALUES ({}) ON CONFLICT DO NOTHING",
    "prepared": "PREPARE p AS INSERT INTO customer (phone) VALUES ($1) ON CONFLICT DO NOTHING; EXECUTE p ({0}); EXECUTE p ({0}); DEALLOCATE p",
    "from a query": "INSERT INTO customer (phone) SELECT {} FROM generate_series(1, 3) ON CONFLICT DO NOTHING",
    "by a rule": "INSERT INTO other VALUES (1)",
    "repeatable read": "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO customer (phone) VALUES ({}) ON CONFLICT DO NOTHING; COMMIT",
    "rolled back and done again": "BEGIN; SAVEPOINT s; INSERT INTO customer (phone) VALUES ({0}) ON CONFLICT DO NOTHING; ROLLBACK TO s;"
    " INSERT INTO customer (phone) VALUES ({0}) ON CONFLICT DO NOTHING; COMMIT",
    "after one without it": "BEGIN; INSERT INTO customer (phone) VALUES (NULL); INSERT INTO customer (phone) VALUES ({}) ON CONFLICT DO NOTHING; COMMIT",
}


@pytest.mark.parametrize("statement", WRITTEN.values(), ids=list(WRITTEN))
@can_tell
def test_on_conflict_wherever_it_is_written(gateway, simulator, kind, statement):
    """Once for the row that is inserted, and not for the one that is there already."""
    to = gateway.number()
    gateway.execute("CREATE TABLE other (a int); CREATE VIEW shown AS SELECT phone FROM customer")
    if statement == WRITTEN["by a rule"]:
        gateway.execute(
            f"CREATE RULE also AS ON INSERT TO other DO ALSO INSERT INTO customer (phone) VALUES ('{to}') ON CONFLICT DO NOTHING"
        )
    for _ in range(2):
        gateway.execute(statement.format(f"'{to}'"))
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, kind)


THEN = {
    "its column is renamed": ("ALTER TABLE customer RENAME verification_id TO vid", 1),
    "its column is dropped": ("ALTER TABLE customer DROP verification_id", None),
    "its table is renamed": ("ALTER TABLE customer RENAME TO client", 1),
    "its table has a new schema": ("CREATE SCHEMA elsewhere; ALTER TABLE customer SET SCHEMA elsewhere", 1),
    "its trigger is dropped": ("DROP TRIGGER send_code ON customer", 1),
    "its table is dropped": ("DROP TABLE customer", 0),
    "its table is emptied": ("TRUNCATE customer", 0),
    "it is deleted": ("DELETE FROM customer", 0),
    "it gets another id": ("UPDATE customer SET verification_id = gen_random_uuid()", 0),
    "its id is set to NULL": ("UPDATE customer SET verification_id = NULL", 1),
}


@pytest.mark.parametrize("then, sent", THEN.values(), ids=list(THEN))
def test_the_table_changes_before_the_commit(gateway, simulator, then, sent):
    """The commit does not fail for it, and where the row is there its message is sent."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to = gateway.number()
    try:
        gateway.execute(f"BEGIN; INSERT INTO customer (phone) VALUES ('{to}') ON CONFLICT DO NOTHING; {then}; COMMIT")
    finally:
        gateway.execute("ROLLBACK; DROP SCHEMA IF EXISTS elsewhere CASCADE")
    if sent is not None:
        check_sent(gateway, simulator, *[to] * sent)


def test_what_looks_for_the_row_runs_no_code_of_others(gateway, simulator, app):
    """Who owns the table can have a function of theirs run when a column is read: it must not run as somebody else."""
    name, session = app
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}; GRANT CREATE ON SCHEMA public TO {name}")

    def run(statement):
        gateway.execute(statement, session=session)

    run("CREATE TABLE ran_as (who text); CREATE TABLE customer (phone text UNIQUE, verification_id uuid)")
    run("CREATE TYPE trick AS ENUM ('x')")
    run("""CREATE FUNCTION trick_to_uuid(trick) RETURNS uuid LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.ran_as VALUES (current_user); RETURN NULL; END $$""")
    run("CREATE CAST (trick AS uuid) WITH FUNCTION trick_to_uuid(trick) AS IMPLICIT")
    run(
        "CREATE TRIGGER send_code BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION"
        f" otp_gateway.send_after_commit('ideamart', '{IDEAMART[1]}', 'verification_id')"
    )
    try:
        run(f"""BEGIN;
            INSERT INTO customer (phone) VALUES ('{gateway.number()}') ON CONFLICT DO NOTHING;
            ALTER TABLE customer DROP verification_id;
            ALTER TABLE customer ADD verification_id trick DEFAULT 'x';
            COMMIT""")
    except psycopg2.Error:
        run("ROLLBACK")
    assert set(gateway.execute("SELECT who FROM ran_as")) <= {(name,)}


@can_tell
def test_who_may_only_insert(gateway, simulator, kind, app):
    """Neither SELECT nor a row security policy stands between the row and its message."""
    name, session = app
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}; GRANT INSERT ON customer TO {name}")
    gateway.execute("ALTER TABLE customer ENABLE ROW LEVEL SECURITY; ALTER TABLE customer FORCE ROW LEVEL SECURITY")
    gateway.execute("CREATE POLICY anybody ON customer FOR INSERT WITH CHECK (true)")
    to = gateway.number()
    gateway.execute("INSERT INTO customer (phone) VALUES (%s) ON CONFLICT DO NOTHING", (to,), session)
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, kind)


def test_moved_after_on_conflict(gateway, simulator):
    """The row is in another partition than the one that it was inserted into, by the time of the commit."""
    gateway.execute("""
        CREATE TABLE customer (region text, phone text, verification_id uuid, UNIQUE (region, phone)) PARTITION BY LIST (region);
        CREATE TABLE south PARTITION OF customer FOR VALUES IN ('south');
        CREATE TABLE north PARTITION OF customer FOR VALUES IN ('north');
    """)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    one, two = gateway.number(), gateway.number()
    insert = "INSERT INTO customer (region, phone) VALUES ('south', '{}') ON CONFLICT DO NOTHING"
    gateway.execute(f"BEGIN; {insert.format(one)}; UPDATE customer SET region = 'north'; COMMIT")
    gateway.execute(
        f"BEGIN; {insert.format(two)}; {insert.format(two)}; ALTER TABLE customer DETACH PARTITION south; COMMIT"
    )
    assert gateway.execute("SELECT count(*)::int FROM customer") == [(1,)]
    check_sent(gateway, simulator, one, two)


@pytest.mark.parametrize("kind", ["after", "before, with the id"])
def test_on_conflict_in_a_prepared_transaction(preparing, simulator, kind):
    gateway, (when, more) = preparing, KINDS[kind]
    gateway.keeps_numbers = True
    customers(gateway)
    trigger(gateway, f"{when} INSERT OR UPDATE", *IDEAMART, *more)
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (phone) VALUES ('{one}'), ('{two}') ON CONFLICT DO NOTHING;
        PREPARE TRANSACTION 'p'""")
    gateway.execute("COMMIT PREPARED 'p'")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


LATER = {
    "another column is updated": "UPDATE customer SET name = 'x'",
    "updated again and again": "UPDATE customer SET name = 'x'; UPDATE customer SET name = 'y'; UPDATE customer SET name = 'z'",
    "updated to what it was": "UPDATE customer SET phone = phone",
    "updated, and that is rolled back": "SAVEPOINT s; UPDATE customer SET name = 'x'; ROLLBACK TO s",
    "updated in a savepoint": "SAVEPOINT s; UPDATE customer SET name = 'x'; RELEASE s",
    "locked": "SELECT * FROM customer FOR UPDATE",
    "referenced": "CREATE TABLE child (phone text REFERENCES customer (phone)); INSERT INTO child SELECT phone FROM customer",
}


@pytest.mark.parametrize("later", LATER.values(), ids=list(LATER))
def test_what_happens_to_the_row_later_in_the_transaction(gateway, simulator, kind, later):
    to = gateway.number()
    gateway.execute(f"BEGIN; INSERT INTO customer (phone) VALUES ('{to}'); {later}; COMMIT")
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, kind)


def test_inserted_in_a_savepoint(gateway, simulator, kind):
    one, two, lost = (gateway.number() for _ in range(3))
    gateway.execute(f"""BEGIN;
        SAVEPOINT a; INSERT INTO customer (phone) VALUES ('{one}'); RELEASE a;
        SAVEPOINT b; INSERT INTO customer (phone) VALUES ('{lost}'); ROLLBACK TO b;
        SAVEPOINT c; SAVEPOINT d; INSERT INTO customer (phone) VALUES ('{two}'); RELEASE d; RELEASE c;
        COMMIT""")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


# UPDATE


def test_update(gateway, simulator, kind):
    """Only where what is mapped has changed."""
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    before = ids_in_rows(gateway)
    gateway.execute("UPDATE customer SET name = 'Asha'")
    gateway.execute(f"UPDATE customer SET phone = '{one}', name = 'Rao'")
    assert ids_in_rows(gateway) == before
    check_sent(gateway, simulator, one)
    gateway.execute(f"UPDATE customer SET phone = '{two}'")
    check_sent(gateway, simulator, one, two)
    after = ids_in_rows(gateway)
    assert list(after.values()) == ([two] if kind == "before, with the id" else [])
    assert after == {} or after.keys() != before.keys()
    check_ids(gateway, simulator, kind)


def test_update_to_and_from_null(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute("UPDATE customer SET phone = NULL")
    check_sent(gateway, simulator, one)
    gateway.execute(f"UPDATE customer SET phone = '{two}'")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


def test_update_of_many(gateway, simulator, kind):
    old, new = ([gateway.number() for _ in range(4)] for _ in range(2))
    insert(gateway, *old)
    gateway.execute("CREATE TABLE change AS SELECT unnest(%s) AS a, unnest(%s) AS b", (old[:2], new[:2]))
    gateway.execute("UPDATE customer SET name = 'x', phone = coalesce((SELECT b FROM change WHERE a = phone), phone)")
    check_sent(gateway, simulator, *old, *new[:2])
    check_ids(gateway, simulator, kind)


def test_update_without_where(gateway, simulator, kind):
    """The guard against it: one more than the limit, and nothing has happened."""
    gateway.execute("SET otp_gateway.max_sends_per_transaction = 6")
    numbers = [gateway.number() for _ in range(6)]
    insert(gateway, *numbers)
    insert(gateway, last := gateway.number())
    before = gateway.execute("SELECT * FROM customer ORDER BY id")
    with pytest.raises(psycopg2.Error) as error:
        gateway.execute("UPDATE customer SET phone = '077' || lpad((id + 5000)::text, 7, '0')")
    assert error.value.pgcode == "54000"
    assert "otp_gateway.max_sends_per_transaction" in error.value.diag.message_hint
    assert gateway.execute("SELECT * FROM customer ORDER BY id") == before
    check_sent(gateway, simulator, *numbers, last)
    # One that changes nothing mapped is none of its business.
    gateway.execute("UPDATE customer SET name = 'x'")


def test_only_the_events_that_it_is_for(gateway, simulator):
    customers(gateway)
    one, two = gateway.number(), gateway.number()
    trigger(gateway, "AFTER UPDATE")
    insert(gateway, one)
    check_sent(gateway, simulator)
    gateway.execute(f"UPDATE customer SET phone = '{two}'")
    check_sent(gateway, simulator, two)


def test_update_of_a_column_list(gateway, simulator):
    customers(gateway)
    one, two = gateway.number(), gateway.number()
    trigger(gateway, "BEFORE INSERT OR UPDATE OF phone", *IDEAMART, "verification_id")
    insert(gateway, one)
    gateway.execute("UPDATE customer SET name = 'x'")
    gateway.execute(f"UPDATE customer SET phone = '{two}'")
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, "before, with the id")


def test_when(gateway, simulator):
    """A condition of the trigger's own."""
    customers(gateway)
    one, two = gateway.number(), gateway.number()
    trigger(gateway, "AFTER INSERT", on_condition="WHEN (NEW.name = 'wants it')")
    gateway.execute(f"INSERT INTO customer (phone, name) VALUES ('{one}', 'wants it'), ('{two}', 'does not')")
    check_sent(gateway, simulator, one)


# the column that takes the id


def test_returning_the_id(gateway, simulator):
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to = gateway.number()
    [(id,)] = gateway.execute("INSERT INTO customer (phone) VALUES (%s) RETURNING verification_id", (to,))
    assert gateway.wait(id)["outcome"] == "sent"
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    assert gateway.verification(id)["enqueued"] is not None


def test_a_row_that_arrives_with_an_id_keeps_it(gateway, simulator):
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    own, to = gateway.number(), gateway.number()
    id = gateway.send(to=own)["verification_id"]
    gateway.execute("INSERT INTO customer (phone, verification_id) VALUES (%s, %s)", (own, id))
    insert(gateway, to)
    assert ids_in_rows(gateway)[id] == own
    check_sent(gateway, simulator, own, to)


def test_no_send_leaves_the_id_alone(gateway, simulator):
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    gateway.execute("INSERT INTO customer (name) VALUES ('Asha')")
    assert gateway.execute("SELECT verification_id FROM customer") == [(None,)]
    to = gateway.number()
    gateway.execute("UPDATE customer SET phone = %s", (to,))
    assert list(ids_in_rows(gateway).values()) == [to]
    before = ids_in_rows(gateway)
    gateway.execute("UPDATE customer SET name = 'Rao'")
    assert ids_in_rows(gateway) == before
    check_sent(gateway, simulator, to)


# mapping


def bodies(simulator, vendor):
    return [entry["body"] for entry in simulator.log(vendor, "send")]


def test_columns_and_constants(gateway, simulator):
    customers(gateway, "phone text, length int, app text")
    mapping = {"mobile": "phone", "otp_length": "length", "template_id": "=login", "otp_expiry": 10}
    trigger(gateway, "AFTER INSERT OR UPDATE", "hyperverge", json.dumps(mapping))
    one, two = gateway.number("hyperverge"), gateway.number("hyperverge")
    gateway.execute(f"INSERT INTO customer (phone, length) VALUES ('{one}', 6), ('{two}', NULL)")
    check_sent(gateway, simulator, one, two, vendor="hyperverge")
    wanted = {"templateId": "login", "otpExpiry": "10"}
    by_number = {body.pop("mobileNumber"): body for body in bodies(simulator, "hyperverge")}
    # NULL in a field that is not required: it is left out.
    assert by_number == {one: {**wanted, "otpLength": "6"}, two: wanted}
    # Any mapped column that changes counts.
    gateway.execute(f"UPDATE customer SET length = 5 WHERE phone = '{two}'")
    check_sent(gateway, simulator, one, two, two, vendor="hyperverge")
    gateway.execute("UPDATE customer SET app = 'x'")
    check_sent(gateway, simulator, one, two, two, vendor="hyperverge")


def test_null_in_a_required_field_is_no_send(gateway, simulator):
    customers(gateway, "phone text, template text")
    trigger(gateway, "AFTER INSERT OR UPDATE", "hyperverge", '{"mobile": "phone", "template_id": "template"}')
    one, two = gateway.number("hyperverge"), gateway.number("hyperverge")
    gateway.execute(
        f"INSERT INTO customer (phone, template) VALUES ('{one}', NULL), (NULL, 'a'), (NULL, NULL), ('{two}', 'a')"
    )
    check_sent(gateway, simulator, two, vendor="hyperverge")
    gateway.execute(f"UPDATE customer SET template = 'b' WHERE phone = '{one}'")
    check_sent(gateway, simulator, one, two, vendor="hyperverge")


def test_constants_of_every_type(gateway, simulator):
    customers(gateway, "person text")
    mapping = {
        "user_id": "person",
        "enterprise_id": "=bank",
        "msg": [{"lng": "English", "subject": "Log-in", "message": "Your code is $$OTP$$", "label": {}}],
        "ds_required": False,
        "expires_in": 120,
        "notification_msg": {"message": "=not a constant here", "subject": "person"},
    }
    trigger(gateway, "AFTER INSERT", "relid", json.dumps(mapping))
    to = gateway.number("relid")
    gateway.execute(f"INSERT INTO customer (person) VALUES ('{to}')")
    check_sent(gateway, simulator, to, vendor="relid")
    [body] = bodies(simulator, "relid")
    assert (body["user_id"], body["enterprise_id"], body["expires_in"], body["ds_required"]) == (to, "bank", 120, False)
    assert body["msg"][0]["message"] == "Your code is $$OTP$$"
    # What is a constant is taken as it is, with all that is in it.
    assert body["notification_msg"] == {"message": "=not a constant here", "subject": "person"}


def test_a_constant_that_begins_with_an_equals_sign(gateway, simulator):
    customers(gateway)
    trigger(gateway, "AFTER INSERT", "hyperverge", '{"mobile": "phone", "template_id": "==x"}')
    to = gateway.number("hyperverge")
    insert(gateway, to)
    check_sent(gateway, simulator, to, vendor="hyperverge")
    assert bodies(simulator, "hyperverge")[0]["templateId"] == "=x"


@pytest.mark.parametrize(
    "of", ["text", "varchar(20)", "char(10)", "bigint", "numeric(10)", "phone_number", "jsonb", "json", "name"]
)
def test_types_of_the_number(gateway, simulator, of):
    gateway.execute("DROP DOMAIN IF EXISTS phone_number; CREATE DOMAIN phone_number AS text CHECK (VALUE ~ '^[0-9]+$')")
    customers(gateway, f"phone {of}")
    trigger(gateway, "AFTER INSERT OR UPDATE", "hyperverge", '{"mobile": "phone", "template_id": "=t"}')
    one, two, three = (gateway.number("hyperverge") for _ in range(3))
    # A JSON column holds a JSON value: a string, or a number.
    first = f'"{one}"' if of.startswith("json") else one
    gateway.execute(f"INSERT INTO customer (phone) VALUES ('{first}'), ('{two}'), (NULL)")
    check_sent(gateway, simulator, one, two, vendor="hyperverge")
    assert {body["mobileNumber"] for body in bodies(simulator, "hyperverge")} == {one, two}
    gateway.execute(f"UPDATE customer SET phone = '{three}' WHERE phone IS NULL")
    check_sent(gateway, simulator, one, two, three, vendor="hyperverge")


def test_types_of_other_fields(gateway, simulator):
    customers(gateway, "person text, msg jsonb, signed boolean, life smallint, bank uuid")
    mapping = {
        "user_id": "person",
        "msg": "msg",
        "ds_required": "signed",
        "expires_in": "life",
        "enterprise_id": "bank",
    }
    mapping["notification_msg"] = {"message": "A code for you"}
    trigger(gateway, "AFTER INSERT", "relid", json.dumps(mapping))
    to, bank = gateway.number("relid"), "01980000-0000-7000-8000-000000000000"
    msg = FLOWS["relid"]["send"](to)["msg"]
    gateway.execute(
        "INSERT INTO customer (person, msg, signed, life, bank) VALUES (%s, %s, true, 90, %s)",
        (to, json.dumps(msg), bank),
    )
    check_sent(gateway, simulator, to, vendor="relid")
    [body] = bodies(simulator, "relid")
    assert (body["enterprise_id"], body["expires_in"], body["ds_required"]) == (bank, 90, True)
    assert body["msg"][0]["message"] == msg[0]["message"]


def test_the_vendor_s_own_names(gateway, simulator):
    customers(gateway)
    trigger(gateway, "AFTER INSERT", "hyperverge", '{"mobileNumber": "phone", "templateId": "=t"}')
    to = gateway.number("hyperverge")
    insert(gateway, to)
    check_sent(gateway, simulator, to, vendor="hyperverge")


def test_defaults_of_the_provider_are_laid_under(gateway, simulator):
    gateway.create_provider(
        "with_defaults", "hyperverge", defaults='{"template_id": "from the server", "otp_length": 6}'
    )
    customers(gateway)
    trigger(gateway, "AFTER INSERT", "with_defaults", '{"mobile": "phone"}')
    to = gateway.number("hyperverge")
    insert(gateway, to)
    check_sent(gateway, simulator, to, vendor="hyperverge")
    assert bodies(simulator, "hyperverge")[0]["templateId"] == "from the server"


def test_odd_names(gateway, simulator):
    gateway.execute('CREATE TABLE "Odd ""table""" ("Phone No" text, "é" uuid)')
    trigger(
        gateway,
        "BEFORE INSERT OR UPDATE",
        "ideamart",
        '{"mobile": "Phone No"}',
        "é",
        table='"Odd ""table"""',
        name='"Send ""it"""',
    )
    to = gateway.number()
    [(id,)] = gateway.execute('INSERT INTO "Odd ""table""" VALUES (%s) RETURNING "é"', (to,))
    assert gateway.wait(id)["outcome"] == "sent"
    with pytest.raises(psycopg2.Error) as error:
        gateway.execute('INSERT INTO "Odd ""table""" VALUES (\'12\')')
    for name in ("Send ", "Odd ", "Phone No"):
        assert name in error.value.diag.message_primary
    check_sent(gateway, simulator, to)


def test_two_triggers_on_one_table(gateway, simulator):
    customers(gateway, "home text, work text, home_id uuid, work_id uuid")
    trigger(gateway, "BEFORE INSERT OR UPDATE", "ideamart", '{"mobile": "home"}', "home_id", name="a")
    trigger(
        gateway, "BEFORE INSERT OR UPDATE", "hyperverge", '{"mobile": "work", "template_id": "=t"}', "work_id", name="b"
    )
    home, work, other = gateway.number(), gateway.number("hyperverge"), gateway.number("hyperverge")
    gateway.execute(f"INSERT INTO customer (home, work) VALUES ('{home}', '{work}')")
    gateway.execute(f"UPDATE customer SET work = '{other}'")
    gateway.settle()
    assert [simulator.count("ideamart", "send", home)] + [
        simulator.count("hyperverge", "send", to) for to in (work, other)
    ] == [1] * 3
    assert simulator.count() == 3


# tables that change


def test_columns_that_moved(gateway, simulator, kind):
    """Names count, not places."""
    one, two = gateway.number(), gateway.number()
    insert(gateway, one)
    gateway.execute("ALTER TABLE customer DROP COLUMN name; ALTER TABLE customer ADD COLUMN name text DEFAULT 'x'")
    gateway.execute("ALTER TABLE customer RENAME TO person; ALTER TABLE person RENAME TO customer")
    insert(gateway, two)
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, kind)


@pytest.mark.parametrize("change", ["RENAME phone TO mobile", "DROP phone"])
def test_a_mapped_column_that_is_gone(gateway, simulator, kind, change):
    insert(gateway, to := gateway.number())
    gateway.settle()
    gateway.execute(f"ALTER TABLE customer {change}")
    for statement in ("INSERT INTO customer (name) VALUES ('x')", "UPDATE customer SET name = 'y'"):
        with pytest.raises(psycopg2.Error) as error:
            gateway.execute(statement)
        assert error.value.pgcode == "39P01"
        assert error.value.diag.message_primary.startswith(NAMED)
        assert "phone" in error.value.diag.message_primary
    check_sent(gateway, simulator, to)


def test_a_trigger_that_is_disabled(gateway, simulator, kind):
    one, two = gateway.number(), gateway.number()
    gateway.execute("ALTER TABLE customer DISABLE TRIGGER send_code")
    insert(gateway, one)
    gateway.execute("ALTER TABLE customer ENABLE TRIGGER send_code")
    insert(gateway, two)
    check_sent(gateway, simulator, two)


def test_session_replication_role(gateway, simulator, kind):
    """As what replicates inserts: only a trigger that is ENABLE ALWAYS fires."""
    one, two = gateway.number(), gateway.number()
    gateway.execute("SET session_replication_role = replica")
    insert(gateway, one)
    gateway.execute("ALTER TABLE customer ENABLE ALWAYS TRIGGER send_code")
    insert(gateway, two)
    check_sent(gateway, simulator, two)


# partitions


@pytest.fixture(params=list(KINDS))
def partitioned(request, gateway):
    """Customers by region; one partition has its columns in another order."""
    when, more = KINDS[request.param]
    gateway.execute("""
        CREATE TABLE customer (region text, phone text, name text, verification_id uuid) PARTITION BY LIST (region);
        CREATE TABLE south PARTITION OF customer FOR VALUES IN ('south');
        CREATE TABLE north (gone int, verification_id uuid, name text, region text, phone text);
        ALTER TABLE north DROP COLUMN gone;
        ALTER TABLE customer ATTACH PARTITION north FOR VALUES IN ('north');
    """)
    trigger(gateway, f"{when} INSERT OR UPDATE", *IDEAMART, *more)
    return request.param


def test_partitions(gateway, simulator, partitioned):
    numbers = [gateway.number() for _ in range(5)]
    south, north, direct, copied, changed = numbers
    gateway.execute(f"INSERT INTO customer (region, phone) VALUES ('south', '{south}'), ('north', '{north}')")
    gateway.execute(f"INSERT INTO north (region, phone) VALUES ('north', '{direct}')")
    with gateway.session.cursor() as cursor:
        cursor.copy_expert("COPY customer (region, phone) FROM STDIN", io.StringIO(f"north\t{copied}\n"))
    check_sent(gateway, simulator, south, north, direct, copied)
    gateway.execute("UPDATE customer SET name = 'x'")
    gateway.execute(f"UPDATE customer SET phone = '{changed}' WHERE phone = '{north}'")
    check_sent(gateway, simulator, *numbers)
    check_ids(gateway, simulator, partitioned)


@pytest.mark.parametrize("partitioned", ["before, with the id"], indirect=True)
def test_a_move_to_another_partition_that_is_refused(gateway, simulator, partitioned):
    """By a trigger on the DELETE that it is in the partition that the row is to leave."""
    here, elsewhere, refused, moved = [gateway.number() for _ in range(4)]
    gateway.execute(f"INSERT INTO customer (region, phone) VALUES ('south', '{here}'), ('north', '{elsewhere}')")
    gateway.execute("""
        CREATE OR REPLACE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER stays BEFORE DELETE ON south FOR EACH ROW EXECUTE FUNCTION stays();
    """)
    gateway.execute(f"UPDATE customer SET region = 'north', phone = '{refused}' WHERE phone = '{here}'")
    assert gateway.execute("SELECT region, phone FROM customer WHERE region = 'south'") == [("south", here)]
    gateway.execute(f"UPDATE customer SET region = 'south', phone = '{moved}' WHERE phone = '{elsewhere}'")
    check_sent(gateway, simulator, here, elsewhere, moved)
    gateway.execute(f"UPDATE customer SET phone = '{refused}' WHERE phone = '{here}'")
    check_sent(gateway, simulator, here, elsewhere, moved, refused)


def test_an_error_names_the_partition_s_trigger_and_table(gateway, simulator, partitioned):
    with pytest.raises(psycopg2.Error) as error:
        gateway.execute("INSERT INTO customer (region, phone) VALUES ('north', '12')")
    assert error.value.pgcode == "22023"
    assert error.value.diag.message_primary.startswith(
        'otp_gateway: trigger "send_code" on table public.north: column phone: '
    )


def test_a_row_that_moves_keeps_its_verification(gateway, simulator):
    """For Postgres a row that changes its partition is inserted anew: the id that it has says that it is not."""
    gateway.execute("""
        CREATE TABLE customer (region text, phone text, verification_id uuid) PARTITION BY LIST (region);
        CREATE TABLE south PARTITION OF customer FOR VALUES IN ('south');
        CREATE TABLE north PARTITION OF customer FOR VALUES IN ('north');
    """)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    one, two = gateway.number(), gateway.number()
    gateway.execute(f"INSERT INTO customer (region, phone) VALUES ('south', '{one}')")
    before = ids_in_rows(gateway)
    gateway.execute("UPDATE customer SET region = 'north'")
    assert ids_in_rows(gateway) == before
    check_sent(gateway, simulator, one)
    # Moved and changed at once, it is sent once more.
    gateway.execute(f"UPDATE customer SET region = 'south', phone = '{two}'")
    assert list(ids_in_rows(gateway).values()) == [two]
    check_sent(gateway, simulator, one, two)
    check_ids(gateway, simulator, "before, with the id")


def test_inserted_and_moved_in_one_transaction(gateway, simulator):
    gateway.execute("""
        CREATE TABLE customer (region text, phone text, verification_id uuid) PARTITION BY LIST (region);
        CREATE TABLE south PARTITION OF customer FOR VALUES IN ('south');
        CREATE TABLE north PARTITION OF customer FOR VALUES IN ('north');
    """)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to = gateway.number()
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (region, phone) VALUES ('south', '{to}'); UPDATE customer SET region = 'north';
        COMMIT""")
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, "before, with the id")


# deferred


def test_a_deferred_constraint_trigger(gateway, simulator):
    """It fires in the commit itself."""
    customers(gateway)
    gateway.execute(
        "CREATE CONSTRAINT TRIGGER send_code AFTER INSERT OR UPDATE ON customer DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        f" EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{IDEAMART[1]}')"
    )
    one, lost = gateway.number(), gateway.number()
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        insert(gateway, one, session=session)
        assert gateway.execute("SELECT count(*)::int FROM otp_gateway.verification", session=session) == [(0,)]
        session.commit()
        insert(gateway, lost, session=session)
        session.rollback()
        insert(gateway, "12", session=session)
        with pytest.raises(psycopg2.Error) as error:
            session.commit()
        assert error.value.pgcode == "22023"
        assert error.value.diag.message_primary.startswith(NAMED)
    assert gateway.execute("SELECT phone FROM customer") == [(one,)]
    check_sent(gateway, simulator, one)


# rights


@pytest.fixture
def app(gateway):
    """A role with rights on the customers alone."""
    name = f"app_{os.urandom(4).hex()}"
    gateway.execute(f"CREATE ROLE {name} LOGIN")
    with gateway.cluster.session(gateway.database, user=name) as session:
        yield name, session
    gateway.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_the_rights_of_who_inserts(gateway, simulator, kind, app):
    name, session = app
    gateway.execute(f"GRANT ALL ON customer TO {name}")
    one, two = gateway.number(), gateway.number()
    Refused(gateway, f"INSERT INTO customer (phone) VALUES ('{one}')", session=session, values=[one]).says(
        "42501", NAMED, "ideamart", "GRANT USAGE"
    )
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}")
    insert(gateway, two, session=session)
    check_sent(gateway, simulator, two)
    assert gateway.execute("SELECT created_by::text FROM otp_gateway.verification") == [(name,)]


def test_in_a_security_definer_function(gateway, simulator, kind, app):
    """The function's owner inserts, and needs the right."""
    name, session = app
    gateway.execute("""
        CREATE OR REPLACE FUNCTION register(phone text) RETURNS void LANGUAGE sql SECURITY DEFINER AS
            $$ INSERT INTO public.customer (phone) VALUES (phone) $$""")
    to = gateway.number()
    gateway.execute("SELECT register(%s)", (to,), session)
    check_sent(gateway, simulator, to)
    assert gateway.execute("SELECT created_by::text FROM otp_gateway.verification") == [("postgres",)]


# replication


def test_logical_replication(own_cluster, simulator):
    """What is applied from elsewhere fires the trigger only if it is ENABLE ALWAYS (or REPLICA)."""
    own_cluster.configure({"wal_level": "logical"})
    own_cluster.restart()
    with own_cluster.database() as origin, own_cluster.database() as copy:
        with Gateway(own_cluster, origin, simulator) as there, Gateway(own_cluster, copy, simulator) as here:
            for at in (there, here):
                at.keeps_numbers = True
                at.create_provider("ideamart")
                at.execute("CREATE TABLE customer (phone text PRIMARY KEY, verification_id uuid)")
            trigger(here, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
            there.execute("CREATE PUBLICATION customers FOR TABLE customer")
            there.execute("SELECT pg_create_logical_replication_slot('customers', 'pgoutput')")
            here.execute(
                f"CREATE SUBSCRIPTION customers CONNECTION 'host={own_cluster.directory} port={own_cluster.port}"
                f" dbname={origin} user=postgres' PUBLICATION customers"
                " WITH (create_slot = false, slot_name = 'customers', copy_data = false)"
            )
            try:
                numbers = [here.number() for _ in range(3)]
                gone, before, after, last = (here.number() for _ in range(4))

                def replicate(to):
                    there.execute(f"INSERT INTO customer VALUES ('{to}')")
                    until(lambda: here.execute("SELECT 1 FROM customer WHERE phone = %s", (to,)), "it is applied", 60)

                replicate(numbers[0])
                here.execute("ALTER TABLE customer ENABLE ALWAYS TRIGGER send_code")
                replicate(numbers[1])
                # The commit of what applies it wakes the worker.
                assert simulator.count("ideamart", "send", atleast=1, wait=20000) == 1
                here.execute("ALTER TABLE customer ENABLE REPLICA TRIGGER send_code")
                replicate(numbers[2])
                assert simulator.count("ideamart", "send", atleast=2, wait=20000) == 2
                # The row as committed, or nobody.
                there.execute(
                    f"BEGIN; INSERT INTO customer VALUES ('{gone}'); DELETE FROM customer WHERE phone = '{gone}'"
                )
                there.execute("COMMIT")
                there.execute(f"BEGIN; INSERT INTO customer VALUES ('{before}')")
                there.execute(f"UPDATE customer SET phone = '{after}' WHERE phone = '{before}'; COMMIT")
                replicate(last)
                here.settle()
                assert [simulator.count("ideamart", "send", to) for to in numbers] == [0, 1, 1]
                assert [simulator.count("ideamart", "send", to) for to in (gone, before, after, last)] == [0, 0, 1, 1]
                assert set(ids_in_rows(here).values()) == {*numbers[1:], after, last}
                assert there.execute("SELECT count(*)::int FROM otp_gateway.verification") == [(0,)]
            finally:
                here.execute(
                    "ALTER SUBSCRIPTION customers DISABLE; ALTER SUBSCRIPTION customers SET (slot_name = NONE)"
                )
                here.execute("DROP SUBSCRIPTION customers")
                until(
                    lambda: there.execute("SELECT 1 FROM pg_replication_slots WHERE NOT active"), "the slot is free", 60
                )
                there.execute("SELECT pg_drop_replication_slot('customers')")


# what is refused


VALUE = "9135792468"


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_value_that_cannot_be_sent(gateway, kind, event):
    gateway.execute("INSERT INTO customer (name) VALUES ('Asha')")
    if event == "INSERT":
        statement = f"INSERT INTO customer (phone) VALUES ('{VALUE}')"
    else:
        statement = f"UPDATE customer SET phone = '{VALUE}'"
    refused = Refused(gateway, statement, values=[VALUE]).says("22023", "mobile", "tel:94")
    assert refused.message.startswith(f"{NAMED}column phone: mobile")
    assert gateway.execute("SELECT phone FROM customer") == [(None,)]


BAD = {
    "in a DO block": "DO $$ BEGIN INSERT INTO customer (phone) VALUES ('{}'); END $$",
    "in EXECUTE": "DO $$ BEGIN EXECUTE 'INSERT INTO customer (phone) VALUES (''{}'')'; END $$",
    "in a function": "SELECT register('{}')",
    "in a WITH": "WITH new AS (INSERT INTO customer (phone) VALUES ('{}') RETURNING *) SELECT * FROM new",
    "among others": "INSERT INTO customer (phone) VALUES ('0771230001'), ('{}')",
    "prepared": "PREPARE p AS INSERT INTO customer (phone) VALUES ('{}'); EXECUTE p",
}


@pytest.mark.parametrize("statement", BAD.values(), ids=list(BAD))
def test_wherever_it_is_written_no_value_gets_out(gateway, kind, statement):
    """Neither into the error nor into the log. (PL/pgSQL shows the client, as context, the text that it ran.)"""
    gateway.execute(
        "CREATE OR REPLACE FUNCTION register(phone text) RETURNS void LANGUAGE sql AS $$ INSERT INTO customer (phone) VALUES (phone) $$"
    )
    before = len(gateway.cluster.log())
    with gateway.cluster.session(gateway.database) as session, pytest.raises(psycopg2.Error) as error:
        gateway.execute(statement.format(VALUE), session=session)
    diag = error.value.diag
    assert error.value.pgcode == "22023"
    assert diag.message_primary.startswith(f"{NAMED}column phone: mobile")
    log = gateway.cluster.log()[before:]
    assert diag.message_primary in log
    assert [
        text for text in (diag.message_primary, diag.message_detail, diag.message_hint, log) if text and VALUE in text
    ] == []
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.verification") == [(0,)]


def test_copy_shows_no_value(gateway, kind):
    """COPY's own context quotes the line: not into the log."""
    before = len(gateway.cluster.log())
    with gateway.session.cursor() as cursor, pytest.raises(psycopg2.Error) as error:
        cursor.copy_expert("COPY customer (name, phone) FROM STDIN", io.StringIO(f"Asha\t{VALUE}\n"))
    assert error.value.pgcode == "22023"
    assert error.value.diag.message_primary.startswith(f"{NAMED}column phone: mobile")
    diag = error.value.diag
    # (The client is shown its own line, as the context that COPY gives to every error.)
    shown = [diag.message_primary, diag.message_detail, diag.message_hint, gateway.cluster.log()[before:]]
    assert [text for text in shown if text and VALUE in text] == []


def test_what_fails_after_the_trigger_is_not_logged(gateway, kind):
    """Postgres' own errors of such a statement, too: their details quote the row."""
    to = gateway.number()
    statements = [f"BEGIN; INSERT INTO customer (phone) VALUES ('{to}'); SELECT 1 / 0, '{to}'; COMMIT"]
    if kind != "after":
        # These fail before an AFTER trigger's turn.
        statements += [
            f"INSERT INTO customer (phone) VALUES ('{to}'), ('{to}')",
            f"WITH new AS (INSERT INTO customer (phone) VALUES ('{to}') RETURNING id) SELECT 1 / (id - id) FROM new",
        ]
    before = len(gateway.cluster.log())
    for statement in statements:
        with pytest.raises(psycopg2.Error):
            gateway.execute(statement)
        gateway.execute("ROLLBACK")
    log = gateway.cluster.log()[before:]
    assert log.count("ERROR") == len(statements)
    assert to not in log and to[1:] not in log
    # Of a statement that has nothing to do with us the log says what it always says.
    with pytest.raises(psycopg2.Error):
        gateway.execute("SELECT 1 / 0 AS control_value_in_the_log")
    assert "control_value_in_the_log" in gateway.cluster.log()[before:]


def test_a_constraint_of_the_table_fails_and_nothing_is_sent(gateway, simulator, kind):
    to, lost = gateway.number(), gateway.number()
    gateway.execute("ALTER TABLE customer ADD CHECK (name <> 'no')")
    with pytest.raises(psycopg2.errors.CheckViolation):
        gateway.execute(f"INSERT INTO customer (phone, name) VALUES ('{lost}', 'no')")
    if kind == "after":
        RUN.visible(lost)
    insert(gateway, to)
    check_sent(gateway, simulator, to)


WRONG = [
    # what, when, arguments, SQLSTATE, words
    ("no argument", "AFTER INSERT", [], "39P01", []),
    ("no mapping", "AFTER INSERT", ["ideamart"], "39P01", []),
    ("an argument too many", "BEFORE INSERT", [*IDEAMART, "verification_id", "x"], "39P01", []),
    ("no JSON", "AFTER INSERT", ["ideamart", "phone"], "39P01", ["JSON"]),
    ("no object", "AFTER INSERT", ["ideamart", '["phone"]'], "39P01", ["JSON"]),
    ("unknown column", "AFTER INSERT", ["ideamart", '{"mobile": "fone"}'], "39P01", ["fone"]),
    ("system column", "AFTER INSERT", ["ideamart", '{"mobile": "ctid"}'], "39P01", ["ctid"]),
    ("unknown field", "AFTER INSERT", ["ideamart", '{"moblie": "phone"}'], "39P01", ["moblie", "mobile"]),
    ("required field not mapped", "AFTER INSERT", ["hyperverge", '{"mobile": "phone"}'], "39P01", ["template_id"]),
    ("a code", "AFTER INSERT", ["ideamart", '{"mobile": "phone", "otp": "name"}'], "39P01", ["otp"]),
    (
        "bad constant",
        "AFTER INSERT",
        ["hyperverge", '{"mobile": "phone", "template_id": "=t", "otp_length": "=99"}'],
        "39P01",
        ["otp_length"],
    ),
    ("id after", "AFTER INSERT", [*IDEAMART, "verification_id"], "39P01", ["BEFORE"]),
    ("id nowhere", "BEFORE INSERT", [*IDEAMART, "verfication_id"], "39P01", ["verfication_id"]),
    ("id no uuid", "BEFORE INSERT", [*IDEAMART, "name"], "39P01", ["name", "uuid"]),
    ("no provider", "AFTER INSERT", ["nowhere", '{"mobile": "phone"}'], "42704", ["nowhere", "CREATE SERVER"]),
]


@pytest.mark.parametrize(
    "when, arguments, sqlstate, words", [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_wrong_use(gateway, when, arguments, sqlstate, words):
    customers(gateway)
    given = ", ".join(map(literal, arguments))
    gateway.execute(
        f"CREATE TRIGGER send_code {when} ON customer FOR EACH ROW EXECUTE FUNCTION otp_gateway.send_after_commit({given})"
    )
    to = gateway.number("hyperverge" if "hyperverge" in arguments else "ideamart")
    refused = Refused(gateway, f"INSERT INTO customer (phone, name) VALUES ('{to}', 'Asha')", values=[to])
    refused.says(sqlstate, *words)
    assert refused.message.startswith(NAMED)
    assert gateway.execute("SELECT count(*)::int FROM customer") == [(0,)]


def test_a_user_s_value_is_told_from_a_wrong_mapping(gateway):
    """22023 is for whoever typed the value, and for nobody else: also where the mapping has a fault besides."""
    customers(gateway, "phone text, digits text, name text, verification_id uuid")
    mapping = '{"mobile": "phone", "template_id": "=t", "otp_length": "digits"}'
    trigger(gateway, "AFTER INSERT", "hyperverge", mapping)
    good, typed = gateway.number("hyperverge"), "12"
    for phone, digits, columns in (
        (typed, "6", "column phone"),
        (good, "99", "column digits"),
        (typed, "99", "columns phone, digits"),
    ):
        insertion = f"INSERT INTO customer (phone, digits) VALUES ('{phone}', '{digits}')"
        refused = Refused(gateway, insertion).says("22023", columns)
        assert "mapping" not in refused.hint
    # Both at once: asking the user again does not help.
    gateway.execute("DROP TRIGGER send_code ON customer")
    trigger(gateway, "AFTER INSERT", "hyperverge", '{"mobile": "phone", "otp_length": "digits", "templateid": "name"}')
    Refused(gateway, f"INSERT INTO customer (phone, digits, name) VALUES ('{typed}', '6', 't')").says(
        "39P01", "templateid", "mobile"
    )


def test_what_is_missing_is_put_where_the_mapping_is(gateway):
    customers(gateway)
    trigger(gateway, "AFTER INSERT", "hyperverge", '{"mobile": "phone"}')
    refused = Refused(gateway, f"INSERT INTO customer (phone) VALUES ('{gateway.number('hyperverge')}')")
    refused.says("39P01", "template_id is missing")
    assert refused.hint.endswith(
        'Put template_id into the trigger\'s mapping (as a column, or as "=constant"), or into the server option defaults.'
    ), refused.hint


MISPLACED = {
    "statement": ("AFTER INSERT ON customer FOR EACH STATEMENT", "INSERT INTO customer (phone) VALUES ('0771230001')"),
    "delete": ("AFTER DELETE ON customer FOR EACH ROW", "DELETE FROM customer"),
    "before delete": ("BEFORE DELETE ON customer FOR EACH ROW", "DELETE FROM customer"),
    "truncate": ("AFTER TRUNCATE ON customer FOR EACH STATEMENT", "TRUNCATE customer"),
    "instead of": ("INSTEAD OF INSERT ON shown FOR EACH ROW", "INSERT INTO shown (phone) VALUES ('0771230001')"),
}


@pytest.mark.parametrize("when, statement", MISPLACED.values(), ids=list(MISPLACED))
def test_misplaced(gateway, when, statement):
    customers(gateway)
    gateway.execute("INSERT INTO customer (name) VALUES ('Asha')")
    gateway.execute("CREATE VIEW shown AS SELECT * FROM customer")
    gateway.execute(
        f"CREATE TRIGGER send_code {when} EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{IDEAMART[1]}')"
    )
    refused = Refused(gateway, statement, values=["0771230001"]).says(
        "39P01", '"send_code"', "public.shown" if "shown" in when else "public.customer"
    )
    assert (
        "AFTER INSERT OR UPDATE" in f"{refused.message} {refused.hint}"
        or "FOR EACH ROW" in f"{refused.message} {refused.hint}"
    )
    assert gateway.execute("SELECT count(*)::int FROM customer") == [(1,)]


def test_called_as_a_function(gateway):
    with pytest.raises(psycopg2.Error) as error:
        gateway.execute("SELECT otp_gateway.send_after_commit()")
    assert error.value.pgcode in ("39P01", "0A000")


def test_a_temporary_table(gateway, simulator):
    gateway.execute("CREATE TEMP TABLE customer_now (phone text)")
    trigger(gateway, "AFTER INSERT", table="customer_now")
    to = gateway.number()
    gateway.execute(f"INSERT INTO customer_now VALUES ('{to}')")
    check_sent(gateway, simulator, to)
    gateway.execute("DROP TABLE customer_now")


def test_a_session_that_ends_before_its_commit(gateway, simulator, kind):
    to, lost = gateway.number(), gateway.number()
    session = gateway.connect(autocommit=False)
    insert(gateway, lost, session=session)
    pid = session.info.backend_pid
    session.close()
    gone(gateway, pid)
    insert(gateway, to)
    check_sent(gateway, simulator, to)


# all of it together


def test_registration(gateway, simulator, app):
    """A customer who registers is sent a code, and becomes active only with an approved verification."""
    name, session = app
    gateway.execute(f"""
        CREATE TABLE customer (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            phone text NOT NULL UNIQUE,
            verification_id uuid,
            active boolean NOT NULL DEFAULT false
        );
        CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON customer FOR EACH ROW
            EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{{"mobile": "phone"}}', 'verification_id');
        CREATE OR REPLACE FUNCTION is_approved(id uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
            SET search_path = pg_catalog AS
            $$ SELECT EXISTS (SELECT FROM otp_gateway.verification v WHERE v.id = is_approved.id AND v.status = 'approved') $$;
        ALTER TABLE customer ADD CONSTRAINT active_is_verified CHECK (NOT active OR is_approved(verification_id));
        GRANT USAGE ON FOREIGN SERVER ideamart TO {name};
        GRANT SELECT, INSERT, UPDATE ON customer TO {name};
    """)

    def run(statement, *arguments):
        return gateway.execute(statement, arguments, session)

    one, two = gateway.number(), gateway.number()
    # Nobody is active who has not been asked.
    with pytest.raises(psycopg2.errors.CheckViolation):
        run("INSERT INTO customer (phone, active) VALUES (%s, true)", one)
    [(customer, id)] = run("INSERT INTO customer (phone) VALUES (%s) RETURNING id, verification_id", one)
    assert gateway.wait(id, session=session)["outcome"] == "sent"
    activate = "UPDATE customer SET active = true WHERE id = %s"
    with pytest.raises(psycopg2.errors.CheckViolation):
        run(activate, customer)
    assert gateway.verify(id, simulator.wrong("ideamart", one), session)["outcome"] == "invalid_code"
    with pytest.raises(psycopg2.errors.CheckViolation):
        run(activate, customer)
    assert gateway.verify(id, simulator.code("ideamart", one), session)["outcome"] == "approved"
    run(activate, customer)
    # In one transaction: the right code, and active.
    [(other, second)] = run("INSERT INTO customer (phone) VALUES (%s) RETURNING id, verification_id", two)
    gateway.wait(second, session=session)
    session.autocommit = False
    assert gateway.verify(second, simulator.code("ideamart", two), session)["outcome"] == "approved"
    run(activate, other)
    session.commit()
    session.autocommit = True
    # A new number is not verified: who is active cannot change it without a new code.
    three = gateway.number()
    with pytest.raises(psycopg2.errors.CheckViolation):
        run("UPDATE customer SET phone = %s WHERE id = %s", three, customer)
    [(third,)] = run(
        "UPDATE customer SET phone = %s, active = false WHERE id = %s RETURNING verification_id", three, customer
    )
    assert gateway.wait(third, session=session)["outcome"] == "sent"
    assert run("SELECT phone, active FROM customer ORDER BY id") == [(three, False), (two, True)]
    assert [simulator.count("ideamart", "send", to) for to in (one, two, three)] == [1, 1, 1]
