"""Promise: the extension is in databases whose encoding is UTF8, and in no others. Elsewhere CREATE EXTENSION and ALTER EXTENSION
UPDATE are refused, each call of a function of an older version is, and no worker comes; each refusal says which encoding it
must be (0A000). What such a database holds can be moved to one of the right encoding, as the hint says."""

import contextlib
import secrets

import psycopg2
import pytest

from conftest import Gateway, until

# The schema of the tables before 0.6.0.
OLD = "otp_gateway"
ENCODINGS = ["LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"]
# Of each type that a function takes.
VALUES = {
    "text": "'x'",
    "uuid": "gen_random_uuid()",
    "jsonb": "'{}'",
    "interval": "'1s'",
    "integer": "200",
    "oid": "'pg_foreign_server'::regclass",
    "text[]": "'{}'::text[]",
}


@contextlib.contextmanager
def database(cluster, encoding, version=None):
    """A database of another encoding; with an older version in it, as that version's library let it be made."""
    name = f"test_{secrets.token_hex(4)}"
    made_as = "UTF8" if version else encoding
    with cluster.session() as admin:
        admin.cursor().execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{made_as}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        if version:
            with cluster.session(name) as session:
                session.cursor().execute(f"CREATE EXTENSION otp_gateway VERSION '{version}'")
            admin.cursor().execute(
                "UPDATE pg_database SET encoding = pg_char_to_encoding(%s) WHERE datname = %s", (encoding, name)
            )
    try:
        yield name
    finally:
        with cluster.session() as admin:
            admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def gateway_of(cluster, simulator, encoding, version=None):
    with database(cluster, encoding, version) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.encoding = encoding
        assert gateway.execute("SHOW server_encoding") == [(encoding,)]
        yield gateway


def refused(gateway, statement):
    with pytest.raises(psycopg2.Error) as caught:
        gateway.execute(statement)
    error = caught.value
    assert error.pgcode == "0A000", f"{statement}: {error}"
    assert gateway.encoding in error.diag.message_primary and "UTF8" in error.diag.message_primary, error
    assert "ENCODING 'UTF8'" in error.diag.message_hint and "pg_dump" in error.diag.message_hint, error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_create_and_upgrade(cluster, simulator, encoding):
    with gateway_of(cluster, simulator, encoding) as other:
        refused(other, "CREATE EXTENSION otp_gateway")
        # Not by way of an older version either.
        refused(other, "CREATE EXTENSION otp_gateway VERSION '0.4.0'")
        assert other.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'otp_gateway'") == []
    with gateway_of(cluster, simulator, encoding, "0.4.0") as other:
        refused(other, "ALTER EXTENSION otp_gateway UPDATE")
        assert other.execute("SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'") == [("0.4.0",)]


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_call(cluster, simulator, encoding, version):
    with gateway_of(cluster, simulator, encoding, version) as other:
        each_call_is_refused(other)


def each_call_is_refused(other):
    functions = other.execute(
        "SELECT oid::regproc::text, proargtypes::regtype[]::text[], prorettype = 'trigger'::regtype FROM pg_proc"
        " WHERE probin LIKE '%otp\\_gateway%'"
    )
    assert len(functions) > 15
    for name, takes, is_trigger in functions:
        if not is_trigger:
            refused(other, f"SELECT * FROM {name}({', '.join(f'{VALUES[of]}::{of}' for of in takes)})")
            continue
        other.execute(
            f"CREATE TABLE t (a int); CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION {name}('x', '{{}}')"
        )
        refused(other, "INSERT INTO t VALUES (1)")
        other.execute("DROP TABLE t")
    # And what calls them.
    refused(other, "SELECT * FROM otp_gateway.find('x', '0771234567')")
    refused(other, "CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'https://x')")


def test_no_worker_comes(own_cluster):
    """A launcher has each database looked at once. What a worker does there, it does in transactions."""
    cluster = own_cluster
    with database(cluster, "LATIN1", "0.4.0") as name:
        cluster.restart()
        with cluster.session() as session, session.cursor() as cursor:

            def transactions(of):
                cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", (of,))
                return cursor.fetchone()[0]

            before = transactions(name)
            for _ in range(3):
                seen = transactions("template1")
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway launcher'"
                )
                until(lambda: transactions("template1") > seen, "a launcher has had template1 looked at")
            assert transactions(name) == before


def test_pg_upgrade_carries_it_over(own_cluster):
    """It makes each server anew, which has its options checked, in a server of that mode."""
    cluster = own_cluster
    make = "CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (timeout '%s')"
    with database(cluster, "LATIN1", "0.4.0") as name:
        cluster.stop()
        cluster.run("pg_ctl", "-D", cluster.data, "-l", cluster.logfile, "-w", "-o", "-b", "start")
        with cluster.session(name) as session, session.cursor() as cursor:
            with pytest.raises(psycopg2.Error, match="timeout"):
                cursor.execute(make % "soon")
            cursor.execute(make % "1s")
        cluster.restart()


def test_what_is_there_can_be_moved(cluster, simulator):
    """From a database that an older version was installed in, to one of the right encoding."""
    with gateway_of(cluster, simulator, "LATIN1", "0.4.0") as old:
        name = old.database
        old.session.set_client_encoding("UTF8")
        old.execute(
            f"INSERT INTO {OLD}.attempt_record (id, verification_id, operation, outcome, vendor_message, started_at)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'send', 'sent', 'envoy\u00e9', now())"
        )
        dump = cluster.directory / f"{name}.sql"
        cluster.run("pg_dump", "-h", cluster.directory, "-p", cluster.port, "-U", "postgres", "-f", dump, name)
        text = dump.read_bytes()
        dump.unlink()
    assert b"envoy\xe9" in text, "it was no LATIN1"
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as new:
        new.execute("CREATE EXTENSION otp_gateway VERSION '0.4.0'")
        file = cluster.dump() / f"{name}.sql"
        file.write_bytes(text)
        output = cluster.psql(name, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))
        file.unlink()
        assert "ERROR" not in output, output
        new.execute("ALTER EXTENSION otp_gateway UPDATE")
        assert new.execute("SELECT vendor_message FROM otp_gateway_internal.attempt_record") == [("envoy\u00e9",)]
