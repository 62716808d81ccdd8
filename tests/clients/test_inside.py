"""Promise: databases that are clients of one another, and jobs that a database runs, send what docs/clients.md says, and
nothing twice: pg_cron, postgres_fdw, dblink, logical replication of one table."""

import contextlib
import time

import psycopg2
import pytest

from conftest import HAS_CRON, HERE, inside, shown

FAR = """
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{directory}', port '{port}', dbname 'postgres');
CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'app', password_required 'false');
"""
SAME = """
CREATE SCHEMA otp;
CREATE EXTENSION otp_gateway SCHEMA otp;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
CREATE TABLE public.customer (id bigint PRIMARY KEY, phone text NOT NULL, name text, verification_id uuid UNIQUE);
CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON public.customer FOR EACH ROW
  EXECUTE FUNCTION otp_gateway.send_after_commit('sandbox', '{"mobile": "phone"}', 'verification_id');
"""
OUTCOME = "SELECT outcome FROM otp_gateway.wait(%s)"


@pytest.fixture(scope="module")
def elsewhere(place):
    """A session in a database without the extension, from which the other one is reached."""
    with place.cluster.database(extension=False) as database, place.cluster.session(database) as session:
        session.cursor().execute(FAR.format(directory=place.cluster.directory, port=place.cluster.port))
        session.cursor().execute(shown(HERE / "inside.sql", "-- postgres_fdw\n", "\n\n")[0])
        yield session


def until(found):
    end = time.monotonic() + 90
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def one(session, statement, arguments=None):
    with session.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchone()


def test_postgres_fdw(place, elsewhere):
    insert = shown(HERE / "inside.sql", "-- postgres_fdw\n", "\n\n")[1]
    (id,) = one(elsewhere, insert)
    assert place.rows(OUTCOME, (id,)) == [("sent",)]
    # The record, as its role sees it: text, and nothing that only the extension's own database knows.
    assert one(elsewhere, "SELECT status, pg_typeof(status)::text FROM verification WHERE id = %s", (id,)) == (
        "pending",
        "text",
    )
    assert one(elsewhere, "SELECT operation, outcome FROM attempt WHERE verification_id = %s", (id,)) == (
        "send",
        "sent",
    )
    elsewhere.autocommit = False
    (undone,) = one(elsewhere, insert)
    elsewhere.rollback()
    elsewhere.autocommit = True
    assert place.rows("SELECT count(*)::int FROM otp_gateway.verification WHERE id = %s", (undone,)) == [(0,)]


def test_the_other_ways_column_list(elsewhere):
    """What the page warns of: all columns."""
    elsewhere.cursor().execute(
        "CREATE FOREIGN TABLE whole (id bigint, phone text) SERVER far OPTIONS (schema_name 'public', table_name 'customer')"
    )
    with pytest.raises(psycopg2.errors.NotNullViolation):
        elsewhere.cursor().execute("INSERT INTO whole (phone) VALUES ('0773600009')")


def test_dblink(place, elsewhere):
    id, outcome = one(elsewhere, inside("dblink"))
    assert outcome == "sent"
    checked = "SELECT * FROM dblink('far', format('SELECT outcome FROM otp.otp_verify(%%L::uuid, %%L)', %s, '000000')) AS c (outcome text)"
    assert one(elsewhere, checked, (id,)) == ("approved",)
    assert place.rows(OUTCOME, (id,)) == [("sent",)]


def test_logical_replication(place):
    """A row arrives with its verification; where it arrives nothing is sent for it, also by the same trigger."""
    cluster = place.cluster
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(cluster.database(extension=False))
        there, here = stack.enter_context(cluster.session(database)), stack.enter_context(cluster.session())
        there.cursor().execute(SAME)
        here.cursor().execute(inside("logical replication"))
        here.cursor().execute("SELECT pg_create_logical_replication_slot('customers', 'pgoutput')")
        # In one cluster the slot has to be there before: making it would wait for the very transaction that asks.
        there.cursor().execute(
            f"CREATE SUBSCRIPTION customers CONNECTION 'host={cluster.directory} port={cluster.port} dbname=postgres user=postgres'"
            " PUBLICATION customers WITH (create_slot = false)"
        )
        try:
            place.session.cursor().execute("INSERT INTO public.customer (phone) VALUES ('0773600004')")
            arrived = "SELECT verification_id FROM public.customer WHERE phone = '0773600004'"
            (id,) = until(lambda: one(there, arrived))
            assert place.rows(OUTCOME, (id,)) == [("sent",)]
            # The worker there has looked, since it has sent what was its own.
            (own,) = one(
                there, "INSERT INTO public.customer (id, phone) VALUES (0, '0773600005') RETURNING verification_id"
            )
            assert one(there, OUTCOME, (own,)) == ("sent",)
            assert one(there, "SELECT array_agg(id::text) FROM otp_gateway.verification") == ([str(own)],)
        finally:
            there.cursor().execute("DROP SUBSCRIPTION customers")
            here.cursor().execute("DROP PUBLICATION customers")


@pytest.mark.skipif(not HAS_CRON, reason="a Postgres that is not Debian's brings its own")
def test_pg_cron(place):
    """The job of a plain role, and its send. Each day has one message: the key is the day's."""
    ran = "SELECT status, return_message FROM cron.job_run_details WHERE status NOT IN ('starting', 'running') ORDER BY runid LIMIT 1"
    assert until(lambda: place.rows(ran)) == [("succeeded", "SELECT 1")]
    sent = "SELECT status FROM otp_gateway.find('sandbox', '0773600001') WHERE status <> 'queued'"
    assert until(lambda: place.rows(sent)) == [("pending",)]
    place.rows("SELECT cron.unschedule('remind')")
