"""Promise: an upgraded database is the same as a fresh one, which has a script of its own (sql/install), and until it is
upgraded every call says what to do."""

import pathlib
import re
import shutil
import subprocess
import uuid

import psycopg2
import pytest

from cluster import PG_CONFIG, Cluster
from conftest import Gateway

ROOT = pathlib.Path(__file__).resolve().parents[2]

STATISTICS = ["attempt", "latency", "provider", "worker", "hourly"]

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


@pytest.fixture(params=["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0"])
def outdated(cluster, simulator, request):
    """A database that still has the tables of an earlier version."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.execute(f"CREATE EXTENSION otp_gateway VERSION '{request.param}'")
        gateway.version = request.param
        table = "verification" if request.param < "0.3.0" else "verification_record"
        # The schema of the tables.
        gateway.internal = "otp_gateway" if request.param < "0.6.0" else "otp_gateway_internal"
        gateway.table = f"{gateway.internal}.{table}"
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


def test_the_version(outdated):
    """Of the library in memory, and of the schema here."""
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    [schema] = re.findall(r'SCHEMA_VERSION: &str = "([^"]+)"', (ROOT / "src/store.rs").read_text())
    [library] = re.findall(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert outdated.row("SELECT * FROM otp_gateway.version()") == {"library": library, "schema": schema}
    if outdated.session.server_version >= 180000:
        shown = "SELECT module_name, version FROM pg_get_loaded_modules() WHERE file_name LIKE 'otp_gateway.%%'"
        assert outdated.execute(shown) == [("otp_gateway", library)]


# the library in memory, and the one that is installed


@pytest.fixture
def elsewhere(simulator):
    """A server whose library lies in a directory of its own, and a cluster with a database of version 0.5.0."""
    cluster = Cluster().create()
    library = cluster.directory / "lib/otp_gateway.so"
    library.parent.mkdir()
    cluster.configure({"dynamic_library_path": f"'{library.parent}:$libdir'"})
    try:
        yield cluster, library
    finally:
        # It holds what a test's number may be.
        shutil.rmtree(library.parent)
        cluster.remove()


def installed():
    place = subprocess.check_output([PG_CONFIG, "--pkglibdir"], text=True).strip()
    return (pathlib.Path(place) / "otp_gateway.so").read_bytes()


def test_an_update_before_the_restart(elsewhere, simulator):
    """As 0.5.0 and all before it are: a library without what the script asks it for."""
    cluster, library = elsewhere
    old = installed().replace(b"require_library", b"nowhere_in_0_5_")
    assert old != installed()
    library.write_bytes(old)
    cluster.start()
    with Gateway(cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.5.0'")
        # The package is installed; the server has the file from before in memory.
        library.unlink()
        library.write_bytes(installed())
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="older library") as caught:
            gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        assert "Restart the server first" in caught.value.diag.message_hint
        assert gateway.execute("SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'") == [("0.5.0",)]
    cluster.restart()
    with Gateway(cluster, "postgres", simulator) as gateway:
        # As 0.5.0 had it.
        gateway.execute("UPDATE pg_proc SET probin = '$libdir/otp_gateway' WHERE probin = 'otp_gateway'")
        functions = "SELECT probin, count(*)::int FROM pg_proc WHERE probin LIKE '%%otp\\_gateway' GROUP BY probin"
        [(_, before)] = gateway.execute(functions)
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        [(path, after)] = gateway.execute(functions)
        assert path == "otp_gateway" and after > before > 10
        gateway.create_provider("ideamart")
        assert gateway.send()["outcome"] == "sent"


def test_a_script_of_a_later_version(gateway):
    """From 0.6.0 on each asks whether the library in memory knows what it makes."""
    for script in (ROOT / "sql/upgrade").glob("*.sql"):
        version = script.stem.split("--")[-1]
        if version >= "0.6.0":
            assert re.search(
                rf"^SELECT otp_gateway\S*\.require_library\('{re.escape(version)}'\);", script.read_text(), re.MULTILINE
            )
    asks = "SELECT otp_gateway_internal.require_library(%s)"
    for known in ("0.1.0", "0.5.9", "0.6.0", "0.7.0"):
        gateway.execute(asks, (known,))
    for unknown in ("0.7.1", "0.10.0", "1.0.0", "0.7.0.1"):
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match=f"the schema of {unknown}") as caught:
            gateway.execute(asks, (unknown,))
        assert "Restart the server first" in caught.value.diag.message_hint


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
            f"INSERT INTO {outdated.internal}.identity (id, kind, object, home, name, vendor) "
            "VALUES (4711, 'server', 1, 1, 'ideamart', 'ideamart'), (4712, 'role', 1, 1, 'postgres', NULL)"
        )
    outdated.execute(
        f"INSERT INTO {outdated.table} (id, provider, vendor, status, created_by, created_at, send_count, check_count, "
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
    for written, shown in [
        ("90 sec", "90s"),
        ("120seconds", "2min"),
        ("1 minute", "1min"),
        ("2 hours", "2h"),
        ("1day", "1d"),
    ]:
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


def test_rights_stay_as_they_are(cluster, simulator):
    """Given, or taken from PUBLIC; and default privileges give nothing, neither on what is made anew nor on what is new."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    given, by_default = f"{name}_1", f"{name}_2"
    rights = """
        SELECT c.relname::text, pg_get_userbyid(a.grantee)::text, a.privilege_type, a.is_grantable
        FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE relkind IN ('v', 'r')
            AND relnamespace IN (to_regnamespace('otp_gateway'), to_regnamespace('otp_gateway_internal'))
        UNION ALL SELECT p.oid::regprocedure::text, pg_get_userbyid(a.grantee), a.privilege_type, a.is_grantable
        FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE p.oid = ANY (%s::regprocedure[]) ORDER BY 1, 2, 3
    """
    made_anew = (
        [
            "otp_gateway.find(text,text)",
            "otp_gateway.wait(uuid,interval)",
            "otp_send(text,jsonb,text)",
            "otp_enqueue(text,jsonb,text)",
            "otp_verify(uuid,text,jsonb)",
            "otp_verify(text,text,jsonb)",
            "otp_resend(uuid,jsonb)",
            "otp_cancel(uuid)",
        ],
    )
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute(f"CREATE ROLE {given}; CREATE ROLE {by_default}; CREATE EXTENSION otp_gateway VERSION '0.4.0'")
        for function in ("otp_gateway.find", "otp_gateway.wait", "otp_send", "otp_verify(uuid,text,jsonb)"):
            gateway.execute(
                f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC; GRANT EXECUTE ON FUNCTION {function} TO {given}"
            )
        gateway.execute(
            f"REVOKE ALL ON otp_gateway.attempt FROM PUBLIC; GRANT SELECT ON otp_gateway.attempt TO {given} WITH GRANT OPTION;"
            f"GRANT EXECUTE ON FUNCTION otp_cancel TO {given} WITH GRANT OPTION;"
            f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {by_default}, PUBLIC;"
            f"ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {by_default}"
        )
        before = gateway.execute(rights, made_anew)
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        after = gateway.execute(rights, made_anew)
        known = {object for object, *_ in before}
        assert [row for row in after if row[0] in known] == before
        assert ("attempt", given, "SELECT", True) in before and ("otp_cancel(uuid)", given, "EXECUTE", True) in before
        assert not any(object == "otp_send(text,jsonb,text)" and "unknown" in grantee for object, grantee, *_ in after)
        # Of what is new, the views are for everybody to read.
        new = {row[:3] for row in after if row[0] not in known and row[1] != "postgres"}
        assert new == {
            (view, "unknown (OID=0)", "SELECT")
            for view in ("payload_field", "ranges", "recent", *(f"stat_{what}" for what in STATISTICS))
        }
        gateway.execute(
            f"DROP OWNED BY {given}, {by_default}; ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC"
        )
    cluster.witness.cursor().execute(f"DROP ROLE {given}, {by_default}")


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


