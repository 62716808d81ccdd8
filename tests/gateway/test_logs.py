"""Promise: a statement that calls one of our functions, or names one, leaves no code and no number in the server's log,
whatever ends it and whatever form the log has, and the client has its whole error all the same; statements of others are
logged as ever. What your own settings log is as the README's section shows it, and contrib/quiet_role.sql keeps it quiet."""

import ctypes
import pathlib
import random
import re
import secrets
import string
import subprocess
import time

import psycopg2
import pytest

from cluster import MAJOR, BINDIR, PG_CONFIG, Cluster, kill
from conftest import Gateway, Running, until

SECTION = (pathlib.Path(__file__).resolve().parents[2] / "docs/logging.md").read_text()
# Debian has it for its own Postgres; the servers of other versions come without.
HAS_PGAUDIT = (
    pathlib.Path(subprocess.check_output([PG_CONFIG, "--pkglibdir"], text=True).strip()) / "pgaudit.so"
).exists()


def is_here(setting):
    return HAS_PGAUDIT or not setting.startswith("pgaudit.")


class Libpq:
    """A session that really binds: psycopg2 writes parameters into the statement."""

    library = ctypes.CDLL("libpq.so.5")
    for name in ("PQconnectdb", "PQexec", "PQexecParams"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("PQresultErrorField", "PQgetvalue", "PQerrorMessage"):
        getattr(library, name).restype = ctypes.c_char_p

    def __init__(self, cluster, dbname, user="postgres"):
        where = f"host={cluster.directory} port={cluster.port} dbname={dbname} user={user}"
        self.connection = ctypes.c_void_p(self.library.PQconnectdb(where.encode()))
        assert self.library.PQstatus(self.connection) == 0, self.library.PQerrorMessage(self.connection)

    def execute(self, statement, *parameters):
        """SQLSTATE (or None), and all that the client is told, as psql would show it at its most verbose."""
        if parameters:
            values = (ctypes.c_char_p * len(parameters))(*(value.encode() for value in parameters))
            result = self.library.PQexecParams(
                self.connection, statement.encode(), len(parameters), None, values, None, None, 0
            )
        else:
            result = self.library.PQexec(self.connection, statement.encode())
        result = ctypes.c_void_p(result)
        try:
            # SQLSTATE, then message, detail, hint, internal query, context.
            fields = [self.library.PQresultErrorField(result, ord(field)) for field in "CMDHqW"]
        finally:
            self.library.PQclear(result)
        state, *rest = [field and field.decode() for field in fields]
        return state, "\n".join(field for field in rest if field)

    def close(self):
        self.library.PQfinish(self.connection)


class Place:
    """A cluster that logs as much about errors as it can, in every form that it has, and a database with the functions
    and tables that an application would have."""

    FORMS = ["log", "csv", *(["json"] if MAJOR >= 15 else [])]

    def __init__(self):
        # What such settings log is what these tests are about: they look for themselves.
        self.cluster = Cluster(
            settings={
                "shared_preload_libraries": f"'otp_gateway, auto_explain, pg_stat_statements{', pgaudit' if HAS_PGAUDIT else ''}'",
                "logging_collector": "on",
                "log_destination": f"'{', '.join(['stderr', 'csvlog', 'jsonlog'][: len(self.FORMS)])}'",
                "log_directory": "'log'",
                "log_filename": "'server.log'",
                "log_line_prefix": "'%e '",
                "log_error_verbosity": "verbose",
                "log_parameter_max_length_on_error": "-1",
            }
        ).create()
        self.cluster.before_removal = lambda cluster: None

    def start(self):
        self.cluster.start()
        with self.cluster.session() as session:
            session.cursor().execute(APPLICATION)
            if HAS_PGAUDIT:
                session.cursor().execute("CREATE EXTENSION pgaudit")
        return self

    def read(self):
        return {form: (self.cluster.data / "log" / f"server.{form}").read_text(errors="replace") for form in self.FORMS}

    def settled(self):
        """All that was logged until now: the collector writes in order, so a last word tells that it has."""
        last = secrets.token_hex(8)
        with self.cluster.session() as session:
            session.cursor().execute(f"DO $$ BEGIN RAISE LOG 'so far: {last}'; END $$")
        return until(
            lambda: (logs := self.read()) and all(last in text for text in logs.values()) and logs, "the log is written"
        )

    class Written:
        """What was logged meanwhile, in each form."""

        def __init__(self, place):
            self.place = place

        def __enter__(self):
            self.before = self.place.settled()
            return self

        def __exit__(self, *_):
            after = self.place.settled()
            self.forms = {form: text[len(self.before[form]) :] for form, text in after.items()}
            self.text = self.forms["log"]

    def written(self):
        return self.Written(self)


APPLICATION = """
CREATE EXTENSION otp_gateway;
CREATE EXTENSION pg_stat_statements;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox OPTIONS (max_checks '1000');
GRANT USAGE ON FOREIGN SERVER sandbox TO PUBLIC;
CREATE TABLE customer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, phone text NOT NULL, verification_id uuid,
  CONSTRAINT customer_phone_key UNIQUE (phone)
);
CREATE TABLE late_customer (phone text UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE place (id int PRIMARY KEY, n int);
CREATE TABLE many AS SELECT n FROM generate_series(1, 100000) AS n;
ANALYZE many;
INSERT INTO place VALUES (1, 0), (2, 0);
CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON customer
  FOR EACH ROW EXECUTE FUNCTION otp_gateway.send_after_commit('sandbox', '{"mobile": "phone"}', 'verification_id');
CREATE TRIGGER send_code AFTER INSERT ON late_customer
  FOR EACH ROW EXECUTE FUNCTION otp_gateway.send_after_commit('sandbox', '{"mobile": "phone"}');
CREATE FUNCTION check_code(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ DECLARE answer text; BEGIN SELECT outcome INTO answer FROM otp_verify(id, code); RETURN answer; END $$;
CREATE FUNCTION check_and_fail(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM otp_verify(id, code); RETURN 1 / 0; END $$;
CREATE FUNCTION check_cast(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM otp_verify(id, code::int::text); RETURN ''; END $$;
CREATE FUNCTION check_dynamic(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE format('SELECT otp_verify(%L, %L, nowhere)', id, code); RETURN ''; END $$;
CREATE FUNCTION check_again(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN PERFORM otp_verify(id, code); EXECUTE format('SELECT %I', code); RETURN '';
  EXCEPTION WHEN undefined_column THEN RAISE; END $$;
CREATE PROCEDURE check_in_procedure(id uuid, code text) LANGUAGE plpgsql AS
  $$ BEGIN PERFORM otp_verify(id, code); COMMIT; PERFORM 1 / 0; END $$;
CREATE PROCEDURE check_in_procedure_well(id uuid, code text) LANGUAGE plpgsql AS
  $$ BEGIN PERFORM otp_verify(id, code); END $$;
CREATE FUNCTION check_dynamic_too(id uuid, code text) RETURNS text LANGUAGE plpgsql AS
  $$ DECLARE answer text; BEGIN
  EXECUTE format('SELECT outcome FROM otp_verify(%L, %L)', id, code) INTO answer; RETURN answer; END $$;
CREATE FUNCTION touch(which int) RETURNS int LANGUAGE sql AS 'UPDATE place SET n = n + 1 WHERE id = which RETURNING n';
CREATE FUNCTION verify_customer(customer_id bigint, code text) RETURNS text LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, public AS
  $$ SELECT outcome FROM customer AS c, otp_verify(c.verification_id, code) WHERE c.id = customer_id $$;
CREATE ROLE nobody LOGIN;
CREATE ROLE registration_app LOGIN;
"""


@pytest.fixture(scope="module")
def place():
    place = Place()
    try:
        yield place.start()
    finally:
        place.cluster.remove()


class Secrets:
    """A number, a code of digits, one with letters as REL-ID's may have, and a verification to check them for."""

    def __init__(self, gateway):
        self.number = "81" + "".join(secrets.choice(string.digits) for _ in range(8))
        # Longer than a real one, so that none is found by chance.
        self.code = str(10**11 + secrets.randbelow(9 * 10**11))
        self.word = "k" + secrets.token_hex(6)
        self.id = gateway.send("sandbox", self.number, vendor="ideamart")["verification_id"]

    def into(self, text):
        """The values in a statement; one in braces of JSON's own stays as it is."""
        for name in ("number", "code", "word", "id"):
            text = text.replace(f"<{name}>", str(getattr(self, name)))
        return text

    def shown(self, logs):
        return [
            (form, value)
            for form, text in logs.items()
            for value in (self.number, self.code, self.word)
            if value in text
        ]


@pytest.fixture
def gateway(place):
    with Gateway(place.cluster, "postgres", None) as gateway:
        yield gateway


@pytest.fixture
def hidden(gateway):
    return Secrets(gateway)


SEND = """otp_send('sandbox', '{"mobile": "<number>"}')"""
VERIFY = "otp_verify('<id>', '<code>')"

# What is done, how it ends, and a piece that the client's error must have.
FAILURES = {
    # ours refuses
    "field misspelt": (["SELECT otp_send('sandbox', '{\"moblie\": \"<number>\"}')"], "22023", "moblie"),
    "no such provider": (["SELECT otp_send('nowhere', '{\"mobile\": \"<number>\"}')"], "42704", "nowhere"),
    "read-only": (["SET transaction_read_only = on; SELECT " + VERIFY], "25006", None),
    # before ours runs
    "code in double quotes": (["SELECT otp_verify('<id>', \"<word>\")"], "42703", "<word>"),
    "quote forgotten": (["SELECT otp_verify('<id>', '<code>)"], "42601", "<code>"),
    "JSON in double quotes": (['SELECT otp_send(\'sandbox\', "{"mobile": "<number>"}")'], "42601", None),
    "junk after a number": (["SELECT otp_verify('<id>', <code>x)"], "42601", None),
    "too large": (["SELECT otp_verify('<id>', '<code>'::int::text)"], "22003", "<code>"),
    "no integer": (["SELECT otp_verify('<id>', '<word>'::int::text)"], "22P02", "<word>"),
    "no JSON": (["SELECT otp_send('sandbox', '{\"mobile\": \"<number>\"')"], "22P02", "<number>"),
    "no such function": (["SELECT otp_verfy('<id>', '<code>')"], "42883", "otp_verfy"),
    "no such argument": (["SELECT otp_verify('<id>', otp => '<code>', cod => '1')"], "42883", None),
    "no such table": (["SELECT " + VERIFY + " FROM nowhere"], "42P01", "nowhere"),
    "quoted name": (["SELECT \"otp_verify\" ('<id>', '<code>', nowhere)"], "42703", "nowhere"),
    "function of the schema": (["SELECT OTP_Gateway . \"find\" ('sandbox', '<number>', nowhere)"], "42703", "nowhere"),
    "wait": (["SELECT otp_gateway.wait('<id>', '<word>')"], "22007", "<word>"),
    "not the first statement": (["SELECT 1 / 0; SELECT " + VERIFY], "22012", None),
    "executed with one too many": (
        ["PREPARE v AS SELECT otp_verify($1, $2)", "EXECUTE v('<id>', '<code>', 1)"],
        "42601",
        "wrong number",
    ),
    "executed with no uuid": (
        ['PREPARE "V v" AS SELECT otp_verify($1::uuid, $2)', "EXPLAIN EXECUTE \"V v\"('<word>', '<code>')"],
        "22P02",
        "<word>",
    ),
    "executed without being prepared": (["EXECUTE nobody('<id>', '<code>')"], "26000", "nobody"),
    "DO that does not parse": (["DO $$ BEGIN PERFORM otp_verify('<id>', '<code>'; END $$"], "42601", None),
    "dynamic, does not parse": (["SELECT check_dynamic('<id>', '<code>')"], "42703", "<code>"),
    "cast on the way": (["SELECT check_cast('<id>', '<word>')"], "22P02", "<word>"),
    # after ours ran
    "later in the list": (["SELECT " + SEND + ", 1 / (random() * 0)::int"], "22012", None),
    "next statement of the message": (["SELECT " + SEND + "; SELECT '<word>'::int"], "22P02", "<word>"),
    "in a function": (["SELECT check_and_fail('<id>', '<code>')"], "22012", "check_and_fail"),
    "caught and thrown again": (["SELECT check_again('<id>', '<word>')"], "42703", "<word>"),
    "after a COMMIT in a procedure": (["CALL check_in_procedure('<id>', '<code>')"], "22012", "check_in_procedure"),
    "after a function": (["SELECT check_code('<id>', '<code>'), (random()::text || '<word>')::int"], "22P02", "<word>"),
    "DO": (["DO $$ BEGIN PERFORM " + SEND + "; PERFORM '<word>'::int; END $$"], "22P02", "<word>"),
    "unique key after the trigger": (
        ["INSERT INTO customer (phone) VALUES ('<number>')", "INSERT INTO customer (phone) VALUES ('<number>')"],
        "23505",
        "<number>",
    ),
    "trigger refuses": (["INSERT INTO customer (phone) VALUES ('<number><word>')"], "22023", "column phone"),
    "COPY": (["COPY customer (phone) FROM PROGRAM 'echo <number>; echo <number>'"], "23505", "<number>"),
    "deferred to COMMIT": (
        ["BEGIN; INSERT INTO late_customer VALUES ('<number>'), ('<number>'); COMMIT"],
        "23505",
        "<number>",
    ),
    "cursor": (["BEGIN", f"DECLARE c CURSOR FOR SELECT {SEND}, 1 / (random() * 0)::int", "FETCH c"], "22012", None),
    "timeout": (["SET statement_timeout = '50ms'", "SELECT check_code('<id>', '<code>'), pg_sleep(60)"], "57014", None),
    "timeout before": (["SET statement_timeout = '50ms'", "SELECT pg_sleep(60), " + VERIFY], "57014", None),
    # in a parallel worker, which logs what it fails of by itself
    "parallel worker": (
        [
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off",
            "SELECT count(*) FROM many WHERE (n::text || '<word>')::int > 0; SELECT " + VERIFY,
        ],
        "22P02",
        "<word>",
    ),
}

# The same with parameters that are bound: they are in the context, or in the message.
BOUND = {
    "not JSON": ("SELECT otp_verify($1::uuid, $2, $3)", ["<id>", "<code>", '{"name": <word>}'], "22P02", "<word>"),
    "ours refuses": ("SELECT otp_send('sandbox', $1)", ['{"moblie": "<number>"}'], "22023", "<number>"),
    "in a function": ("SELECT check_and_fail($1::uuid, $2)", ["<id>", "<code>"], "22012", "<code>"),
    "cast on the way": ("SELECT check_cast($1::uuid, $2)", ["<id>", "<word>"], "22P02", "<word>"),
    "trigger": ("INSERT INTO customer (phone) VALUES ($1), ($1)", ["<number>"], "23505", "<number>"),
}


@pytest.fixture
def session(place):
    session = Libpq(place.cluster, "postgres")
    yield session
    session.close()


def assert_hidden(place, hidden, session, statements, state, told):
    with place.written() as log:
        for statement, *parameters in statements:
            ended, message = session.execute(statement, *parameters)
    assert ended == state, message
    if told:
        assert hidden.into(told) in message
    for form, text in log.forms.items():
        assert state in text, f"the {form} log does not have the error"
    assert hidden.shown(log.forms) == []
    return log


@pytest.mark.parametrize("case", FAILURES)
def test_failure(place, hidden, session, case):
    statements, state, told = FAILURES[case]
    assert_hidden(place, hidden, session, [[hidden.into(statement)] for statement in statements], state, told)


@pytest.mark.parametrize("case", BOUND)
def test_failure_with_parameters(place, hidden, session, case):
    statement, parameters, state, told = BOUND[case]
    assert_hidden(place, hidden, session, [[statement, *map(hidden.into, parameters)]], state, told)


def test_no_right_to_the_function(place, hidden, gateway):
    gateway.execute("REVOKE EXECUTE ON FUNCTION otp_verify(text, text, jsonb) FROM PUBLIC")
    session = Libpq(place.cluster, "postgres", user="nobody")
    try:
        statement = [hidden.into("SELECT otp_verify('sandbox', '<code>')")]
        log = assert_hidden(place, hidden, session, [statement], "42501", "permission denied for function otp_verify")
    finally:
        session.close()
        gateway.execute("GRANT EXECUTE ON FUNCTION otp_verify(text, text, jsonb) TO PUBLIC")
    # About objects the log says which.
    assert "permission denied for function otp_verify" in log.text


def test_what_the_log_still_says(place, hidden, session):
    """Enough to act on: the SQLSTATE, the words of the message, names of objects; and what ours say, whole."""
    for statement, line in [
        (
            "SELECT otp_verify('<id>', '<word>'::int::text)",
            '22P02 ERROR:  22P02: invalid input syntax for type %s: "%s"',
        ),
        ("SELECT otp_verify('<id>', \"<word>\")", '42703 ERROR:  42703: column "%s" does not exist'),
        (
            "INSERT INTO customer (phone) VALUES ('<number>'), ('<number>')",
            'duplicate key value violates unique constraint "customer_phone_key"',
        ),
        (
            "INSERT INTO customer (phone) VALUES ('<number>'), ('<number>')",
            'DETAIL:  (not logged: the statement calls otp_gateway; role "postgres"; query id ',
        ),
        ("SELECT otp_send('sandbox', '{\"moblie\": \"<number>\"}')", "otp_gateway: "),
        ("DO $$ BEGIN PERFORM check_code('<id>', '<code>'); RAISE EXCEPTION 'my own words'; END $$", "my own words"),
    ]:
        with place.written() as log:
            session.execute(hidden.into(statement))
        assert line in log.text


def test_statements_of_others_are_logged_as_ever(place, hidden, session):
    for statement, state in [
        ("SELECT '<word>'::int", "22P02"),
        ('SELECT 1 / 0 AS "<word>"', "22012"),
        ("INSERT INTO place VALUES (1, length('<word>'))", "23505"),
        ("SELECT '<word>' FROM otp_gateway.attempt WHERE 1 / 0 = 1", "22012"),
        ('DO $$ BEGIN PERFORM 1 / 0 AS "<word>"; END $$', "22012"),
    ]:
        # Also right after one of ours.
        session.execute(hidden.into("SELECT " + VERIFY))
        with place.written() as log:
            assert session.execute(hidden.into(statement))[0] == state
        for form, text in log.forms.items():
            assert text.count(hidden.word) >= 1, (form, statement)
        assert "not logged" not in log.text
    with place.written() as log:
        assert session.execute("SELECT 1 / length($1) - length($2)", "", hidden.word)[0] == "22012"
    assert hidden.word in log.text and "$2 = " in log.text


# What names none of ours: it stands in a comment or in a literal.
NO_CALLS = [
    "SELECT * FROM pg_authid /*otp_(*/",
    "SELECT * FROM pg_authid -- otp_send('x')",
    "SELECT rolpassword /* /* */ otp_verify( */ FROM pg_authid",
    "SELECT * FROM pg_authid WHERE rolname = 'otp_('",
    "SELECT * FROM pg_authid WHERE rolname = $$otp_send('x')$$",
    "SELECT * FROM pg_authid WHERE rolname = $a$ $$otp_($$ $a$",
    "SELECT * FROM pg_authid WHERE rolname = E'\\'otp_('",
    "SELECT * FROM pg_authid WHERE rolname = 'it''s otp_('",
    "SELECT * FROM pg_authid WHERE rolname = E'it''s \\'otp_('",
    "SELECT * FROM pg_authid WHERE rolname = U&'otp_('",
    "SELECT nosuch /*otp_(*/ FROM pg_class",
    "SELECT otp_ FROM pg_authid AS t (otp_)",
    'SELECT 1 / 0 AS "otp_ " -- (',
    "SELECT 1 / 0 -- execute v",
    "SELECT 1 / 0, 'execute v'",
    "DO $$ BEGIN PERFORM 1 / 0 /* otp_send( */; -- otp_(\nEND $$",
    "SELECT 1 / 0 WHERE 'otp_gateway.find(' <> ''",
]


@pytest.mark.parametrize("statement", NO_CALLS)
def test_comments_and_literals_hide_nothing(place, gateway, statement):
    gateway.execute("DROP ROLE IF EXISTS intruder; CREATE ROLE intruder LOGIN")
    intruder = Libpq(place.cluster, "postgres", user="intruder")
    word = "k" + secrets.token_hex(6)
    statement = f"/* {word} */ {statement}"
    try:
        intruder.execute("PREPARE v AS SELECT otp_verify('sandbox', $1)")
        with place.written() as log:
            assert intruder.execute(statement)[0] is not None
    finally:
        intruder.close()
    for form, text in log.forms.items():
        assert word in text, form
    assert "not logged" not in log.text and "%s" not in log.text


# Calls that are hard to see.
HARD_TO_SEE = [
    "SELECT otp_verify/* ( */('<id>', '<word>'::int::text)",
    "SELECT otp_verify -- (\n ('<id>', '<word>'::int::text)",
    "SELECT /* it's */ OTP_VERIFY('<id>', '<word>'::int::text)",
    "SELECT $a$'$a$, otp_verify('<id>', '<word>'::int::text)",
    "SELECT E'\\'', otp_verify('<id>', '<word>'::int::text)",
    "SELECT 'a\\', otp_verify('<id>', '<word>'::int::text), '\\'",
    "SELECT E'it''s \\'', otp_verify('<id>', '<word>'::int::text), E'it''s \\''",
    "SELECT E'a' -- b\n  'it\\'s', otp_verify('<id>', '<word>'::int::text), E'a'\n'it\\'s'",
    "SET standard_conforming_strings = off; SELECT '\\'', otp_verify('<id>', '<word>'::int::text), '\\''",
    "SELECT public . \"otp_verify\"('<id>', '<word>'::int::text)",
    "SELECT \"otp_gateway\" /* . */ . find('sandbox', '<word>'::int::text)",
    "SELECT a$1, otp_verify('<id>', '<word>'::int::text) FROM (SELECT 1) AS t (a$1)",
    # A quote too few or too many: literals are what stands between the others.
    "SELECT 'a, otp_verify('<id>', '<word>')",
    "SELECT 'a, otp_verify('<id>','<word>)",
    "SELECT a', otp_verify('<id>', '<word>')",
    "SELECT /* otp_verify('<id>', '<word>')",
    "SELECT $$, otp_verify('<id>', '<word>')",
    "SELECT \"otp_verify('<id>', '<word>')",
    # A body is code, and what it executes.
    "DO 'BEGIN PERFORM 1 / 0; PERFORM otp_verify(''<id>'', ''<word>''); END'",
    "DO LANGUAGE plpgsql $a$ BEGIN PERFORM 1 / 0; EXECUTE $b$SELECT otp_verify('<id>', '<word>')$b$; END $a$",
    "SELECT 1; DO $$ BEGIN EXECUTE format('SELECT otp_verify(%L, %L)', '<id>', '<word>' || 1 / 0); END $$",
    "CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS $$ SELECT outcome, nowhere FROM otp_verify('<id>', '<word>') $$",
    "PREPARE \"V\" AS SELECT otp_verify($1::uuid, $2); EXECUTE /* v */ \"V\"('<word>', '1')",
    "PREPARE v2 AS SELECT otp_verify($1::uuid, $2); EXPLAIN ANALYZE EXECUTE V2 ('<word>', '1')",
]


@pytest.mark.parametrize("statement", HARD_TO_SEE)
def test_calls_that_are_hard_to_see(place, hidden, session, statement):
    with place.written() as log:
        for part in hidden.into(statement).split("; ") if "DO" not in statement else [hidden.into(statement)]:
            state, _ = session.execute(part)
    assert state is not None
    assert hidden.shown(log.forms) == []
    assert state in log.text and 'DETAIL:  (not logged: the statement calls otp_gateway; role "postgres"' in log.text


# What an item of a list may look like; `~` is any text.
ITEMS = [
    "'~'",
    "'it''s ~'",
    "'~' -- ~ '\n '~'",
    "E'~'",
    "E'\\'~'",
    "E'it''s \\'~'",
    "e'~\\\\'",
    "e'~'\n'\\'~'",
    "$$~$$",
    "$$'~$$",
    "$a$ $$ '~ $a$",
    "$a_1$ $a$ ~ $a_1$",
    '1 AS "\'"',
    '1 AS "a""\'"',
    "2 /* ~ ' */",
    "/* /* ~ \" */ ' */ 3",
    "4 -- ~ '\n",
    "U&'\\0061~'",
    "N'~'",
    "1e5",
    ".5",
    "5 AS a$b$c",
    "6 AS E",
    "ARRAY['~', E'\\'~']",
    "'\\\\'",
    "('~')",
    "'~' || E'\\'' || '~'",
    "- /* ~ */ 7",
]


def test_lists_of_all_that_there_is(place, hidden, session):
    """Postgres itself says what is a call: it is the cast behind it that fails."""
    shuffle = random.Random(4711)
    for conforming in ("on", "off"):
        session.execute(f"SET standard_conforming_strings = {conforming}; SET escape_string_warning = off")
        statements = {True: {}, False: {}}
        with place.written() as log:
            for number in range(600):
                is_call = number % 2 == 1
                items = [
                    item
                    for item in shuffle.choices(ITEMS, k=shuffle.randint(1, 5))
                    if conforming == "on" or "U&" not in item
                ]
                word = f"k{number}x{secrets.token_hex(4)}"
                fails = f"otp_verify('{hidden.id}', '{word}'::int::text)" if is_call else f"'{word}'::int"
                items.insert(shuffle.randint(0, len(items)), fails)
                statement = "SELECT " + ", ".join(items).replace("~", "" if is_call else "otp_(")
                state, message = session.execute(statement)
                # With backslashes that escape, some are no SQL.
                assert state == "22P02" and word in message or conforming == "off" and state == "42601", (
                    statement,
                    message,
                )
                if state == "22P02":
                    statements[is_call][word] = statement
        for word, statement in statements[True].items():
            assert word not in log.text, statement
        for word, statement in statements[False].items():
            assert word in log.text, statement
        assert min(map(len, statements.values())) > 100
        assert log.text.count("not logged") >= len(statements[True])


def test_who_it_was(place, hidden, gateway):
    """Where a statement is withheld its role and its query are on record, as pg_stat_statements knows it."""
    session = Libpq(place.cluster, "postgres", user="nobody")
    try:
        with place.written() as log:
            assert session.execute(hidden.into(f"SELECT {SEND}, 1 / 0"))[0] == "22012"
            assert session.execute(hidden.into("SELECT otp_verify('<id>', \"<word>\")"))[0] == "42703"
        assert session.execute(hidden.into(f"SELECT {SEND}, 1 / 1"))[0] is None
    finally:
        session.close()
    notes = re.findall(r"\(not logged: .*\)", log.text)
    assert len(notes) == 2 and 'role "nobody"' in notes[0] and 'role "nobody")' in notes[1]
    (id,) = re.findall(r"query id (-?\d+)\)", notes[0])
    assert gateway.execute("SELECT query LIKE '%%otp_send%%' FROM pg_stat_statements WHERE queryid = %s", (id,)) == [
        (True,)
    ]


def test_databases_without_the_extension(place):
    """They are logged as ever, also template1; from CREATE EXTENSION on a session that was there before is hidden, too."""
    word = "k" + secrets.token_hex(6)
    with place.cluster.database(extension=False) as name:
        for database in (name, "template1"):
            session = Libpq(place.cluster, database, user="nobody")
            with place.written() as log:
                for statement in (
                    f"SELECT otp_send('{word}', '{{}}')",
                    f"SELECT otp_verify('{word}'",
                    f"SELECT 1 / 0, otp_x('{word}')",
                ):
                    assert session.execute(statement)[0] is not None
            session.close()
            assert all(text.count(word) >= 3 for text in log.forms.values()) and "not logged" not in log.text
        session = Libpq(place.cluster, name, user="nobody")
        assert session.execute("SELECT 1")[0] is None
        with place.cluster.session(name) as admin:
            admin.cursor().execute("CREATE EXTENSION otp_gateway")
        with place.written() as log:
            assert session.execute(f"SELECT otp_send('{word}', '{{}}', '{word}'::int)")[0] == "22P02"
            assert session.execute(f"SELECT otp_verify('{word}', nowhere)")[0] == "42703"
        session.close()
        assert not any(word in text for text in log.forms.values()) and "not logged" in log.text


def test_a_schema_of_the_name_hides_nothing(place):
    """Whoever has CREATE on a database makes one; and the extension's own may come to belong to somebody else."""
    word = "k" + secrets.token_hex(6)
    with place.cluster.database(extension=False) as name:
        with place.cluster.session(name) as admin, admin.cursor() as cursor:
            for statement, is_hidden in [
                ("CREATE SCHEMA otp_gateway AUTHORIZATION nobody", False),
                (
                    "DROP SCHEMA otp_gateway; CREATE EXTENSION otp_gateway; ALTER SCHEMA otp_gateway OWNER TO nobody",
                    True,
                ),
            ]:
                cursor.execute(statement)
                session = Libpq(place.cluster, name, user="nobody")
                with place.written() as log:
                    assert session.execute(f"SELECT otp_send('{word}', nowhere)")[0] == "42703"
                session.close()
                assert (word not in log.text) == is_hidden and ("not logged" in log.text) == is_hidden


def test_a_statement_of_megabytes(place, session):
    """It is read once, and not for long, however many lines it has in the log."""
    session.execute("SET log_min_messages = debug5; SET log_min_error_statement = panic")
    took = []
    for call in ("length", "otp_length"):
        statement = "SELECT " + ", ".join(f"'{'ab_x ' * 200_000}'" for _ in range(10)) + f", {call}(1, 2, 3, 4, 5)"
        began = time.monotonic()
        assert session.execute(statement)[0] == "42883"
        took.append(time.monotonic() - began)
    assert took[1] < 2 * took[0] + 1, took


# A number or a code where something else belongs, in each place of each function that one can be in.
SWAPPED = [
    "SELECT otp_send('<code>', '{\"mobile\": \"sandbox\"}')",
    "SELECT otp_send('<number>', '{}', '<code>')",
    "SELECT otp_send('{\"mobile\": \"<number>\"}', '<code>')",
    "SELECT otp_send('sandbox', '{\"<number>\": \"mobile\"}')",
    "SELECT otp_send('sandbox', '\"<number>\"')",
    "SELECT otp_send('sandbox', '<number>')",
    "SELECT otp_enqueue('<code>', '{\"mobile\": \"<number>\"}')",
    "SELECT otp_enqueue('<word>', '{}', '<number>')",
    "SELECT otp_verify('<code>', '<id>')",
    "SELECT otp_verify('<word>', '<id>')",
    "SELECT otp_verify('<code>'::text, '<number>', '{}')",
    "SELECT otp_verify('<id>', '{}', '<code>')",
    "SELECT otp_verify('<id>', '<code>', '{\"otp\": \"<code>\"}')",
    "SELECT otp_verify('sandbox', '{\"<code>\": 1}', '{\"<number>\": 1}')",
    "SELECT otp_resend('<code>')",
    "SELECT otp_resend('<id>', '{\"<number>\": 1}')",
    "SELECT otp_cancel('<code>')",
    "SELECT otp_gateway.wait('<code>', '1 s')",
    "SELECT otp_gateway.wait('<id>', '<number> parsecs')",
    "SELECT otp_gateway.find('<number>', 'sandbox')",
    "SELECT otp_gateway.find('sandbox', '<word>')",
    "SELECT otp_gateway.history('<number>', '<code>', 'now')",
    "SELECT otp_gateway.check('<number>')",
    "SELECT otp_gateway.forget('<number>', 'sandbox')",
    "SELECT otp_gateway.forget('sandbox', '<word>')",
    "SELECT otp_gateway_internal.found_verifications('<code>', '<number>')",
    "SELECT otp_gateway.is_approved('<code>', '<number>')",
    "SELECT otp_gateway.is_approved('<id>', '<code>', '<number> parsecs')",
    "SELECT otp_gateway.is_approved('<id>', '<number>', NULL)",
    "SELECT otp_gateway.send_again('<number>')",
    "SELECT otp_gateway.channel('<number>')",
    "SELECT otp_gateway.channel('<word>')",
    "SELECT otp_gateway.purge('-<number> s')",
    "DO $$ BEGIN PERFORM otp_send('<word>', '{}'); EXCEPTION WHEN undefined_object THEN RAISE; END $$",
]


@pytest.mark.parametrize("statement", SWAPPED)
def test_swapped_arguments(place, hidden, session, statement):
    with place.written() as log:
        state, message = session.execute(hidden.into(statement))
    assert state is not None, message
    assert state in log.text and hidden.shown(log.forms) == []
    if "does not exist" in message:
        # The client has the name that it gave.
        assert any(value in message for value in (hidden.number, hidden.code, hidden.word)), message
        assert re.search('(?:provider|role) "%s" does not exist', log.text)


def test_every_function_is_known_by_its_name(place, gateway, session):
    """One that is added tomorrow, too: each function of ours that takes arguments, called with too many."""
    functions = gateway.execute(
        "SELECT DISTINCT pronamespace::regnamespace, proname FROM pg_proc JOIN pg_depend ON objid = pg_proc.oid AND deptype = 'e' "
        "JOIN pg_extension ON refobjid = pg_extension.oid AND extname = 'otp_gateway' WHERE pronargs > 0"
    )
    assert len(functions) > 7
    for schema, function in functions:
        word = "k" + secrets.token_hex(6)
        # Ours are written without the schema where they are in the path of everybody.
        name = function if schema == "public" else f"{schema}.{function}"
        with place.written() as log:
            assert session.execute(f"SELECT {name}('{word}', 1, 2, 3, 4, 5)")[0] == "42883"
        assert "42883" in log.text and word not in log.text, name


def test_debugging_the_server(place, hidden, session):
    """Of what succeeds, too, with every message there is."""
    with place.written() as log:
        session.execute("SET log_min_messages = debug5; SET client_min_messages = debug5")
        assert session.execute(hidden.into("SELECT " + VERIFY))[0] is None
        assert session.execute("SELECT otp_send('sandbox', $1)", hidden.into('{"mobile": "<number>"}'))[0] is None
        assert session.execute(hidden.into("SELECT otp_verify('<id>', '<code>') /* bound */, $1::text"), "1")[0] is None
        assert (
            session.execute(
                hidden.into("DO $$ DECLARE " + "<word>" * 9 + " int; BEGIN PERFORM " + VERIFY + "; END $$")
            )[0]
            is None
        )
    assert "DEBUG:" in log.text and "parse %s: %s" in log.text and 'identifier "%s" will be truncated' in log.text
    assert hidden.shown(log.forms) == []


def test_debugging_the_end_of_a_session(place, hidden, gateway):
    """The last lines come when everything that the session had is gone."""
    for statement in ("SELECT otp_send('nowhere', '{}')", "SELECT " + VERIFY, "SELECT otp_verify('<id>', nowhere)"):
        session = Libpq(place.cluster, "postgres")
        pid = session.library.PQbackendPID(session.connection)
        with place.written() as log:
            session.execute("SET log_min_messages = debug5")
            session.execute(hidden.into(statement))
            session.close()
            until(
                lambda: not gateway.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)), "the session ends"
            )
        assert "shmem_exit" in log.text and hidden.shown(log.forms) == []
    assert "terminated by signal" not in place.settled()["log"]


