"""Promise: the clients that docs/clients.md names work as it says. Each sends and verifies, rolls back, sends after COMMIT, is
cancelled, is refused, listens, and decodes every column of otp_gateway.result; the lines that the page shows are the
lines that ran, and its table is what was found. OTP_GOLDEN=write writes both anew.

Each client is a program that does what it is told (python_clients.py, node_clients.js, Pgjdbc.java); what must come of it
is said here, once for all of them."""

import concurrent.futures
import contextlib
import datetime
import json
import os
import re
import subprocess
import time

import psycopg2
import pytest

from cluster import standby_of
from conftest import HERE, PASSED, PLACE, ROOT, Program, Refused, inside, shown
from table import table

PYTHON, NODE, JAVA = PLACE / "python/bin/python", "node", "java"
JAR = "/usr/share/java/postgresql.jar"
PAGE = ROOT / "docs/clients.md"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
ENQUEUED = "SELECT status FROM otp.otp_enqueue('vendor', jsonb_build_object('mobile', %s))"
# No number, as somebody may type it.
SPOILT, CODE = "o77I234567", "719283"
RIGHT, WRONG = "000000", "123456"

# As the page calls them, and what runs them.
CLIENTS = {
    "psycopg 3": "psycopg",
    "psycopg 3, async": "psycopg-async",
    "psycopg 3, pipeline": "psycopg-pipeline",
    "psycopg_pool": "psycopg-pool",
    "psycopg2": "psycopg2",
    "asyncpg": "asyncpg",
    "SQLAlchemy 2": "sqlalchemy",
    "Django": "django",
    "node-postgres": "node-postgres",
    "postgres.js": "postgres.js",
    "Sequelize": "sequelize",
    "TypeORM": "typeorm",
    "Drizzle": "drizzle",
    "pgjdbc": "pgjdbc",
    "pgjdbc, simple": "pgjdbc-simple",
    "pgjdbc, prepared": "pgjdbc-prepared",
    "pgjdbc, autosave": "pgjdbc-autosave",
    "tokio-postgres": "rust",
    "PHP, PDO": "php",
    "Ruby, pg": "ruby",
    "PgBouncer, session": "session",
    "PgBouncer, transaction": "transaction",
    "PgBouncer, statement": "statement",
    "pgpool": "pgpool",
}
NODES = ("node-postgres", "postgres.js", "sequelize", "typeorm", "drizzle")
# The modes that change what is sent: the simple protocol; a statement that is prepared from its first use on, not its
# fifth; a savepoint before each statement.
PGJDBC = {
    "pgjdbc": "",
    "pgjdbc-simple": "&preferQueryMode=simple",
    "pgjdbc-prepared": "&prepareThreshold=1",
    "pgjdbc-autosave": "&autosave=always",
}
MAPPED = {"sqlalchemy": "01", "django": "11", "sequelize": "21", "typeorm": "31", "drizzle": "41"}
MODES = ("session", "transaction", "statement")
# Whose time-out tells the server's error nothing: the key is the way back.
OWN_TIMEOUT = {"psycopg-async", "asyncpg", "node-postgres"}
# The machine's, not pinned here.
MACHINES = [name for name in CLIENTS if re.match("pgjdbc|PHP|Ruby|PgBouncer|pgpool", name)]


def command(client, place):
    if client in MODES:
        return PYTHON, HERE / "python_clients.py", "pgbouncer", place.url(place.bouncer(client))
    if client in NODES:
        return NODE, HERE / "node_clients.js", client, place.url(), PLACE / "node"
    if client in PGJDBC:
        url = f"jdbc:postgresql://127.0.0.1:{place.cluster.port}/postgres?user=app{PGJDBC[client]}"
        return JAVA, "-cp", JAR, HERE / "Pgjdbc.java", url
    if client == "pgpool":
        return PYTHON, HERE / "python_clients.py", "psycopg", place.url(place.pgpool())
    if client == "rust":
        return PLACE / "rust/debug/rust-client", place.url()
    if client == "php":
        return "php", HERE / "client.php", f"pgsql:host=127.0.0.1;port={place.cluster.port};dbname=postgres;user=app"
    if client == "ruby":
        return "ruby", HERE / "client.rb", place.url()
    return PYTHON, HERE / "python_clients.py", client, place.url()


