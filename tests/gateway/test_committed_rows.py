"""Promise: the trigger sends for the rows that COMMIT leaves, as COMMIT leaves them: the row as committed gets the code, or
nobody. Whatever a transaction has done to the row after the trigger has seen it, and whoever did it, no other number gets a
code, none gets two, and none is left out in silence: what cannot work is an error that names trigger, table and column."""

import json

import psycopg2
import pytest

from cluster import MAJOR
from conftest import Gateway, Running, statistics_at_once
from test_trigger import IDEAMART, KINDS, NAMED, check_ids, check_sent, customers, ids_in_rows, insert, trigger
from test_trigger import app as app
from test_trigger import gateway as gateway
from test_trigger import kind as kind
from test_trigger import partitioned as partitioned

every_kind = pytest.mark.parametrize("kind", list(KINDS), indirect=True)
can_tell = pytest.mark.parametrize("kind", ["after", "before, with the id"], indirect=True)

# What a transaction does after its INSERT of {0}, and the phones of the rows that it leaves.
THEN = {
    "changed": ("UPDATE customer SET phone = '{1}'", [1]),
    "changed twice": ("UPDATE customer SET phone = '{1}'; UPDATE customer SET phone = '{2}'", [2]),
    "changed and changed back": ("UPDATE customer SET phone = '{1}'; UPDATE customer SET phone = '{0}'", [0]),
    "something else is changed": ("UPDATE customer SET name = 'x'", [0]),
    "something else and then the phone": ("UPDATE customer SET name = 'x'; UPDATE customer SET phone = '{1}'", [1]),
    "the phone and then something else": ("UPDATE customer SET phone = '{1}'; UPDATE customer SET name = 'x'", [1]),
    "set to NULL": ("UPDATE customer SET phone = NULL", []),
    "set to NULL and back": ("UPDATE customer SET phone = NULL; UPDATE customer SET phone = '{0}'", [0]),
    "deleted": ("DELETE FROM customer", []),
    "deleted and inserted": ("DELETE FROM customer; INSERT INTO customer (phone) VALUES ('{1}')", [1]),
    "deleted and inserted again": ("DELETE FROM customer; INSERT INTO customer (phone) VALUES ('{0}')", [0]),
    "changed and deleted": ("UPDATE customer SET phone = '{1}'; DELETE FROM customer", []),
    "another row is changed": (
        "INSERT INTO customer (phone) VALUES ('{1}'); UPDATE customer SET phone = '{2}' WHERE phone = '{1}'",
        [0, 2],
    ),
    "another row is deleted": (
        "INSERT INTO customer (phone) VALUES ('{1}'); DELETE FROM customer WHERE phone = '{0}'",
        [1],
    ),
    "two rows change places": (
        "INSERT INTO customer (phone) VALUES ('{1}');"
        " UPDATE customer SET phone = CASE phone WHEN '{0}' THEN '{1}' ELSE '{0}' END",
        [0, 1],
    ),
    "in PL/pgSQL": ("DO $$ BEGIN UPDATE customer SET phone = '{1}'; END $$", [1]),
    "in a WITH": ("WITH a AS (UPDATE customer SET phone = '{1}' RETURNING 1) SELECT * FROM a", [1]),
    "by MERGE": ("MERGE INTO customer USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET phone = '{1}'", [1]),
    "deleted by MERGE": ("MERGE INTO customer USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE", []),
    "through a view": ("CREATE VIEW shown AS SELECT * FROM customer; UPDATE shown SET phone = '{1}'", [1]),
    "by a cursor": (
        "DECLARE c CURSOR FOR SELECT * FROM customer FOR UPDATE; FETCH c; UPDATE customer SET phone = '{1}' WHERE CURRENT OF c",
        [1],
    ),
    "by ON CONFLICT": (
        "INSERT INTO customer (phone) VALUES ('{0}') ON CONFLICT (phone) DO UPDATE SET phone = '{1}'",
        [1],
    ),
    "emptied": ("TRUNCATE customer", []),
    "emptied and filled": ("TRUNCATE customer; INSERT INTO customer (phone) VALUES ('{1}')", [1]),
    "dropped": ("DROP TABLE customer", []),
    "changed, and that is rolled back": ("SAVEPOINT s; UPDATE customer SET phone = '{1}'; ROLLBACK TO s", [0]),
    "changed in a savepoint": ("SAVEPOINT s; UPDATE customer SET phone = '{1}'; RELEASE s", [1]),
    "changed, that is rolled back, and changed": (
        "SAVEPOINT s; UPDATE customer SET phone = '{1}'; ROLLBACK TO s; UPDATE customer SET phone = '{2}'",
        [2],
    ),
    "deleted, and that is rolled back": ("SAVEPOINT s; DELETE FROM customer; ROLLBACK TO s", [0]),
    "emptied, and that is rolled back": ("SAVEPOINT s; TRUNCATE customer; ROLLBACK TO s", [0]),
    "another is inserted, rolled back, and the row is changed": (
        "SAVEPOINT s; INSERT INTO customer (phone) VALUES ('{1}'); ROLLBACK TO s; UPDATE customer SET phone = '{2}'",
        [2],
    ),
    "the table is rewritten, and the row is changed": (
        "ALTER TABLE customer ADD more text DEFAULT clock_timestamp()::text; UPDATE customer SET phone = '{1}'",
        [1],
    ),
    "a column is dropped, and the table is rewritten": (
        "ALTER TABLE customer ADD more int;"
        " ALTER TABLE customer DROP more, ADD other text DEFAULT clock_timestamp()::text",
        [0],
    ),
    "the table is rewritten, and something else is changed": (
        "ALTER TABLE customer ADD more text DEFAULT clock_timestamp()::text; UPDATE customer SET name = 'x'",
        [0],
    ),
}


