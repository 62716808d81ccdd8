"""Promise: every role sees and does exactly its part, by Postgres' own means. The tables below name every object, column
and function of the extension, and for each kind of role what it may; the statements are really run, by the role itself.
An object or column that they do not name fails the test. What of this Postgres itself gives away, whatever an
extension does, is here as well (see `test_what_postgres_gives_*`), so that nobody has to find out."""

import json
import os

import psycopg2
import pytest

from conftest import Gateway, Running, until
from vendors import TABLE, VENDORS

NUMBER = "0771234567"
# The flows on record: who began it, and through which provider. `bank` belongs to the role keeper, `shop` to a superuser.
FLOWS = {(role, provider) for role in ("sender", "group", "other", "superuser") for provider in ("bank", "shop")}

# Each kind of role: its attributes, the roles that it is a member of, and whose verifications it sees.
ROLES = {
    "none": ("", [], set()),
    "group": ("", [], {"group"}),
    "sender": ("", ["group"], {"sender", "group"}),
    "other": ("", [], {"other"}),
    # Has to SET ROLE first: until then it has none of its rights.
    "noinherit": ("NOINHERIT", ["sender"], set()),
    "keeper": ("", [], "bank"),
    "dba": ("CREATEDB CREATEROLE REPLICATION", [], set()),  # the owner of the database
    "monitor": ("", ["pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables"], set()),
    "signaller": ("", ["pg_signal_backend", "pg_checkpoint"], set()),
    "read_all": ("", ["pg_read_all_data"], "all"),
    "write_all": ("", ["pg_write_all_data"], set()),
    "bypass": ("BYPASSRLS", [], set()),
    # As good as a superuser on every table of the cluster. Only a superuser can make such a role.
    "dumper": ("BYPASSRLS", ["pg_read_all_data", "pg_write_all_data"], "all"),
    "superuser": ("SUPERUSER", [], "all"),
}
EVERYBODY = frozenset(ROLES)
NOBODY = frozenset()
SUPER = frozenset({"superuser"})
READ = frozenset({"read_all", "dumper", "superuser"})
WRITE = frozenset({"write_all", "dumper", "superuser"})
# Whose rows of the tables are not hidden by row security.
UNBOUND = frozenset({"dumper", "superuser"})
# Postgres gives these USAGE on every schema.
INSIDE = READ | WRITE
SENDERS = frozenset({"sender", "group", "other", "keeper", "superuser"})

WRAPPERS = [*(name for name in VENDORS if TABLE[name].wrapper is None), "rest", "sandbox", "route"]
VALIDATORS = [f"{name}_validator" for name in WRAPPERS]
RESULT = (
    "verification_id attempt_id status outcome retryable attempts_left retry_after expires_at reference vendor_code "
    "vendor_message response reason"
)

# Every table and view with every column of it.
TABLES = {
    "verification_record": "id provider vendor status recipient_masked recipient_key reference created_by created_at "
    "expires_at approved_at send_count check_count max_checks sealed enqueued idempotency_key payload_hash is_test route "
    "provider_id role_id route_id country",
    "attempt_record": "id verification_id operation outcome http_status vendor_code vendor_message response started_at "
    "finished_at provider recipient_key reason provider_id role_id account retry_at",
    "reference": "provider reference verification_id provider_id",
    "breaker": "server open_until mapping opened_at failed_at outcome vendor_code configuration",
    "number_range": "provider_id range counted_at sends converted",
    "low_conversion": "provider_id range since until sends converted usual percent is_enforced blocked passed",
    "identity": "id kind object home name vendor",
    "sealing_key": "id",
    "hourly_record": "hour provider_id role_id route_id country counts",
    "queue_home": "database cluster server timeline directory",
}
VIEWS = {
    "verification": "id provider vendor status recipient_masked reference created_by created_at expires_at approved_at "
    "send_count check_count max_checks is_test route",
    "attempt": "id verification_id operation outcome http_status vendor_code vendor_message response started_at "
    "finished_at provider reason",
    "recent": "time provider recipient_masked operation outcome words",
    "ranges": "provider range sends converted conversion tripped_at until enforced blocked passed counted_at",
    "provider": "provider vendor setting value source",
    "stat_attempt": "provider operation outcome reason attempts total_time last_at stats_reset",
    "stat_latency": "provider operation attempts total_time mean_time p50_time p95_time p99_time bounds buckets stats_reset",
    "stat_provider": "provider vendor in_flight max_in_flight queued parked oldest_queued_at breaker breaker_open_until "
    "failing_since consecutive_failures last_success_at last_failure_at last_failure_outcome last_vendor_code "
    "last_vendor_message limit_used certificate_ends_at verifications converted stats_reset",
    "stat_worker": "datid datname pid state detail library_version schema_version backend_start last_commit_at waiting "
    "waiting_since in_flight unrecorded starts recovered oldest_kept_at purge_due_at chore chore_done chore_since stats_reset",
    "stat_hourly": "hour provider route created_by country sends sent unknown failed blocked would_block billable "
    "verifications converted conversion verifies invalid_codes total_time buckets",
    "payload_field": "vendor operation field vendor_name required rule example",
}
# What those are made of.
INSIDE_VIEWS = {"own_role": "id", "own_server": "id"}
SYSTEM_COLUMNS = "ctid xmin cmin xmax cmax tableoid"
SECRET = {"sealed", "recipient_key", "idempotency_key", "payload_hash", "enqueued", "account"}

# Who may what by ACL; of a table's rows, row security then has its say.
ON_TABLES = {
    "SELECT": READ,
    "INSERT": WRITE,
    "UPDATE": WRITE,
    "DELETE": WRITE,
    "TRUNCATE": SUPER,
    "REFERENCES": SUPER,
    "TRIGGER": SUPER,
}
ON_VIEWS = {**ON_TABLES, "SELECT": EVERYBODY}

