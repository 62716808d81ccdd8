"""Promise: what the otp_ functions and otp_gateway.wait return has a name, otp_gateway.result, each column with its comment:
PL/pgSQL declares a variable of it, tables and functions take it, drivers know it, \\df fits on a screen; and however a
statement takes the row apart, it is one call."""

import json
import os
import pty
import re
import select
import signal
import uuid

import psycopg2
import psycopg2.extras
import pytest

from cluster import BINDIR
from conftest import until
from test_schemas import FUNCTIONS as PEOPLES_FUNCTIONS
from test_schemas import TYPES, VIEWS

FUNCTIONS = [
    "otp_send(text,jsonb,text)",
    "otp_enqueue(text,jsonb,text)",
    "otp_verify(uuid,text,jsonb)",
    "otp_verify(text,text,jsonb)",
    "otp_resend(uuid,jsonb)",
    "otp_cancel(uuid)",
    "otp_gateway.wait(uuid,interval)",
]


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


def payload(gateway):
    return json.dumps({"mobile": gateway.number()})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_returns_it(gateway, function):
    assert gateway.execute(
        "SELECT prorettype::regtype::text FROM pg_proc WHERE oid = %s::regprocedure", (function,)
    ) == [("otp_gateway.result",)]


def test_each_column_has_its_comment(gateway):
    assert gateway.execute(
        "SELECT a.attname, length(col_description(a.attrelid, a.attnum)) > 10 FROM pg_attribute AS a"
        " WHERE a.attrelid = 'otp_gateway.result'::regclass AND a.attnum > 0 ORDER BY a.attnum"
    ) == [
        (name, True)
        for name in (
            "verification_id",
            "attempt_id",
            "status",
            "outcome",
            "retryable",
            "attempts_left",
            "retry_after",
            "expires_at",
            "reference",
            "vendor_code",
            "vendor_message",
            "response",
            "reason",
        )
    ]


@pytest.mark.parametrize("what, width", [("otp_send", 120), ("otp_*", 122), ("otp_gateway.wait", 120)])
def test_a_listing_fits_on_a_screen(gateway, what, width):
    """Thirteen OUT parameters made it 420 columns wide."""
    lines = gateway.cluster.psql(gateway.database, "-c", rf"\df {what}").splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= width


COMPLETIONS = {
    "SELECT * FROM otp_gateway.": VIEWS,
    "\\df otp_gateway.": {re.sub(r"\W", "", signature.split("(")[0]) for signature in PEOPLES_FUNCTIONS},
    "\\dT otp_gateway.": TYPES,
    "\\d otp_gateway.": VIEWS | TYPES,
}


@pytest.mark.parametrize("typed", COMPLETIONS)
def test_completion_offers_what_is_for_people(gateway, typed):
    """As psql does it for a person: the tab key, twice."""
    psql, terminal = pty.fork()
    if psql == 0:
        cluster = gateway.cluster
        at = ["-h", str(cluster.directory), "-p", str(cluster.port), "-U", "postgres", "-d", gateway.database]
        os.execve(
            BINDIR / "psql",
            ["psql", "-X", *at],
            {**os.environ, "TERM": "dumb", "COLUMNS": "200", "INPUTRC": "/dev/null"},
        )
    seen = ""

    def reads(end):
        nonlocal seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536).decode()
        return re.search(end, seen)

    try:
        prompt = f"{gateway.database}=# "
        until(lambda: reads(f"{prompt}$"), "psql is there")
        seen = ""
        os.write(terminal, f"{typed}\t\t".encode())
        # One candidate is put in its place; of several there is a list, and the line anew.
        until(
            lambda: reads(rf"(?s){re.escape(typed)}\w+ ?$|{re.escape(typed)}.*\n.*{re.escape(typed)}$"), "it completes"
        )
    finally:
        os.kill(psql, signal.SIGKILL)
        os.waitpid(psql, 0)
        os.close(terminal)
    assert set(re.findall(r'otp_gateway\."?(\w+)', seen)) == COMPLETIONS[typed]


# However the row is taken.