@pytest.mark.parametrize("then, left", THEN.values(), ids=list(THEN))
@every_kind
def test_inserted_and_then(gateway, simulator, kind, then, left):
    if "MERGE" in then and MAJOR < 15:
        pytest.skip("MERGE came with 15")
    numbers = [gateway.number() for _ in range(3)]
    if "CASE" in then:
        gateway.execute("ALTER TABLE customer DROP CONSTRAINT customer_phone_key")
    if kind == "before" and "ON CONFLICT" in then:
        pytest.skip("refused: test_a_trigger_that_cannot_tell_says_so")
    gateway.execute(f"BEGIN; INSERT INTO customer (phone) VALUES ('{numbers[0]}'); {then.format(*numbers)}; COMMIT")
    check_sent(gateway, simulator, *[numbers[place] for place in left])
    if "DROP" not in then and not then.endswith("NULL"):
        check_ids(gateway, simulator, kind)


@every_kind
def test_changed_again_and_again(gateway, simulator, kind):
    """A row that is there: one message for what a transaction leaves of it."""
    one, two, three = (gateway.number() for _ in range(3))
    insert(gateway, one)
    gateway.execute(f"BEGIN; UPDATE customer SET phone = '{two}'; UPDATE customer SET phone = '{three}'; COMMIT")
    check_sent(gateway, simulator, one, three)
    gateway.execute(f"BEGIN; UPDATE customer SET phone = '{two}'; DELETE FROM customer; COMMIT")
    check_sent(gateway, simulator, one, three)


