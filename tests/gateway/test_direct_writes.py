"""Promise: the rows of the record, which worker and sessions write without SQL, are whole: in every index, also one that
somebody has added; under every constraint; with what somebody has changed in them meanwhile. No trigger runs with rights that
its owner does not have."""

import contextlib

import pytest

from cluster import MAJOR
from conftest import Running, statistics_at_once, until

TABLES = ("verification_record", "attempt_record", "reference", "identity")
BODY = "SELECT * FROM otp_send('ideamart', jsonb_build_object('mobile', %s))"


def every_kind_of_row(gateway, simulator):
    """Sends, checks, resends, what is queued, what is refused, and what is rolled back; some of it at once."""
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    gateway.verify(id, simulator.wrong("ideamart", to))
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    gateway.execute("SELECT otp_resend(%s)", (gateway.send()["verification_id"],))
    queued = gateway.enqueue_many(30)
    with contextlib.closing(gateway.connect()) as session:
        session.autocommit = False
        gateway.enqueue(session=session)
        gateway.execute("SAVEPOINT s", session=session)
        gateway.enqueue(session=session)
        gateway.execute("ROLLBACK TO s", session=session)
        kept = gateway.enqueue(session=session)["verification_id"]
        session.commit()
    calls = [Running(gateway.connect(), BODY, (gateway.number(),)) for _ in range(20)]
    assert {call.row()["outcome"] for call in calls} == {"sent"}
    assert {gateway.wait(id)["outcome"] for id in [*queued, kept]} == {"sent"}


def check_indexes(gateway):
    gateway.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
    for table in TABLES:
        gateway.execute(
            "SELECT bt_index_parent_check(i.indexrelid, true) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "WHERE i.indrelid = %s::regclass AND c.relam = 403",
            (f"otp_gateway_internal.{table}",),
        )


def test_every_row_is_in_every_index(gateway, simulator):
    """Also in those of somebody who looks into the record in ways of their own: partial, unique, of an expression."""
    gateway.execute(
        """CREATE INDEX ON otp_gateway_internal.verification_record (status, created_at DESC);
           CREATE INDEX ON otp_gateway_internal.verification_record ((date_trunc('day', created_at AT TIME ZONE 'UTC')));
           CREATE UNIQUE INDEX ON otp_gateway_internal.attempt_record (verification_id, id) WHERE outcome IS NOT NULL;
           CREATE INDEX ON otp_gateway_internal.attempt_record USING gin (response)"""
    )
    every_kind_of_row(gateway, simulator)
    check_indexes(gateway)
    with contextlib.closing(gateway.connect(options="-c enable_seqscan=off")) as session:
        by_index = gateway.execute(
            "SELECT count(*)::int FROM otp_gateway_internal.attempt_record WHERE response ? 'statusCode'",
            session=session,
        )
    assert by_index == gateway.execute(
        "SELECT count(*)::int FROM otp_gateway_internal.attempt_record WHERE (response ? 'statusCode') IS TRUE"
    )
    assert by_index[0][0] > 50


def test_an_index_of_blocks(gateway, simulator):
    """From Postgres 16 on an update of what only BRIN knows has an entry there and leaves the other indexes alone."""
    gateway.execute(
        """CREATE INDEX ON otp_gateway_internal.attempt_record USING brin (finished_at);
           CREATE INDEX ON otp_gateway_internal.verification_record USING brin (expires_at)"""
    )
    every_kind_of_row(gateway, simulator)
    check_indexes(gateway)
    gateway.execute("CREATE EXTENSION pageinspect")
    # The index is one page; before 16 such an update gives the row a second entry.
    [(entries,)] = gateway.execute("SELECT live_items FROM bt_page_stats('otp_gateway_internal.attempt_pkey', 1)")
    [(rows,)] = gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.attempt_record")
    assert entries == rows if MAJOR >= 16 else rows < entries <= 2 * rows
    by_index = (
        "SELECT count(*)::int FROM otp_gateway_internal.attempt_record WHERE finished_at > now() - interval '1 hour'"
    )
    with contextlib.closing(gateway.connect(options="-c enable_seqscan=off")) as session:
        assert gateway.execute(by_index, session=session) == gateway.execute(by_index)