@pytest.mark.parametrize(
    "call, of",
    [
        ("SELECT (%s).*", lambda row: row["outcome"]),
        ("SELECT * FROM %s", lambda row: row["outcome"]),
        ("SELECT r.* FROM %s AS r", lambda row: row["outcome"]),
        ("SELECT r.outcome FROM %s AS r", lambda row: row["outcome"]),
        ("SELECT (r).outcome FROM %s AS r", lambda row: row["outcome"]),
        ("SELECT (%s).outcome", lambda row: row["outcome"]),
        ("SELECT outcome(%s)", lambda row: row["outcome"]),
        ("SELECT to_jsonb(%s) AS r", lambda row: row["r"]["outcome"]),
        ("SELECT to_jsonb(r) AS r FROM %s AS r", lambda row: row["r"]["outcome"]),
        ("SELECT row_to_json(r) AS r FROM %s AS r", lambda row: row["r"]["outcome"]),
        ("WITH r AS MATERIALIZED (SELECT %s AS r) SELECT (r).* FROM r", lambda row: row["outcome"]),
        ("SELECT r.*, n FROM ROWS FROM (%s, generate_series(1, 1)) AS r", lambda row: row["outcome"]),
        ("SELECT r.* FROM generate_series(1, 1) CROSS JOIN LATERAL %s AS r", lambda row: row["outcome"]),
    ],
)
def test_one_call_however_it_is_taken(gateway, simulator, call, of):
    """Also where Postgres expands it to a call for each column."""
    if "generate_series(1, 1)) AS" in call:
        call = call.replace(" AS r", " AS r (a, b, c, outcome, e, f, g, h, i, j, k, l, m, n)")
    row = gateway.row(call % f"otp_send('ideamart', '{payload(gateway)}')")
    assert of(row) == "sent"
    assert simulator.count("ideamart", "send") == 1
    assert gateway.execute("SELECT count(*) FROM otp_gateway.attempt") == [(1,)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_s_row_can_be_taken_apart(gateway, function):
    """As the same columns, and by name."""
    id = gateway.send("relid")["verification_id"]
    call = {
        "otp_send(text,jsonb,text)": f"otp_send('ideamart', '{payload(gateway)}')",
        "otp_enqueue(text,jsonb,text)": f"otp_enqueue('ideamart', '{payload(gateway)}')",
        "otp_verify(uuid,text,jsonb)": f"otp_verify('{id}'::uuid, '000000')",
        "otp_verify(text,text,jsonb)": "otp_verify('ideamart', '000000', '{\"reference\": \"nowhere\"}')",
        "otp_resend(uuid,jsonb)": f"otp_resend('{id}')",
        "otp_cancel(uuid)": f"otp_cancel('{id}')",
        "otp_gateway.wait(uuid,interval)": f"otp_gateway.wait('{id}')",
    }[function]
    columns = [
        name
        for (name,) in gateway.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'otp_gateway.result'::regclass AND attnum > 0 ORDER BY attnum"
        )
    ]
    row = gateway.row(f"SELECT (r).* FROM (SELECT {call} AS r OFFSET 0) AS t")
    assert list(row) == columns and isinstance(row["verification_id"], uuid.UUID) and row["status"] is not None


# PL/pgSQL, SQL functions, tables.


PLPGSQL = {
    "assigned": "r := otp_send('ideamart', given);",
    "selected": "SELECT * INTO r FROM otp_send('ideamart', given);",
    "selected as columns": "SELECT (otp_send('ideamart', given)).* INTO r;",
    "in a subquery": "r := (SELECT s FROM otp_send('ideamart', given) AS s);",
    "dynamic": "EXECUTE 'SELECT * FROM otp_send($1, $2)' INTO r USING 'ideamart'::text, given;",
    "in a loop": "FOR r IN SELECT * FROM otp_send('ideamart', given) LOOP EXIT; END LOOP;",
}


@pytest.mark.parametrize("body", PLPGSQL)
@pytest.mark.parametrize("of", ["otp_gateway.result", "record"])
def test_a_variable_in_plpgsql(gateway, simulator, body, of):
    """Twice, for what a session keeps of the first call."""
    gateway.execute("DROP FUNCTION IF EXISTS log_in")
    gateway.execute(
        f"CREATE FUNCTION log_in(given jsonb) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r {of}; BEGIN {PLPGSQL[body]}"
        " RETURN concat_ws(' ', r.status, r.outcome, r.attempt_id IS NOT NULL); END $$"
    )
    for _ in range(2):
        assert gateway.execute("SELECT log_in(%s)", (payload(gateway),)) == [("pending sent t",)]
    assert simulator.count("ideamart", "send") == 2


def test_selected_whole_into_a_variable_is_postgres_s_own_trap(gateway):
    """One column, of this type, for the first column of the variable: an error, after the send. The documents say so."""
    gateway.execute("DROP FUNCTION IF EXISTS log_in")
    gateway.execute(
        "CREATE FUNCTION log_in(given jsonb) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r otp_gateway.result; BEGIN"
        " SELECT otp_send('ideamart', given) INTO r; RETURN r.outcome; END $$"
    )
    with pytest.raises(psycopg2.Error):
        gateway.execute("SELECT log_in(%s)", (payload(gateway),))
    assert gateway.execute("SELECT outcome FROM otp_gateway.attempt") == [("sent",)]


def test_functions_of_the_user_return_it(gateway, simulator):
    gateway.execute(
        "CREATE FUNCTION pg_temp.by_sql(given jsonb) RETURNS otp_gateway.result LANGUAGE sql AS"
        " $$ SELECT * FROM otp_send('ideamart', given) $$;"
        "CREATE FUNCTION pg_temp.whole(given jsonb) RETURNS otp_gateway.result LANGUAGE sql"
        " RETURN otp_send('ideamart', given);"
        "CREATE FUNCTION pg_temp.by_plpgsql(given jsonb) RETURNS otp_gateway.result LANGUAGE plpgsql AS"
        " $$ DECLARE r otp_gateway.result; BEGIN r := otp_send('ideamart', given); r.response := NULL; RETURN r; END $$"
    )
    for function in ("by_sql", "whole", "by_plpgsql"):
        for call in (f"SELECT * FROM pg_temp.{function}(%s)", f"SELECT (pg_temp.{function}(%s)).*"):
            simulator.reset()
            assert gateway.row(call, (payload(gateway),))["outcome"] == "sent"
            # A function of the user's is another statement each time: of that, Postgres makes a call for each column.
            assert simulator.count("ideamart", "send") == (1 if " FROM " in call or function == "whole" else 13)