def test_cancelled_and_terminated(place, hidden, gateway):
    for end, state in [("cancel", "57014"), ("terminate", "57P01")]:
        session = gateway.connect()
        running = Running(session, hidden.into("SELECT check_code('<id>', '<code>'), pg_sleep(600)"))
        with place.written() as log:
            until(lambda: sleeps(gateway, session), "the statement has called ours")
            gateway.execute(f"SELECT pg_{end}_backend({session.info.backend_pid})")
            running.wait()
        session.close()
        assert isinstance(running.error, psycopg2.Error)
        assert state in log.text and hidden.shown(log.forms) == []


def sleeps(gateway, session, event="PgSleep"):
    return gateway.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = %s", (session.info.backend_pid, event)
    )


def test_idle_in_a_transaction(place, hidden, gateway):
    session = gateway.connect()
    pid = session.info.backend_pid
    with place.written() as log:
        gateway.execute(
            hidden.into("SET idle_in_transaction_session_timeout = '50ms'; BEGIN; SELECT " + VERIFY), session=session
        )
        until(lambda: not gateway.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)), "the session ends")
    assert "25P03" in log.text and hidden.shown(log.forms) == []


# Also by a function of the user's, whose statement does not name ours: what it holds is known to who runs it alone.
CALLS = pytest.mark.parametrize(
    "call", [VERIFY, "check_code('<id>', '<code>')"], ids=["ours", "a function of the user's"]
)