# Every function: who has EXECUTE, a call of it, and whom it lets through. What the others get: 42501, or as noted.
FUNCTIONS = {
    "public.otp_send(text,jsonb,text)": (EVERYBODY, "SELECT outcome FROM otp_send('bank', %(payload)s)", SENDERS),
    "public.otp_enqueue(text,jsonb,text)": (EVERYBODY, "SELECT status FROM otp_enqueue('bank', %(payload)s)", SENDERS),
    # Of a verification that the role sender began: nobody else learns that it is there.
    "public.otp_verify(uuid,text,jsonb)": (
        EVERYBODY,
        "SELECT outcome FROM otp_verify(%(id)s::uuid, '1')",
        {"sender", "superuser"},
        {},
        "42704",
    ),
    "public.otp_resend(uuid,jsonb)": (
        EVERYBODY,
        "SELECT outcome FROM otp_resend(%(id)s::uuid)",
        {"sender", "superuser"},
        {},
        "42704",
    ),
    "public.otp_cancel(uuid)": (
        EVERYBODY,
        "SELECT outcome FROM otp_cancel(%(id)s::uuid)",
        {"sender", "superuser"},
        {},
        "42704",
    ),
    "otp_gateway.wait(uuid,interval)": (
        EVERYBODY,
        "SELECT status FROM otp_gateway.wait(%(id)s::uuid, '1s')",
        {"sender", "superuser"},
        {},
        "42704",
    ),
    "public.otp_verify(text,text,jsonb)": (
        EVERYBODY,
        "SELECT outcome FROM otp_verify('bank'::text, '1', '{\"mobile\": \"0779999999\"}')",
        SENDERS,
    ),
    # Of what is not theirs everybody is told the same as of what is not there: false, and that a new code can be had.
    "otp_gateway.is_approved(uuid,text,interval)": (
        EVERYBODY,
        "SELECT otp_gateway.is_approved(%(id)s::uuid, %(number)s)",
        EVERYBODY,
    ),
    # Each its own; another role's: see test_nobody_is_told_of_a_neighbours_channel in test_follow.py.
    "otp_gateway.channel(text)": (EVERYBODY, "SELECT otp_gateway.channel()", EVERYBODY),
    "otp_gateway.send_again(uuid)": (EVERYBODY, "SELECT otp_gateway.send_again(%(id)s::uuid)", EVERYBODY),
    # Whoever asks gets what they may see: see test_what_each_role_sees.
    "otp_gateway.find(text,text)": (EVERYBODY, "SELECT FROM otp_gateway.find('bank', %(number)s)", EVERYBODY),
    "otp_gateway.find(text)": (EVERYBODY, "SELECT FROM otp_gateway.find(%(number)s)", EVERYBODY),
    "otp_gateway.history(text,timestamp with time zone,timestamp with time zone)": (
        EVERYBODY,
        "SELECT FROM otp_gateway.history(%(number)s, 'today', 'now')",
        EVERYBODY,
    ),
    # Whoever may not use it is told that: see test_check.
    'otp_gateway."check"(text)': (EVERYBODY, "SELECT FROM otp_gateway.check('bank')", EVERYBODY),
    "otp_gateway_internal.check_findings(text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.check_findings('bank')",
        INSIDE,
    ),
    "otp_gateway_internal.words(text,text,text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.words('send', 'sent', NULL)",
        INSIDE,
    ),
    "otp_gateway_internal.recipient_verifications_anywhere(text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.recipient_verifications_anywhere(%(number)s)",
        INSIDE,
    ),
    # By those who may name what is in the other schema: everybody else through otp_gateway.find alone.
    "otp_gateway_internal.found_verifications(text,text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.found_verifications('bank', %(number)s)",
        INSIDE,
    ),
    "otp_gateway_internal.found_verifications_anywhere(text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.found_verifications_anywhere(%(number)s)",
        INSIDE,
    ),
    "otp_gateway.try(text,text,jsonb,integer,text)": (
        EVERYBODY,
        "SELECT otp_gateway.try('bank', 'send', %(payload)s)",
        {"keeper", "superuser"},
    ),
    "otp_gateway.purge(interval)": (EVERYBODY, "SELECT otp_gateway.purge('30 years')", {"keeper", "superuser"}),
    "otp_gateway.release(text,text)": (
        EVERYBODY,
        "SELECT otp_gateway.release('bank', '+94777')",
        {"keeper", "superuser"},
    ),
    "otp_gateway.forget(text,text)": (
        EVERYBODY,
        "SELECT otp_gateway.forget('bank', '0778888888')",
        {"keeper", "superuser"},
    ),
    "otp_gateway.rotate_key()": (SUPER, "SELECT otp_gateway.rotate_key()", SUPER),
    "otp_gateway.version()": (EVERYBODY, "SELECT schema FROM otp_gateway.version()", EVERYBODY),
    # What of it has numbers of others' is for pg_monitor: see test_health.
    "otp_gateway.health()": (EVERYBODY, "SELECT FROM otp_gateway.health()", EVERYBODY),
    "otp_gateway_internal.health_rows()": (EVERYBODY, "SELECT otp_gateway_internal.health_rows()", INSIDE),
    # What of others' is in it is for pg_monitor: see test_stat.
    "otp_gateway_internal.stat_attempt_rows()": (EVERYBODY, "SELECT otp_gateway_internal.stat_attempt_rows()", INSIDE),
    "otp_gateway_internal.stat_provider_rows()": (
        EVERYBODY,
        "SELECT otp_gateway_internal.stat_provider_rows()",
        INSIDE,
    ),
    "otp_gateway_internal.stat_worker_rows()": (EVERYBODY, "SELECT otp_gateway_internal.stat_worker_rows()", INSIDE),
    "otp_gateway_internal.stat_latency_rows()": (EVERYBODY, "SELECT otp_gateway_internal.stat_latency_rows()", INSIDE),
    "otp_gateway.stat_reset(text)": (SUPER, "SELECT otp_gateway.stat_reset('bank')", SUPER),
    "otp_gateway.id_at(timestamp with time zone)": (EVERYBODY, "SELECT otp_gateway.id_at(now())", EVERYBODY),
    "otp_gateway_internal.library_version()": (EVERYBODY, "SELECT otp_gateway_internal.library_version()", INSIDE),
    "otp_gateway_internal.require_library(text)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.require_library('0.6.0')",
        INSIDE,
    ),
    "otp_gateway_internal.effective_settings(oid)": (
        EVERYBODY,
        "SELECT otp_gateway_internal.effective_settings(oid) FROM pg_foreign_server WHERE srvname = 'bank'",
        INSIDE,
    ),
    "otp_gateway_internal.payload_fields()": (EVERYBODY, "SELECT otp_gateway_internal.payload_fields()", INSIDE),
    # Triggers, which are not called; to make a trigger of one takes EXECUTE.
    "otp_gateway_internal.note_queued()": (
        SUPER,
        "CREATE TRIGGER t BEFORE INSERT ON own EXECUTE FUNCTION otp_gateway_internal.note_queued()",
        SUPER,
    ),
    "otp_gateway_internal.recognise()": (
        SUPER,
        "CREATE TRIGGER t BEFORE INSERT ON own EXECUTE FUNCTION otp_gateway_internal.recognise()",
        SUPER,
    ),
    "otp_gateway.send_after_commit()": (
        EVERYBODY,
        "CREATE TRIGGER t AFTER INSERT ON own EXECUTE FUNCTION otp_gateway.send_after_commit()",
        EVERYBODY,
    ),
    **{
        f"otp_gateway_internal.{name}(text[],oid)": (
            EVERYBODY,
            f"SELECT otp_gateway_internal.{name}('{{}}', 'pg_foreign_data_wrapper'::regclass)",
            INSIDE,
        )
        for name in VALIDATORS
    },
}
DOMAINS = ["status", "operation", "outcome"]
ROWS = ["result", "finding", "event"]

