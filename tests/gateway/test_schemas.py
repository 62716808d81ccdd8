"""Promise: the schema otp_gateway holds what is for people, and nothing else; what is not lies in otp_gateway_internal, in
which no role needs a right. Nobody else can have made that schema before, and nobody can drop it and keep the rest."""

import contextlib

import psycopg2
import pytest

from conftest import Gateway

# All that \df, \d, \dT and \dD of otp_gateway show.
FOR_PEOPLE = """
SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'otp_gateway'::regnamespace AND relkind <> 'i'
UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'otp_gateway'::regnamespace
UNION ALL SELECT oid::regtype::text FROM pg_type
    WHERE typnamespace = 'otp_gateway'::regnamespace AND typtype <> 'c' AND typelem = 0
"""
SQUATTED = "there is a schema otp_gateway_internal already"


VIEWS = {
    "verification",
    "attempt",
    "recent",
    "provider",
    "payload_field",
    "ranges",
    "stat_worker",
    "stat_provider",
    "stat_attempt",
    "stat_latency",
    "stat_hourly",
}
TYPES = {"result", "event", "finding"}
FUNCTIONS = {
    "wait(uuid,interval)", "channel(text)", "send_after_commit()", "send_again(uuid)", "is_approved(uuid,text,interval)",
    "find(text,text)",
    "find(text)", "history(text,timestamp with time zone,timestamp with time zone)", '"check"(text)', "version()",
    "try(text,text,jsonb,integer,text)", "health()", "id_at(timestamp with time zone)",
    "purge(interval)", "forget(text,text)", "rotate_key()", "stat_reset(text)", "release(text,text)",
}  # fmt: skip


def test_what_is_for_people(gateway):
    named = {f"otp_gateway.{name}" for name in VIEWS | TYPES | FUNCTIONS}
    assert {name for (name,) in gateway.execute(FOR_PEOPLE)} == named


@pytest.fixture
def squatter(cluster, simulator):
    """A database in which somebody may make schemas, and has made this one, with what might be taken for ours."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        other = f"{name}_squatter"
        gateway.execute(f"CREATE ROLE {other} LOGIN; GRANT CREATE ON DATABASE {name} TO {other}")
        gateway.squat = """
            CREATE SCHEMA otp_gateway_internal;
            CREATE TABLE otp_gateway_internal.reference (provider text);
            CREATE DOMAIN otp_gateway_internal.status AS text;
            CREATE FUNCTION otp_gateway_internal.effective_settings(oid) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'
        """
        with contextlib.closing(gateway.connect(user=other)) as gateway.squatter:
            yield gateway
        gateway.execute(f"DROP OWNED BY {other} CASCADE; DROP ROLE {other}")


def refused(gateway, statement):
    with pytest.raises(psycopg2.errors.DuplicateSchema, match=SQUATTED) as caught:
        gateway.execute(statement)
    assert "ALTER SCHEMA otp_gateway_internal RENAME TO" in caught.value.diag.message_hint


def test_somebody_made_the_schema_before(squatter):
    squatter.execute(squatter.squat, session=squatter.squatter)
    refused(squatter, "CREATE EXTENSION otp_gateway")
    assert squatter.execute("SELECT extname FROM pg_extension WHERE extname = 'otp_gateway'") == []
    squatter.execute("ALTER SCHEMA otp_gateway_internal RENAME TO squatted")
    squatter.execute("CREATE EXTENSION otp_gateway")
    squatter.create_provider("ideamart")
    assert squatter.send()["outcome"] == "sent"


@pytest.mark.parametrize("version", ["0.1.0", "0.5.0"])
def test_somebody_made_the_schema_before_the_upgrade(squatter, version):
    squatter.execute(f"CREATE EXTENSION otp_gateway VERSION '{version}'")
    squatter.execute(squatter.squat, session=squatter.squatter)
    refused(squatter, "ALTER EXTENSION otp_gateway UPDATE")
    assert squatter.execute("SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'") == [(version,)]
    squatter.create_provider("ideamart")
    # Nothing of the squatter's is taken for ours.
    with pytest.raises(psycopg2.Error) as caught:
        squatter.send()
    assert "ALTER EXTENSION otp_gateway UPDATE" in caught.value.diag.message_hint
    squatter.execute("DROP SCHEMA otp_gateway_internal CASCADE", session=squatter.squatter)
    squatter.execute("ALTER EXTENSION otp_gateway UPDATE")
    assert squatter.send()["outcome"] == "sent"


def test_neither_schema_can_be_dropped_alone(gateway):
    for schema in ("otp_gateway", "otp_gateway_internal"):
        for how in ("RESTRICT", "CASCADE"):
            with pytest.raises(psycopg2.errors.DependentObjectsStillExist, match="extension otp_gateway requires it"):
                gateway.execute(f"DROP SCHEMA {schema} {how}")
    gateway.execute("DROP EXTENSION otp_gateway CASCADE")
    assert gateway.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'otp_gateway%'") == []