def test_a_row_is_kept_in_a_table(gateway, cluster):
    """And read by another session, which has not seen the type."""
    gateway.execute("CREATE TEMP TABLE mine (n int)")
    gateway.execute("CREATE TABLE public.answers (at timestamptz DEFAULT now(), answer otp_gateway.result)")
    try:
        gateway.execute("INSERT INTO public.answers (answer) SELECT otp_send('ideamart', %s)", (payload(gateway),))
        gateway.execute(
            "INSERT INTO public.answers (answer) SELECT r FROM otp_send('ideamart', %s) AS r", (payload(gateway),)
        )
        with gateway.connect() as other:
            rows = gateway.execute("SELECT (answer).outcome, answer IS NOT NULL FROM public.answers", session=other)
            assert [outcome for outcome, _ in rows] == ["sent", "sent"]
            assert (
                len(gateway.execute("SELECT answer::text::otp_gateway.result FROM public.answers", session=other)) == 2
            )
    finally:
        gateway.execute("DROP TABLE public.answers")


def test_a_prepared_statement(gateway, simulator):
    gateway.execute(
        "PREPARE by_columns (jsonb) AS SELECT * FROM otp_send('ideamart', $1); PREPARE whole (jsonb) AS SELECT otp_send('ideamart', $1)"
    )
    # More often than Postgres plans anew.
    for _ in range(7):
        assert gateway.row("EXECUTE by_columns (%s)", (payload(gateway),))["outcome"] == "sent"
        gateway.execute("EXECUTE whole (%s)", (payload(gateway),))
    assert simulator.count("ideamart", "send") == 14
    gateway.execute("DEALLOCATE ALL")


def test_no_search_path_leads_elsewhere(gateway):
    """A type of that name that stands before ours is another."""
    gateway.execute("CREATE TYPE pg_temp.result AS (outcome text)")
    gateway.execute("SET search_path = pg_temp, public, otp_gateway")
    try:
        assert gateway.row("SELECT * FROM otp_send('ideamart', %s)", (payload(gateway),))["outcome"] == "sent"
    finally:
        gateway.execute("RESET search_path; DROP TYPE pg_temp.result")


# Drivers.


def test_psycopg2_knows_it(gateway):
    with gateway.connect() as session:
        psycopg2.extras.register_composite("otp_gateway.result", session)
        [(row,)] = gateway.execute("SELECT otp_send('ideamart', %s)", (payload(gateway),), session)
        assert (row.outcome, row.retryable, type(row.verification_id)) == ("sent", False, uuid.UUID)


# What is set when.


def test_reason_and_retry_after_stand_where_they_help(gateway, simulator):
    """As the columns' comments say: reason of what is blocked, retry_after of that and of a vendor that says when."""
    to = gateway.number()
    rows = {"sent": gateway.send(to=to)}
    id = rows["sent"]["verification_id"]
    rows["invalid_code"] = gateway.verify(id, simulator.wrong("ideamart", to))
    rows["approved"] = gateway.verify(id, simulator.code("ideamart", to))
    rows["already_used"] = gateway.verify(id, "123456")
    simulator.fault("status", "ideamart", "send", status=401, headers={"Retry-After": "7"})
    rows["auth_failed"] = gateway.send(to=gateway.number())
    simulator.clear_faults()
    simulator.fault("status", "ideamart", "send", status=500, headers={"Retry-After": "7"})
    rows["unknown"] = gateway.send(to=gateway.number())
    simulator.clear_faults()
    for outcome, row in rows.items():
        assert (row["outcome"], row["reason"], row["retry_after"]) == (outcome, None, None)
    simulator.fault("status", "ideamart", "send", status=429, headers={"Retry-After": "7"})
    limited = gateway.send(to=gateway.number())
    simulator.clear_faults()
    assert (limited["outcome"], limited["reason"], limited["retry_after"].total_seconds()) == ("rate_limited", None, 7)
    gateway.create_provider("once", "ideamart", resend_after="1h", allowed_prefixes="+94")
    gateway.send("once", to, vendor="ideamart")
    blocked = gateway.send("once", to, vendor="ideamart")
    assert (blocked["outcome"], blocked["reason"]) == ("blocked", "resend_after")
    assert 3500 < blocked["retry_after"].total_seconds() <= 3600 and blocked["retryable"]
    # A rule that no wait changes.
    gateway.create_provider("local", "ideamart", allowed_prefixes="+9177")
    blocked = gateway.send("local", gateway.number(), vendor="ideamart")
    assert (blocked["outcome"], blocked["reason"], blocked["retry_after"], blocked["retryable"]) == (
        "blocked",
        "allowed_prefixes",
        None,
        False,
    )
