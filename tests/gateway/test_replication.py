"""Promise: a publication FOR ALL TABLES takes the record along, and breaks nothing where it is published; where it arrives,
nothing is sent and nothing is written about it: only the original sends."""

import shutil

import psycopg2
import pytest

from cluster import Cluster
from conftest import Gateway, Running, until
from test_databases import run
from test_lifecycle import SEND, opened, payload


@pytest.fixture
def publisher(simulator):
    cluster = Cluster({"wal_level": "logical"}).create().start()
    try:
        gateway = opened(cluster, simulator, timeout="60s", max_in_flight="1")
        gateway.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        yield gateway
        gateway.session.close()
    finally:
        cluster.remove()


@pytest.fixture
def subscriber(publisher, simulator):
    """Another cluster with the same key, and a database of the same name and OID."""
    cluster = Cluster({"wal_level": "logical"}).create()
    key = until(lambda: (publisher.cluster.data / "otp_gateway.key").exists() and "otp_gateway.key", "the key is made")
    shutil.copy2(publisher.cluster.data / key, cluster.data / key)
    shutil.chown(cluster.data / key, "postgres", "postgres")
    cluster.start()
    try:
        gateway = opened(cluster, simulator, timeout="60s")
        oid = "SELECT oid FROM pg_database WHERE datname = 'flows'"
        assert gateway.execute(oid) == publisher.execute(oid)
        yield gateway
        gateway.session.close()
        run(cluster, "DROP SUBSCRIPTION IF EXISTS copy", "flows")
    finally:
        cluster.remove()


def subscribe(subscriber, publisher):
    at = publisher.cluster
    subscriber.execute(
        f"CREATE SUBSCRIPTION copy CONNECTION 'host={at.directory} port={at.port} dbname=flows user=postgres' PUBLICATION everything"
    )


RECORD = "SELECT id, status::text, sealed IS NULL FROM otp_gateway_internal.verification_record ORDER BY id"
ATTEMPTS = "SELECT id, outcome::text FROM otp_gateway_internal.attempt_record ORDER BY id"


def same(publisher, subscriber):
    until(
        lambda: all(publisher.execute(query) == subscriber.execute(query) for query in (RECORD, ATTEMPTS)),
        "the copy is as the original",
    )


@pytest.mark.parametrize("before", [True, False], ids=["copied", "streamed"])
def test_a_copy_sends_nothing_and_writes_nothing(publisher, subscriber, simulator, before):
    simulator.fault("hold", operation="send", times=1)
    if not before:
        subscribe(subscriber, publisher)
        until(
            lambda: subscriber.execute("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel") == [(True,)],
            "in step",
        )
    held = publisher.enqueue()["verification_id"]
    simulator.held(1)
    ids = publisher.enqueue_many(5)
    if before:
        subscribe(subscriber, publisher)
    same(publisher, subscriber)
    # Whoever calls there is told, and so is who enqueues.
    for statement in (SEND, SEND.replace("otp_send", "otp_enqueue")):
        with subscriber.cluster.session("flows") as session:
            call = Running(session, statement, payload(subscriber)).wait(10)
            assert call.error.pgcode == "55000" and "subscription" in str(call.error), (call.rows, call.error)
    subscriber.cluster.restart()
    subscriber.session = subscriber.connect()
    until(
        lambda: subscriber.execute("SELECT count(*)::int FROM pg_stat_subscription WHERE pid IS NOT NULL") == [(1,)],
        "it goes on",
    )
    same(publisher, subscriber)
    assert simulator.count("ideamart", "send") == 1
    simulator.release()
    assert {publisher.wait(id)["outcome"] for id in [held, *ids]} == {"sent"}
    same(publisher, subscriber)
    assert simulator.count("ideamart", "send") == 6
    # Who takes over has the record, and still sends nothing of the original's.
    simulator.fault("hold", operation="send", times=1)
    held, queued = publisher.enqueue()["verification_id"], publisher.enqueue()["verification_id"]
    simulator.held(1)
    same(publisher, subscriber)
    subscriber.execute("DROP SUBSCRIPTION copy")
    assert subscriber.send()["outcome"] == "sent"
    until(lambda: subscriber.verification(queued)["status"] == "failed", "it is not its own")
    assert simulator.count("ideamart", "send") == 8
    simulator.release()
    assert publisher.wait(queued)["outcome"] == "sent"


def test_upkeep_where_all_tables_are_published(publisher, simulator):
    to = publisher.number()
    sent = publisher.send(to=to)
    simulator.code("ideamart", to)
    assert publisher.execute("SELECT count(*)::int FROM otp_gateway_internal.reference") != [(0,)]
    assert publisher.row("SELECT otp_gateway.forget('ideamart', %s)", (to,)) == {"forget": 1}
    publisher.send()
    publisher.execute(
        "UPDATE otp_gateway_internal.verification_record SET created_at = created_at - interval '400 days',"
        " id = overlay(id::text placing '0170' from 1 for 4)::uuid WHERE id <> %s",
        (sent["verification_id"],),
    )
    publisher.execute(
        "UPDATE otp_gateway_internal.attempt_record SET started_at = started_at - interval '400 days',"
        " verification_id = overlay(verification_id::text placing '0170' from 1 for 4)::uuid WHERE verification_id <> %s",
        (sent["verification_id"],),
    )
    publisher.execute(
        "ALTER TABLE otp_gateway_internal.reference REPLICA IDENTITY DEFAULT;"
        "UPDATE otp_gateway_internal.reference SET verification_id = overlay(verification_id::text placing '0170' from 1 for 4)::uuid"
    )
    publisher.cluster.reload()
    until(
        lambda: publisher.execute("SELECT count(*)::int FROM otp_gateway_internal.verification_record") == [(1,)],
        "retention deletes it",
    )
    assert publisher.execute("SELECT count(*)::int FROM otp_gateway_internal.reference") == [(0,)]


def test_a_chore_that_fails_is_in_the_log(own_cluster, simulator):
    """Once for each change."""
    gateway = opened(own_cluster, simulator)
    gateway.send()
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET created_at = created_at - interval '400 days',"
        " id = overlay(id::text placing '0170' from 1 for 4)::uuid"
    )
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET started_at = started_at - interval '400 days',"
        " verification_id = overlay(verification_id::text placing '0170' from 1 for 4)::uuid"
    )
    gateway.execute("CREATE TABLE precious (id uuid REFERENCES otp_gateway_internal.verification_record)")
    gateway.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
    )
    gateway.execute(
        "CREATE TRIGGER no BEFORE DELETE ON otp_gateway_internal.verification_record FOR EACH ROW EXECUTE FUNCTION no()"
    )
    gateway.execute("ALTER TABLE otp_gateway_internal.verification_record ENABLE ALWAYS TRIGGER no")
    for _ in range(3):
        own_cluster.reload()
        until(lambda: "not this one" in own_cluster.log(), "it is said")
    assert own_cluster.log().count("otp_gateway.retention fails") == 1
    gateway.execute("DROP TRIGGER no ON otp_gateway_internal.verification_record")
    own_cluster.reload()
    until(lambda: "otp_gateway.retention works again" in own_cluster.log(), "and that it works again")
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway_internal.verification_record") == [(0,)]
    gateway.session.close()