NAMED = (
    {"schema otp_gateway", "schema otp_gateway_internal"}
    | {f"table otp_gateway_internal.{name}" for name in TABLES}
    | {f"view otp_gateway.{name}" for name in VIEWS}
    | {f"view otp_gateway_internal.{name}" for name in INSIDE_VIEWS}
    | {f"function {name}" for name in FUNCTIONS}
    | {f"foreign-data wrapper otp_{name}" for name in WRAPPERS}
    | {f"type otp_gateway_internal.{name}" for name in DOMAINS}
    | {f"type otp_gateway.{name}" for name in ROWS}
)


class Rights:
    """A database with every kind of role, a session of each, and a record that each has a part of."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.prefix = f"{gateway.database}_"
        self.sessions = {}
        self.ids = {}

    def name(self, role):
        return self.prefix + role

    def make(self):
        execute = self.gateway.execute
        for role, (attributes, member_of, _) in ROLES.items():
            execute(f"CREATE ROLE {self.name(role)} LOGIN {attributes}")
            # Postgres 14 has no pg_checkpoint.
            for (other,) in execute(
                "SELECT name FROM unnest(%s::text[]) AS name WHERE name !~ '^pg_' OR to_regrole(name) IS NOT NULL",
                (member_of,),
            ):
                execute(f"GRANT {other if other.startswith('pg_') else self.name(other)} TO {self.name(role)}")
        execute(f"ALTER DATABASE {self.gateway.database} OWNER TO {self.name('dba')}")
        for provider in ("bank", "shop"):
            execute(
                f"CREATE SERVER {provider} FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s', max_checks '1000', check_limit '1000 per hour', send_limit '1000 per hour')"
            )
            for role in SENDERS - {"keeper"}:
                execute(f"GRANT USAGE ON FOREIGN SERVER {provider} TO {self.name(role)}")
        execute(f"ALTER SERVER bank OWNER TO {self.name('keeper')}")
        for role in ROLES:
            execute(f"CREATE SCHEMA AUTHORIZATION {self.name(role)}")
            self.sessions[role] = self.gateway.connect(user=self.name(role))
            self.run(role, "CREATE TABLE own (id uuid)")
        for role, provider in FLOWS:
            row = self.send(role, provider)
            self.ids[row["verification_id"]] = (role, provider)
        # A table that is empty hides nothing.
        execute(
            "INSERT INTO otp_gateway_internal.breaker SELECT oid, 'infinity', 0, now(), now(), 'unknown', NULL, '' FROM pg_foreign_server WHERE srvname = 'shop'"
        )
        execute(
            "INSERT INTO otp_gateway_internal.number_range SELECT id, '+94777', now(), '{60}', '{0}' FROM otp_gateway_internal.identity WHERE kind = 'server'"
        )
        execute(
            "INSERT INTO otp_gateway_internal.low_conversion SELECT id, '+94777', now(), 'infinity', 60, 0, 0, 10, true, 0, 0 FROM otp_gateway_internal.identity WHERE kind = 'server'"
        )
        execute("ANALYZE")

    def send(self, role, provider="bank", number=NUMBER):
        payload = json.dumps({"mobile": number, "reference": f"{role}-{provider}-{number[-4:]}"})
        return self.gateway.row("SELECT * FROM otp_send(%s, %s)", (provider, payload), self.sessions[role])

    def remove(self):
        for session in self.sessions.values():
            session.close()
        execute = self.gateway.execute
        execute(f"ALTER DATABASE {self.gateway.database} OWNER TO postgres")
        for role in ROLES:
            if execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (self.name(role),)):
                execute(f"DROP OWNED BY {self.name(role)} CASCADE; DROP ROLE {self.name(role)}")

    def run(self, role, statement, arguments=None):
        return self.gateway.execute(statement, arguments, self.sessions[role])

    def try_(self, role, statement, arguments=None):
        """What becomes of a statement, which is undone: an SQLSTATE, or the number of rows."""
        session = self.sessions[role]
        session.autocommit = False
        try:
            with session.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.rowcount
        except psycopg2.Error as error:
            return error.pgcode
        finally:
            session.rollback()
            session.autocommit = True

    def seen(self, role, statement, arguments=None):
        """The flows that a statement that selects verification ids shows."""
        return {self.ids.get(id, "unknown") for (id,) in self.run(role, statement, arguments)}

    def record(self):
        """All that is on record, so that a change shows."""
        return [
            self.gateway.execute(f"SELECT t::text FROM otp_gateway_internal.{table} AS t ORDER BY 1")
            for table in TABLES
        ]


@pytest.fixture(scope="module")
def rights(shared_cluster, simulator_program):
    with shared_cluster.database() as name, Gateway(shared_cluster, name, simulator_program) as gateway:
        rights = Rights(gateway)
        try:
            rights.make()
            yield rights
        finally:
            rights.remove()


def of(role):
    """The flows that a role may see."""
    whose = ROLES[role][2]
    if whose == "all":
        return FLOWS
    return {(creator, provider) for creator, provider in FLOWS if creator in whose or provider == whose}


# complete


def test_every_object_is_named(rights):
    # In a path without ours every name is shown with its schema.
    members = rights.gateway.execute("""
        SET search_path = pg_catalog;
        SELECT i.type || ' ' || CASE WHEN d.classid = 'pg_proc'::regclass THEN d.objid::regprocedure::text ELSE i.identity END
        FROM pg_depend AS d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
        WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway')
    """)
    rights.gateway.execute("RESET search_path")
    # From Postgres 17 on a table's own types are members, too.
    types = {
        f"type {place(relation)}{brackets}" for relation in [*TABLES, *VIEWS, *INSIDE_VIEWS] for brackets in ("", "[]")
    }
    types |= {f"type otp_gateway_internal.{name}[]" for name in DOMAINS} | {
        f"type otp_gateway.{name}[]" for name in ROWS
    }
    assert {name for (name,) in members} - types == NAMED


def place(relation):
    return f"otp_gateway_internal.{relation}" if relation in (*TABLES, *INSIDE_VIEWS) else f"otp_gateway.{relation}"


@pytest.mark.parametrize("table", [*TABLES, *VIEWS, *INSIDE_VIEWS])
def test_every_column_is_named(rights, table):
    columns = rights.gateway.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND NOT attisdropped", (place(table),)
    )
    named = {**TABLES, **VIEWS, **INSIDE_VIEWS}[table].split() + (SYSTEM_COLUMNS.split() if table in TABLES else [])
    assert sorted(name for (name,) in columns) == sorted(named)
    assert table in TABLES or not SECRET & set(named)


def test_every_result_column_is_named(rights):
    """What the functions return is for the caller: nothing of the record's own columns comes with it."""
    assert rights.gateway.execute(
        "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = 'otp_gateway.result'::regclass AND attnum > 0 AND NOT attisdropped"
    ) == [(RESULT,)]
    # No function has another way to return columns of the record.
    assert (
        rights.gateway.execute("""
        SELECT oid::regprocedure::text FROM pg_proc WHERE proargmodes IS NOT NULL AND proname NOT IN ('version', 'check', 'health')
            AND oid IN (SELECT objid FROM pg_depend WHERE deptype = 'e' AND classid = 'pg_proc'::regclass
                        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'otp_gateway'))
    """)
        == []
    )


