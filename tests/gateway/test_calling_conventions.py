"""Promise: however one of our functions is called, and however it is declared, it reads no argument that it was not given.
Each function with a symbol of ours is called by the protocol's own message, by SQL, as a trigger on tables of all kinds, as
part of an aggregate, an operator, a cast, a type or an index, and under declarations of other types. No call takes the
server down, and what is not declared as the library has it is told so."""

import itertools
import random
import struct
import uuid

import psycopg2
import pytest

from cluster import Cluster
from fast_path import FastPath

# Declared otherwise than the library has it.
DECLARED_OTHERWISE = "55000"
LIBRARY = "'$libdir/otp_gateway'"


class Place:
    """A cluster of its own: a function that reads too far takes all sessions with it, and these with them."""

    def __init__(self):
        self.cluster = Cluster().create()
        self.cluster.start()
        self.witness = self.cluster.connect(options="-c statement_timeout=30s -c client_min_messages=error")
        self.postmaster = self.cluster.postmaster_pid()
        self.execute(
            """CREATE EXTENSION otp_gateway;
            CREATE ROLE nobody LOGIN; CREATE ROLE granted LOGIN;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA otp_gateway, otp_gateway_internal, public TO granted;
            GRANT USAGE ON SCHEMA otp_gateway_internal TO granted;
            GRANT CREATE ON SCHEMA public TO granted"""
        )
        # One that is added tomorrow, too.
        self.functions = self.rows(
            "SELECT oid::int, prosrc, proargtypes::regtype[]::text[] AS takes, prorettype::regtype::text,"
            " has_function_privilege('nobody', oid, 'EXECUTE') AS is_for_all"
            " FROM pg_proc WHERE probin LIKE '%otp\\_gateway%' ORDER BY prosrc"
        )
        assert len(self.functions) > 15
        self.symbols = sorted({function["prosrc"] for function in self.functions})

    def execute(self, statement):
        with self.witness.cursor() as cursor:
            cursor.execute(statement)

    def rows(self, statement):
        with self.witness.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def state(self, statement):
        """The SQLSTATE that a statement ends with, or None."""
        try:
            self.execute(statement)
        except psycopg2.Error as error:
            assert error.pgcode is not None, f"the session died of {statement}"
            return error.pgcode

    def fast_path(self, user):
        return FastPath(self.cluster, "postgres", user)

    def assert_alive(self):
        self.execute("SELECT 1")
        assert self.cluster.postmaster_pid() == self.postmaster
        log = self.cluster.log()
        assert "terminated by signal" not in log and "PANIC" not in log
        # An assertion of ours would be an error of this kind.
        assert "arguments are read as they are declared" not in log


@pytest.fixture(scope="module")
def its_own():
    place = Place()
    try:
        yield place
    finally:
        place.cluster.remove()


@pytest.fixture
def place(its_own):
    try:
        yield its_own
    finally:
        its_own.execute("ROLLBACK")
    its_own.assert_alive()


# The fast path.

RANDOM = random.Random(4711)
# What a pointer to a value that is stored elsewhere, compressed, expanded or short begins with.
HEADS = [
    b"\x01\x01",
    b"\x01\x02",
    b"\x01\x03",
    b"\x01\x12",
    b"\x01\xa2",
    b"\x02",
    b"\x03",
    b"\x00\x00\x00\x00",
    b"\xff" * 4,
    b"\xfc\xff\xff\xff",
]


def is_sound(state):
    """Nothing that should not happen; of Postgres' own there is one, about the bytes of jsonb."""
    return state is None or state[:2] not in ("XX", "57") or "unsupported jsonb version number" in state


def jsonb(text):
    return b"\x01" + text


def array(*elements):
    body = b"".join(struct.pack("!i", -1) if one is None else struct.pack("!i", len(one)) + one for one in elements)
    return struct.pack("!iiiii", 1, None in elements, 25, len(elements), 1) + body