@CALLS
def test_deadlock(place, hidden, gateway, call):
    """Postgres logs what both sessions run: also where the one that fails is not ours."""
    ours, other = gateway.connect(), gateway.connect()
    gateway.execute("SET deadlock_timeout = '10min'; BEGIN; UPDATE place SET n = 0 WHERE id = 1", session=ours)
    gateway.execute("SET deadlock_timeout = '10ms'; BEGIN; UPDATE place SET n = 0 WHERE id = 2", session=other)
    running = Running(ours, hidden.into("SELECT " + call + ", touch(2)"))
    until(lambda: sleeps(gateway, ours, "transactionid"), "ours waits for the other")
    with place.written() as log:
        with pytest.raises(psycopg2.errors.DeadlockDetected):
            gateway.execute("UPDATE place SET n = 1 WHERE id = 1", session=other)
        other.rollback()
    running.wait()
    assert running.error is None
    ours.close()
    other.close()
    assert "40P01" in log.text and hidden.shown(log.forms) == []


def test_waiting_for_a_lock(place, hidden, gateway):
    """log_lock_waits comes with the statement."""
    with place.cluster.session() as holder, place.cluster.session() as waiter:
        gateway.execute("SELECT pg_advisory_lock(4711)", session=holder)
        gateway.execute("SET log_lock_waits = on; SET deadlock_timeout = '10ms'", session=waiter)
        with place.written() as log:
            running = Running(waiter, hidden.into("SELECT check_code('<id>', '<code>'), pg_advisory_lock(4711)"))
            until(lambda: "still waiting for" in place.read()["log"], "the wait is logged")
            gateway.execute("SELECT pg_advisory_unlock(4711)", session=holder)
            running.wait()
            gateway.execute("SELECT pg_advisory_unlock(4711)", session=waiter)
            gateway.execute("SELECT pg_advisory_lock(4711)", session=holder)
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                gateway.execute(
                    hidden.into(
                        "SET lock_timeout = '50ms'; SELECT check_code('<id>', '<code>'), pg_advisory_lock(4711)"
                    ),
                    session=waiter,
                )
    assert "still waiting for" in log.text and "55P03" in log.text and hidden.shown(log.forms) == []