@pytest.mark.parametrize("role", ROLES)
def test_everybody_may_name_the_result(rights, role):
    """In a variable, and as a column of a table of one's own."""
    statement = "DO $$ DECLARE r otp_gateway.result; BEGIN CREATE TEMP TABLE kept (r otp_gateway.result); DROP TABLE kept; END $$"
    assert rights.try_(role, statement) == -1
    assert rights.run(role, "SELECT has_type_privilege('otp_gateway.result', 'USAGE')") == [(True,)]


# allowed or refused


@pytest.mark.parametrize("role", ROLES)
def test_privileges_on_tables_and_views(rights, role):
    """As the catalog has them, for the whole and for each column."""
    for table, privileges in [*((t, ON_TABLES) for t in (*TABLES, *INSIDE_VIEWS)), *((v, ON_VIEWS) for v in VIEWS)]:
        ((oid,),) = rights.gateway.execute("SELECT %s::regclass::oid", (place(table),))
        for privilege, allowed in privileges.items():
            ((has, has_column),) = rights.run(
                role,
                "SELECT has_table_privilege(%(t)s, %(p)s), %(p)s IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') "
                "AND has_any_column_privilege(%(t)s, CASE WHEN %(p)s IN ('DELETE', 'TRUNCATE', 'TRIGGER') THEN 'SELECT' ELSE %(p)s END)",
                {"t": oid, "p": privilege},
            )
            assert has == (role in allowed), f"{privilege} on {table}"
            assert has_column == (role in allowed and privilege in ("SELECT", "INSERT", "UPDATE", "REFERENCES"))


@pytest.mark.parametrize("role", ROLES)
def test_reading_each_column(rights, role):
    for table, columns in TABLES.items():
        ((there,),) = rights.gateway.execute(f"SELECT count(*) FROM otp_gateway_internal.{table}")
        assert there > 0
        expected = (there if role in UNBOUND else 0) if role in READ else "42501"
        for column in f"{columns} {SYSTEM_COLUMNS}".split():
            assert rights.try_(role, f"SELECT {column} FROM otp_gateway_internal.{table}") == expected, (
                f"{table}.{column}"
            )
        assert rights.try_(role, f"SELECT t FROM otp_gateway_internal.{table} AS t") == expected
        assert rights.try_(role, f"SELECT count(*) FROM otp_gateway_internal.{table}") in (1, "42501")
    for view, columns in VIEWS.items():
        for column in columns.split():
            there = rights.try_(role, f"SELECT {column} FROM otp_gateway.{view}")
            assert there == rights.try_(role, f"SELECT * FROM otp_gateway.{view}"), f"{view}.{column}"
            # Statistics are their provider's owner's, and for pg_read_all_stats.
            seen = {"keeper": 1, "monitor": 2, "superuser": 2}.get(role, 0) if view == "ranges" else len(of(role))
            assert there == seen or view in ("provider", "payload_field") or view.startswith("stat_")
        for column in f"{SYSTEM_COLUMNS} {' '.join(SECRET)}".split():
            assert rights.try_(role, f"SELECT {column} FROM otp_gateway.{view}") == "42703", f"{view}.{column}"