# Bytes of each type as a driver sends them, right ones first. No id is one that is there.
VALUES = {
    "uuid": lambda: [uuid.uuid4().bytes, *(head + RANDOM.randbytes(16 - len(head)) for head in HEADS)],
    "text": lambda: [
        b"nowhere",
        b"",
        *(head.replace(b"\0", b"") for head in HEADS[:2]),
        b"x" * 100_000,
        str(uuid.uuid4()).encode(),
    ],
    "jsonb": lambda: [
        jsonb(b"{}"),
        jsonb(b'{"mobile": "0771234567"}'),
        jsonb(b"[" * 4000 + b"]" * 4000),
        jsonb(b"null"),
        b"\x02{}",
    ],
    "interval": lambda: [
        struct.pack("!qii", 1, 0, 0),
        struct.pack("!qii", -(1 << 63), 2**31 - 1, -(2**31)),
        b"\x01\x02" + b"\xff" * 14,
    ],
    "integer": lambda: [struct.pack("!i", number) for number in (200, 0, -1, 2**31 - 1, -(2**31))],
    "oid": lambda: [struct.pack("!I", number) for number in (0, 1, 1255, 1417, 1418, 2**32 - 1)],
    "text[]": lambda: [
        array(),
        array(b"base_url=https://a.example"),
        array(b"=", b"x"),
        array(None),
        array(b"a" * 5000, b"password_file=/etc/passwd"),
        struct.pack("!iiiii", 1, 0, 17, 1, 1) + b"\x01\x02",
        struct.pack("!iiiiiii", 2, 0, 25, 2, 1, 2**31 - 1, 1),
    ],
}


def argument_lists(takes):
    """Each value of each type in its place, beside right ones, and nulls."""
    values = [[*VALUES[of](), None] for of in takes]
    right = [of[0] for of in values]
    yield right
    for place, candidates in enumerate(values):
        for value in candidates:
            yield [*right[:place], value, *right[place + 1 :]]
    yield [None] * len(takes)


@pytest.mark.parametrize("user", ["nobody", "granted", "postgres"])
def test_every_function_by_the_fast_path(place, user):
    session = place.fast_path(user)
    try:
        for function in place.functions:
            if function["takes"] == [] and function["prosrc"] == "rotate_key" and user != "nobody":
                # It does what it says; once is enough.
                assert session.call(function["oid"]) is None
                continue
            for arguments in argument_lists(function["takes"]):
                state = session.call(function["oid"], *arguments)
                assert is_sound(state), (function, arguments, state)
            # More and fewer than it takes is Postgres' to refuse.
            for count in {0, len(function["takes"]) + 1} - {len(function["takes"])}:
                assert session.call(function["oid"], *[b"x"] * count) in ("08P01", "42501")
            if function["is_for_all"] and function["prorettype"] == "trigger":
                assert session.call(function["oid"]) == "39P01"
    finally:
        session.close()


def test_the_fast_path_answers_as_sql_does(place):
    session = place.fast_path("nobody")
    names = {function["prosrc"]: function["oid"] for function in place.functions}
    id = uuid.UUID("01a200f7-5a48-7047-9b45-35f21e75f89a")
    try:
        for binary, value in [(True, id.bytes), (False, str(id).encode())]:
            assert session.call(names["otp_cancel"], value, binary=binary) == "42704"
            assert session.call(names["otp_resend"], value, jsonb(b"{}") if binary else b"{}", binary=binary) == "42704"
        assert session.call(names["otp_cancel"], None) == "22023"
    finally:
        session.close()


def test_the_fast_path_sends(place):
    """A row comes back as by SQL, and of two equal calls in one transaction each is a call of its own."""
    place.execute(
        "CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s'); CREATE USER MAPPING FOR PUBLIC SERVER sandbox"
    )
    place.execute("GRANT USAGE ON FOREIGN SERVER sandbox TO nobody")
    (send,) = [function["oid"] for function in place.functions if function["prosrc"] == "otp_send"]
    session = place.fast_path("nobody")
    try:
        assert session.query("BEGIN") is None
        for _ in range(2):
            assert session.call(send, b"sandbox", jsonb(b'{"mobile": "+94771234567"}'), None) is None
        assert session.query("COMMIT") is None
        assert place.rows("SELECT count(*)::int AS n FROM otp_gateway.attempt WHERE outcome = 'sent'") == [{"n": 2}]
    finally:
        session.close()
        place.execute("DROP SERVER sandbox CASCADE")


