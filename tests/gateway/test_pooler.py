"""Promise: behind PgBouncer every call is what it is without. In session and in transaction pooling, whatever is reset
between two clients, each is answered by its own call alone and acts for its own role, and nobody waits for what another
client has left in the session that they share."""

import json
import re
import secrets
import socket
import threading
import time

import psycopg2
import pytest

from canaries import RUN
from conftest import Running, complaints, until
from pooler import Pooler
from test_logs import Libpq

SEND = "SELECT * FROM otp_send('ideamart', %s::jsonb)"
KEYED = "SELECT * FROM otp_send('ideamart', %s::jsonb, %s)"
ENQUEUE = "SELECT * FROM otp_enqueue('ideamart', %s::jsonb)"
ENQUEUE_KEYED = "SELECT * FROM otp_enqueue('ideamart', %s::jsonb, %s)"
CHECK = "SELECT * FROM otp_verify(%s::uuid, %s)"
BROKEN = "SELECT o.*, 1 / (SELECT 0) FROM otp_send('ideamart', %s::jsonb) AS o"
# What a session of ours may never keep when its call has ended.
LOCKS = (
    "SELECT count(*)::int FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
    " WHERE locktype = 'advisory' AND datname = current_database()"
)
WAITS_FOR_A_KEY = LOCKS + " AND NOT granted"
WAITS = (
    "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    " AND wait_event_type = 'Extension' AND backend_type = 'client backend'"
)
# Well below a provider's timeout, and enough on a machine that has other things to do.
AT_ONCE = 5

WAYS = {
    "session": {"pool_mode": "session"},
    "session, nothing reset": {"pool_mode": "session", "server_reset_query": ""},
    "transaction": {"pool_mode": "transaction"},
    "transaction, all reset": {"pool_mode": "transaction", "server_reset_query_always": 1},
}
OF_TRANSACTIONS = [way for way in WAYS if way.startswith("transaction")]


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()
    assert quick_gateway.execute(LOCKS) == [(0,)]


@pytest.fixture
def start(cluster, gateway):
    """Starts a pooler; what the server says meanwhile is no complaint but those that the test has caused."""
    started = []

    def start(way, users=("postgres",), **settings):
        started.append(Pooler(cluster, users, **WAYS[way], **settings).__enter__())
        return started[-1]

    yield start
    for pooler in started:
        pooler.__exit__()


class Client:
    """One client after the other in session pooling, many side by side in transaction pooling: both are handed the one
    session that the pooler has."""

    def __init__(self, gateway, pooler, way):
        self.gateway, self.pooler, self.way = gateway, pooler, way
        self.session = None if way.startswith("session") else pooler.connect(gateway.database)
        self.pids = set()

    def __enter__(self):
        if self.way.startswith("session"):
            self.session = self.pooler.connect(self.gateway.database)
        return self

    def __exit__(self, *_):
        if self.way.startswith("session"):
            self.session.close()

    def row(self, statement, *arguments):
        with self:
            self.pids |= {pid for (pid,) in self.gateway.execute("SELECT pg_backend_pid()", session=self.session)}
            return self.gateway.row(statement, arguments or None, self.session)


def two(gateway, pooler, way):
    """Two clients of one session."""
    return Client(gateway, pooler, way), Client(gateway, pooler, way)


def payload(to):
    return json.dumps({"mobile": to})


def backend(gateway, session):
    return gateway.execute("SELECT pg_backend_pid()", session=session)[0][0]