@pytest.mark.parametrize("role", ROLES)
def test_what_each_role_sees(rights, role):
    """Its own and those of roles that it is a member of, the owner of a provider all of that provider."""
    assert rights.seen(role, "SELECT id FROM otp_gateway.verification") == of(role)
    assert rights.seen(role, "SELECT verification_id FROM otp_gateway.attempt") == of(role)
    for provider in ("bank", "shop"):
        there = {flow for flow in of(role) if flow[1] == provider}
        assert rights.seen(role, "SELECT id FROM otp_gateway.find(%s, %s)", (provider, NUMBER)) == there
    assert rights.seen(role, "SELECT id FROM otp_gateway.find(%s)", (NUMBER,)) == of(role)
    history = "SELECT verification_id FROM otp_gateway.history(%s, '-infinity', 'infinity')"
    assert rights.seen(role, history, (NUMBER,)) == of(role)
    assert rights.seen(role, "SELECT id FROM otp_gateway.find('bank', '0776666666')") == set()
    assert rights.seen(role, "SELECT id FROM otp_gateway.find('0776666666')") == set()
    # No secret, and what it may know from pg_foreign_server.
    shown = rights.run(role, "SELECT provider, setting, value FROM otp_gateway.provider")
    assert {provider for provider, _, _ in shown} == {"bank", "shop"}


@pytest.mark.parametrize("role", ROLES)
def test_what_find_shows_is_what_the_view_shows(rights, role):
    """Row for row, whoever asks: a look-up reads the record itself, and not through the view."""
    of_view = set(rights.run(role, "SELECT v.*::text FROM otp_gateway.verification AS v"))
    found = set(rights.run(role, "SELECT v.*::text FROM otp_gateway.find(%s) AS v", (NUMBER,)))
    assert found == of_view


def test_find_is_refused_who_may_not_read_the_view(rights):
    """A grant that somebody has taken away counts for a look-up as well."""
    rights.run("superuser", "REVOKE SELECT ON otp_gateway.verification FROM PUBLIC")
    try:
        assert rights.try_("sender", "SELECT FROM otp_gateway.find('bank', %(number)s)", {"number": NUMBER}) == "42501"
        assert rights.try_("sender", "SELECT FROM otp_gateway.find(%(number)s)", {"number": NUMBER}) == "42501"
        names = (
            "id, provider, vendor, status, recipient_masked, reference, created_by, created_at, expires_at, approved_at"
        )
        counts = "send_count, check_count, max_checks, is_test, route"
        rights.run("superuser", f"GRANT SELECT ({names}, {counts}) ON otp_gateway.verification TO PUBLIC")
        assert isinstance(rights.try_("sender", "SELECT FROM otp_gateway.find(%(number)s)", {"number": NUMBER}), int)
    finally:
        rights.run(
            "superuser",
            "REVOKE ALL ON otp_gateway.verification FROM PUBLIC; GRANT SELECT ON otp_gateway.verification TO PUBLIC",
        )


def test_find_looks_once(rights):
    """Not once for each row that there is, of whomever."""
    session = rights.sessions["superuser"]
    session.autocommit = False
    try:
        rights.run("superuser", "SET LOCAL track_functions = 'all'")
        rights.run("superuser", "SELECT id FROM otp_gateway.find('bank', %s)", (NUMBER,))
        calls = "SELECT pg_stat_get_xact_function_calls('otp_gateway_internal.found_verifications(text, text)'::regprocedure)"
        assert rights.run("superuser", calls) == [(1,)]
    finally:
        session.rollback()
        session.autocommit = True


@pytest.mark.parametrize("role", ROLES)
def test_functions(rights, role):
    id = rights.send("sender", number="0775555555")["verification_id"]
    values = {"id": id, "number": NUMBER, "payload": json.dumps({"mobile": "0774444444"})}
    for function, (granted, call, allowed, *rest) in FUNCTIONS.items():
        special, refusal = rest or ({}, "42501")
        ((oid,),) = rights.gateway.execute("SELECT %s::regprocedure::oid", (function,))
        ((has,),) = rights.run(role, "SELECT has_function_privilege(%s, 'EXECUTE')", (oid,))
        assert has == (role in granted), function
        got = rights.try_(role, call, values)
        if role in allowed:
            assert isinstance(got, int), f"{function}: {got}"
        else:
            assert got == special.get(role, refusal), function


@pytest.mark.parametrize("role", ROLES)
def test_schema_wrappers_and_types(rights, role):
    ((uses, creates),) = rights.run(
        role, "SELECT has_schema_privilege('otp_gateway', 'USAGE'), has_schema_privilege('otp_gateway', 'CREATE')"
    )
    assert (uses, creates) == (True, role in SUPER)
    ((uses, creates),) = rights.run(
        role,
        "SELECT has_schema_privilege('otp_gateway_internal', 'USAGE'), has_schema_privilege('otp_gateway_internal', 'CREATE')",
    )
    assert (uses, creates) == (role in INSIDE, role in SUPER)
    for statement in (
        "CREATE TABLE otp_gateway_internal.mine ()",
        "CREATE TABLE otp_gateway.mine ()",
        "CREATE VIEW otp_gateway.mine AS SELECT 1",
        "CREATE FUNCTION otp_gateway.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OPERATOR otp_gateway.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_catalog.uuid_ne)",
    ):
        assert isinstance(rights.try_(role, statement), int) == (role in SUPER), statement
    for name in WRAPPERS:
        got = rights.try_(role, f"CREATE SERVER mine FOREIGN DATA WRAPPER otp_{name}")
        assert got != "42501" if role in SUPER else got == "42501", name
    for name in DOMAINS:
        made = rights.try_(role, f"CREATE TABLE mine (value otp_gateway_internal.{name})")
        assert made != "42501" if role in INSIDE else made == "42501"