CALLS = 100_000
BATCH = 500


def random_value(of):
    """Right ones, right ones with a byte that is not, and any bytes at all."""
    kind = RANDOM.random()
    if kind < 0.05:
        return None
    if kind < 0.3:
        return RANDOM.randbytes(RANDOM.choice([0, 1, 2, 4, 8, 15, 16, 17, 40, 400]))
    value = bytearray(RANDOM.choice(FUZZED[of]))
    # The first byte of jsonb is a version, and there is one.
    first = of == "jsonb"
    if len(value) > first and kind < 0.8:
        for _ in range(RANDOM.randint(1, 4)):
            value[RANDOM.randrange(first, len(value))] = RANDOM.randrange(256)
    return bytes(value)


FUZZED = {
    of: [value for value in values() if len(value) < 2000] + [RANDOM.choice(HEADS) + RANDOM.randbytes(14)]
    for of, values in VALUES.items()
}


def test_fuzz(place):
    """Argument bytes of every kind, 100,000 calls, as a role that may call what everybody may."""
    # A line of the log for each would be what is measured.
    place.execute("ALTER ROLE nobody SET log_min_messages = fatal")
    functions = [function for function in place.functions if function["takes"] and function["is_for_all"]]
    assert len(functions) > 10
    session = place.fast_path("nobody")
    states = set()
    try:
        for _ in range(CALLS // BATCH):
            calls = []
            for _ in range(BATCH):
                function = RANDOM.choice(functions)
                calls.append((function["oid"], [random_value(of) for of in function["takes"]]))
            states |= set(session.calls(calls))
    finally:
        session.close()
        place.execute("ALTER ROLE nobody RESET log_min_messages")
    # Some got through to where a verification is looked for, and a provider.
    assert {"42704", "22023"} <= states
    assert all(map(is_sound, states)), states


# Declared otherwise.

VALUE = {
    "text": "'x'",
    "jsonb": "'{}'",
    "uuid": "'01a200f7-5a48-7047-9b45-35f21e75f89a'",
    "interval": "'1 s'",
    "integer": "1",
    "oid": "0",
    "text[]": "'{a=b}'",
    "int": "7",
    "bigint": "-1",
    "float8": "1.5",
    "bool": "true",
    "point": "'(1,2)'",
    "name": "'n'",
    "bytea": "'\\x01020304'",
    '"char"': "'c'",
    "uuid[]": "'{}'",
    "json": "'{}'",
    "numeric": "1",
    "record": "ROW(1)",
}
TAKES = [
    [],
    ["int"],
    ["bigint"],
    ["text"],
    ["uuid"],
    ["uuid", "text"],
    ["bigint", "bigint"],
    ["text", "jsonb"],
    ["text", "jsonb", "bool"],
    ["text", "text", "text"],
    ["interval"],
    ["uuid", "interval"],
    ["oid"],
    ["text[]", "oid"],
    ["text[]", "int"],
    ["point", "oid"],
    ["name", '"char"'],
    ["uuid[]"],
    ["jsonb", "jsonb", "jsonb"],
    ["int"] * 9,
]
RETURNS = [
    "text",
    "record",
    "int",
    "bigint",
    "uuid",
    "uuid[]",
    "jsonb",
    "void",
    "SETOF record",
    "SETOF bigint",
    "point",
    "bool",
    "otp_gateway.result",
]
ROW = [
    "uuid",
    "uuid",
    "text",
    "text",
    "boolean",
    "integer",
    "interval",
    "timestamptz",
    "text",
    "text",
    "text",
    "jsonb",
    "text",
]


def declare(symbol, name, takes, returns, more="", kind="FUNCTION"):
    returns = f"RETURNS {returns}" if returns else ""
    return f"CREATE {kind} {name}({', '.join(takes)}) {returns} LANGUAGE c {more} AS {LIBRARY}, '{symbol}'"


def test_every_symbol_under_other_declarations(place):
    """By a superuser, who alone can."""
    right = {(function["prosrc"], tuple(function["takes"]), function["prorettype"]) for function in place.functions}
    for symbol in place.symbols:
        for takes, returns in itertools.product(TAKES, RETURNS):
            if (
                (symbol, tuple(takes), returns) in right
                or symbol == "rotate_key"
                and (takes, returns) == ([], "bigint")
            ):
                continue
            place.execute("BEGIN; " + declare(symbol, "pg_temp.other", takes, returns))
            call = f"pg_temp.other({', '.join(VALUE[of] + '::' + of for of in takes)})"
            if returns.endswith("record"):
                call = f"SELECT * FROM {call} AS t (a text, b int)"
            else:
                call = f"SELECT {call}"
            assert place.state(call) == DECLARED_OTHERWISE, (symbol, takes, returns)
            place.execute("ROLLBACK")


# What is declared of a function that takes what the body reads; `<takes>` and `<returns>` are the right ones.
NEARLY_RIGHT = [
    ("FUNCTION", "<takes>", "SETOF <returns>", ""),
    ("FUNCTION", "<takes>", "<returns>", "WINDOW"),
    ("PROCEDURE", "<takes>", "", ""),
    ("FUNCTION", "<takes>, int", "<returns>", ""),
    ("FUNCTION", "VARIADIC text[]", "<returns>", ""),
    ("FUNCTION", 'VARIADIC "any"', "<returns>", ""),
    ("FUNCTION", "anyelement", "<returns>", ""),
    ("FUNCTION", "VARIADIC anyarray", "<returns>", ""),
]


def test_every_symbol_nearly_right(place):
    for function in place.functions:
        takes, returns = function["takes"], function["prorettype"]
        if returns == "trigger":
            continue
        for kind, types, result, more in NEARLY_RIGHT:
            types = types.replace("<takes>", ", ".join(takes)).lstrip(", ")
            is_record = "record" in result.replace("<returns>", returns)
            place.execute(
                "BEGIN; "
                + declare(
                    function["prosrc"], "pg_temp.other", [types], result.replace("<returns>", returns), more, kind
                )
            )
            given = [VALUE[of] + "::" + of for of in takes]
            if "VARIADIC" in types or types == "anyelement":
                given = ["'x'::text"]
            elif len(types.split(", ")) > len(takes) and types:
                given.append("1")
            values = ", ".join(given)
            if kind == "PROCEDURE":
                state = place.state(f"CALL pg_temp.other({values})")
            elif more == "WINDOW":
                state = place.state(f"SELECT pg_temp.other({values}) OVER ()")
            elif is_record:
                columns = ", ".join(f"c{number} {of}" for number, of in enumerate(ROW))
                state = place.state(f"SELECT * FROM pg_temp.other({values}) AS t ({columns})")
            else:
                state = place.state(f"SELECT pg_temp.other({values})")
            place.execute("ROLLBACK")
            assert state == DECLARED_OTHERWISE, (function, kind, types, result, more, state)


@pytest.mark.parametrize("columns", [ROW[:-1], [*ROW, "text"], ["bigint"] * 13, [*ROW[:4], "bigint", *ROW[5:]], ROW])
def test_another_row_than_ours(place, columns):
    """As OUT parameters, as whoever calls it lists them, and as a type of somebody else's: also with the same columns."""
    by_out = ", ".join(f"OUT c{number} {of}" for number, of in enumerate(columns))
    by_list = ", ".join(f"c{number} {of}" for number, of in enumerate(columns))
    id = VALUE["uuid"]
    for returns, call in [
        (None, f"SELECT * FROM pg_temp.other({id})"),
        ("record", f"SELECT * FROM pg_temp.other({id}) AS t ({by_list})"),
        # Nobody says what the columns are.
        ("record", f"SELECT pg_temp.other({id})"),
        ("pg_temp.result", f"SELECT * FROM pg_temp.other({id})"),
        ("pg_temp.result", f"SELECT pg_temp.other({id})"),
    ]:
        place.execute(f"BEGIN; CREATE TYPE pg_temp.result AS ({by_list})")
        place.execute(declare("otp_cancel", "pg_temp.other", ["uuid"] if returns else ["uuid", by_out], returns))
        assert place.state(call) == DECLARED_OTHERWISE, call
        place.execute("ROLLBACK")


@pytest.mark.parametrize(
    "change", ["ADD ATTRIBUTE more text", "DROP ATTRIBUTE reason", "ALTER ATTRIBUTE reason TYPE varchar"]
)
def test_other_columns_than_our_type_has(place, change):
    """A superuser may change any type: what no longer fits is not called."""
    for call in (f"SELECT * FROM otp_cancel({VALUE['uuid']})", f"SELECT otp_cancel({VALUE['uuid']})"):
        place.execute(f"BEGIN; ALTER TYPE otp_gateway.result {change}")
        assert place.state(call) == DECLARED_OTHERWISE, call
        place.execute("ROLLBACK")
    # A domain over it, or a type of this name in its place, is another type.
    place.execute(
        "BEGIN; ALTER TYPE otp_gateway.result RENAME TO before; CREATE DOMAIN otp_gateway.result AS otp_gateway.before"
    )
    assert place.state(f"SELECT * FROM otp_cancel({VALUE['uuid']})") == DECLARED_OTHERWISE
    place.execute("ROLLBACK")


# Triggers.

TABLES = {
    "sixteen texts": f"CREATE TABLE t ({', '.join(f'c{n} text' for n in range(1, 17))})",
    "sixteen numbers": f"CREATE TABLE t ({', '.join(f'c{n} bigint' for n in range(1, 17))})",
    "sixteen with xid8": f"CREATE TABLE t ({', '.join(f'c{n} text' for n in range(1, 16))}, c16 xid8)",
    "one column": "CREATE TABLE t (c1 uuid)",
    "no column": "CREATE TABLE t ()",
    "dropped columns": f"CREATE TABLE t ({', '.join(f'c{n} text' for n in range(1, 20))}); ALTER TABLE t DROP c16, DROP c2; ALTER TABLE t ADD later int DEFAULT 7",
    "like the record": "CREATE TABLE t (LIKE otp_gateway_internal.verification_record INCLUDING ALL)",
    "partitioned": "CREATE TABLE t (c1 int, c2 text) PARTITION BY LIST (c1); CREATE TABLE t1 PARTITION OF t DEFAULT",
    "view": "CREATE TABLE under (c1 text); CREATE VIEW t AS SELECT * FROM under",
}
EVENTS = [
    "BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW",
    "AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW",
    "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON t",
    "AFTER INSERT OR UPDATE OR DELETE ON t",
    "INSTEAD OF INSERT OR UPDATE OR DELETE ON t FOR EACH ROW",
]
ARGUMENTS = [
    "",
    "'sandbox', '{\"mobile\": \"c1\"}'",
    "'sandbox', '{\"mobile\": \"c1\"}', 'c1'",
    "'sandbox', '{\"mobile\": \"ctid\"}', 'ctid'",
    "'1', '[]', '3', '4'",
]


def test_every_symbol_as_a_trigger(place):
    names = {}
    for symbol in place.symbols:
        names[symbol] = f"public.trigger_{symbol}"
        place.execute(declare(symbol, names[symbol], [], "trigger"))
    for definition, event, symbol in itertools.product(TABLES.values(), EVENTS, place.symbols):
        is_trigger = symbol in ("note_queued", "send_after_commit")
        for arguments in ARGUMENTS if is_trigger else ARGUMENTS[:1]:
            place.execute("BEGIN; " + definition)
            if place.state(f"CREATE TRIGGER z {event} EXECUTE FUNCTION {names[symbol]}({arguments})") is None:
                state = None
                for statement in [
                    "INSERT INTO t DEFAULT VALUES",
                    "UPDATE t SET c1 = c1",
                    "DELETE FROM t",
                    "TRUNCATE t",
                ]:
                    state = state or place.state("SAVEPOINT s; " + statement)
                    place.execute("ROLLBACK TO s") if state else None
                # note_queued is for the record alone.
                if not is_trigger and state is not None and state[:2] != "23" and state != "42809":
                    assert state == DECLARED_OTHERWISE, (definition, event, symbol)
                if symbol == "note_queued" and state[:2] != "23" and state != "42809":
                    assert state == "39P01", (definition, event, state)
            place.execute("ROLLBACK")
    place.execute("; ".join(f"DROP FUNCTION {name}()" for name in names.values()))


def test_note_queued_granted_to_a_role(place):
    """GRANT EXECUTE ON ALL FUNCTIONS: the number of a transaction in the place of a text."""
    with place.cluster.session(user="granted") as session, session.cursor() as cursor:
        for definition in TABLES.values():
            if "verification_record" in definition:
                continue
            cursor.execute("BEGIN; " + definition)
            event = "INSTEAD OF INSERT" if "VIEW" in definition else "BEFORE INSERT"
            cursor.execute(
                f"CREATE TRIGGER z {event} ON t FOR EACH ROW EXECUTE FUNCTION otp_gateway_internal.note_queued()"
            )
            with pytest.raises(psycopg2.errors.TriggerProtocolViolated):
                cursor.execute("INSERT INTO t DEFAULT VALUES")
            cursor.execute("ROLLBACK")


def test_every_symbol_as_an_event_trigger(place):
    for symbol in place.symbols:
        place.execute("BEGIN; " + declare(symbol, "public.watches", [], "event_trigger"))
        place.execute("CREATE EVENT TRIGGER z ON ddl_command_end EXECUTE FUNCTION watches()")
        assert place.state("CREATE TABLE seen ()") == DECLARED_OTHERWISE
        place.execute("ROLLBACK")


# Where else Postgres takes a function: as a part of something. `f` is it, `g` what stands beside.
PARTS = [
    # definition of f, of the thing, and its use
    (
        ["uuid", "text"],
        "uuid",
        "CREATE AGGREGATE z (text) (SFUNC = f, STYPE = uuid, INITCOND = '<id>')",
        "SELECT z('x'::text) FROM generate_series(1, 3)",
    ),
    (
        ["bigint", "text"],
        "bigint",
        "CREATE AGGREGATE z (text) (SFUNC = f, STYPE = bigint)",
        "SELECT z('x'::text) FROM generate_series(1, 3)",
    ),
    (
        ["internal", "text"],
        "internal",
        "CREATE FUNCTION g(internal) RETURNS int LANGUAGE internal AS 'int8_avg'; CREATE AGGREGATE z (text) (SFUNC = f, STYPE = internal, FINALFUNC = g)",
        "SELECT z('x'::text)",
    ),
    (
        ["uuid"],
        "text",
        "CREATE AGGREGATE z (uuid) (SFUNC = uuid_larger_, STYPE = uuid, FINALFUNC = f)",
        "SELECT z(u) FROM (VALUES ('<id>'::uuid)) AS t (u)",
    ),
    (
        ["text", "jsonb"],
        "bool",
        "CREATE OPERATOR @@@@ (LEFTARG = text, RIGHTARG = jsonb, FUNCTION = f)",
        "SELECT 'x'::text @@@@ '{}'::jsonb",
    ),
    (["uuid"], "bool", "CREATE OPERATOR @@@@ (RIGHTARG = uuid, FUNCTION = f)", "SELECT @@@@ '<id>'::uuid"),
    (["uuid"], "point", "CREATE CAST (uuid AS point) WITH FUNCTION f(uuid)", "SELECT '<id>'::uuid::point"),
    (
        ["text", "int", "bool"],
        "bytea",
        "CREATE CAST (text AS bytea) WITH FUNCTION f(text, int, bool)",
        "SELECT 'x'::text::bytea",
    ),
    (["uuid"], "bool", "CREATE TABLE z (u uuid CHECK (f(u)))", "INSERT INTO z VALUES ('<id>')"),
    (
        ["uuid"],
        "uuid",
        "CREATE TABLE z (u uuid, v uuid GENERATED ALWAYS AS (f(u)) STORED)",
        "INSERT INTO z VALUES ('<id>')",
    ),
    (["uuid"], "bool", "CREATE DOMAIN z AS uuid CHECK (f(VALUE))", "SELECT '<id>'::z"),
    (
        ["uuid"],
        "text",
        "CREATE TABLE z (u uuid); CREATE INDEX ON z (f(u)) WHERE f(u) IS NOT NULL",
        "INSERT INTO z VALUES ('<id>')",
    ),
    (
        ["uuid", "uuid"],
        "int",
        "CREATE OPERATOR CLASS z FOR TYPE uuid USING btree AS FUNCTION 1 f(uuid, uuid); CREATE TABLE zt (u uuid); CREATE INDEX ON zt (u z)",
        "INSERT INTO zt VALUES ('<id>'), ('<id>')",
    ),
    (
        ["uuid"],
        "int",
        "CREATE OPERATOR CLASS z FOR TYPE uuid USING hash AS FUNCTION 1 f(uuid); CREATE TABLE zt (u uuid); CREATE INDEX ON zt USING hash (u z)",
        "INSERT INTO zt VALUES ('<id>')",
    ),
    (
        ["text[]", "oid"],
        "bool",
        "CREATE FOREIGN DATA WRAPPER z VALIDATOR f OPTIONS (a 'b')",
        "CREATE SERVER zs FOREIGN DATA WRAPPER z OPTIONS (a 'b')",
    ),
    (
        [],
        "fdw_handler",
        "CREATE FOREIGN DATA WRAPPER z HANDLER f; CREATE SERVER zs FOREIGN DATA WRAPPER z; CREATE FOREIGN TABLE zt (a int) SERVER zs",
        "SELECT * FROM zt",
    ),
    (
        [],
        "language_handler",
        "CREATE LANGUAGE z HANDLER f; CREATE FUNCTION g() RETURNS int LANGUAGE z AS 'x'",
        "SELECT g()",
    ),
    (
        ["oid"],
        "void",
        "CREATE LANGUAGE z HANDLER plpgsql_call_handler VALIDATOR f",
        "CREATE FUNCTION g() RETURNS int LANGUAGE z AS 'x'",
    ),
    (
        ["internal"],
        "table_am_handler",
        "CREATE ACCESS METHOD z TYPE TABLE HANDLER f",
        "CREATE TABLE zt (a int) USING z",
    ),
    (
        ["internal"],
        "index_am_handler",
        "CREATE ACCESS METHOD z TYPE INDEX HANDLER f",
        "CREATE TABLE zt (a int); CREATE INDEX ON zt USING z (a)",
    ),
    (["internal"], "tsm_handler", "SELECT 1", "SELECT * FROM pg_class TABLESAMPLE f (1)"),
    (
        ["cstring"],
        "z",
        "CREATE TYPE z",
        "CREATE FUNCTION g(z) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'; CREATE TYPE z (INPUT = f, OUTPUT = g, LIKE = text); SELECT 'x'::z",
    ),
    (
        ["internal"],
        "internal",
        "CREATE FUNCTION g(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'; ALTER FUNCTION g(int) SUPPORT f",
        "SELECT g(oid::int) FROM pg_class",
    ),
    (
        ["int", "int", "cstring", "internal", "int", "bool"],
        "int",
        "SELECT 1",
        "CREATE CONVERSION z FOR 'LATIN1' TO 'UTF8' FROM f",
    ),
    (
        ["internal", "oid", "internal", "int"],
        "float8",
        "CREATE FUNCTION g(uuid, uuid) RETURNS bool LANGUAGE internal IMMUTABLE AS 'uuid_eq'; CREATE OPERATOR @@@@ (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = g, RESTRICT = f)",
        "SELECT * FROM otp_gateway_internal.reference WHERE verification_id @@@@ '<id>'",
    ),
    (
        ["uuid"],
        "bool",
        "CREATE TABLE z (u uuid); INSERT INTO z VALUES ('<id>'); GRANT ALL ON z TO nobody; CREATE POLICY p ON z USING (f(u)); ALTER TABLE z ENABLE ROW LEVEL SECURITY; GRANT CREATE, USAGE ON SCHEMA public TO nobody; SET LOCAL ROLE nobody",
        "SELECT * FROM z",
    ),
]


def test_every_symbol_as_a_part_of_something(place):
    place.execute(
        "CREATE FUNCTION uuid_larger_(uuid, uuid) RETURNS uuid LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, $2)'"
    )
    reached = set()
    for symbol, (number, (takes, returns, definition, use)) in itertools.product(place.symbols, enumerate(PARTS)):
        place.execute("BEGIN")
        fill = lambda text: text.replace("<id>", VALUE["uuid"].strip("'"))
        # z is a type whose functions come before it.
        before = definition if returns == "z" else "SELECT 1"
        place.execute(before)
        place.execute(declare(symbol, "f", takes, returns, "IMMUTABLE"))
        state = place.state(fill(definition)) if before != definition else None
        if state is None:
            state = place.state(fill(use))
            if state == DECLARED_OTHERWISE:
                reached.add(number)
        else:
            # The definition itself calls it.
            assert state == DECLARED_OTHERWISE, (symbol, definition, state)
            reached.add(number)
        place.execute("ROLLBACK")
    place.execute("DROP FUNCTION uuid_larger_(uuid, uuid)")
    # Each of them calls the function, or this shows nothing.
    assert reached == set(range(len(PARTS))), [PARTS[number] for number in set(range(len(PARTS))) - reached]


def test_as_they_are_declared(place):
    """In each place of a statement that takes them: the right declaration, wherever it is called from."""
    id = VALUE["uuid"]
    for call, state in [
        (f"SELECT otp_cancel({id})", "42704"),
        (f"SELECT (otp_cancel({id})).*", "42704"),
        (f"SELECT * FROM ROWS FROM (otp_cancel({id}), generate_series(1, 2))", "42704"),
        (f"SELECT otp_cancel(u) FROM (VALUES ({id}::uuid), (NULL)) AS t (u)", "42704"),
        ("SELECT otp_cancel(NULL)", "22023"),
        ("SELECT otp_send(NULL, NULL, NULL)", "22023"),
        ("SELECT otp_gateway.wait(NULL, NULL)", "22023"),
        ("SELECT otp_gateway.purge(NULL)", None),
        ("SELECT otp_gateway_internal.iserveu_validator(NULL, NULL)", None),
        ("SELECT otp_gateway_internal.effective_settings(NULL)", None),
        ("SELECT otp_gateway_internal.effective_settings(oid) FROM pg_class", None),
        (f"DO $$ BEGIN EXECUTE 'SELECT otp_cancel($1)' USING {id}; END $$", "42883"),
        (f"DO $$ BEGIN EXECUTE 'SELECT otp_cancel($1)' USING {id}::uuid; END $$", "42704"),
        (f"PREPARE v (unknown) AS SELECT otp_cancel($1); EXECUTE v({id})", "42704"),
        # An argument of EXECUTE is computed where no snapshot is.
        (f"PREPARE w AS SELECT $1::text; EXECUTE w((otp_cancel({id})).status)", "42704"),
        (
            f"CREATE DOMAIN checked AS text CHECK ((otp_cancel(VALUE::uuid)).status IS NULL); SELECT {id}::checked",
            "42704",
        ),
        (f"CREATE TABLE late (s text DEFAULT (otp_cancel({id})).status); INSERT INTO late DEFAULT VALUES", "42704"),
        (f"CREATE OPERATOR @@@@ (RIGHTARG = uuid, FUNCTION = otp_cancel); SELECT @@@@ {id}::uuid", "42704"),
        (
            f"CREATE TABLE parted (a text) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parted FOR VALUES IN ((otp_cancel({id})).status)",
            "42704",
        ),
        (f"ALTER FUNCTION otp_cancel SECURITY DEFINER SET work_mem = '64kB'; SELECT otp_cancel({id})", "42704"),
        ("SELECT otp_gateway_internal.note_queued()", "39P01"),
    ]:
        place.execute("BEGIN")
        assert place.state(call) == state, call
        place.execute("ROLLBACK")


def test_in_a_parallel_worker(place):
    """Whoever declares a function of their own PARALLEL SAFE, and calls ours within."""
    place.execute(
        """BEGIN; CREATE TABLE many AS SELECT n FROM generate_series(1, 10000) AS n; ANALYZE many;
        CREATE FUNCTION says_safe(int) RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS
        $$ BEGIN RETURN outcome FROM otp_send('nowhere', '{}'); END $$;
        SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0"""
    )
    assert place.state("SELECT count(*) FROM many WHERE says_safe(n) IS NULL") == "25000"
    place.execute("ROLLBACK")