def vanish(session):
    """The client is gone, without a word."""
    with socket.fromfd(session.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as same:
        same.shutdown(socket.SHUT_RDWR)


def is_there(gateway, pid):
    return gateway.execute("SELECT count(*)::int FROM pg_stat_activity WHERE pid = %s", (pid,)) == [(1,)]


# each client has what is its own


@pytest.mark.parametrize("way", WAYS)
def test_flow(gateway, simulator, start, way):
    first, second = two(gateway, start(way), way)
    numbers = [gateway.number() for _ in range(2)]
    sent = [client.row(SEND, payload(to)) for client, to in zip((first, second), numbers)]
    assert [row["outcome"] for row in sent] == ["sent", "sent"]
    assert sent[0]["verification_id"] != sent[1]["verification_id"]
    # Each verifies what the other has begun, with a wrong code first.
    for client, row, to in zip((second, first), sent, numbers):
        wrong, right = (RUN.code(code) for code in (simulator.wrong("ideamart", to), simulator.code("ideamart", to)))
        assert client.row(CHECK, row["verification_id"], wrong)["outcome"] == "invalid_code"
        assert client.row(CHECK, row["verification_id"], right)["outcome"] == "approved"
    queued = [client.row(ENQUEUE, payload(gateway.number())) for client in (first, second)]
    for client, row in zip((second, first), queued):
        assert client.row("SELECT * FROM otp_gateway.wait(%s)", row["verification_id"])["outcome"] == "sent"
    assert first.pids == second.pids and len(first.pids) == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_same_call_of_two_clients_is_two_messages(gateway, simulator, start, way):
    """In one statement the same call is made once: the next client's is another statement, however alike."""
    first, second = two(gateway, start(way), way)
    to = gateway.number()
    rows = [client.row(SEND, payload(to)) for client in (first, second, first)]
    assert len({row["verification_id"] for row in rows}) == 3
    assert simulator.count("ideamart", "send") == 3
    assert first.pids == second.pids


@pytest.mark.parametrize("way", WAYS)
def test_bound_parameters(gateway, simulator, start, way):
    """As drivers send them: parse, bind and execute, without a name."""
    pooler = start(way)
    numbers = [gateway.number() for _ in range(3)]
    for to in numbers:
        client = Libpq(pooler, gateway.database)
        try:
            state, text = client.execute("SELECT outcome FROM otp_send($1, $2::jsonb)", "ideamart", payload(to))
            assert state is None, text
            # One that fails leaves nothing for the next.
            state, _ = client.execute("SELECT outcome FROM otp_send($1, $2::jsonb)", "ideamart", '{"mobile": "nobody"}')
            assert state == "22023"
        finally:
            client.close()
    assert simulator.count("ideamart", "send") == 3


def test_many_clients_at_few_sessions(gateway, simulator, start):
    """Thirty clients, three sessions: each answer reaches who asked."""
    pooler = start("transaction", default_pool_size=3)
    gateway.simulator.fault("hold", "ideamart", "send", times=3)
    numbers = [gateway.number() for _ in range(30)]
    sessions = [pooler.connect(gateway.database) for _ in numbers]
    running = [Running(session, SEND, (payload(to),)) for session, to in zip(sessions, numbers)]
    simulator.held(3)
    simulator.release()
    rows = [one.row() for one in running]
    assert {row["outcome"] for row in rows} == {"sent"}
    assert len({row["verification_id"] for row in rows}) == len(numbers)
    # Each verifies with the code that went to its own number.
    checks = []
    for session, row, to in zip(reversed(sessions), rows, numbers):
        arguments = (row["verification_id"], RUN.code(simulator.code("ideamart", to)))
        checks.append(Running(session, CHECK, arguments))
    assert {check.row()["outcome"] for check in checks} == {"approved"}
    for session in sessions:
        session.close()


@pytest.mark.parametrize("way", OF_TRANSACTIONS)
def test_role_of_a_transaction(gateway, simulator, start, way):
    """Transactions that take a role for themselves, one after the other in one session: nobody acts for another."""
    roles = [f"pooled_{secrets.token_hex(4)}" for _ in range(2)]
    pooler = start(way)
    clients = [pooler.connect(gateway.database, autocommit=False) for _ in roles]
    try:
        for role in roles:
            gateway.execute(f"CREATE ROLE {role}; GRANT USAGE ON FOREIGN SERVER ideamart TO {role}")

        def act(client, role, statement, *arguments):
            with client:
                gateway.execute(f"SET LOCAL ROLE {role}", session=client)
                pids.add(backend(gateway, client))
                return gateway.row(statement, arguments, client)

        pids, to = set(), gateway.number()
        # The same key and payload of each: two keys, two messages.
        sent = [act(client, role, KEYED, payload(to), "one key") for client, role in zip(clients, roles)]
        assert len({row["verification_id"] for row in sent}) == 2 and len(pids) == 1
        code = RUN.code(simulator.code("ideamart", to, atleast=2))
        for client, role, theirs in [(clients[0], roles[0], sent[1]), (clients[1], roles[1], sent[0])]:
            with pytest.raises(psycopg2.Error):
                act(client, role, CHECK, theirs["verification_id"], code)
        # In the other's session, it is still one's own.
        assert act(clients[0], roles[1], KEYED, payload(to), "one key") == sent[1]
        assert act(clients[0], roles[1], CHECK, sent[1]["verification_id"], code)["outcome"] == "approved"
    finally:
        for client in clients:
            client.close()
        for role in roles:
            gateway.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("way", WAYS)
def test_what_a_transaction_has_enqueued_is_its_own(gateway, start, way):
    """The count of one that was rolled back, or whose client went away, is not the next one's."""
    pooler = start(way)
    most = "SET LOCAL otp_gateway.max_sends_per_transaction = 3"
    pids = set()
    for end in ("roll back", "fail", "vanish", "commit"):
        client = pooler.connect(gateway.database, autocommit=False)
        gateway.execute(most, session=client)
        for _ in range(3):
            assert gateway.row(ENQUEUE, (payload(gateway.number()),), client)["status"] == "queued"
        pids.add(backend(gateway, client))
        if end == "fail":
            with pytest.raises(psycopg2.Error) as error:
                gateway.execute(ENQUEUE, (payload(gateway.number()),), client)
            assert error.value.pgcode == "54000"
        if end == "vanish":
            vanish(client)
        elif end == "commit":
            client.commit()
        else:
            client.rollback()
        client.close()
    # What vanishes in a transaction takes its session along: the pooler does that.
    assert len(pids) == 2
    assert len(gateway.settle()) == 3


# nobody waits for what another has left


@pytest.mark.parametrize("way", WAYS)
def test_cancel(gateway, simulator, start, way):
    """The pooler is asked to cancel in place of the server: the session is the next client's at once, and the late
    answer is nobody's but the record's."""
    pooler = start(way)
    simulator.fault("hold", "ideamart", "send", times=1)
    late = gateway.number()
    client = pooler.connect(gateway.database)
    pid = backend(gateway, client)
    running = Running(client, SEND, (payload(late),))
    simulator.held(1)
    began = time.monotonic()
    client.cancel()
    running.wait()
    assert running.error.pgcode == "57014" and running.ended_at - began < AT_ONCE
    if way.startswith("session"):
        client.close()
    with pooler.session(gateway.database) as following:
        assert backend(gateway, following) == pid
        began = time.monotonic()
        row = gateway.row(SEND, (payload(gateway.number()),), following)
        assert row["outcome"] == "sent" and time.monotonic() - began < AT_ONCE
        simulator.release()
        others = [each for each in gateway.settle() if each["verification_id"] != row["verification_id"]]
        assert [each["outcome"] for each in others] == ["sent"]
        # The next answer is to the next call.
        again = gateway.row(SEND, (payload(gateway.number()),), following)
        assert again["verification_id"] not in {row["verification_id"], others[0]["verification_id"]}
    client.close()


@pytest.mark.parametrize("way", WAYS)
def test_client_that_goes_away_in_a_call(gateway, simulator, start, way):
    """The pooler drops the session, and the next client has another: the call goes on to its end, on record."""
    pooler = start(way)
    simulator.fault("hold", "ideamart", "send", times=1)
    client = pooler.connect(gateway.database)
    pid = backend(gateway, client)
    running = Running(client, KEYED, (payload(to := gateway.number()), key := secrets.token_hex(8)))
    simulator.held(1)
    vanish(client)
    running.wait()
    began = time.monotonic()
    with pooler.session(gateway.database) as following:
        assert gateway.row(SEND, (payload(gateway.number()),), following)["outcome"] == "sent"
        assert time.monotonic() - began < AT_ONCE and backend(gateway, following) != pid
        # Who comes with the same key waits for that call, and has its answer.
        same = Running(following, KEYED, (payload(to), key))
        until(lambda: gateway.execute(WAITS_FOR_A_KEY) == [(1,)], "it waits for the key")
        simulator.release()
        assert same.row()["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2
    until(lambda: not is_there(gateway, pid), "the session that was left ends")


def test_client_that_goes_away_while_it_waits(gateway, start):
    """A wait of an hour is not sat through: with client_connection_check_interval the session ends."""
    gateway.full()
    queued = gateway.enqueue("narrow", vendor="ideamart")
    pooler = start("transaction")
    client = pooler.connect(gateway.database, autocommit=False)
    gateway.execute("SET LOCAL client_connection_check_interval = '100ms'", session=client)
    pid = backend(gateway, client)
    running = Running(client, "SELECT * FROM otp_gateway.wait(%s, '1 hour')", (queued["verification_id"],))
    until(lambda: gateway.execute(WAITS) == [([pid],)], "it waits")
    vanish(client)
    running.wait()
    until(lambda: not is_there(gateway, pid), "the session that was left ends")


@pytest.mark.parametrize("way", WAYS)
def test_waits_take_turns(gateway, simulator, start, way):
    """At one session the waits of many come one after the other, and the sends are made meanwhile: by the worker,
    which needs none of the pooler's sessions."""
    gateway.full()
    ids = [gateway.enqueue("narrow", vendor="ideamart")["verification_id"] for _ in range(4)]
    pooler = start(way)
    sessions = [] if way.startswith("session") else [pooler.connect(gateway.database) for _ in ids]

    def wait(number, id):
        session = pooler.connect(gateway.database) if not sessions else sessions[number]
        answers.append(gateway.row("SELECT * FROM otp_gateway.wait(%s, '30s')", (id,), session)["outcome"])
        session.close()

    answers = []
    threads = [threading.Thread(target=wait, args=each, daemon=True) for each in enumerate(ids)]
    for thread in threads:
        thread.start()
    until(lambda: len(gateway.execute(WAITS)[0][0] or []) == 1, "one waits")
    simulator.release()
    for thread in threads:
        thread.join(30)
    assert answers == ["sent"] * 4


@pytest.mark.parametrize("way", WAYS)
def test_no_lock_is_left(gateway, simulator, start, way):
    """Whatever a call with a key has come to, its session holds nothing when it is the next client's, whom it does not
    answer for either."""
    pooler = start(way)
    key, to = secrets.token_hex(8), gateway.number()

    def ask(statement, *arguments):
        with pooler.session(gateway.database) as client:
            pids.add(backend(gateway, client))
            try:
                return gateway.row(statement, arguments, client)
            except psycopg2.Error as error:
                return error.pgcode

    pids = set()
    statements = [
        (KEYED, '{"mobile": "nobody"}', key),
        ("SELECT * FROM otp_send('nowhere', %s::jsonb, %s)", payload(to), key),
        ("SELECT o.outcome, 1 / (SELECT 0) FROM otp_send('ideamart', %s::jsonb, %s) AS o", payload(to), key),
    ]
    for statement in statements:
        assert isinstance(ask(*statement), str), statement
        assert gateway.execute(LOCKS) == [(0,)], statement
    # Rolled back in the caller, it is on record: the same key is the same message.
    row = ask(KEYED, payload(to), key)
    assert row["outcome"] == "sent" and simulator.count("ideamart", "send") == 1
    assert len(pids) == 1


@pytest.mark.parametrize("way", WAYS)
def test_key_of_a_transaction_whose_client_goes_away(gateway, simulator, start, way):
    """The key is free with the transaction: who waits for it goes on, and sends what the other has not."""
    pooler = start(way, default_pool_size=2)
    key, to = secrets.token_hex(8), gateway.number()
    lost = pooler.connect(gateway.database, autocommit=False)
    assert gateway.row(ENQUEUE_KEYED, (payload(to), key), lost)["status"] == "queued"
    with pooler.session(gateway.database) as other:
        running = Running(other, KEYED, (payload(to), key))
        until(lambda: gateway.execute(WAITS_FOR_A_KEY) == [(1,)], "it waits for the key")
        vanish(lost)
        assert running.row()["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 1
    assert len(gateway.settle()) == 1


def test_one_key_of_many_clients(gateway, simulator, start):
    pooler = start("transaction", default_pool_size=4)
    key, to = secrets.token_hex(8), gateway.number()
    sessions = [pooler.connect(gateway.database) for _ in range(20)]
    rows = [one.row() for one in [Running(session, KEYED, (payload(to), key)) for session in sessions]]
    assert len({row["verification_id"] for row in rows}) == simulator.count("ideamart", "send") == 1
    for session in sessions:
        session.close()


# prepared statements, and what the log has


@pytest.mark.parametrize("way", WAYS)
def test_prepared_statements(gateway, simulator, start, way):
    """Of SQL's PREPARE: a reset takes them away; where there is none, the next client's EXECUTE is the next client's
    call. One that is not there is logged without its arguments, as the search of the cluster's bytes shows."""
    pooler = start(way)
    prepare = "PREPARE pooled (jsonb) AS SELECT * FROM otp_send('ideamart', $1)"
    is_left = way in ("session, nothing reset", "transaction")
    with pooler.session(gateway.database) as first:
        gateway.execute(prepare, session=first)
        if way != "transaction, all reset":
            ids = {gateway.row("EXECUTE pooled (%s)", (payload(gateway.number()),), first)["verification_id"]}
        else:
            ids = set()
    with pooler.session(gateway.database) as following:
        if not is_left:
            with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
                gateway.execute("EXECUTE pooled (%s)", (payload(gateway.number()),), following)
            return
        for discard in ("SELECT 1", "DISCARD PLANS", "DISCARD SEQUENCES"):
            gateway.execute(discard, session=following)
            ids.add(gateway.row("EXECUTE pooled (%s)", (payload(gateway.number()),), following)["verification_id"])
    assert len(ids) == simulator.count("ideamart", "send") == 4


@pytest.mark.parametrize("way", WAYS)
def test_log(gateway, start, way):
    """A statement that calls us is logged without its text, and the next client's as ever."""
    pooler = start(way)
    pids = set()
    before = len(gateway.cluster.log())
    for number in range(3):
        with pooler.session(gateway.database) as client:
            pids.add(backend(gateway, client))
            with pytest.raises(psycopg2.Error):
                gateway.execute(BROKEN, (payload(gateway.number()),), client)
        with pooler.session(gateway.database) as client:
            with pytest.raises(psycopg2.Error):
                gateway.execute(f"SELECT 'of the next client {number}', 1 / (SELECT 0)", session=client)
    log = gateway.cluster.log()[before:]
    assert len(pids) == 1
    theirs = [f"SELECT 'of the next client {number}', 1 / (SELECT 0)" for number in range(3)]
    assert re.findall(r"STATEMENT:  (.*)", log) == theirs
    assert log.count("(not logged: the statement calls otp_gateway") == 3


@pytest.mark.parametrize("way", WAYS)
def test_the_server_has_nothing_to_complain_of(gateway, start, way):
    """What a pooler runs between two clients, after each of our calls."""
    before = len(gateway.cluster.log())
    pooler = start(way)
    with pooler.session(gateway.database) as client:
        for statement in (SEND, ENQUEUE):
            id = gateway.row(statement, (payload(gateway.number()),), client)["verification_id"]
            for reset in ("DISCARD ALL", "RESET ALL", "SELECT pg_advisory_unlock_all()", "DEALLOCATE ALL"):
                gateway.execute(reset, session=client)
                assert gateway.wait(id, session=client)["outcome"] == "sent"
    assert complaints(gateway.cluster.log()[before:]) == []