def test_client_listed():
    """Each that is here is on the page, in this order."""
    assert re.findall(r"^### (.+)$", PAGE.read_text(), re.M)[: len(SHOWN)] == list(SHOWN)


@pytest.mark.parametrize("name", CLIENTS)
def test_client(name, place):
    client = CLIENTS[name]
    program = Program(*command(client, place))
    try:
        found = play(client, place, program)
        PASSED[name] = [version(name, place, program), *found]
    finally:
        program.close()


def version(name, place, program):
    if name == "pgpool":
        return subprocess.run(
            [PLACE / "pgpool/usr/sbin/pgpool", "--version"], text=True, stderr=subprocess.PIPE
        ).stderr.split()[2]
    if "PgBouncer" in name:
        return re.search(r"PgBouncer (\S+)", subprocess.check_output(["/usr/sbin/pgbouncer", "--version"], text=True))[
            1
        ]
    return program("version")


def play(client, place, program):
    sent = decoded(place, program)
    kinds = [sent["verification_id"][0], blocked(place, program), sent["response"][0]]
    verification_id = sent["verification_id"][1]
    assert program("verify", verification_id, WRONG) == ["invalid_code", 4]
    transactions = client != "statement"
    if transactions:
        # A rollback gives no check back.
        assert program("rolled_back", verification_id, WRONG) == "invalid_code"
        assert program("verify", verification_id, WRONG) == ["invalid_code", 2]
        after_commit(place, program)
        # Nor does it take an approval back: whoever asks for the proof, as a retry does, has it.
        assert program("rolled_back", verification_id, RIGHT) == "approved"
        assert program("verify", verification_id, RIGHT)[0] == "already_used"
    else:
        # As it was typed.
        assert program("verify", verification_id, " 000-000 ") == ["approved", 0]
    assert place.rows("SELECT status FROM otp_gateway.verification WHERE id = %s", (verification_id,)) == [
        ("approved",)
    ]
    return [
        "counts" if transactions else "no transactions",
        "sent" if transactions else "no transactions",
        cancelled(client, place, program),
        refused(program),
        keeps(program),
        listens(client, place, program),
        ", ".join(kinds),
    ]


def decoded(place, program):
    """Every column is what another client reads."""
    key = place.number()
    row = program("send", "vendor", key, key)
    again = place.row("SELECT * FROM otp.otp_send('vendor', jsonb_build_object('mobile', %s), %s)", (key, key))
    assert set(row) == set(again) and len(again) == 13
    for name, value in again.items():
        if name == "response":
            continue
        assert (row[name] or [None, None])[1] == text(value), name
    assert json.loads(row["response"][1])["statusCode"] == "S1000"
    sandbox = program("send", "sandbox", place.number(), place.number())
    assert sandbox["outcome"][1] == "sent" and sandbox["retryable"][1] == "false" and sandbox["attempts_left"][1] == "5"
    return sandbox | {"response": row["response"]}


def text(value):
    """As the clients' programs write it."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case datetime.datetime():
            return str((value - EPOCH) // datetime.timedelta(milliseconds=1))
    return str(value)


def blocked(place, program):
    """An interval, and a text that is not null: the kind of the interval."""
    mobile = place.number()
    assert program("send", "patient", mobile, place.number())["outcome"][1] == "sent"
    row = program("send", "patient", mobile, place.number())
    assert (row["outcome"][1], row["reason"][1]) == ("blocked", "resend_after")
    assert 0 < float(row["retry_after"][1]) <= 30
    return row["retry_after"][0]


def after_commit(place, program):
    count = "SELECT count(*)::int FROM otp_gateway.verification WHERE id = %s"
    undone = program("enqueue", place.number(), "rollback")
    assert place.rows(count, (undone,)) == [(0,)]
    committed = program("enqueue", place.number(), "commit")
    assert program("wait", committed) == "sent"


def cancelled(client, place, program):
    """The call goes on: DETAIL says which verification's, and the key leads back to it."""
    given_up(place, program, "cancel", detail=client not in OWN_TIMEOUT)
    if client != "statement":
        given_up(place, program, "late", detail=True)
    return "its own, says no id; key" if client in OWN_TIMEOUT else "57014 names the id; key"