@every_kind
def test_by_a_foreign_key(gateway, simulator, kind):
    """CASCADE deletes and changes rows without a word of the session's."""
    one, two, three = (gateway.number() for _ in range(3))
    gateway.execute("""
        CREATE TABLE parent (phone text PRIMARY KEY);
        ALTER TABLE customer ADD FOREIGN KEY (phone) REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE
    """)
    gateway.execute(f"INSERT INTO parent VALUES ('{one}'), ('{two}')")
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (phone) VALUES ('{one}'), ('{two}');
        DELETE FROM parent WHERE phone = '{one}'; UPDATE parent SET phone = '{three}';
        COMMIT""")
    check_sent(gateway, simulator, three)
    check_ids(gateway, simulator, kind)


@can_tell
def test_by_a_trigger_that_comes_after(gateway, simulator, kind):
    """It changes the number before the row is written, or in a statement of its own afterwards: the code follows it."""
    one, two, three = (gateway.number() for _ in range(3))
    gateway.execute(f"""
        CREATE OR REPLACE FUNCTION changes_it() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.phone = '{one}' THEN NEW.phone := '{two}'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER zz_later BEFORE INSERT OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION changes_it();
    """)
    insert(gateway, one)
    check_sent(gateway, simulator, two)
    gateway.execute("DROP TRIGGER zz_later ON customer; TRUNCATE customer")
    gateway.execute(f"""
        CREATE OR REPLACE FUNCTION changes_it() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE customer SET phone = '{three}' WHERE phone = '{one}'; RETURN NULL; END $$;
        CREATE TRIGGER aa_earlier AFTER INSERT ON customer FOR EACH ROW EXECUTE FUNCTION changes_it();
    """)
    insert(gateway, one)
    check_sent(gateway, simulator, two, three)
    gateway.execute("DROP TRIGGER aa_earlier ON customer; TRUNCATE customer")
    gateway.execute("CREATE TRIGGER zz_later AFTER INSERT ON customer FOR EACH ROW EXECUTE FUNCTION changes_it()")
    insert(gateway, one)
    check_sent(gateway, simulator, two, three, three)
    check_ids(gateway, simulator, kind)


def test_a_later_trigger_makes_it_a_number_that_cannot_be_sent(gateway, simulator):
    """Then COMMIT says so, and the row is not there."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT", *IDEAMART, "verification_id")
    gateway.execute("""
        CREATE OR REPLACE FUNCTION changes_it() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.phone := NEW.name; RETURN NEW; END $$;
        CREATE TRIGGER zz_later BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION changes_it();
    """)
    value = gateway.number("hyperverge")
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        gateway.execute("INSERT INTO customer (phone, name) VALUES (%s, %s)", (gateway.number(), value))
    assert error.value.diag.message_primary.startswith(f"{NAMED}column phone: mobile")
    assert value not in str(error.value)
    # No number at all: nobody is sent anything.
    gateway.execute("INSERT INTO customer (phone) VALUES (%s)", (gateway.number(),))
    assert gateway.execute("SELECT phone FROM customer") == [(None,)]
    check_sent(gateway, simulator)


@pytest.mark.parametrize("when, more", KINDS.values(), ids=list(KINDS))
def test_a_trigger_that_is_for_inserts_alone(gateway, simulator, when, more):
    """It does not see the UPDATE; the code goes to what the row is by then, or to nobody."""
    customers(gateway)
    trigger(gateway, f"{when} INSERT", *IDEAMART, *more)
    one, two = gateway.number(), gateway.number()
    gateway.execute(
        f"BEGIN; INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET phone = '{two}'; COMMIT"
    )
    check_sent(gateway, simulator, *([two] if when == "AFTER" or more else []))


def test_as_the_role_that_enqueued(gateway, simulator, app):
    """What is put in the place of what was enqueued belongs to the same role, whoever commits."""
    name, _ = app
    customers(gateway)
    trigger(gateway, "BEFORE INSERT", *IDEAMART, "verification_id")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart TO {name}; GRANT ALL ON customer TO {name}")
    one, two = gateway.number(), gateway.number()
    gateway.execute(f"""BEGIN; SET LOCAL ROLE {name};
        INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET phone = '{two}';
        RESET ROLE; COMMIT""")
    check_sent(gateway, simulator, two)
    assert gateway.execute("SELECT created_by::text FROM otp_gateway.verification") == [(name,)]