# written by nobody

WRITES = [
    "INSERT INTO {t} SELECT * FROM {t}",
    "INSERT INTO {t} DEFAULT VALUES",
    "INSERT INTO {t} ({c}) VALUES (NULL) ON CONFLICT DO NOTHING",
    "UPDATE {t} SET {c} = {c}",
    "DELETE FROM {t}",
    "TRUNCATE {t}",
    "COPY {t} FROM '/dev/null'",
    "COPY {t} FROM PROGRAM 'true'",
    "SELECT FROM {t} FOR UPDATE",
    "SELECT FROM {t} FOR KEY SHARE",
    "CREATE TABLE mine ({c} {y} REFERENCES {t} ({c}))",
]
MERGE = "MERGE INTO {t} AS t USING (VALUES (1)) AS v ON false WHEN NOT MATCHED THEN INSERT ({c}) VALUES (NULL)"
# By those who do not own what is there, on whatever they own themselves.
DEFINITIONS = [
    "CREATE RULE mine AS ON INSERT TO {t} DO INSTEAD NOTHING",
    "CREATE TRIGGER mine BEFORE INSERT ON {t} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE POLICY mine ON {t} USING (true) WITH CHECK (true)",
    "CREATE INDEX ON {t} ({c})",
    "CREATE STATISTICS mine ON {c}, {d} FROM {t}",
    "CREATE PUBLICATION mine FOR TABLE {t}",
    "CREATE TABLE mine () INHERITS ({t})",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} OWNER TO CURRENT_USER",
    "ALTER TABLE {t} ALTER COLUMN {c} DROP NOT NULL",
    "ALTER TABLE {t} RENAME TO mine",
    "ALTER TABLE {t} DISABLE TRIGGER ALL",
    "ALTER TABLE {t} SET SCHEMA public",
    "COMMENT ON TABLE {t} IS 'mine'",
    "SECURITY LABEL FOR none ON TABLE {t} IS 'mine'",
    "REINDEX TABLE {t}",
    "CLUSTER {t}",
    "REFRESH MATERIALIZED VIEW {t}",
    "DROP TABLE {t} CASCADE",
    "ALTER EXTENSION otp_gateway DROP TABLE {t}",
]
ON_THE_EXTENSION = [
    "ALTER EXTENSION otp_gateway UPDATE",
    "ALTER EXTENSION otp_gateway ADD TABLE own",
    "ALTER EXTENSION otp_gateway SET SCHEMA public",
    "DROP EXTENSION otp_gateway CASCADE",
    "DROP SCHEMA otp_gateway CASCADE",
    "ALTER SCHEMA otp_gateway OWNER TO CURRENT_USER",
    "ALTER SCHEMA otp_gateway RENAME TO mine",
    "ALTER FUNCTION otp_send(text, jsonb, text) SECURITY DEFINER",
    "ALTER FUNCTION otp_gateway.find(text, text) SECURITY DEFINER",
    "CREATE OR REPLACE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification LANGUAGE sql AS 'SELECT * FROM otp_gateway.verification'",
    "CREATE OR REPLACE VIEW otp_gateway.verification AS SELECT * FROM otp_gateway.verification",
    "ALTER VIEW otp_gateway.verification SET (security_barrier = false)",
    "ALTER VIEW otp_gateway.attempt OWNER TO CURRENT_USER",
    "DROP VIEW otp_gateway.attempt",
    "DROP FUNCTION otp_send(text, jsonb, text)",
    "DROP FUNCTION otp_gateway_internal.note_queued() CASCADE",
    "ALTER DOMAIN otp_gateway_internal.status ADD CHECK (false) NOT VALID",
    "ALTER DOMAIN otp_gateway_internal.status OWNER TO CURRENT_USER",
    "CREATE CAST (otp_gateway_internal.status AS text) WITHOUT FUNCTION AS IMPLICIT",
    "ALTER FOREIGN DATA WRAPPER otp_sandbox NO VALIDATOR",
    "DROP FOREIGN DATA WRAPPER otp_sandbox CASCADE",
    "ALTER SERVER shop OPTIONS (ADD max_in_flight '1')",
    "DROP SERVER shop CASCADE",
    "CREATE USER MAPPING FOR PUBLIC SERVER shop OPTIONS (code '111111')",
    "REASSIGN OWNED BY postgres TO CURRENT_USER",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "ALTER SYSTEM SET otp_gateway.retention = 1",
    "SET otp_gateway.max_sends_per_transaction = 1000000",
    "SET otp_gateway.notify = on",
    "SET session_replication_role = replica",
    "SET SESSION AUTHORIZATION postgres",
    "UPDATE pg_class SET relrowsecurity = false",
    "UPDATE pg_extension SET extowner = 'pg_monitor'::regrole",
]
# Postgres answers these with a warning and does nothing.
GRANTS = [
    "GRANT CREATE ON SCHEMA otp_gateway TO CURRENT_USER",
    "GRANT USAGE ON SCHEMA otp_gateway_internal TO CURRENT_USER",
    "GRANT SELECT ON otp_gateway_internal.verification_record TO CURRENT_USER",
    "GRANT EXECUTE ON FUNCTION otp_gateway.rotate_key() TO CURRENT_USER",
    "GRANT USAGE ON FOREIGN DATA WRAPPER otp_sandbox TO CURRENT_USER",
    "GRANT USAGE ON FOREIGN SERVER shop TO CURRENT_USER WITH GRANT OPTION",
]
RIGHTS = """
SELECT 'pg_class', oid, relacl::text FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'otp_gateway%'
UNION ALL SELECT 'pg_proc', oid, proacl::text FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'otp_gateway%'
UNION ALL SELECT 'pg_namespace', oid, coalesce(nspacl, acldefault('n', nspowner))::text FROM pg_namespace WHERE nspname LIKE 'otp_gateway%'
UNION ALL SELECT 'pg_foreign_server', oid, srvacl::text FROM pg_foreign_server
UNION ALL SELECT 'pg_foreign_data_wrapper', oid, fdwacl::text FROM pg_foreign_data_wrapper
ORDER BY 1, 2
"""