def test_client_that_is_gone(place, hidden, gateway):
    gateway.execute("SELECT pg_advisory_lock(4712)")
    session = Libpq(place.cluster, "postgres")
    pid = session.library.PQbackendPID(session.connection)
    statement = hidden.into("SELECT check_code('<id>', '<code>'), pg_advisory_lock(4712), repeat('x', 10000000)")
    assert session.library.PQsendQuery(session.connection, statement.encode()) == 1
    with place.written() as log:
        until(
            lambda: gateway.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'advisory'", (pid,)
            ),
            "the statement has called ours",
        )
        session.close()
        gateway.execute("SELECT pg_advisory_unlock(4712)")
        until(lambda: not gateway.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)), "the session ends")
    assert "could not send data to client" in log.text and hidden.shown(log.forms) == []


@CALLS
def test_crash(place, hidden, gateway, call):
    """The postmaster logs what a session that died was running."""
    session = gateway.connect()
    running = Running(session, hidden.into("SELECT " + call + ", pg_sleep(600)"))
    until(lambda: sleeps(gateway, session), "the statement has called ours")
    before = place.settled()
    kill(session.info.backend_pid)
    running.wait()
    # Until the postmaster has noticed, it lets sessions in.
    until(lambda: "was terminated by signal 9" in place.read()["log"][len(before["log"]) :], "the crash is noticed")
    until(lambda: recovered(place), "the server is back")
    after = place.settled()
    assert hidden.shown(after) == []