def given_up(place, program, operation, detail):
    mobile = place.number()
    place.simulator.fault("hold", "ideamart", "send", times=1)
    try:
        with pytest.raises(Refused) as refusal:
            program(operation, "vendor", mobile, mobile)
        # It had left.
        place.simulator.held(1)
        # And what is queued at the same provider does not wait for it.
        place.rows(ENQUEUED, (other := place.number(),))
        assert place.rows(
            "SELECT outcome FROM otp_gateway.wait((SELECT id FROM otp_gateway.find('vendor', %s)))", (other,)
        ) == [("sent",)]
    finally:
        place.simulator.release()
    found = refusal.value.found
    row = program("send", "vendor", mobile, mobile)
    assert row["outcome"][1] == "sent"
    assert place.simulator.count("ideamart", "send", mobile) == 1
    if detail:
        assert found["sqlstate"] == "57014" and row["verification_id"][1] in found["detail"], found
        # A line, and no stack, also where RUST_BACKTRACE is set.
        assert row["attempt_id"][1] in found["detail"] and "\n" not in found["detail"]
    else:
        assert found["sqlstate"] is None, found
    assert program("verify", row["verification_id"][1], place.simulator.code("ideamart", mobile)) == ["approved", 0]


def refused(program):
    with pytest.raises(Refused) as refusal:
        program("refused")
    found = refusal.value.found
    assert found["sqlstate"] == "22023" and "mobile" in found["message"] and found["hint"], found
    return f"`{found['class']}`"


def keeps(program):
    """What is printed of its exception has of the values: of ours there is nothing in it, but some put them there."""
    with pytest.raises(Refused) as number:
        program("send", "vendor", SPOILT, "a key")
    with pytest.raises(Refused) as code:
        program("verify", "01900000-0000-7000-8000-000000000000", CODE)
    found = [refusal.value.found for refusal in (number, code)]
    assert [one["sqlstate"] for one in found] == ["22023", "42704"]
    shown = [value in one.get("printed", one["message"]) for value, one in zip((SPOILT, CODE), found, strict=True)]
    return "shown" if any(shown) else "kept out"


def listens(client, place, program):
    program("listen")
    mobile = place.number()
    id = program("send", "sandbox", mobile, mobile)["verification_id"][1]
    if client in ("transaction", "statement"):
        # PgBouncer has said yes, and given the server's connection, which heard it, to somebody else.
        assert program("heard", "1") == []
        return "direct connection"
    said = json.loads(program("heard", "20")[0])
    assert said["id"] == id and said["provider"] == "sandbox"
    return "heard"


@pytest.mark.parametrize("client", MAPPED)
def test_mapped(client, place):
    """An object that is saved whole: another column changes nothing, another phone has a code of its own, an object that is
    older than its row, or knows of no verification, takes none away, and what it has read is what the row has."""
    program = Program(*command(client, place))
    try:
        pk, created, named, moved = program("saved", f"07720000{MAPPED[client]}")
    finally:
        program.close()
    assert created == named != moved and "None" not in (created, moved)
    assert place.rows("SELECT verification_id::text FROM public.customer WHERE id = %s", (pk,)) == [(moved,)]
    for verification_id in (created, moved):
        wait = "SELECT outcome FROM otp_gateway.wait(%s)"
        assert place.rows(wait, (verification_id,)) == [("sent",)]


@pytest.fixture
def standby(place):
    with standby_of(place.cluster) as standby:
        yield standby