@pytest.mark.parametrize("by", ["the role that enqueued", "somebody else"])
@pytest.mark.parametrize("when, more", [KINDS["after"], KINDS["before, with the id"]], ids=["after", "before"])
def test_nobody_sends_in_the_name_of_another(gateway, simulator, app, when, more, by):
    """Who may call a function that registers, and change the row, but not send: their number gets no code."""
    name, session = app
    owner = f"{name}_owner"
    customers(gateway)
    trigger(gateway, f"{when} INSERT", *IDEAMART, *more)
    gateway.execute(f"""
        CREATE ROLE {owner}; GRANT USAGE ON FOREIGN SERVER ideamart TO {owner}; GRANT ALL ON customer TO {owner}, {name};
        CREATE OR REPLACE FUNCTION register(phone text) RETURNS void LANGUAGE sql SECURITY DEFINER AS
            $$ INSERT INTO public.customer (phone) VALUES (phone) $$;
        GRANT CREATE ON SCHEMA public TO {owner}; ALTER FUNCTION register(text) OWNER TO {owner}
    """)
    try:
        one, two = gateway.number(), gateway.number()
        if by == "somebody else":
            gateway.execute(
                f"BEGIN; SELECT register('{one}'); UPDATE customer SET phone = '{two}'; COMMIT", session=session
            )
        else:
            gateway.execute(f"""BEGIN; SET LOCAL ROLE {owner};
                INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET phone = '{two}'; COMMIT""")
        assert gateway.execute("SELECT phone FROM customer") == [(two,)]
        check_sent(gateway, simulator, *([two] if by != "somebody else" else []))
    finally:
        gateway.execute(f"DROP FUNCTION register(text); DROP OWNED BY {owner}; DROP ROLE {owner}")


def test_in_a_procedure_that_commits(gateway, simulator):
    """Each of its transactions by itself."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    one, two, three = (gateway.number() for _ in range(3))
    gateway.execute(f"""DO $$ BEGIN
        INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET phone = '{two}'; COMMIT;
        INSERT INTO customer (phone) VALUES ('{three}'); DELETE FROM customer WHERE phone = '{three}'; COMMIT;
        INSERT INTO customer (phone) VALUES ('{three}'); ROLLBACK;
        INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET name = 'x'; COMMIT;
    END $$""")
    check_sent(gateway, simulator, two, one)
    check_ids(gateway, simulator, "before, with the id")


def test_a_large_value_is_compared_whole(gateway, simulator):
    """It is stored elsewhere than the row."""
    note = """note jsonb DEFAULT '{"message": "m"}'"""
    customers(gateway, f"person text, msg jsonb, name text, life integer DEFAULT 60, {note}")
    gateway.execute("ALTER TABLE customer ALTER msg SET STORAGE EXTERNAL")
    mapping = {
        "user_id": "person",
        "enterprise_id": "=bank",
        "msg": "msg",
        "expires_in": "life",
        "notification_msg": "note",
    }
    trigger(gateway, "AFTER INSERT OR UPDATE", "relid", json.dumps(mapping))
    to = gateway.number("relid")
    msg = [
        {"lng": "English", "subject": "Log-in", "message": f"Your code is $$OTP$$ {number} {'x' * 200}", "label": {}}
        for number in range(20)
    ]
    gateway.execute("BEGIN")
    gateway.execute(
        "INSERT INTO customer (person, msg) VALUES (%s, %s); UPDATE customer SET name = 'x'", (to, json.dumps(msg))
    )
    msg[-1]["message"] += "!"
    gateway.execute("UPDATE customer SET msg = %s; COMMIT", (json.dumps(msg),))
    check_sent(gateway, simulator, to, vendor="relid")
    assert simulator.log("relid", "send")[0]["body"]["msg"][-1]["message"].endswith("!")


def test_deferred(gateway, simulator):
    """A deferred constraint trigger sees each version of the row, all of them in the COMMIT."""
    customers(gateway)
    gateway.execute(
        "CREATE CONSTRAINT TRIGGER send_code AFTER INSERT OR UPDATE ON customer DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        f" EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{IDEAMART[1]}')"
    )
    one, two, three = (gateway.number() for _ in range(3))
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (phone) VALUES ('{one}'), ('{three}'); UPDATE customer SET phone = '{two}' WHERE phone = '{one}';
        DELETE FROM customer WHERE phone = '{three}'; COMMIT""")
    check_sent(gateway, simulator, two)