def recovered(place):
    try:
        place.cluster.connect().close()
    except psycopg2.OperationalError:
        return False
    return True


# What the hook cannot hide: as the README shows it, and as it says to set it.


def blocks():
    """The document's lines of the log, by the setting that they are shown for."""
    text = re.search(r"```log\n(-- .*?)```", SECTION, re.DOTALL)[1]
    return dict(re.findall(r"^-- (.*)\n((?:(?!-- ).*\n)+)", text, re.MULTILINE))


def plain(text):
    """Without what differs from run to run."""
    for pattern, same in [
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
        (r"duration: [0-9.]+ ms", "duration: <n> ms"),
        (r"SESSION,\d+,\d+", "SESSION,<n>,<n>"),
        (r"query id -?\d+", "query id <n>"),
        (r"^\w{5} (?=[A-Z]+:  )", ""),
        (r"^((LOG|ERROR):  )\d\w{4}: ", r"\1"),
        # From Postgres 17 on.
        ("^DETAIL:  Parameters: ", "DETAIL:  parameters: "),
    ]:
        text = re.sub(pattern, same, text, flags=re.MULTILINE)
    return text


README_CODE = "265098"
LITERAL = f"SELECT outcome FROM otp_verify('<id>', '{README_CODE}')"
BY_LITERAL = [
    [LITERAL],
    [f"SELECT verify_customer(1, '{README_CODE}')"],
    [f"SELECT 1 / 0, verify_customer(1, '{README_CODE}')"],
    [f"SELECT verify_customer(1, '{README_CODE}') FROM (SELECT n FROM many ORDER BY n DESC OFFSET 99999) AS last"],
    [f"DO $$ BEGIN PERFORM otp_verify('<id>', '{README_CODE}'); END $$"],
    [f"EXPLAIN ANALYZE SELECT verify_customer(1, '{README_CODE}')"],
    [f"DO $$ BEGIN PERFORM verify_customer(1, '{README_CODE}'); END $$"],
]
BY_PARAMETER = [
    ["SELECT outcome FROM otp_verify($1, $2)", "<id>", README_CODE],
    ["SELECT verify_customer($1, $2)", "1", README_CODE],
    ["SELECT 1 / ($1::int - 1), verify_customer($1::int, $2)", "1", README_CODE],
]