@pytest.mark.parametrize("role", [role for role in ROLES if role not in SUPER])
def test_nobody_changes_what_it_is(rights, role):
    for statement in ON_THE_EXTENSION:
        got = rights.try_(role, statement)
        assert got in ("42501", "2BP01", "42P13", "42P07", "0A000", "55P02", "25001"), f"{statement}: {got}"
    before = rights.gateway.execute(RIGHTS)
    for statement in GRANTS:
        try:
            rights.run(role, statement)
        except psycopg2.errors.InsufficientPrivilege:
            pass
        assert rights.gateway.execute(RIGHTS) == before, statement


# what holds others up


@pytest.mark.parametrize("role", [role for role in ROLES if role not in WRITE])
def test_locks(rights, role):
    """Whoever cannot write takes no lock, of a table or of a row, that a writer waits for; what reading takes holds up nobody."""
    session = rights.sessions[role]
    modes = ("ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE")
    for table in [*TABLES, *VIEWS, *INSIDE_VIEWS]:
        for mode in modes:
            assert rights.try_(role, f"LOCK TABLE {place(table)} IN {mode} MODE NOWAIT") == "42501", (table, mode)
        for lock in ("FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE"):
            assert rights.try_(role, f"SELECT FROM {place(table)} {lock}") == "42501", (table, lock)
    session.autocommit = False
    try:
        with session.cursor() as cursor:
            for view in VIEWS:
                cursor.execute(f"LOCK TABLE otp_gateway.{view} IN ACCESS SHARE MODE; SELECT FROM otp_gateway.{view}")
        id = rights.send("superuser", number="0773333333")["verification_id"]
        assert rights.gateway.verify(id, "000000")["outcome"] == "approved"
    finally:
        session.rollback()
        session.autocommit = True


def test_the_worker_cannot_be_signalled(rights):
    """By pg_signal_backend: it is a superuser's process."""
    ((pid,),) = rights.gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway%%' AND datname = current_database()"
    )
    for role in sorted(EVERYBODY - SUPER):
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            assert rights.try_(role, f"SELECT {function}({pid})") == "42501", role


# names that come again


def test_a_provider_s_name_under_another_wrapper(rights):
    """The record goes by names. One that is free again is not everybody's who may make a foreign server of any kind."""
    gateway, thief = rights.gateway, rights.name("none")
    gateway.execute("CREATE SERVER gone FOREIGN DATA WRAPPER otp_sandbox")
    row = gateway.row("""SELECT * FROM otp_send('gone', '{"mobile": "0771231231"}')""")
    rights.ids[row["verification_id"]] = ("superuser", "gone")
    gateway.execute("DROP SERVER gone; CREATE FOREIGN DATA WRAPPER elsewhere")
    gateway.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER elsewhere TO {thief}")
    try:
        rights.run("none", "CREATE SERVER gone FOREIGN DATA WRAPPER elsewhere")
        assert rights.seen("none", "SELECT id FROM otp_gateway.verification") == set()
        assert rights.seen("none", "SELECT verification_id FROM otp_gateway.attempt") == set()
        for call in ("otp_gateway.purge('30 years')", "otp_gateway.forget('gone', '0771231231')"):
            assert rights.try_("none", f"SELECT {call}") in ("42501", "42704")
    finally:
        gateway.execute("DROP FOREIGN DATA WRAPPER elsewhere CASCADE")
        del rights.ids[row["verification_id"]]
        for table, column in (("attempt_record", "verification_id"), ("verification_record", "id")):
            gateway.execute(f"DELETE FROM otp_gateway_internal.{table} WHERE {column} = %s", (row["verification_id"],))


# what Postgres itself gives away


def test_what_postgres_gives_to_readers_of_statistics(rights):
    """ANALYZE puts samples into pg_statistic, which pg_read_all_data reads past row security: not of secret columns."""
    rights.gateway.execute("ANALYZE otp_gateway_internal.verification_record, otp_gateway_internal.attempt_record")
    sampled = """
        SELECT a.attname FROM pg_statistic AS s JOIN pg_attribute AS a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
        WHERE s.starelid IN ('otp_gateway_internal.verification_record'::regclass, 'otp_gateway_internal.attempt_record'::regclass)
    """
    for role in ("read_all", "superuser"):
        columns = {name for (name,) in rights.run(role, sampled)}
        # The control: it is there that they would be.
        assert "recipient_masked" in columns and not SECRET & columns - {"enqueued"}
    # The view over it is bound by row security, for everybody whom that binds.
    for role in sorted(EVERYBODY - UNBOUND):
        assert rights.try_(role, "SELECT FROM pg_stats WHERE schemaname LIKE 'otp_gateway%'") == 0, role
    assert rights.try_("superuser", "SELECT FROM pg_stats WHERE schemaname LIKE 'otp_gateway%'") > 0