def test_two_triggers_on_one_table(gateway, simulator):
    """Each answers for its own columns."""
    customers(gateway, "home text, work text, work_id uuid")
    trigger(gateway, "AFTER INSERT OR UPDATE", "ideamart", '{"mobile": "home"}', name="a")
    trigger(
        gateway, "BEFORE INSERT OR UPDATE", "hyperverge", '{"mobile": "work", "template_id": "=t"}', "work_id", name="b"
    )
    home, other = gateway.number(), gateway.number()
    work, another = gateway.number("hyperverge"), gateway.number("hyperverge")
    gateway.execute(f"""BEGIN; INSERT INTO customer (home, work) VALUES ('{home}', '{work}');
        UPDATE customer SET home = '{other}'; UPDATE customer SET work = '{another}'; COMMIT""")
    gateway.settle()
    assert [simulator.count("ideamart", "send", to) for to in (home, other)] == [0, 1]
    assert [simulator.count("hyperverge", "send", to) for to in (work, another)] == [0, 1]


def test_a_wait_in_another_session(gateway, simulator):
    """The verification that the row names is the one whose code the person has, whatever became of it on the way."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT", *IDEAMART, "verification_id")
    one, two = gateway.number(), gateway.number()
    gateway.execute(
        f"BEGIN; INSERT INTO customer (phone) VALUES ('{one}'); UPDATE customer SET phone = '{two}'; COMMIT"
    )
    [(id, phone)] = ids_in_rows(gateway).items()
    assert phone == two and gateway.wait(id)["outcome"] == "sent"
    assert gateway.execute("SELECT otp_gateway.is_approved(%s, %s)", (id, two)) == [(False,)]
    assert gateway.verify(id, simulator.code("ideamart", two))["outcome"] == "approved"
    assert gateway.execute(
        "SELECT otp_gateway.is_approved(%s, %s), otp_gateway.is_approved(%s, %s)", (id, two, id, one)
    ) == [(True, False)]


@statistics_at_once
def test_a_commit_that_changes_nothing_looks_at_nothing(gateway, simulator):
    """No scan of the table for an INSERT alone, however large the table is, and whether there is an index or not."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    numbers = [gateway.number() for _ in range(4)]

    def scans(statement):
        with gateway.cluster.session(gateway.database) as session:
            gateway.execute(f"{statement}; SELECT pg_stat_force_next_flush()", session=session)
        # A new session: statistics are read once in a transaction, and written at the end of one that has them.
        with gateway.cluster.session(gateway.database) as session:
            gateway.execute("SELECT pg_stat_clear_snapshot()", session=session)
            return gateway.execute(
                "SELECT seq_scan::int FROM pg_stat_user_tables WHERE relname = 'customer'", session=session
            )[0][0]

    gateway.execute("SELECT pg_stat_force_next_flush()")
    before = scans("SELECT 1")
    add = "INSERT INTO customer (phone) VALUES ('{}')"
    assert scans(add.format(numbers[0])) == before
    assert scans(f"BEGIN; {add.format(numbers[1])}; {add.format(numbers[2])}; COMMIT") == before
    # The control: here it has to look, beside the UPDATE's own scan.
    assert scans(f"BEGIN; {add.format(numbers[3])}; UPDATE customer SET name = 'x'; COMMIT") == before + 2
    check_sent(gateway, simulator, *numbers)