def test_pgpool_with_a_standby(place, standby):
    """What sends, checks and proves goes to the primary, though all that only reads goes to the standby."""
    with contextlib.closing(psycopg2.connect(place.url(place.pgpool(standby)))) as connection:
        connection.autocommit = True
        by_turns(place, connection, str(standby.port))


def by_turns(place, connection, standby):
    def row(statement, *arguments):
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchone()

    assert row("SELECT current_setting('port')") == (standby,)
    mobile = place.number()
    id, outcome = row(
        "SELECT verification_id, outcome FROM otp.otp_send('sandbox', jsonb_build_object('mobile', %s))", mobile
    )
    assert outcome == "sent"
    assert row("SELECT outcome FROM otp.otp_verify(%s::uuid, %s)", id, WRONG) == ("invalid_code",)
    assert row("SELECT outcome FROM otp.otp_verify(%s::uuid, %s)", id, RIGHT) == ("approved",)
    # At once: the standby may not have it yet.
    assert row("SELECT otp_gateway.is_approved(%s::uuid, %s)", id, mobile) == (True,)
    end = time.monotonic() + 20
    while row("SELECT status FROM otp_gateway.verification WHERE id = %s", id) != ("approved",):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert row("SELECT status, current_setting('port') FROM otp_gateway.find('sandbox', %s)", mobile) == (
        "approved",
        standby,
    )


def test_nothing_of_theirs_is_in_the_log(place):
    """Of all clients in this run, also those that write values into their statements, and of all their errors."""
    log = place.cluster.log()
    assert re.findall(rf"077\d{{7}}|{SPOILT}|{CODE}", log) == []
    # The errors are.
    assert "canceling statement due to statement timeout" in log


