"""Promise: an upgraded database is the same as a fresh one, which has a script of its own (sql/install), and until it is
upgraded every call says what to do."""

import pathlib
import re
import uuid

import psycopg2
import pytest

from conftest import Gateway

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The schema of the tables before 0.6.0.
OLD = "otp_gateway"

# Everything that belongs to the extension, as the catalog describes it.
SURFACE = """
SELECT pg_describe_object(classid, objid, objsubid) AS object,
       CASE classid WHEN 'pg_proc'::regclass THEN pg_get_functiondef(objid)
                    WHEN 'pg_class'::regclass THEN (
                      SELECT concat_ws(E'\n', relrowsecurity, relforcerowsecurity, reloptions, pg_get_viewdef(objid))
                      FROM pg_class WHERE oid = objid) || (
                      SELECT string_agg(concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull,
                             attstattarget, attacl, col_description(objid, attnum)), E'\n' ORDER BY attnum)
                      FROM pg_attribute WHERE attrelid = objid AND attnum > 0 AND NOT attisdropped)
       END AS definition,
       obj_description(objid, classid::regclass::text) AS comment,
       (SELECT relacl::text FROM pg_class WHERE oid = objid AND classid = 'pg_class'::regclass) AS rights,
       (SELECT string_agg(given::text, ' ' ORDER BY given::text)
        FROM pg_proc, unnest(coalesce(proacl, acldefault('f', proowner))) AS given
        WHERE pg_proc.oid = objid AND classid = 'pg_proc'::regclass) AS function_rights
FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway')
UNION ALL
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, NULL, NULL
FROM pg_index WHERE indrelid::regclass::text LIKE 'otp\\_gateway%'
UNION ALL
SELECT tgname, pg_get_triggerdef(oid), tgenabled::text, NULL, NULL
FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'otp\\_gateway%'
UNION ALL
SELECT conname, concat_ws(' ', conrelid::regclass, contypid::regtype, pg_get_constraintdef(oid)), NULL, NULL, NULL
FROM pg_constraint WHERE connamespace = ANY ('{otp_gateway,otp_gateway_internal}'::regnamespace[])
UNION ALL
SELECT c.table::regclass::text, concat('is dumped, where ', c.condition), NULL, NULL, NULL
FROM pg_extension, ROWS FROM (unnest(extconfig), unnest(extcondition)) AS c("table", condition) WHERE extname = 'otp_gateway'
UNION ALL
SELECT pg_describe_object(d.classid, d.objid, d.objsubid), concat('needs ', pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)),
       d.deptype::text, NULL, NULL
FROM pg_depend AS d JOIN pg_depend AS e ON (e.classid, e.objid) = (d.classid, d.objid) AND e.deptype = 'e'
WHERE e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway')
ORDER BY 1, 2
"""


@pytest.fixture(params=["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0"])
def outdated(cluster, simulator, request):
    """A database that still has the tables of an earlier version."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.execute(f"CREATE EXTENSION otp_gateway VERSION '{request.param}'")
        gateway.version = request.param
        gateway.table = "verification" if request.param < "0.3.0" else "verification_record"
        yield gateway


def test_the_schema_version_is_that_of_the_scripts():
    """A release without a change of the schema has no script, and stops nobody's calls."""
    [version] = re.findall(r'SCHEMA_VERSION: &str = "([^"]+)"', (ROOT / "src/store.rs").read_text())
    assert f"default_version = '{version}'" in (ROOT / "otp_gateway.control").read_text()
    assert (ROOT / f"sql/install/otp_gateway--{version}.sql").exists()
    ways = sorted(path.stem.split("--")[1:] for path in (ROOT / "sql/upgrade").glob("*.sql"))
    # Each version leads to the next, and the last one to this.
    assert [new for _, new in ways] == [old for old, _ in ways[1:]] + [version]


def test_upgraded_equals_fresh(outdated, gateway):
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    fresh = gateway.execute(SURFACE)
    assert len(fresh) > 20
    assert outdated.execute(SURFACE) == fresh
    outdated.create_provider("ideamart")
    assert outdated.send()["outcome"] == "sent"


CALLS = [
    """SELECT otp_send('ideamart', '{"mobile": "0771234567"}')""",
    "SELECT otp_verify('01a200f7-5a48-7047-9b45-35f21e75f89a'::uuid, '123456')",
    "SELECT otp_resend('01a200f7-5a48-7047-9b45-35f21e75f89a')",
    "SELECT otp_cancel('01a200f7-5a48-7047-9b45-35f21e75f89a')",
]
LATER_CALLS = [
    """SELECT otp_send('ideamart', '{"mobile": "0771234567"}', 'key')""",
    """SELECT otp_enqueue('ideamart', '{"mobile": "0771234567"}')""",
    "SELECT otp_gateway.wait('01a200f7-5a48-7047-9b45-35f21e75f89a', '1s')",
]


def test_a_call_before_the_upgrade_says_what_to_do(outdated, simulator):
    outdated.create_provider("ideamart", **({"resend_after": None} if outdated.version == "0.1.0" else {}))
    for call in CALLS + (LATER_CALLS if outdated.version != "0.1.0" else []):
        with pytest.raises(psycopg2.Error) as caught:
            outdated.execute(call)
        assert caught.value.pgcode in ("55000", "42704"), call
        assert "ALTER EXTENSION otp_gateway UPDATE" in caught.value.diag.message_hint, call
    assert simulator.count() == 0


