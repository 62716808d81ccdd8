"""Promise: an upgraded database is the same as a fresh one, and until it is upgraded every call says what to do."""

import psycopg2
import pytest

from conftest import Gateway

# Everything that belongs to the extension, as the catalog describes it.
SURFACE = """
SELECT pg_describe_object(classid, objid, objsubid) AS object,
       CASE classid WHEN 'pg_proc'::regclass THEN pg_get_functiondef(objid)
                    WHEN 'pg_class'::regclass THEN (
                      SELECT string_agg(concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull,
                             col_description(objid, attnum)), E'\n' ORDER BY attnum)
                      FROM pg_attribute WHERE attrelid = objid AND attnum > 0 AND NOT attisdropped)
       END AS definition,
       obj_description(objid, classid::regclass::text) AS comment,
       (SELECT relacl::text FROM pg_class WHERE oid = objid AND classid = 'pg_class'::regclass) AS rights,
       (SELECT proacl::text FROM pg_proc WHERE oid = objid AND classid = 'pg_proc'::regclass) AS function_rights
FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway')
UNION ALL
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, NULL, NULL
FROM pg_index WHERE indrelid::regclass::text LIKE 'otp\\_gateway.%'
UNION ALL
SELECT tgname, pg_get_triggerdef(oid), tgenabled::text, NULL, NULL
FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'otp\\_gateway.%'
UNION ALL
SELECT unnest(extconfig)::regclass::text, 'is dumped', NULL, NULL, NULL FROM pg_extension WHERE extname = 'otp_gateway'
ORDER BY 1, 2
"""


@pytest.fixture
def outdated(cluster, simulator):
    """A database that still has the first version's tables."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.1.0'")
        yield gateway


def test_upgraded_equals_fresh(outdated, gateway):
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    fresh = gateway.execute(SURFACE)
    assert len(fresh) > 20
    assert outdated.execute(SURFACE) == fresh
    outdated.create_provider("ideamart")
    assert outdated.send()["outcome"] == "sent"


def test_a_call_before_the_upgrade_says_what_to_do(outdated, simulator):
    outdated.create_provider("ideamart")
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as caught:
        outdated.send()
    assert "ALTER EXTENSION otp_gateway UPDATE" in caught.value.diag.message_hint
    assert simulator.count() == 0


def test_the_record_survives_the_upgrade(outdated):
    """Rows of the first version stay as they are; what is open goes on."""
    outdated.execute(
        "INSERT INTO otp_gateway.verification (id, provider, vendor, status, created_by, created_at, send_count, check_count, max_checks) "
        "VALUES ('01a200f7-5a48-7047-9b45-35f21e75f89a', 'ideamart', 'ideamart', 'approved', 'postgres', now(), 1, 1, 3)"
    )
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    outdated.create_provider("ideamart")
    row = outdated.verify("01a200f7-5a48-7047-9b45-35f21e75f89a", "123456")
    assert (row["status"], row["outcome"]) == ("approved", "already_used")