# What 0.6.0 makes anew: the functions return a type with a name.


@pytest.mark.parametrize(
    "mine, use",
    [
        (
            "VIEW public.mine AS SELECT r.outcome FROM otp_send('ideamart', '{\"mobile\": \"0771231239\"}') AS r",
            "SELECT outcome FROM public.mine",
        ),
        (
            "VIEW public.mine AS SELECT (otp_send('ideamart', '{\"mobile\": \"0771231239\"}')).*",
            "SELECT outcome FROM public.mine",
        ),
        (
            "FUNCTION public.mine(payload jsonb) RETURNS text LANGUAGE sql RETURN (otp_send('ideamart', payload)).outcome",
            'SELECT public.mine(\'{"mobile": "0771231239"}\')',
        ),
        (
            "TABLE public.mine (id int, outcome text DEFAULT (otp_send('ideamart', '{\"mobile\": \"0771231239\"}')).outcome)",
            "INSERT INTO public.mine (id) VALUES (1) RETURNING outcome",
        ),
    ],
)
def test_what_stands_on_the_functions_is_named(cluster, simulator, mine, use):
    """Nothing is dropped that is not ours; made anew, from the same text, it works as before."""
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.5.0'")
        gateway.create_provider("ideamart")
        gateway.execute(f"CREATE {mine}")
        with pytest.raises(psycopg2.errors.DependentObjectsStillExist) as caught:
            gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        assert "mine" in caught.value.diag.message_primary and "make it anew" in caught.value.diag.message_hint
        assert gateway.execute("SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'") == [("0.5.0",)]
        gateway.execute(f"DROP {mine.split(' public.')[0]} public.mine")
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE")
        gateway.execute(f"CREATE {mine}")
        assert gateway.execute(use) == [("sent",)]
        assert simulator.count("ideamart", "send") == 1