def play(hidden, session, statements):
    for statement in statements:
        session.execute(*map(hidden.into, statement))


@pytest.mark.parametrize("setting", [setting for setting in blocks() if is_here(setting)])
def test_readme_shows_real_lines(place, hidden, gateway, session, setting):
    gateway.execute("SELECT pg_stat_statements_reset()")
    statements = [[LITERAL], *BY_PARAMETER, BY_LITERAL[4]]
    with place.written() as log:
        if not setting.startswith("pg_stat"):
            assert session.execute(f"SET {setting}")[0] is None
        seen = []
        for statement in statements:
            play(hidden, session, [statement])
            pid = session.library.PQbackendPID(session.connection)
            seen += gateway.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,))
    if setting == "pg_stat_activity":
        real = "\n".join(query for (query,) in seen)
    elif setting == "pg_stat_statements":
        # In no order of its own.
        found = {query for (query,) in gateway.execute("SELECT query FROM pg_stat_statements")}
        real = "\n".join(sorted(found, key=lambda query: query.startswith("DO")))
    else:
        real = log.text
    lines = iter(plain(real).splitlines())
    for line in plain(blocks()[setting]).splitlines():
        # Each after the one before it.
        assert line in lines, f"{line}\nis not in\n{plain(real)}"


ALL_THAT_IS_LOGGED = [
    "log_statement = 'all'",
    "log_min_duration_statement = 0",
    "log_min_duration_sample = 0",
    "log_statement_sample_rate = 1",
    "log_transaction_sample_rate = 1",
    "log_parser_stats = on",
    "log_planner_stats = on",
    "log_executor_stats = on",
    "log_lock_waits = on",
    "log_temp_files = 0",
    "work_mem = '64kB'",
    "auto_explain.log_min_duration = 0",
    "pgaudit.log = 'all'",
    "pg_stat_statements.track = 'all'",
]
# What shows parameters, too.
ALL_THAT_IS_BOUND = [
    "debug_print_parse = on",
    "debug_print_rewritten = on",
    "debug_print_plan = on",
    "pgaudit.log_parameter = on",
    "auto_explain.log_verbose = on",
]