def test_a_column_of_somebody_elses(gateway, simulator):
    """A table that has more columns than the library knows is written to as ever: the others are null, or as they were."""
    gateway.send()
    for table in TABLES:
        gateway.execute(f"ALTER TABLE otp_gateway_internal.{table} ADD note text, ADD noted timestamptz DEFAULT now()")
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    gateway.execute("UPDATE otp_gateway_internal.verification_record SET note = 'mine' WHERE id = %s", (id,))
    every_kind_of_row(gateway, simulator)
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    [(note, status)] = gateway.execute(
        "SELECT note, status FROM otp_gateway_internal.verification_record WHERE id = %s", (id,)
    )
    assert (note, status) == ("mine", "approved")


def test_a_constraint_of_somebody_elses(gateway, simulator):
    """What it refuses is not sent, and whoever asked hears that it could not be put on record."""
    gateway.send()
    gateway.execute(
        "ALTER TABLE otp_gateway_internal.verification_record ADD CONSTRAINT no CHECK (recipient_masked NOT LIKE '%%9') NOT VALID"
    )
    sent = simulator.count("ideamart", "send")
    call = Running(gateway.connect(), BODY, ("0771234569",)).wait()
    assert "could not be put on record, so that nothing was sent" in str(call.error)
    queued = Running(
        gateway.connect(), "SELECT * FROM otp_enqueue('ideamart', jsonb_build_object('mobile', %s))", ("0771234569",)
    ).wait()
    assert queued.error.pgcode == "23514"
    assert simulator.count("ideamart", "send") == sent
    assert gateway.send(to="0771234568")["outcome"] == "sent"


def test_no_trigger_runs(gateway, simulator):
    """Not even one that its owner has made to run always: worker and sessions write with rights that are not its own."""
    gateway.execute(
        "CREATE TABLE ran (what text); CREATE FUNCTION runs() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO ran VALUES (TG_NAME || ' of ' || current_user); RETURN NEW; END $$"
    )
    for table in TABLES:
        for when in ("BEFORE", "AFTER"):
            gateway.execute(
                f"CREATE TRIGGER {when}_{table} {when} INSERT OR UPDATE ON otp_gateway_internal.{table} FOR EACH ROW EXECUTE FUNCTION runs();"
                f"ALTER TABLE otp_gateway_internal.{table} ENABLE ALWAYS TRIGGER {when}_{table}"
            )
    every_kind_of_row(gateway, simulator)
    assert gateway.execute("SELECT * FROM ran") == []


@pytest.mark.parametrize("table, column", [("verification", "recipient_masked"), ("attempt", "provider")])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_what_somebody_changes_meanwhile(gateway, simulator, table, column, end):
    """The outcome waits for their lock, and is put down beside what they have changed."""
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send", recipient=to)
    call = Running(gateway.connect(), BODY, (to,))
    simulator.held(1)
    [(id,)] = gateway.execute("SELECT id FROM otp_gateway.verification WHERE status = 'sending'")
    by = "id" if table == "verification" else "verification_id"
    with gateway.cluster.session(gateway.database, autocommit=False) as other:
        before = gateway.execute(f"SELECT {column} FROM otp_gateway_internal.{table}_record WHERE {by} = %s", (id,))
        gateway.execute(
            f"UPDATE otp_gateway_internal.{table}_record SET {column} = 'changed' WHERE {by} = %s", (id,), other
        )
        simulator.clear_faults()
        simulator.release()
        waits = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database() AND wait_event_type = 'Lock'"
        until(lambda: gateway.execute(waits), "the worker comes to the row")
        gateway.execute(end, session=other)
    assert call.row()["outcome"] == "sent"
    after = [("changed",)] if end == "COMMIT" else before
    assert gateway.execute(f"SELECT {column} FROM otp_gateway_internal.{table}_record WHERE {by} = %s", (id,)) == after
    assert gateway.attempts(id) == [("send", "sent")]
    assert gateway.execute("SELECT status FROM otp_gateway.verification WHERE id = %s", (id,)) == [("pending",)]