@statistics_at_once
@every_kind
def test_a_large_table_is_not_read_whole(gateway, simulator, kind):
    """Where there is no index, only the blocks that somebody has written since the last VACUUM."""
    gateway.execute("ALTER TABLE customer ADD PRIMARY KEY (id), DISABLE TRIGGER ALL")
    gateway.execute("INSERT INTO customer (name) SELECT repeat('x', 500) FROM generate_series(1, 20000)")
    gateway.execute("ALTER TABLE customer ENABLE TRIGGER ALL")
    gateway.execute("VACUUM customer")
    one, two = gateway.number(), gateway.number()

    def fetched():
        with gateway.cluster.session(gateway.database) as session:
            return gateway.execute(
                "SELECT (heap_blks_read + heap_blks_hit)::int, pg_relation_size(relid)::int / 8192 FROM pg_statio_user_tables"
                " WHERE relname = 'customer'",
                session=session,
            )[0]

    gateway.execute("SELECT pg_stat_force_next_flush()")
    before, blocks = fetched()
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute(
            f"""BEGIN; INSERT INTO customer (phone) VALUES ('{one}');
            UPDATE customer SET phone = '{two}' WHERE id = 20001; COMMIT; SELECT pg_stat_force_next_flush()""",
            session=session,
        )
    assert blocks > 1000 and fetched()[0] - before < 100
    check_sent(gateway, simulator, two)


# generated columns


@pytest.mark.parametrize("when, more", [KINDS["before"], KINDS["before, with the id"]], ids=["before", "with the id"])
def test_a_generated_column_under_a_before_trigger(gateway, simulator, when, more):
    """It has no value before the row is written: said so, and not taken for a NULL."""
    customers(
        gateway,
        "typed text, phone text GENERATED ALWAYS AS (replace(typed, ' ', '')) STORED, name text, verification_id uuid",
    )
    trigger(gateway, f"{when} INSERT OR UPDATE", *IDEAMART, *more)
    for statement in (
        "INSERT INTO customer (typed) VALUES ('0771234567')",
        "INSERT INTO customer (typed) VALUES (NULL)",
    ):
        with pytest.raises(psycopg2.errors.TriggerProtocolViolated) as error:
            gateway.execute(statement)
        assert error.value.diag.message_primary.startswith(f"{NAMED}column phone is generated")
        assert "AFTER trigger" in error.value.diag.message_hint
    check_sent(gateway, simulator)


def test_a_generated_column_under_an_after_trigger(gateway, simulator):
    customers(gateway, "typed text, phone text GENERATED ALWAYS AS (replace(typed, ' ', '')) STORED, name text")
    trigger(gateway, "AFTER INSERT OR UPDATE")
    to, other = gateway.number(), gateway.number()
    gateway.execute("INSERT INTO customer (typed) VALUES (%s)", (f"{to[:3]} {to[3:]}",))
    check_sent(gateway, simulator, to)
    gateway.execute("UPDATE customer SET typed = %s", (to,))
    check_sent(gateway, simulator, to)
    gateway.execute("UPDATE customer SET typed = %s", (other,))
    check_sent(gateway, simulator, to, other)


def test_a_generated_column_for_the_id(gateway):
    customers(
        gateway, "phone text, verification_id uuid GENERATED ALWAYS AS ('01980000-0000-7000-8000-000000000000') STORED"
    )
    trigger(gateway, "BEFORE INSERT", *IDEAMART, "verification_id")
    with pytest.raises(psycopg2.errors.TriggerProtocolViolated) as error:
        insert(gateway, gateway.number())
    assert error.value.diag.message_primary.startswith(f"{NAMED}column verification_id")


# partitions


SUPPRESSED = {
    "leaving": "CREATE TRIGGER aa_stays BEFORE DELETE ON south FOR EACH ROW EXECUTE FUNCTION stays()",
    "arriving, before ours": "CREATE TRIGGER aa_stays BEFORE INSERT ON north FOR EACH ROW EXECUTE FUNCTION stays()",
    "arriving, after ours": "CREATE TRIGGER zz_stays BEFORE INSERT ON north FOR EACH ROW EXECUTE FUNCTION stays()",
}