@pytest.fixture
def curious(place, gateway):
    """A server that logs all that it can, for everybody, and what else it is told to."""

    def configure(more=()):
        for setting in filter(is_here, [*ALL_THAT_IS_LOGGED, *more]):
            gateway.execute(f"ALTER SYSTEM SET {setting}")
        place.cluster.reload()
        with place.cluster.session() as session:
            assert gateway.execute("SHOW log_statement", session=session) == [("all",)]
        gateway.execute("INSERT INTO customer (phone) VALUES ('8144094480') ON CONFLICT DO NOTHING")

    yield configure
    gateway.execute("ALTER SYSTEM RESET ALL")
    place.cluster.reload()


QUIET_ROLE = pathlib.Path(__file__).resolve().parents[2] / "contrib/quiet_role.sql"
SET_FOR_THE_ROLE = re.findall(r'^ALTER ROLE :"role" SET (\S+) = .*;$', QUIET_ROLE.read_text(), re.MULTILINE)


def quiet(cluster, role="registration_app", dbname="postgres", user="postgres"):
    """Plays the file as a DBA does: its exit code, and what it says."""
    played = subprocess.run(
        [
            BINDIR / "psql",
            "-X",
            "-h",
            cluster.directory,
            "-p",
            str(cluster.port),
            "-U",
            user,
            "-d",
            dbname,
            *([] if role is None else ["-v", f"role={role}"]),
            "-f",
            QUIET_ROLE,
        ],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return played.returncode, played.stdout


# As a plan that is printed has it.
BYTES = " ".join(str(byte) for byte in README_CODE.encode())


def everywhere(place, hidden, gateway, statements):
    """What the server's log and statistics hold of these statements of the role: pieces of text with the code in them."""
    gateway.execute("SELECT pg_stat_statements_reset()")
    session = Libpq(place.cluster, "postgres", user="registration_app")
    pid = session.library.PQbackendPID(session.connection)
    found = []
    try:
        with place.written() as log:
            for statement in statements:
                play(hidden, session, [statement])
                found += [
                    query for (query,) in gateway.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,))
                ]
    finally:
        session.close()
    found += [query for (query,) in gateway.execute("SELECT query FROM pg_stat_statements")]
    found += [line for text in log.forms.values() for line in text.splitlines()]
    assert any("otp_verify" in text for text in found), "nothing was seen at all"
    return [text for text in found if README_CODE in text or BYTES in text]


@pytest.fixture
def role(place, gateway):
    """Sets for the role what contrib/quiet_role.sql does, but for what it is told."""

    def configure(but=None):
        gateway.execute("ALTER ROLE registration_app RESET ALL")
        code, said = quiet(place.cluster)
        assert code == 0, said
        if but:
            gateway.execute(f"ALTER ROLE registration_app RESET {but}")

    yield configure
    gateway.execute("ALTER ROLE registration_app RESET ALL")


def test_a_quiet_role(place, hidden, gateway, curious, role):
    """contrib/quiet_role.sql, with all its libraries there."""
    assert len(SET_FOR_THE_ROLE) > 10
    curious(ALL_THAT_IS_BOUND)
    role()
    assert everywhere(place, hidden, gateway, BY_LITERAL + BY_PARAMETER) == []
    # Each of them is for something; for these two it would take somebody to wait for, and a sort within DO.
    for setting in filter(is_here, SET_FOR_THE_ROLE):
        if setting in ("log_lock_waits", "log_temp_files"):
            continue
        role(but=setting)
        assert everywhere(place, hidden, gateway, BY_LITERAL + BY_PARAMETER) != [], setting
    # And the role cannot undo it.
    with place.cluster.session(user="registration_app") as session:
        for setting in filter(is_here, SET_FOR_THE_ROLE):
            if not setting.startswith("debug_print") and setting != "log_parameter_max_length_on_error":
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    gateway.execute(f"SET {setting} TO DEFAULT", session=session)