def test_what_an_upgrade_finds_in_the_statistics(cluster, simulator):
    """Samples that 0.2.0 took of the secret columns are gone after the upgrade."""
    secret = "SELECT count(*) FROM pg_statistic JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum WHERE attname = ANY (%s) AND starelid::regclass::text LIKE 'otp_gateway%%.%%'"
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway VERSION '0.2.0'")
        gateway.execute("""
            INSERT INTO otp_gateway.verification (id, provider, vendor, status, recipient_key, sealed, idempotency_key, payload_hash, created_by, created_at, send_count, check_count, max_checks)
            SELECT gen_random_uuid(), 'p', 'sandbox', 'pending', '\\x01', '\\x02', '\\x03', '\\x04', 'postgres', now(), 1, 0, 3 FROM generate_series(1, 9);
            ANALYZE
        """)
        assert gateway.execute(secret, (sorted(SECRET - {"enqueued"}),)) == [(4,)]
        gateway.execute("ALTER EXTENSION otp_gateway UPDATE; ANALYZE")
        assert gateway.execute(secret, (sorted(SECRET - {"enqueued"}),)) == [(0,)]


@pytest.mark.parametrize("length, chunks", [(7000, 0), (20000, 11)])
def test_what_postgres_gives_to_readers_of_toast(rights, length, chunks):
    """A value that does not fit on a page lies in a TOAST table, where no row security reaches. What is sealed comes there
    only if it is longer than that, and is sealed there, too."""
    gateway = rights.gateway
    ((toast,),) = gateway.execute(
        "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'otp_gateway_internal.verification_record'::regclass"
    )
    (id, _), *_ = [(id, flow) for id, flow in rights.ids.items() if flow == ("sender", "shop")]
    ((before,),) = gateway.execute("SELECT sealed FROM otp_gateway_internal.verification_record WHERE id = %s", (id,))
    try:
        gateway.execute(
            "UPDATE otp_gateway_internal.verification_record SET sealed = %s WHERE id = %s", (os.urandom(length), id)
        )
        for role in sorted(EVERYBODY):
            assert rights.try_(role, f"SELECT chunk_data FROM {toast}") == (chunks if role in READ else "42501"), role
    finally:
        gateway.execute("UPDATE otp_gateway_internal.verification_record SET sealed = %s WHERE id = %s", (before, id))
        gateway.execute("VACUUM otp_gateway_internal.verification_record")


def test_what_postgres_gives_to_readers_of_catalogs(rights):
    """pg_read_all_data reads pg_user_mapping, and every credential that stands there in plain: hence <name>_file."""
    rights.gateway.execute("CREATE USER MAPPING FOR PUBLIC SERVER shop OPTIONS (code '424242')")
    try:
        for role in sorted(EVERYBODY):
            got = rights.try_(role, "SELECT FROM pg_user_mapping WHERE umoptions::text LIKE '%%424242%%'")
            assert got == (1 if role in READ else "42501"), role
            # The view that is for everybody hides it from all who do not own the server.
            got = rights.try_(role, "SELECT FROM pg_user_mappings WHERE umoptions::text LIKE '%%424242%%'")
            assert got == (1 if role in SUPER else 0), role
            assert rights.try_(role, "SELECT FROM otp_gateway.provider WHERE value LIKE '%%424242%%'") == 0
    finally:
        rights.gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER shop")


def test_what_postgres_gives_to_writers_of_all_data(rights):
    """pg_write_all_data may lock any table, and so hold up what is sent, though it writes no row; the worker waits without
    being stuck, and goes on when it lets go."""
    session = rights.sessions["write_all"]
    session.autocommit = False
    try:
        with session.cursor() as cursor:
            cursor.execute("LOCK TABLE otp_gateway_internal.attempt_record IN ACCESS EXCLUSIVE MODE")
        with rights.gateway.connect() as own:
            sent = Running(own, "SELECT outcome FROM otp_send('bank', %s)", (json.dumps({"mobile": "0772222222"}),))
            waits = (
                "SELECT FROM pg_locks WHERE relation = 'otp_gateway_internal.attempt_record'::regclass AND NOT granted"
            )
            until(lambda: rights.try_("superuser", waits) > 0, "the worker waits for the table")
            assert sent.thread.is_alive()
            session.rollback()
            assert sent.row() == {"outcome": "sent"}
        own.close()
    finally:
        session.rollback()
        session.autocommit = True


@pytest.mark.parametrize("schema", ["public", "otp"])
def test_what_the_owner_of_the_database_may_drop(cluster, simulator, rights, schema):
    """Postgres lets the owner of a schema drop it with an extension in it, and public belongs to the owner of the
    database from 15 on: with it goes the record, as it would with DROP DATABASE. In a schema of a superuser's the
    extension stays."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        if schema != "public":
            gateway.execute(f"CREATE SCHEMA {schema}")
        gateway.execute(
            f"CREATE EXTENSION otp_gateway SCHEMA {schema}; ALTER DATABASE {name} OWNER TO {rights.name('dba')}"
        )
        owner = gateway.connect(user=rights.name("dba"))
        try:
            if gateway.session.server_version >= 150000:
                gateway.execute("DROP SCHEMA public CASCADE", session=owner)
            if schema == "public" and gateway.session.server_version >= 150000:
                assert gateway.execute("SELECT oid FROM pg_extension WHERE extname = 'otp_gateway'") == []
                return
            for statement in (
                f"DROP SCHEMA {schema} CASCADE",
                "DROP EXTENSION otp_gateway",
                f"ALTER SCHEMA {schema} RENAME TO mine",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    gateway.execute(statement, session=owner)
            gateway.execute("CREATE SERVER s FOREIGN DATA WRAPPER otp_sandbox")
            sent = gateway.row(f"SELECT outcome FROM {schema}.otp_send('s', %s)", ('{"mobile": "0771231231"}',))
            assert sent == {"outcome": "sent"}
        finally:
            owner.close()
            gateway.execute(f"ALTER DATABASE {name} OWNER TO postgres")