def test_what_somebody_deletes_meanwhile(gateway, simulator):
    """The caller hears what the vendor said, though there is nothing left to put it down in."""
    to = gateway.number()
    simulator.fault("hold", "ideamart", "send", recipient=to)
    call = Running(gateway.connect(), BODY, (to,))
    simulator.held(1)
    with gateway.cluster.session(gateway.database, autocommit=False) as other:
        for table in ("attempt", "verification"):
            gateway.execute(f"DELETE FROM otp_gateway_internal.{table}_record", session=other)
        simulator.clear_faults()
        simulator.release()
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND "
                "datname = current_database() AND wait_event_type = 'Lock'"
            ),
            "the worker comes to the row",
        )
        other.commit()
    assert call.row()["outcome"] == "sent"
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.attempt_record") == [(0,)]
    assert gateway.send()["outcome"] == "sent"


@statistics_at_once
def test_updates_leave_the_indexes_alone(gateway, simulator):
    """A hundred sends that have begun fill pages before the first of them ends: there is room for what is to come (HOT)."""
    gateway.send()
    simulator.fault("hold", "ideamart", "send")
    calls = [Running(gateway.connect(), BODY, (gateway.number(),)) for _ in range(100)]
    simulator.held(100)
    simulator.clear_faults()
    simulator.release()
    assert {call.row()["outcome"] for call in calls} == {"sent"}

    def counted():
        # The worker tells the statistics once a second at most, and when it does something.
        gateway.send()
        rows = gateway.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relname IN ('verification_record', 'attempt_record')"
        )
        return rows if all(updates >= 100 for updates, _ in rows) else None

    for updates, hot in until(counted, "the worker's statistics"):
        assert hot / updates >= 0.98


@statistics_at_once
def test_the_row_of_an_hour_stays_on_its_page(gateway):
    """It is written anew with every commit that ends an attempt: without a vacuum, too, its table stays as small as it is."""
    gateway.execute("ALTER TABLE otp_gateway_internal.hourly_record SET (autovacuum_enabled = off)")
    for _ in range(300):
        gateway.send()
    ((rows, bytes),) = gateway.execute(
        "SELECT count(*)::int, pg_relation_size('otp_gateway_internal.hourly_record')::int "
        "FROM otp_gateway_internal.hourly_record"
    )
    assert 1 <= rows <= 2 and bytes <= 3 * 8192


def test_an_hour_that_somebody_corrects(gateway):
    """The worker adds to what is there, also where a correction has come back to the place that it knows."""
    for _ in range(3):
        gateway.send()
    counts = "SELECT sum(counts[7])::int FROM otp_gateway_internal.hourly_record"
    place = "SELECT ctid::text FROM otp_gateway_internal.hourly_record ORDER BY hour DESC LIMIT 1"
    ((sends,),), first = gateway.execute(counts), gateway.execute(place)
    assert sends == 3

    def corrected_to_the_same_place():
        gateway.execute("UPDATE otp_gateway_internal.hourly_record SET counts[7] = counts[7] + 1000")
        gateway.execute("VACUUM otp_gateway_internal.hourly_record")
        return gateway.execute(place) == first

    until(corrected_to_the_same_place, "a correction has come back to the place")
    ((corrected,),) = gateway.execute(counts)
    gateway.send()
    assert gateway.execute(counts) == [(corrected + 1,)]


def test_a_parallel_plan(gateway):
    """What a view reads as it is now, a plan of several processes reads, too."""
    mode = "debug_parallel_query" if MAJOR >= 16 else "force_parallel_mode"
    with contextlib.closing(gateway.connect(options=f"-c {mode}=on")) as session:
        rows = gateway.execute("SELECT provider, vendor FROM otp_gateway.provider", session=session)
    assert ("ideamart", "ideamart") in rows