def put_one_on_record(outdated):
    """An approved verification, as a worker of that version left it."""
    columns, values = "", ""
    if outdated.version >= "0.4.0":
        columns, values = ", provider_id, role_id", ", 4711, 4712"
        outdated.execute(
            f"INSERT INTO {OLD}.identity (id, kind, object, home, name, vendor) "
            "VALUES (4711, 'server', 1, 1, 'ideamart', 'ideamart'), (4712, 'role', 1, 1, 'postgres', NULL)"
        )
    outdated.execute(
        f"INSERT INTO {OLD}.{outdated.table} (id, provider, vendor, status, created_by, created_at, send_count, check_count, "
        f"max_checks{columns}) VALUES ('01a200f7-5a48-7047-9b45-35f21e75f89a', 'ideamart', 'ideamart', 'approved', 'postgres', now(), "
        f"1, 1, 3{values})"
    )


def test_the_record_survives_the_upgrade(outdated):
    """Rows of the first version stay as they are; what is open goes on."""
    outdated.create_provider("ideamart")
    put_one_on_record(outdated)
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    row = outdated.verify("01a200f7-5a48-7047-9b45-35f21e75f89a", "123456")
    assert (row["status"], row["outcome"]) == ("approved", "already_used")


def test_durations_that_earlier_versions_took(gateway):
    """They stand in servers and in dumps."""
    for written, shown in [("90 sec", "90s"), ("120seconds", "2min"), ("1 minute", "1min"), ("2 hours", "2h"), ("1day", "1d")]:
        gateway.execute(f"CREATE SERVER old FOREIGN DATA WRAPPER otp_sandbox OPTIONS (code_lifetime '{written}')")
        setting = "SELECT value FROM otp_gateway.provider WHERE provider = 'old' AND setting = 'code_lifetime'"
        assert gateway.execute(setting) == [(shown,)], written
        gateway.execute("DROP SERVER old")


def test_a_dump_of_an_earlier_version(cluster, outdated, simulator):
    """As the CHANGELOG says: restored where that version was made, and upgraded there."""
    outdated.create_provider("ideamart")
    put_one_on_record(outdated)
    dump = cluster.directory / f"{outdated.database}.sql"
    cluster.run("pg_dump", "-h", cluster.directory, "-p", cluster.port, "-U", "postgres", "-f", dump, outdated.database)
    text = dump.read_text()
    dump.unlink()
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as restored:
        restored.execute(f"CREATE EXTENSION otp_gateway VERSION '{outdated.version}'")
        output = cluster.psql(name, "-q", "-v", "ON_ERROR_STOP=1", script=text)
        assert "ERROR" not in output, output
        restored.execute("ALTER EXTENSION otp_gateway UPDATE")
        row = restored.verify("01a200f7-5a48-7047-9b45-35f21e75f89a", "123456")
        assert (row["status"], row["outcome"]) == ("approved", "already_used")


# What 0.5.0 makes anew.


def test_rights_on_the_views_stay_as_they_are(cluster, simulator):
    """Given, or taken from PUBLIC; and default privileges give nothing."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    rights = """
        SELECT c.relname::text, pg_get_userbyid(a.grantee)::text, a.privilege_type, a.is_grantable
        FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE relnamespace = 'otp_gateway'::regnamespace AND relkind = 'v'
        UNION ALL SELECT p.proname, pg_get_userbyid(a.grantee), a.privilege_type, a.is_grantable
        FROM pg_proc AS p, aclexplode(p.proacl) AS a WHERE p.oid = 'otp_gateway.find(text,text)'::regprocedure ORDER BY 1, 2, 3
    """
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {name}; CREATE ROLE {name}_2; CREATE EXTENSION otp_gateway VERSION '0.4.0'")
        gateway.execute(
            f"REVOKE ALL ON otp_gateway.attempt FROM PUBLIC; GRANT SELECT ON otp_gateway.attempt TO {name} WITH GRANT OPTION;"
            f"REVOKE EXECUTE ON FUNCTION otp_gateway.find FROM PUBLIC; GRANT EXECUTE ON FUNCTION otp_gateway.find TO {name};"
            f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {name}_2; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {name}_2"
        )
        before = gateway.execute(rights)
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        known = {relation for relation, *_ in before}
        assert [row for row in gateway.execute(rights) if row[0] in known] == before
        assert ("attempt", name, "SELECT", True) in before
        gateway.execute(f"DROP OWNED BY {name}, {name}_2")
    cluster.witness.cursor().execute(f"DROP ROLE {name}, {name}_2")


@pytest.mark.parametrize(
    "mine",
    [
        "VIEW public.mine AS SELECT id FROM otp_gateway.verification",
        "MATERIALIZED VIEW public.mine AS SELECT id FROM otp_gateway.attempt",
        "FUNCTION public.mine() RETURNS SETOF otp_gateway.attempt LANGUAGE sql AS 'SELECT * FROM otp_gateway.attempt'",
        "VIEW public.mine AS SELECT id FROM otp_gateway.find('ideamart', '0771234567')",
        "TABLE public.mine (row otp_gateway.verification)",
    ],
)
def test_what_stands_on_the_views_is_named(cluster, simulator, mine):
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.4.0'")
        gateway.execute(f"CREATE {mine}")
        with pytest.raises(psycopg2.errors.DependentObjectsStillExist) as caught:
            gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        assert "mine" in caught.value.diag.message_primary and "make it anew" in caught.value.diag.message_hint
        gateway.execute(f"DROP {mine.split(' public.')[0]} public.mine")
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        gateway.execute(f"CREATE {mine}")