SLIPS = {
    "JSON.stringify in postgres.js, which encodes it once more": (
        "otp.otp_send('sandbox', %s)",
        json.dumps(json.dumps({"mobile": "0771234567"})),
        "a JSON string that holds an object: encode it once",
    ),
    "an id that is None, undefined or null": ("otp.otp_verify(%s, '1')", None, "verification_id (or provider) is null"),
    "an id with a lost digit": (
        "otp.otp_verify(%s, '1')",
        "01900000-0000-7000-8000-00000000000",
        "verification_id is not a uuid",
    ),
    "no id to wait for": ("otp_gateway.wait(%s)", None, "verification_id is null"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips(slip, place):
    """The message names what is wrong, in the words of the call."""
    call, value, words = SLIPS[slip]
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as refusal:
        place.rows(f"SELECT {call}", (value,))
    assert words in str(refusal.value) and refusal.value.diag.message_hint


def test_views_have_types_that_every_tool_knows(place):
    """No domains, which ORMs reflect as what they do not know."""
    columns = "SELECT data_type, domain_name FROM information_schema.columns WHERE table_schema = 'otp_gateway' AND column_name = %s"
    for name in ("status", "operation", "outcome"):
        found = place.rows(columns, (name,))
        assert found and set(found) == {("text", None)}, name


def test_asyncpg_without_the_cast(place):
    """Why the page has ::uuid: the first argument is described as text."""
    program = Program(*command("asyncpg", place))
    try:
        with pytest.raises(Refused) as refusal:
            program("uncast", program("send", "sandbox", place.number(), place.number())["verification_id"][1])
        assert refusal.value.found["class"] == "DataError"
    finally:
        program.close()


def test_pool(place):
    """What the page says of a pool: of calls at once as many leave as it has connections to the server; otp_enqueue holds
    none, and the messages need none."""
    size, calls, seconds = 4, 16, 0.5
    url = place.url(place.bouncer("transaction", size))
    place.simulator.fault("latency", "ideamart", "send", ms=int(seconds * 1000))
    try:
        send = "SELECT outcome FROM otp.otp_send('vendor', jsonb_build_object('mobile', %s))"
        sending, outcomes = at_once(url, send, [place.number() for _ in range(calls)])
        assert outcomes == ["sent"] * calls
        assert sending >= calls / size * seconds
        enqueue = "SELECT verification_id::text FROM otp.otp_enqueue('vendor', jsonb_build_object('mobile', %s))"
        enqueuing, ids = at_once(url, enqueue, [place.number() for _ in range(calls)])
        assert enqueuing < sending / 2
        began = time.monotonic()
        wait = "SELECT bool_and(w.outcome = 'sent') FROM unnest(%s::uuid[]) AS id, otp_gateway.wait(id) AS w"
        assert place.rows(wait, (ids,)) == [(True,)]
        print(f"sends {sending:.2f} s, enqueues {enqueuing:.2f} s, all left after {time.monotonic() - began:.2f} s")
    finally:
        place.simulator.clear_faults()


def at_once(url, statement, numbers):
    """Each on a connection of its own to PgBouncer: how long all of them take, and what they return."""
    connections = [psycopg2.connect(url) for _ in numbers]

    def run(connection, number):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, (number,))
            return cursor.fetchone()[0]

    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as threads:
        began = time.monotonic()
        values = list(threads.map(run, connections, numbers))
        took = time.monotonic() - began
    for connection in connections:
        connection.close()
    return took, values


# The page


def snippets(path, start, end):
    return "".join(shown(path, start, end))


def python(name):
    return "python", snippets(HERE / "python_clients.py", f"class {name}", "\n\n\n")


def node(name):
    return "javascript", snippets(HERE / "node_clients.js", f"class {name} ", "\n}\n")


SHOWN = {
    "psycopg 3": python("Psycopg:"),
    "psycopg 3, async": python("AsyncPsycopg:"),
    "psycopg 3, pipeline": python("PsycopgPipeline("),
    "psycopg_pool": python("PsycopgPool("),
    "psycopg2": python("Psycopg2("),
    "asyncpg": python("Asyncpg:"),
    "SQLAlchemy 2": python("Sqlalchemy("),
    "Django": python("Django("),
    "node-postgres": node("NodePostgres"),
    "postgres.js": node("PostgresJs"),
    "Sequelize": node("Sequelize"),
    "TypeORM": node("TypeOrm"),
    "Drizzle": node("Drizzle"),
    "pgjdbc": ("java", snippets(HERE / "Pgjdbc.java", "class Pgjdbc", "\n}\n")),
    "tokio-postgres": ("rust", snippets(HERE / "rust/src/main.rs", "struct Program", "#[tokio::main")),
    "PHP, PDO": ("php", snippets(HERE / "client.php", "class Client", "$client =")),
    "Ruby, pg": ("ruby", snippets(HERE / "client.rb", "class Client", "client =")),
    "PgBouncer": python("PsycopgBehindPgbouncer("),
    **{name: ("plpgsql", inside(name)) for name in ("pg_cron", "postgres_fdw", "dblink", "logical replication")},
}


def test_page_is_up_to_date(place):
    """Of what has passed in this very run."""
    if set(PASSED) != set(CLIENTS):
        pytest.skip("not all clients have passed in this run")
    page = PAGE.read_text()
    new = re.sub(r"^\| client \| version .*\n(?:\|.*\n)*", lambda _: table(PASSED), page, flags=re.M)
    for name, shown in SHOWN.items():
        new = with_lines(new, name, *shown)
    if os.environ.get("OTP_GOLDEN") == "write":
        PAGE.write_text(new)
    # The machine's own versions may be other ones there.
    assert any_version(PAGE.read_text()) == any_version(new)


def with_lines(page, name, language, lines):
    """The first code under that heading becomes these."""
    before, heading, section = page.partition(f"\n### {name}\n")
    new, count = re.subn(
        r"^```\w+\n.*?^```$", lambda _: f"```{language}\n{lines}```", section, count=1, flags=re.M | re.S
    )
    assert heading and count == 1, name
    return before + heading + new


def any_version(text):
    return re.sub(rf"^(\| (?:{'|'.join(MACHINES)}) \|) [^|]+ \|", r"\1", text, flags=re.M)
