"""Promise: whatever somebody puts in the way (operators, functions, types and tables that are found first, settings, roles
that change under a plan), the gateway runs nothing of theirs, and its views show no row and answer no question about a
row that is another's. Each attack is shown to work on something careless first."""

import contextlib
import json
import re

import psycopg2
import pytest

from conftest import Gateway

MINE, THEIRS = "0761111111", "0762222222"


class Field:
    """A database with two roles that send, one of which also makes objects; each has a verification of its own."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.attacker, self.victim = f"{gateway.database}_attacker", f"{gateway.database}_victim"

    def make(self):
        execute = self.gateway.execute
        execute(
            "CREATE SERVER bank FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s', send_limit '1000 per hour', check_limit '1000 per hour')"
        )
        for role in (self.attacker, self.victim):
            execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER bank TO {role}")
        execute(
            f"GRANT CREATE ON SCHEMA public TO {self.attacker}; GRANT CREATE, TEMPORARY ON DATABASE {self.gateway.database} TO {self.attacker}"
        )
        # What the two attempts were, so that a condition that meets one says something.
        self.mine = self.send(self.attacker, MINE)
        self.theirs = self.send(self.victim, THEIRS)
        self.gateway.verify(self.theirs, "1")
        execute("ANALYZE")

    def send(self, role, number, reference=None):
        payload = json.dumps({"mobile": number, **({"reference": reference} if reference else {})})
        with contextlib.closing(self.gateway.connect(user=role)) as session:
            row = self.gateway.row("SELECT * FROM otp_send('bank', %s)", (payload,), session)
        return row["verification_id"]

    def remove(self):
        for role in (self.attacker, self.victim):
            self.gateway.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.fixture
def field(gateway_alone):
    field = Field(gateway_alone)
    try:
        field.make()
        yield field
    finally:
        field.remove()


@pytest.fixture
def gateway_alone(cluster, database, simulator):
    with Gateway(cluster, database, simulator) as gateway:
        yield gateway


@pytest.fixture
def attack(field):
    with contextlib.closing(field.gateway.connect(user=field.attacker)) as session:
        yield session


# found first

# What SQL of ours could resolve to, were it careless: (operator, types) and (function, types).
OPERATORS = [
    (name, left, right)
    for name in ("=", "<>", ">", "<", "~", ">=")
    for left, right in (
        ("text", "text"),
        ("name", "name"),
        ("name", "text"),
        ("uuid", "uuid"),
        ("oid", "oid"),
        ("bytea", "bytea"),
        ("timestamptz", "timestamptz"),
        ("int4", "int4"),
        ("xid8", "xid8"),
        ("otp_gateway_internal.status", "text"),
        ("otp_gateway_internal.operation", "text"),
        ("otp_gateway_internal.outcome", "text"),
        ("otp_gateway_internal.status", "otp_gateway_internal.status"),
        ("otp_gateway_internal.operation", "otp_gateway_internal.operation"),
        ("otp_gateway_internal.outcome", "otp_gateway_internal.outcome"),
    )
]
FUNCTIONS = [
    ("pg_has_role(oid, text)", "boolean", "true"),
    ("substr(text, int4)", "text", "'x'"),
    ("unnest(anyarray)", "anyelement", "$1[1]"),
    ("clock_timestamp()", "timestamptz", "now()"),
    ("name(text)", "name", "'x'"),
    ("pg_notify(text, text)", "void", "NULL"),
    ("jsonb_array_length(jsonb)", "int4", "1"),
    ("json_build_object(text, text)", "json", "'{}'"),
    ("find(text, text)", "int4", "1"),
    ("find(text)", "int4", "1"),
    ("words(text, text, text)", "text", "'x'"),
    ("found_verifications(text, text)", "uuid[]", "'{}'"),
    ("effective_settings(oid)", "jsonb", "'[]'"),
    ("note_queued()", "int4", "1"),
    ("coalesce(text, text)", "text", "'x'"),
]
TABLES = [
    "verification_record",
    "attempt_record",
    "reference",
    "breaker",
    "verification",
    "attempt",
    "provider",
    "pg_roles",
    "pg_foreign_server",
    "pg_foreign_data_wrapper",
    "pg_extension",
    "otp_gateway",
    "otp_gateway_internal",
]
TYPES = ["status", "operation", "outcome", "uuid", "text", "name", "jsonb", "timestamptz", "bytea", "regclass"]


def set_traps(field, session):
    """In public, which everybody is made to look in first: each writes down whose rights it got."""
    execute = lambda statement: field.gateway.execute(statement, session=session)
    execute("CREATE TABLE public.caught (who name, what text); GRANT ALL ON public.caught TO PUBLIC")
    # Nobody else can name the domains, nor make an operator for them.
    field.gateway.execute(f"GRANT USAGE ON SCHEMA otp_gateway_internal TO {field.attacker}")
    execute("""
        CREATE FUNCTION public.caught(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN INSERT INTO public.caught VALUES (current_user, what); END $$
    """)
    for number, (name, left, right) in enumerate(OPERATORS):
        execute(f"""
            CREATE FUNCTION public.trap{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
            BEGIN PERFORM public.caught('operator {name} {left} {right}'); RETURN true; END $$;
            CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.trap{number})
        """)
    for signature, returns, value in FUNCTIONS:
        name, arguments = signature.split("(", 1)
        execute(f"""
            CREATE FUNCTION public."{name}"({arguments} RETURNS {returns} LANGUAGE plpgsql SET search_path = pg_catalog AS $$
            BEGIN PERFORM public.caught('{name}'); RETURN {value if returns != "void" else ""}; END $$
        """)
    for table in TABLES:
        execute(
            f"CREATE TABLE public.{table} (id pg_catalog.uuid, provider pg_catalog.text, created_by pg_catalog.name)"
        )


def set_temporary_traps(field, session):
    """In the caller's own pg_temp, which is looked in first of all for tables and types."""
    for table in TABLES:
        field.gateway.execute(
            f"CREATE TEMPORARY TABLE {table} (id pg_catalog.uuid, provider pg_catalog.text, created_by pg_catalog.name)",
            session=session,
        )
    for type in TYPES:
        if type not in TABLES:
            field.gateway.execute(f"CREATE DOMAIN pg_temp.{type} AS pg_catalog.int4 CHECK (false)", session=session)


# Each function and view once, without an operator of the test's own.
CALLS = [
    ("""SELECT outcome FROM public.otp_send('bank', '{"mobile": "0763333333"}', 'key')""", "sent"),
    ("""SELECT outcome FROM public.otp_send('bank', '{"mobile": "0763333333"}', 'key')""", "sent"),
    ("""SELECT status FROM public.otp_enqueue('bank', '{"mobile": "0764444444"}')""", "queued"),
    ("SELECT outcome FROM public.otp_verify(%(id)s::pg_catalog.uuid, '1')", "invalid_code"),
    ("SELECT outcome FROM public.otp_resend(%(id)s::pg_catalog.uuid)", "sent"),
    ("SELECT status FROM otp_gateway.wait(%(id)s::pg_catalog.uuid, '10s'::pg_catalog.interval)", "pending"),
    (
        """SELECT outcome FROM public.otp_verify('bank'::pg_catalog.text, '000000', '{"mobile": "0765555555"}')""",
        "approved",
    ),
    ("SELECT otp_gateway.is_approved(%(id)s::pg_catalog.uuid, '0763333333')", False),
    ("SELECT otp_gateway.send_again(%(id)s::pg_catalog.uuid) IS NOT NULL", True),
    ("SELECT pg_catalog.count(*) FROM otp_gateway.find('bank', '0763333333')", 1),
    ("SELECT pg_catalog.count(*) FROM otp_gateway.find('0763333333')", 1),
    ("SELECT words FROM otp_gateway.history('0763333333', 'today', 'now') LIMIT 1", "code sent"),
    ("SELECT true FROM otp_gateway.recent LIMIT 1", True),
    ("SELECT status FROM otp_gateway.check('bank') LIMIT 1", "ok"),
    ("SELECT outcome FROM public.otp_cancel(%(id)s::pg_catalog.uuid)", "canceled"),
    ("SELECT true FROM otp_gateway.verification LIMIT 1", True),
    ("SELECT true FROM otp_gateway.attempt LIMIT 1", True),
    ("SELECT provider FROM otp_gateway.provider LIMIT 1", "bank"),
    ("INSERT INTO public.customer (phone) VALUES ('0776868686') RETURNING phone", "0776868686"),
]
OF_OWNERS = [
    ("SELECT otp_gateway.forget('bank', '0763333333')", 1),
    ("SELECT otp_gateway.purge('30 years')", 0),
    ("SELECT otp_gateway.rotate_key() IS NOT NULL", True),
]


def play(field, session, calls=CALLS):
    """The calls with the session's own verification; nothing of it may reach a trap."""
    execute = field.gateway.execute
    id = None
    for statement, expected in calls:
        ((got, *_),) = execute(statement, {"id": id}, session)
        assert got == expected, statement
        if id is None and "otp_send" in statement:
            ((id,),) = execute(
                """SELECT verification_id FROM public.otp_send('bank', '{"mobile": "0763333333"}', 'key')""",
                None,
                session,
            )
            # As text: a value of type uuid would be written with a type that is found first.
            id = str(id)


PATHS = ["public, pg_catalog", "public, pg_temp, pg_catalog", "pg_temp, public, pg_catalog", "public"]


@pytest.mark.parametrize("who", ["victim", "superuser"])
def test_what_is_found_first(field, attack, who):
    """The caller is made to look in the attacker's schemas first, and calls everything that there is."""
    gateway = field.gateway
    gateway.execute("""
        CREATE TABLE public.customer (phone text); GRANT ALL ON public.customer TO PUBLIC;
        CREATE TRIGGER send AFTER INSERT ON public.customer FOR EACH ROW
        EXECUTE FUNCTION otp_gateway.send_after_commit('bank', '{"mobile": "phone"}')
    """)
    user = field.victim if who == "victim" else "postgres"
    with contextlib.closing(gateway.connect(user=user)) as session:
        set_temporary_traps(field, session)
        set_traps(field, attack)
        for path in PATHS:
            gateway.execute(f"SET search_path = {path}", session=session)
            # The control: a careless statement is caught, with the rights of whoever makes it.
            if path.startswith("public, "):
                gateway.execute("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text", session=session)
                gateway.execute("SELECT substr('abc'::pg_catalog.text, 1)", session=session)
                assert gateway.execute("SELECT count(*), min(who::text) FROM public.caught") == [(2, user)]
                gateway.execute("TRUNCATE public.caught")
            else:
                with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
                    gateway.execute("SELECT 'x'::text", session=session)
            play(field, session, [*CALLS, *(OF_OWNERS if who == "superuser" else [])])
            # Queued sends are the worker's.
            for (id,) in gateway.execute("SELECT id FROM otp_gateway.verification"):
                gateway.wait(id)
            assert gateway.execute("SELECT * FROM public.caught") == [], path
            for table in ("attempt_record", "verification_record"):
                gateway.execute(f"TRUNCATE otp_gateway_internal.{table}")


def test_a_hostile_search_path_of_the_database(field, attack, cluster):
    """Settings that the owner of the database may make hold for the worker's own sessions as well: it has its own."""
    gateway, name = field.gateway, field.gateway.database
    set_traps(field, attack)
    timeouts = ["statement_timeout", "idle_session_timeout"]
    if gateway.session.server_version >= 170000:
        timeouts.append("transaction_timeout")
    for setting, value in {
        **dict.fromkeys(timeouts, "1"),
        "search_path": "public, pg_catalog",
        "lock_timeout": "1",
        "row_security": "off",
        "default_transaction_read_only": "on",
        "default_transaction_isolation": "serializable",
        "synchronous_commit": "off",
        "idle_in_transaction_session_timeout": "1",
        "bytea_output": "escape",
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "timezone": "'Pacific/Apia'",
        "quote_all_identifiers": "on",
        "transform_null_equals": "on",
        "standard_conforming_strings": "off",
        "enable_indexscan": "off",
        "default_tablespace": "pg_default",
        "client_min_messages": "debug5",
        "work_mem": "'64kB'",
    }.items():
        gateway.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    # The worker that is there was made before: another takes its place.
    worker = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'otp_gateway%'"
    gateway.execute(f"SELECT pg_terminate_backend(pid) FROM ({worker}) AS w")
    options = " ".join(f"-c {timeout}=0" for timeout in timeouts)
    with contextlib.closing(
        gateway.connect(options=f"-c search_path=pg_catalog -c default_transaction_read_only=off {options}")
    ) as session:
        id = gateway.execute(
            """SELECT verification_id FROM public.otp_send('bank', '{"mobile": "0763333333"}')""", None, session
        )[0][0]
        queued = gateway.execute(
            """SELECT verification_id FROM public.otp_enqueue('bank', '{"mobile": "0763333333"}')""", None, session
        )[0][0]
        assert gateway.execute("SELECT status FROM otp_gateway.wait(%s, '30s')", (queued,), session) == [("pending",)]
        assert gateway.execute("SELECT outcome FROM public.otp_verify(%s::uuid, '000000')", (id,), session) == [
            ("approved",)
        ]
        assert gateway.execute("SELECT otp_gateway.forget('bank', '0763333333')", None, session) == [(2,)]
    gateway.execute(f"ALTER DATABASE {name} RESET ALL")
    assert gateway.execute("SELECT * FROM public.caught") == []


def test_settings_of_the_session(field):
    """Whatever a caller may set for itself."""
    gateway = field.gateway
    gateway.execute("CREATE TABLE public.customer (phone text); GRANT ALL ON public.customer TO PUBLIC")
    with contextlib.closing(gateway.connect(user=field.victim)) as session:
        for setting in (
            "row_security = off",
            "standard_conforming_strings = off",
            "quote_all_identifiers = on",
            "bytea_output = escape",
            "transform_null_equals = on",
            "datestyle = German",
            "intervalstyle = iso_8601",
            "enable_seqscan = off",
            "enable_indexscan = off",
            "jit = off",
            "plan_cache_mode = force_generic_plan",
            "work_mem = '64kB'",
            "default_transaction_isolation = serializable",
            "client_min_messages = error",
            "check_function_bodies = off",
        ):
            gateway.execute(f"SET {setting}", session=session)
        play(field, session)


@pytest.mark.parametrize("owner", ["superuser", "attacker"])
def test_what_is_there_before_the_extension(cluster, simulator, owner):
    """A schema or function of our name that somebody made before is not taken over: CREATE EXTENSION refuses."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        for statement in (
            "CREATE SCHEMA otp_gateway",
            "CREATE FUNCTION public.otp_send(provider text, payload jsonb, idempotency_key text DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE FUNCTION public.otp_cancel(verification_id uuid) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ):
            if owner == "attacker":
                gateway.execute(
                    f"CREATE ROLE {name} ; GRANT CREATE ON DATABASE {name} TO {name}; GRANT CREATE ON SCHEMA public TO {name}; SET ROLE {name}"
                )
            gateway.execute(statement)
            gateway.execute("RESET ROLE")
            with pytest.raises((psycopg2.errors.DuplicateFunction, psycopg2.errors.DuplicateSchema)):
                gateway.execute("CREATE EXTENSION otp_gateway")
            assert gateway.execute("SELECT oid FROM pg_foreign_data_wrapper") == []
            gateway.execute(re.sub(r"CREATE (\w+) ([\w.]+).*", r"DROP \1 \2", statement))
            if owner == "attacker":
                gateway.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")
        gateway.execute("CREATE EXTENSION otp_gateway")


# questions about others' rows

LEAKS = """
CREATE FUNCTION {s}.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$;
CREATE FUNCTION {s}.leak(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$;
CREATE OPERATOR {s}.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = {s}.leak, RESTRICT = eqsel, JOIN = eqjoinsel, COMMUTATOR = <<<);
CREATE FUNCTION {s}.explode(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN IF $1 LIKE '%2222' THEN PERFORM 1 / 0; END IF; RETURN true; END $$;
"""
CONDITIONS = [
    "public.leak(id) AND public.leak(recipient_masked)",
    "public.leak(recipient_masked)",
    "public.leak(v)",
    "recipient_masked OPERATOR(public.<<<) 'x'",
    "public.leak(v::text)",
    "public.leak(reference) AND id IS NOT NULL",
    "public.leak(created_by) OR id IS NOT NULL",
    "id IN (SELECT id FROM {view} AS w WHERE public.leak(w.recipient_masked))",
    "EXISTS (SELECT FROM (VALUES (1)) AS x WHERE public.leak(v.recipient_masked))",
    "CASE WHEN public.leak(recipient_masked) THEN id IS NOT NULL END",
    "(SELECT bool_and(public.leak(w.recipient_masked)) FROM {view} AS w WHERE w.id = v.id)",
]
THROWS = [
    "1 / (CASE WHEN recipient_masked LIKE '%2222' THEN 0 ELSE 1 END) = 1",
    "recipient_masked::int = 1 AND recipient_masked LIKE '%2222'",
    "public.explode(recipient_masked)",
    "('[' || recipient_masked)::jsonb IS NULL AND recipient_masked LIKE '%2222'",
]


def careless(field):
    """The view as somebody might have written it, without a barrier, and with a cheap condition that is asked last."""
    field.gateway.execute("""
        CREATE VIEW public.careless AS SELECT * FROM otp_gateway_internal.verification_record AS v
        WHERE pg_has_role(v.created_by, 'MEMBER'); GRANT SELECT ON public.careless TO PUBLIC
    """)


def notices(session, statement):
    del session.notices[:]
    with session.cursor() as cursor:
        cursor.execute(statement)
    return "".join(session.notices)


def test_a_function_that_tells(field, attack):
    """A condition of the reader's own is asked about the reader's rows alone."""
    careless(field)
    field.gateway.execute(LEAKS.format(s="public"), session=attack)
    assert "2222" in notices(attack, "SELECT FROM public.careless WHERE public.leak(recipient_masked)"), "the control"
    for condition in CONDITIONS:
        said = notices(
            attack,
            f"SELECT FROM otp_gateway.verification AS v WHERE {condition.format(view='otp_gateway.verification')}",
        )
        assert "leaked" in said and "1111" in said or "leak(reference)" in condition or "created_by" in condition, (
            condition
        )
        assert "2222" not in said and str(field.theirs) not in said and field.victim not in said, condition
    for statement in (
        "SELECT FROM otp_gateway.attempt AS a WHERE public.leak(a)",
        "SELECT FROM otp_gateway.attempt AS a WHERE public.leak(a.verification_id)",
        "SELECT FROM otp_gateway.find('bank', '0762222222') AS f WHERE public.leak(f)",
        "SELECT FROM otp_gateway.verification AS v, LATERAL (SELECT public.leak(v.recipient_masked) OFFSET 0) AS x",
        "SELECT FROM otp_gateway.verification AS v JOIN (VALUES ('x')) AS x (y) ON v.recipient_masked OPERATOR(public.<<<) x.y",
        "SELECT FROM otp_gateway.verification AS v ORDER BY public.leak(recipient_masked)",
        "SELECT FROM otp_gateway.verification AS v GROUP BY recipient_masked HAVING public.leak(recipient_masked)",
    ):
        said = notices(attack, statement)
        assert "2222" not in said and str(field.theirs) not in said and field.victim not in said, statement


def test_a_condition_that_throws(field, attack):
    careless(field)
    field.gateway.execute(LEAKS.format(s="public"), session=attack)
    thrown = 0
    for condition in THROWS:
        try:
            field.gateway.execute(f"SELECT id FROM public.careless WHERE {condition.replace('%', '%%')}", (), attack)
        except psycopg2.Error:
            thrown += 1
        rows = field.gateway.execute(
            f"SELECT id FROM otp_gateway.verification WHERE {condition.replace('%', '%%')} OR true", (), attack
        )
        assert rows == [(field.mine,)], condition
    assert thrown > 0, "the control"


# A value that the victim's row has, and one that no row has.
ASKED = {
    "provider": ("bank", "kiosk"),
    "vendor": ("sandbox", "paytm"),
    "status": ("pending", "approved"),
    "recipient_masked": ("+94*****2222", "+94*****2223"),
    "created_by": (None, "nobody"),
    "send_count": (1, 7),
    "check_count": (1, 7),
    "max_checks": (5, 7),
    "is_test": (False, True),
}


def explained(field, session, statement, value):
    """The plan with what it met, without the condition itself. The first runs read what the next ones find in memory."""
    for _ in range(3):
        plan = field.gateway.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) {statement}", (value,), session
        )
    return re.sub(r"^( *(Filter|Index Cond): ).*", r"\1?", "\n".join(line for (line,) in plan), flags=re.MULTILINE)


def test_what_explain_tells(field):
    """EXPLAIN ANALYZE of a condition that another's row meets is the same as of one that no row meets. Not by the ids:
    an id is random, and whoever knows one was given it."""
    gateway = field.gateway
    # The control has a barrier, as ours, but lets conditions with = into the scan. It takes the roles' names from where
    # versions before 0.7.0 wrote them.
    gateway.execute("""
        UPDATE otp_gateway_internal.verification_record AS v SET created_by = i.name
        FROM otp_gateway_internal.identity AS i WHERE i.id = v.role_id;
        CREATE VIEW public.careless WITH (security_barrier) AS SELECT * FROM otp_gateway_internal.verification_record AS v
        WHERE v.created_by = ANY (SELECT rolname FROM pg_roles AS r WHERE pg_has_role(r.oid, 'MEMBER'));
        GRANT SELECT ON public.careless TO PUBLIC
    """)
    nobody = f"{gateway.database}_nobody"
    gateway.execute(f"CREATE ROLE {nobody} LOGIN")
    try:
        with contextlib.closing(gateway.connect(user=nobody)) as session:
            told = []
            for column, (there, not_there) in ASKED.items():
                there = field.victim if there is None else there
                asks = f"SELECT * FROM {{}} WHERE {column} = %s"
                ours = "otp_gateway.verification"
                with_it, without_it = (explained(field, session, asks.format(ours), v) for v in (there, not_there))
                assert with_it == without_it, column
                told += [
                    column
                    for plans in [
                        [explained(field, session, asks.format("public.careless"), v) for v in (there, not_there)]
                    ]
                    if plans[0] != plans[1]
                ]
            assert {"recipient_masked", "status", "created_by"} <= set(told), "the control"
            for column, there, not_there in (
                ("operation", "verify", "cancel"),
                ("outcome", "invalid_code", "expired"),
                ("provider", "bank", "kiosk"),
            ):
                asks = f"SELECT * FROM otp_gateway.attempt WHERE {column} = %s"
                assert explained(field, session, asks, there) == explained(field, session, asks, not_there), column
            asks = "SELECT * FROM otp_gateway.verification WHERE created_at > %s"
            times = ("2000-01-01 00:00:00+00", "2100-01-01 00:00:00+00")
            assert explained(field, session, asks, times[0]) == explained(field, session, asks, times[1])
    finally:
        gateway.execute(f"DROP ROLE {nobody}")


# a role that changes


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
def test_a_plan_that_another_role_made(field, mode):
    """A pool prepares once and changes its role: each sees its own."""
    gateway = field.gateway
    asks = {
        "seen": "SELECT id FROM otp_gateway.verification",
        "tried": "SELECT DISTINCT verification_id FROM otp_gateway.attempt",
        "found": "SELECT id FROM otp_gateway.find('bank', '0762222222') UNION SELECT id FROM otp_gateway.find('bank', '0761111111')",
    }
    with contextlib.closing(gateway.connect()) as session:
        gateway.execute(f"SET plan_cache_mode = {mode}", session=session)
        gateway.execute(
            "CREATE FUNCTION pg_temp.cached() RETURNS SETOF uuid LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT id FROM otp_gateway.verification; END'",
            session=session,
        )
        gateway.execute("GRANT USAGE ON SCHEMA public TO PUBLIC", session=session)
        for name, statement in asks.items():
            gateway.execute(f"PREPARE {name} AS {statement}", session=session)
        for _ in range(3):
            for role, seen in (
                ("postgres", {field.mine, field.theirs}),
                (field.attacker, {field.mine}),
                (field.victim, {field.theirs}),
            ):
                for change in (f"SET ROLE {role}", f"SET SESSION AUTHORIZATION {role}"):
                    gateway.execute(change, session=session)
                    for _ in range(3):
                        for name in asks:
                            got = {id for (id,) in gateway.execute(f"EXECUTE {name}", session=session)}
                            assert got == seen, (name, role)
                    gateway.execute("RESET SESSION AUTHORIZATION; RESET ROLE", session=session)
            for role, seen in ((field.attacker, {field.mine}), (field.victim, {field.theirs})):
                gateway.execute(f"SET LOCAL search_path = pg_catalog; SET ROLE {role}", session=session)
                with session.cursor() as cursor:
                    cursor.execute("SELECT id FROM otp_gateway.verification")
                    assert {id for (id,) in cursor.fetchall()} == seen
                gateway.execute("RESET ROLE", session=session)


def test_a_cursor_of_the_role_before(field):
    """What an open cursor has not fetched is fetched with the rights of who fetches."""
    gateway = field.gateway
    with contextlib.closing(gateway.connect(autocommit=False)) as session:
        gateway.execute("DECLARE c CURSOR FOR SELECT id FROM otp_gateway.verification", session=session)
        gateway.execute(f"SET LOCAL ROLE {field.attacker}", session=session)
        assert gateway.execute("FETCH ALL FROM c", session=session) == [(field.mine,)]


def test_a_definer_s_function(field, attack):
    """SECURITY DEFINER lends the definer's rows and rights, no others, and to nobody who was not given it."""
    gateway = field.gateway
    gateway.execute(
        f"""
        CREATE FUNCTION public.lent() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT id FROM otp_gateway.verification';
        CREATE FUNCTION public.begun(text) RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = public AS
        $$ SELECT verification_id FROM otp_send('bank', jsonb_build_object('mobile', $1)) $$
    """,
        session=attack,
    )
    with contextlib.closing(gateway.connect(user=field.victim)) as session:
        assert gateway.execute("SELECT * FROM public.lent()", session=session) == [(field.mine,)]
        ((id,),) = gateway.execute("SELECT public.begun('0763333333')", session=session)
        # It is the definer's, who began it; the caller does no more with it than with any other's.
        assert gateway.execute("SELECT created_by FROM otp_gateway.verification WHERE id = %s", (id,)) == [
            (field.attacker,)
        ]
        with pytest.raises(psycopg2.errors.UndefinedObject):
            gateway.verify(id, "000000", session)
        assert gateway.execute("SELECT id FROM otp_gateway.verification", session=session) == [(field.theirs,)]
    assert gateway.verify(id, "000000", attack)["outcome"] == "approved"


def test_row_security_off(field, attack):
    """It is for dumps, and says so where rows would be missing; the views miss none of one's own."""
    gateway = field.gateway
    gateway.execute("SET row_security = off", session=attack)
    assert gateway.execute("SELECT id FROM otp_gateway.verification", session=attack) == [(field.mine,)]
    gateway.execute(f"GRANT pg_read_all_data TO {field.attacker}")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="row-level security"):
        gateway.execute("SELECT id FROM otp_gateway_internal.verification_record", session=attack)
    assert len(gateway.execute("SELECT id FROM otp_gateway.verification", session=attack)) == 2


# where others may create


STRANGER = "CREATE FUNCTION public.{}(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'theirs' $$"


def test_where_everybody_may_create_functions(cluster, simulator):
    """As in public before Postgres 15, and in databases that came from there: whoever installs it there is told, and
    what the extension does by itself no function of a stranger's takes away from it."""
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as gateway:
        stranger = f"{name}_stranger"
        gateway.execute(f"CREATE ROLE {stranger} LOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE SCHEMA otp")
        try:
            with contextlib.closing(gateway.connect(user=stranger)) as session:
                for function in ("otp_send", "otp_verify", "find", "note_queued"):
                    gateway.execute(STRANGER.format(function), session=session)
            # In a schema that is its own there is nothing to tell.
            gateway.execute("CREATE EXTENSION otp_gateway SCHEMA otp")
            assert gateway.session.notices == []
            gateway.execute("DROP EXTENSION otp_gateway; CREATE EXTENSION otp_gateway")
            [warning] = gateway.session.notices
            assert warning.startswith("WARNING:") and "functions in schema public" in warning and "PUBLIC" in warning
            assert "CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp" in warning
            gateway.keeps_numbers = True
            gateway.create_provider("ideamart")
            # So it is: a literal fits text better than jsonb.
            to = gateway.number()
            assert gateway.execute(f"""SELECT otp_send('ideamart', '{{"mobile": "{to}"}}')""") == [("theirs",)]
            assert simulator.count() == 0
            gateway.execute(
                "CREATE TABLE customer (phone text, id uuid);"
                "CREATE TRIGGER send_code BEFORE INSERT ON customer FOR EACH ROW"
                """ EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{"mobile": "phone"}', 'id')"""
            )
            [(id,)] = gateway.execute("INSERT INTO customer VALUES (%s) RETURNING id", (to,))
            assert gateway.wait(id)["outcome"] == "sent"
            assert gateway.execute("SELECT id FROM otp_gateway.find('ideamart', %s)", (to,)) == [(id,)]
            gateway.execute("DROP TABLE customer")
        finally:
            gateway.execute(f"DROP OWNED BY {stranger}; DROP ROLE {stranger}")