def test_in_a_schema_of_an_odd_name(cluster, simulator):
    """And where default privileges give the functions to nobody: who might call them still may, and nobody else."""
    with cluster.database(extension=False) as database, Gateway(cluster, database, simulator) as gateway:
        gateway.execute("""CREATE SCHEMA "O t.p"; CREATE EXTENSION otp_gateway VERSION '0.5.0' SCHEMA "O t.p" """)
        gateway.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        gateway.execute(
            "ALTER EXTENSION otp_gateway UPDATE; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC"
        )
        gateway.create_provider("ideamart")
        assert gateway.execute("""SELECT outcome FROM "O t.p".otp_send('ideamart', '{"mobile": "0771231239"}')""") == [
            ("sent",)
        ]
        functions = gateway.execute(
            "SELECT pronamespace::regnamespace::text, has_function_privilege('pg_monitor', oid, 'EXECUTE') FROM pg_proc"
            " WHERE prorettype = 'otp_gateway.result'::regtype"
        )
        assert sorted(functions) == [('"O t.p"', True)] * 6 + [("otp_gateway", True)]


def test_functions_in_words_go_on(outdated, simulator):
    """PL/pgSQL, and SQL in quotes, name columns: as before, in the session that called them before the upgrade, too."""
    if outdated.version == "0.1.0":
        outdated.create_provider("ideamart", resend_after=None)
    else:
        outdated.create_provider("ideamart")
    outdated.execute(
        "CREATE FUNCTION public.by_plpgsql(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
        " SELECT * INTO r FROM otp_send('ideamart', payload); RETURN r.outcome; END $$;"
        "CREATE FUNCTION public.by_assignment(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
        " r := otp_send('ideamart', payload); RETURN r.outcome; END $$;"
        "CREATE FUNCTION public.by_column(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN (otp_send('ideamart', payload)).outcome; END $$;"
        "CREATE FUNCTION public.by_sql(payload jsonb) RETURNS text LANGUAGE sql AS"
        " $$ SELECT outcome FROM otp_send('ideamart', payload) $$"
    )
    functions = ["by_plpgsql", "by_assignment", "by_column", "by_sql"]
    for function in functions:
        with pytest.raises(psycopg2.Error) as caught:
            outdated.execute(f"SELECT public.{function}(%s)", ('{"mobile": "0771231234"}',))
        assert "ALTER EXTENSION otp_gateway UPDATE" in caught.value.diag.message_hint
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    for number, function in enumerate(functions):
        assert outdated.execute(f"SELECT public.{function}(%s)", (f'{{"mobile": "077123124{number}"}}',)) == [("sent",)]
    assert simulator.count("ideamart", "send") == len(functions)


def test_prepared_statements_across_the_upgrade(outdated, simulator):
    """By columns they go on. One that returns the row whole has another type now, which Postgres refuses to slip under a
    client: it is prepared anew, and until then nothing is sent."""
    outdated.create_provider("ideamart", **({"resend_after": None} if outdated.version == "0.1.0" else {}))
    for name, statement in {
        "columns": "SELECT * FROM otp_send('ideamart', $1)",
        "one": "SELECT outcome FROM otp_send('ideamart', $1)",
        "apart": "SELECT (otp_send('ideamart', $1)).*",
        "whole": "SELECT otp_send('ideamart', $1)",
    }.items():
        outdated.execute(f"PREPARE {name} (jsonb) AS {statement}")
    outdated.execute("ALTER EXTENSION otp_gateway UPDATE")
    body = '{"mobile": "07712312%02d"}'
    for number, name in enumerate(["one", "columns", "apart"]):
        if name != "one" and outdated.version == "0.1.0":
            # That version's row had no reason.
            with pytest.raises(psycopg2.errors.FeatureNotSupported):
                outdated.row(f"EXECUTE {name} (%s)", (body % number,))
        else:
            assert outdated.row(f"EXECUTE {name} (%s)", (body % number,))["outcome"] == "sent", name
    sent = simulator.count("ideamart", "send")
    if outdated.version >= "0.6.0":
        # Its row is the same since.
        return
    with pytest.raises(psycopg2.errors.FeatureNotSupported, match="cached plan must not change result type"):
        outdated.execute("EXECUTE whole (%s)", (body % 9,))
    assert simulator.count("ideamart", "send") == sent
    outdated.execute("DEALLOCATE whole; PREPARE whole (jsonb) AS SELECT otp_send('ideamart', $1)")
    outdated.execute("EXECUTE whole (%s)", (body % 10,))
    assert simulator.count("ideamart", "send") == sent + 1