def test_a_quiet_role_without_libraries(cluster):
    """Where neither pgaudit nor auto_explain is, it does no harm."""
    name = 'of "an" app'
    with cluster.database(extension=False) as database, cluster.session(database) as admin, admin.cursor() as cursor:
        cursor.execute('CREATE ROLE "of ""an"" app" LOGIN')
        try:
            before = len(cluster.log())
            code, said = quiet(cluster, name, database)
            assert code == 0 and "WARNING" not in said, said
            assert all(f"{setting}=" in said for setting in SET_FOR_THE_ROLE), said
            assert said.endswith("(0 rows)\n\n")
            with cluster.session(database, user=name) as session, session.cursor() as of_role:
                for setting, value in [
                    ("log_statement", "none"),
                    ("track_activities", "off"),
                    ("pgaudit.log_statement", "off"),
                ]:
                    of_role.execute(f"SHOW {setting}")
                    assert of_role.fetchone() == (value,)
            assert "pgaudit" not in cluster.log()[before:] and "WARNING" not in cluster.log()[before:]
            # What is set for it in one database wins there, and the file says so.
            cursor.execute(f"""ALTER ROLE "of ""an"" app" IN DATABASE {database} SET log_statement = 'all'""")
            code, said = quiet(cluster, name, database)
            assert code == 0 and f"{database} | log_statement=all" in said and said.endswith("(1 row)\n\n"), said
        finally:
            cursor.execute('DROP ROLE "of ""an"" app"')


@pytest.mark.parametrize(
    "role, user, told",
    [
        (None, "postgres", "no role is given"),
        ("nobody_of_this_name", "postgres", 'role "nobody_of_this_name" does not exist'),
        ("plain_role", "plain_role", "permission denied"),
    ],
)
def test_a_quiet_role_all_or_nothing(cluster, role, user, told):
    """It ends with an error, and has set nothing."""
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE ROLE plain_role LOGIN")
        try:
            code, said = quiet(cluster, role, user=user)
            assert code == 3 and told in said, said
            cursor.execute("SELECT count(*) FROM pg_db_role_setting WHERE setrole <> 0")
            assert cursor.fetchone() == (0,)
        finally:
            cursor.execute("DROP ROLE plain_role")


def test_binding_everything(place, hidden, gateway, curious):
    """Then one setting is enough, with the others at their defaults; from Postgres 16 on auto_explain has its own."""
    curious(["log_parameter_max_length_on_error = 0"])
    enough = ["log_parameter_max_length", *(["auto_explain.log_parameter_max_length"] if MAJOR >= 16 else [])]
    try:
        for setting in enough:
            assert everywhere(place, hidden, gateway, BY_PARAMETER) != []
            gateway.execute(f"ALTER ROLE registration_app SET {setting} = 0")
        assert everywhere(place, hidden, gateway, BY_PARAMETER) == []
    finally:
        gateway.execute("ALTER ROLE registration_app RESET ALL")


# Statements that are normalised; `<call>` is a call of each function of ours.
NORMALISED = [
    "SELECT <call>",
    "SELECT * FROM <call>",
    "SELECT (<call>).*",
    "WITH answer AS (SELECT * FROM <call>) SELECT * FROM answer",
    "INSERT INTO kept SELECT a::text FROM <call> AS a",
    "UPDATE kept SET answer = a::text FROM <call> AS a WHERE answer = '<word>'",
    "SELECT 1 WHERE EXISTS (SELECT FROM <call>)",
    "VALUES ((<call>)::text)",
]


def test_pg_stat_statements_hold_no_constants(place, gateway, hidden, session):
    """Each function that takes a value, however it is called, also within functions."""
    session.execute("SET pg_stat_statements.track = 'all'; CREATE TABLE IF NOT EXISTS kept (answer text)")
    functions = gateway.execute(
        "SELECT p.oid::regproc::text, proargtypes::regtype[]::text[] FROM pg_proc AS p JOIN pg_depend ON objid = p.oid AND deptype = 'e' "
        "JOIN pg_extension AS e ON refobjid = e.oid AND extname = 'otp_gateway' WHERE pronargs > 0 AND proname !~ '_validator$|^(require_library|try)$'"
    )
    assert len(functions) > 7
    literals = {
        "text": "'<number>'",
        "jsonb": '\'{"mobile": "<number>"}\'',
        "uuid": "'<id>'::uuid",
        "interval": "'40 days'",
        "integer": "200",
        "timestamp with time zone": "'2026-11-29'",
        "oid": "0",
    }
    gateway.execute("SELECT pg_stat_statements_reset()")
    for name, types in functions:
        arguments = [literals[type] for type in types]
        if types[0] == "text":
            arguments[0] = "'sandbox'"
        # Only a statement that ends well is in pg_stat_statements.
        arguments = {"otp_gateway.channel": ["'postgres'"], "otp_gateway.release": ["'sandbox'", "'+94775'"]}.get(
            name, arguments
        )
        for statement in NORMALISED:
            session.execute(hidden.into(statement.replace("<call>", f"{name}({', '.join(arguments)})")))
    session.execute(hidden.into("SELECT check_dynamic_too('<id>', '<code>'), check_code('<id>', '<code>')"))
    texts = [query for (query,) in gateway.execute("SELECT query FROM pg_stat_statements")]
    for name, _ in functions:
        assert any(f"{name}($" in text for text in texts), name
    assert hidden.shown({"pg_stat_statements": "\n".join(texts)}) == []


def test_pg_stat_statements_of_utility_statements(gateway, hidden, session):
    """They are kept as they are written, until track_utility is off."""
    call = hidden.into(VERIFY)
    statements = [
        f"DO $$ BEGIN PERFORM {call}; END $$",
        f"EXPLAIN ANALYZE SELECT {call}",
        f"COPY (SELECT {call}) TO PROGRAM 'cat >/dev/null'",
        f"DECLARE c CURSOR WITH HOLD FOR SELECT {call}",
        hidden.into("CALL check_in_procedure_well('<id>', '<code>')"),
    ]
    for track, found in [("on", True), ("off", False)]:
        session.execute(f"CLOSE ALL; SET pg_stat_statements.track_utility = {track}")
        for statement in statements:
            gateway.execute("SELECT pg_stat_statements_reset()")
            assert session.execute(statement)[0] is None
            texts = "\n".join(query for (query,) in gateway.execute("SELECT query FROM pg_stat_statements"))
            # DO and COPY are not, in any version.
            is_normalised = not statement.startswith(("DO", "COPY")) and MAJOR >= (
                17 if statement.startswith("CALL") else 16
            )
            assert (hidden.code in texts) == (found and not is_normalised), statement