@pytest.mark.parametrize("suppressed", SUPPRESSED.values(), ids=list(SUPPRESSED))
def test_a_move_to_another_partition_that_comes_to_nothing(gateway, simulator, partitioned, suppressed):
    here, refused = gateway.number(), gateway.number()
    gateway.execute(f"INSERT INTO customer (region, phone) VALUES ('south', '{here}')")
    gateway.execute("CREATE OR REPLACE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    gateway.execute(suppressed)
    move = f"UPDATE customer SET region = 'north', phone = '{refused}'"
    if partitioned == "before":
        with pytest.raises(psycopg2.errors.TriggerProtocolViolated) as error:
            gateway.execute(move)
        assert "AFTER trigger" in error.value.diag.message_hint
    else:
        gateway.execute(move)
    assert gateway.execute("SELECT count(*)::int FROM customer WHERE phone = %s", (refused,)) == [(0,)]
    check_sent(gateway, simulator, here)


@pytest.mark.parametrize("partitioned", ["after", "before, with the id"], indirect=True)
def test_changed_and_moved_in_one_transaction(gateway, simulator, partitioned):
    one, two = gateway.number(), gateway.number()
    gateway.execute(f"""BEGIN;
        INSERT INTO customer (region, phone) VALUES ('south', '{one}');
        UPDATE customer SET phone = '{two}'; UPDATE customer SET region = 'north'; UPDATE customer SET name = 'x'; COMMIT""")
    check_sent(gateway, simulator, two)
    check_ids(gateway, simulator, partitioned)


# what a vendor requires


AADHAAR = "ovd_data"


def test_each_kind_of_call_requires_its_own(gateway, simulator):
    """iServeU: a transaction's row needs no Aadhaar number, a registration's does; neither is silently unsent for what the
    other needs."""
    customers(gateway, "phone text, kind text, aadhaar text, document text, amount text, ref text")
    trigger(
        gateway,
        "AFTER INSERT OR UPDATE",
        "iserveu",
        json.dumps(
            {
                "mobile": "phone",
                "otp_type": "kind",
                "username": "=agent1",
                "ovd_data": "aadhaar",
                "ovd_type": "document",
                "amount": "amount",
                "reference": "ref",
            }
        ),
    )
    one, two, lost, no_ref = (gateway.number("iserveu") for _ in range(4))
    number = one.replace(one[:2], "76", 1) + "39"
    gateway.execute(f"INSERT INTO customer (phone, kind, amount, ref) VALUES ('{two}', '2', '100', 'REF0000001')")
    check_sent(gateway, simulator, two, vendor="iserveu")
    gateway.execute(
        f"INSERT INTO customer (phone, kind, aadhaar, document) VALUES ('{one}', '1', '{number}', 'Aadhaar Card')"
    )
    check_sent(gateway, simulator, two, one, vendor="iserveu")
    # What the row's own kind of call requires, and the row does not have: no send.
    gateway.execute(f"INSERT INTO customer (phone, kind, amount, ref) VALUES ('{lost}', '1', '100', NULL)")
    gateway.execute(f"INSERT INTO customer (phone, kind, amount, ref) VALUES ('{no_ref}', '2', '100', NULL)")
    check_sent(gateway, simulator, two, one, vendor="iserveu")


def test_a_default_of_the_provider_stands_in_for_a_null(gateway, simulator):
    gateway.create_provider("with_defaults", "hyperverge", defaults='{"template_id": "from the server"}')
    customers(gateway, "phone text, template text")
    trigger(gateway, "AFTER INSERT", "with_defaults", '{"mobile": "phone", "template_id": "template"}')
    to = gateway.number("hyperverge")
    gateway.execute("INSERT INTO customer (phone) VALUES (%s)", (to,))
    check_sent(gateway, simulator, to, vendor="hyperverge")


# the link, and those who write all columns


def test_an_orm_s_save_keeps_the_link(gateway, simulator):
    """create(), and then save() of an object that knows nothing of the id: all columns are written, and the link stays."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to, other = gateway.number(), gateway.number()
    insert(gateway, to)
    before = ids_in_rows(gateway)
    save = "UPDATE customer SET phone = %s, name = %s, verification_id = NULL"
    gateway.execute(save, (to, "Asha"))
    assert ids_in_rows(gateway) == before
    check_sent(gateway, simulator, to)
    # Nor in the transaction that inserts, nor where the number changes with it.
    gateway.execute(save, (other, "Rao"))
    [(id, phone)] = ids_in_rows(gateway).items()
    assert id not in before and phone == other
    check_sent(gateway, simulator, to, other)
    check_ids(gateway, simulator, "before, with the id")


def test_create_and_save_in_one_transaction(gateway, simulator):
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to = gateway.number()
    gateway.execute(f"""BEGIN; INSERT INTO customer (phone) VALUES ('{to}');
        UPDATE customer SET phone = '{to}', name = 'Asha', verification_id = NULL; COMMIT""")
    check_sent(gateway, simulator, to)
    check_ids(gateway, simulator, "before, with the id")


def test_an_upsert_of_all_columns(gateway, simulator):
    """What ON CONFLICT proposes has an id of the trigger's: it is no reason for a second message."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to, other = gateway.number(), gateway.number()
    upsert = """INSERT INTO customer (phone, name) VALUES (%s, %s) ON CONFLICT (phone) DO UPDATE
        SET phone = excluded.phone, name = excluded.name, verification_id = excluded.verification_id"""
    gateway.execute(upsert, (to, "Asha"))
    before = ids_in_rows(gateway)
    gateway.execute(upsert, (to, "Rao"))
    assert ids_in_rows(gateway) == before
    gateway.execute(upsert, (other, "Rao"))
    check_sent(gateway, simulator, to, other)
    check_ids(gateway, simulator, "before, with the id")


def test_an_id_that_somebody_gives_is_theirs(gateway, simulator):
    """Of another verification than the trigger's it says nothing, and is written."""
    customers(gateway)
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    to = gateway.number()
    insert(gateway, to)
    own = gateway.send(to=to)["verification_id"]
    gateway.execute("UPDATE customer SET verification_id = %s", (own,))
    assert ids_in_rows(gateway) == {own: to}
    # In the very transaction that enqueued it, too.
    gateway.execute(
        "UPDATE customer SET verification_id = (SELECT verification_id FROM otp_enqueue('ideamart', %s))",
        (json.dumps({"mobile": to}),),
    )
    assert own not in ids_in_rows(gateway)
    check_sent(gateway, simulator, to, to, to)


# what was withdrawn


WITHDRAWN = {
    "changed": "UPDATE customer SET phone = '{other}'",
    "deleted": "DELETE FROM customer",
    "emptied": "TRUNCATE customer",
    "rolled back": "ROLLBACK",
    "rolled back in part": "ROLLBACK TO s",
}


@pytest.mark.parametrize("then", WITHDRAWN)
def test_whoever_kept_an_id_that_was_withdrawn_is_told_so(gateway, simulator, then):
    """An application may have read it from INSERT ... RETURNING: by it there is nothing to verify, to wait for or to send again."""
    customers(gateway, "phone text, verification_id uuid")
    trigger(gateway, "BEFORE INSERT OR UPDATE", *IDEAMART, "verification_id")
    other = gateway.number()
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute("SAVEPOINT s", session=session)
        statement = "INSERT INTO customer (phone) VALUES (%s) RETURNING verification_id"
        [(id,)] = gateway.execute(statement, (gateway.number(),), session)
        gateway.execute(WITHDRAWN[then].format(other=other), session=session)
        session.commit()
    for call in (
        "otp_verify(%s::uuid, '123456')",
        "otp_verify(%s::text, '123456')",
        "otp_resend(%s)",
        "otp_cancel(%s)",
        "otp_gateway.wait(%s, '1min')",
    ):
        with pytest.raises(psycopg2.errors.UndefinedObject) as caught:
            gateway.execute(f"SELECT * FROM {call}", (id,))
        assert "no verification of that id" in caught.value.diag.message_primary, call
        assert "after COMMIT" in caught.value.diag.message_hint and "withdrawn" in caught.value.diag.message_hint, call
    # What says no in a value, and no error, does so of this, too.
    assert gateway.execute("SELECT otp_gateway.is_approved(%s, %s)", (id, other)) == [(False,)]
    # The id that the row has after COMMIT is the one.
    for now, phone in ids_in_rows(gateway).items():
        assert now != id and phone == other
        assert gateway.wait(now)["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == (1 if then == "changed" else 0)
