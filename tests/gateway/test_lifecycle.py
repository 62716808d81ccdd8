"""Promise: nothing dies for good. The launcher and the workers come back whoever ends or cancels them; an orderly end gives
what is under way its time and puts back what has not begun; a worker leaves when it is idle and comes back when it is
needed, within a bound; and whatever keeps a worker from being there reaches the caller as an error within seconds."""

import json
import os
import signal
import subprocess
import time

import psycopg2
import pytest

from cluster import BINDIR, MAJOR, Cluster, as_server_user, kill
from conftest import Gateway, Running, complaints, make_fail, until
from test_databases import run, workers

# An error that says why comes within so many seconds.
SECONDS = 12
SEND = "SELECT * FROM otp_send('ideamart', %s::jsonb)"
LAUNCHER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway launcher'"
WORKER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = %s"


def payload(gateway):
    return (json.dumps({"mobile": gateway.number()}),)


def pid_of(cluster, query, *arguments):
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute(query, arguments)
        found = cursor.fetchone()
        return found and found[0]


def worker_of(gateway):
    return pid_of(gateway.cluster, WORKER, gateway.database)


def opened(cluster, simulator, database="flows", **options):
    """A database with the extension in a cluster of the test's own."""
    run(cluster, f"CREATE DATABASE {database} TEMPLATE template0")
    run(cluster, "CREATE EXTENSION otp_gateway", database)
    gateway = Gateway(cluster, database, simulator).__enter__()
    gateway.create_provider("ideamart", **options)
    return gateway


def fails(gateway, state, says, within=SECONDS):
    """The call ends in an error that says why, within seconds."""
    began = time.monotonic()
    with gateway.cluster.session(gateway.database) as session:
        call = Running(session, SEND, payload(gateway)).wait(within)
        took = time.monotonic() - began
        assert call.error is not None, call.rows
        assert call.error.pgcode == state, call.error
        assert says in str(call.error), call.error
        assert "HINT" in str(call.error)
        return took


def configured(**settings):
    """A cluster with these server settings."""
    cluster = Cluster(settings).create()
    return cluster.start()


# the launcher


@pytest.mark.parametrize("times", [1, 3])
def test_the_launcher_is_terminated(own_cluster, simulator, times):
    gateway = opened(own_cluster, simulator)
    for _ in range(times):
        before = until(lambda: pid_of(own_cluster, LAUNCHER), "there is a launcher")
        run(own_cluster, f"SELECT pg_terminate_backend({before})")
        began = time.monotonic()
        until(lambda: pid_of(own_cluster, LAUNCHER) not in (None, before), "it is back", 5)
        assert time.monotonic() - began < 1.5
    # What there is goes on, and what is new begins.
    assert gateway.send()["outcome"] == "sent"
    other = opened(own_cluster, simulator, "other")
    assert other.send()["outcome"] == "sent"
    gateway.session.close(), other.session.close()


def test_everything_is_terminated(own_cluster, simulator):
    """As every DBA's notes have it: all but me."""
    gateway = opened(own_cluster, simulator)
    gateway.send()
    gateway.session.close()
    run(own_cluster, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with Gateway(own_cluster, gateway.database, simulator) as after:
        assert Running(after.connect(), SEND, payload(after)).row(10)["outcome"] == "sent"


def test_a_launcher_that_dies_again_and_again_slows_down(own_cluster, simulator):
    began = time.monotonic()
    starts = set()
    while time.monotonic() - began < 8:
        pid = pid_of(own_cluster, LAUNCHER)
        if pid is not None and pid not in starts:
            starts.add(pid)
            kill(pid, signal.SIGTERM)
        time.sleep(0.01)
    assert 4 <= len(starts) <= 10


def test_no_launcher_could_be_registered(simulator):
    cluster = configured(max_worker_processes=0)
    try:
        gateway = opened(cluster, simulator)
        fails(gateway, "55000", "max_worker_processes")
        gateway.session.close()
    finally:
        cluster.remove()


def test_the_launcher_is_canceled(own_cluster, simulator):
    before = until(lambda: pid_of(own_cluster, LAUNCHER), "there is a launcher")
    run(own_cluster, f"SELECT pg_cancel_backend({before})")
    gateway = opened(own_cluster, simulator)
    assert gateway.send()["outcome"] == "sent"
    assert pid_of(own_cluster, LAUNCHER) == before
    gateway.session.close()


def test_single_user_mode(own_cluster, simulator):
    gateway = opened(own_cluster, simulator)
    gateway.session.close()
    own_cluster.stop()
    done = subprocess.run(
        as_server_user([str(BINDIR / "postgres"), "--single", "-D", str(own_cluster.data), "flows"]),
        input="SELECT otp_send('ideamart', '{\"mobile\": \"0770000000\"}')\n",
        text=True,
        timeout=30,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
    )
    # Before 15 nothing is preloaded there.
    assert ("single-user mode" if MAJOR >= 15 else "not preloaded") in done.stdout, done.stdout
    own_cluster.start()


# a worker that cannot be there


def test_a_renamed_record(own_cluster, simulator):
    gateway = opened(own_cluster, simulator)
    gateway.send()
    gateway.execute("ALTER TABLE otp_gateway_internal.verification_record RENAME TO elsewhere")
    run(own_cluster, f"SELECT pg_terminate_backend({worker_of(gateway)})")
    took = [fails(gateway, "55000", "verification_record") for _ in range(2)]
    assert took[1] < 6
    gateway.execute("ALTER TABLE otp_gateway_internal.elsewhere RENAME TO verification_record")
    assert Running(gateway.connect(), SEND, payload(gateway)).row(8)["outcome"] == "sent"
    # The pauses grew.
    assert own_cluster.log().count("cannot read its tables") < 8
    gateway.session.close()


def test_a_stuck_worker_is_only_waited_for(gateway, simulator):
    gateway.send()
    pid = worker_of(gateway)
    kill(pid, signal.SIGSTOP)
    try:
        session = gateway.connect()
        session.cursor().execute("SET statement_timeout = '7s'")
        call = Running(session, SEND, payload(gateway)).wait(15)
        assert call.error.pgcode == "57014"
        session.close()
        other = gateway.connect()
        waiting = Running(other, SEND, payload(gateway))
        time.sleep(0.5)
        assert waiting.ended_at is None
    finally:
        kill(pid, signal.SIGCONT)
    assert waiting.row()["outcome"] == "sent"
    other.close()


def test_a_worker_that_dies_with_a_request(mortal_cluster, simulator):
    gateway = opened(mortal_cluster, simulator, timeout="60s")
    simulator.fault("hold", operation="send", times=1)
    call = Running(gateway.connect(), SEND, payload(gateway))
    simulator.held(1)
    pid = worker_of(gateway)
    make_fail(mortal_cluster, pid)
    other = Running(gateway.connect(), SEND, payload(gateway))
    row = call.row(10)
    assert (row["outcome"], row["status"]) == ("unknown", "unknown")
    assert gateway.attempts(row["verification_id"]) == [("send", "unknown")]
    # The other was on its way, or had not been read.
    assert other.row(10)["outcome"] in ("sent", "unknown", "unreachable")
    assert worker_of(gateway) != pid
    simulator.release()


def test_a_worker_that_dies_with_a_request_and_none_comes(mortal_cluster, simulator):
    """Whether it was sent nobody knows: `unknown`, and not that nothing was."""
    gateway = opened(mortal_cluster, simulator, timeout="60s")
    simulator.fault("hold", operation="send", times=1)
    call = Running(gateway.connect(), SEND, payload(gateway))
    simulator.held(1)
    gateway.execute("ALTER TABLE otp_gateway_internal.attempt_record RENAME TO elsewhere")
    make_fail(mortal_cluster, worker_of(gateway))
    other = Running(gateway.connect(), SEND, payload(gateway))
    row = call.row(15)
    assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
    other.wait()
    gateway.execute("ALTER TABLE otp_gateway_internal.elsewhere RENAME TO attempt_record")
    simulator.release()
    assert Running(gateway.connect(), SEND, payload(gateway)).row(8)["outcome"] == "sent"
    assert gateway.settled(row["attempt_id"])["outcome"] == "unknown"


# settings


PARALLEL = "debug_parallel_query" if MAJOR >= 16 else "force_parallel_mode"
HOSTILE = {
    "role": "nobody",
    "session_authorization": "nobody",
    "session_replication_role": "origin",
    "row_security": "on",
    "search_path": "mine",
    "exit_on_error": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "datestyle": "'SQL, DMY'",
    "timezone": "'Asia/Kolkata'",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "enable_sort": "off",
    "jit": "on",
    PARALLEL: "on",
    "plan_cache_mode": "force_custom_plan",
    "work_mem": "'64kB'",
    "temp_file_limit": "0",
    "client_encoding": "'LATIN1'",
    "idle_session_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "client_min_messages": "'error'",
    "log_statement": "'all'",
    "debug_print_plan": "on",
    "check_function_bodies": "off",
    "default_tablespace": "'pg_global'",
    "xmlbinary": "hex",
    "session_preload_libraries": "'nowhere'",
    "local_preload_libraries": "'nowhere'",
    "lc_messages": "'C'",
    "vacuum_cost_delay": "100",
    "synchronous_commit": "off",
}


def quoted(value):
    return value if value.startswith("'") else f"'{value}'"


SAFE = (
    "-c role=postgres -c search_path=public -c statement_timeout=0 -c lock_timeout=0 -c exit_on_error=off"
    " -c session_authorization=postgres -c default_transaction_read_only=off"
    " -c datestyle=ISO -c timezone=UTC -c bytea_output=hex -c client_encoding=UTF8"
    " -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c session_preload_libraries= -c local_preload_libraries="
)


@pytest.mark.parametrize(
    "where",
    ["DATABASE flows", "ROLE ALL", "ROLE postgres", "ROLE ALL IN DATABASE flows", "ROLE postgres IN DATABASE flows"],
)
def test_what_a_database_or_a_role_sets_is_not_the_workers(own_cluster, simulator, where):
    gateway = opened(own_cluster, simulator)
    gateway.execute("CREATE ROLE nobody LOGIN")
    gateway.send()
    own = gateway.connect()
    for name, value in HOSTILE.items():
        gateway.execute(f"ALTER {where} SET {name} = {quoted(value)}")
    with quiet_worker(own_cluster):
        gateway.session, old = own, gateway.session
        [(pid,)] = gateway.execute(WORKER, ("flows",))
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda: gateway.execute(WORKER, ("flows",)) != [(pid,)], "it has gone")
        to = gateway.number()
        sent = Running(own, SEND, (json.dumps({"mobile": to}),)).row(10)
        assert sent["outcome"] == "sent"
        assert gateway.verify(sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"
        assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"
        assert gateway.row("SELECT otp_gateway.forget('ideamart', %s)", (to,)) == {"forget": 1}
        assert gateway.row("SELECT otp_gateway.purge('60 days')") == {"purge": 0}
    gateway.session.close(), old.close()


class quiet_worker:
    """No worker dies meanwhile."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        self.before = len(self.cluster.log())

    def __exit__(self, *error):
        log = self.cluster.log()[self.before :]
        assert 'background worker "otp_gateway worker"' not in log, log[-3000:]


def test_a_reload_changes_nothing_of_the_workers(own_cluster, simulator):
    gateway = opened(own_cluster, simulator)
    gateway.send()
    pid = worker_of(gateway)
    # What would spoil the test's own sessions is left out, or set otherwise there.
    left_out = (
        "role",
        "session_authorization",
        "local_preload_libraries",
        "session_preload_libraries",
        "log_statement",
        "debug_print_plan",
    )
    hostile = {name: value for name, value in HOSTILE.items() if name not in left_out}
    safe = SAFE.replace("-c session_authorization=postgres", "")
    own = gateway.connect(options=safe)
    own_cluster.configure(hostile)
    with quiet_worker(own_cluster):
        own_cluster.reload(options=safe)
        assert 'parameter "enable_nestloop" changed' in own_cluster.log()
        gateway.session, old = own, gateway.session
        for _ in range(3):
            assert gateway.send()["outcome"] == "sent"
        assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"
    own.close(), old.close()
    with own_cluster.session(options=safe) as admin, admin.cursor() as cursor:
        cursor.execute(WORKER, ("flows",))
        assert cursor.fetchone() == (pid,)


# cancel


def test_the_worker_is_canceled(gateway, simulator):
    simulator.fault("hold", operation="send")
    calls = [Running(gateway.connect(), SEND, payload(gateway)) for _ in range(5)]
    simulator.held(5)
    pid = worker_of(gateway)
    for _ in range(20):
        gateway.execute("SELECT pg_cancel_backend(%s)", (pid,))
        time.sleep(0.01)
    simulator.release()
    assert [call.row()["outcome"] for call in calls] == ["sent"] * 5
    assert worker_of(gateway) == pid
    for call in calls:
        call.session.close()


def test_the_worker_is_canceled_under_load(gateway, simulator):
    """At every moment of its work: no call is lost, none is made twice, and none is `unknown`."""
    pid_after = gateway.send() and worker_of(gateway)
    sessions = [gateway.connect() for _ in range(4)]
    calls = "SELECT count(*) FILTER (WHERE outcome = 'sent') FROM generate_series(1, 40) AS n, otp_send('ideamart', jsonb_build_object('mobile', '07' || %s || lpad(n::text, 6, '0')))"
    under_way = [Running(session, calls, (str(10 + n),)) for n, session in enumerate(sessions)]
    queued = gateway.enqueue_many(100)
    cancels = 0
    while any(one.ended_at is None for one in under_way):
        gateway.execute("SELECT pg_cancel_backend(%s)", (pid_after,))
        cancels += 1
    assert cancels > 20
    assert [one.row()["count"] for one in under_way] == [40] * 4, gateway.execute(
        "SELECT outcome, vendor_message, count(*) FROM otp_gateway.attempt GROUP BY 1, 2"
    )
    assert {gateway.wait(id)["outcome"] for id in queued} == {"sent"}
    assert worker_of(gateway) == pid_after, gateway.cluster.log()[-3000:]
    for session in sessions:
        session.close()


def test_what_takes_long_is_done_though_somebody_cancels_all_the_time(gateway, simulator):
    """What was canceled is done again, and then nothing that somebody cancels stands in its way: also what takes longer than there
    is between two cancels."""
    gateway.send()
    pid = worker_of(gateway)
    gateway.execute("""
        CREATE FUNCTION public.takes_long() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN new; END'""")
    gateway.execute("""
        CREATE TRIGGER takes_long BEFORE INSERT ON otp_gateway_internal.attempt_record
            FOR EACH ROW EXECUTE FUNCTION public.takes_long()""")
    sessions = [gateway.connect() for _ in range(4)]
    calls = """
        SELECT count(*) FILTER (WHERE outcome = 'sent')
        FROM generate_series(1, 10) AS n, otp_send('ideamart', jsonb_build_object('mobile', '07' || %s || lpad(n::text, 6, '0')))"""
    queued = gateway.enqueue_many(20)
    under_way = [Running(session, calls, (str(10 + n),)) for n, session in enumerate(sessions)]
    cancels = 0
    while any(one.ended_at is None for one in under_way):
        gateway.execute("SELECT pg_cancel_backend(%s)", (pid,))
        cancels += 1
    assert cancels > 20
    assert [one.row()["count"] for one in under_way] == [10] * 4
    assert {gateway.wait(id)["outcome"] for id in queued} == {"sent"}
    assert worker_of(gateway) == pid
    for session in sessions:
        session.close()


# an orderly end


def end_by_restart(gateway):
    gateway.session.close()
    gateway.cluster.restart()
    gateway.session = gateway.connect()


def end_by_terminate(gateway):
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_of(gateway),))


def end_by_rename(gateway):
    gateway.session.close()
    run(gateway.cluster, f"ALTER DATABASE {gateway.database} RENAME TO renamed")
    gateway.database = "renamed"
    gateway.session = gateway.connect()


def end_by_copy(gateway):
    gateway.session.close()
    run(gateway.cluster, f"CREATE DATABASE copied TEMPLATE {gateway.database}")
    gateway.session = gateway.connect()


@pytest.mark.parametrize("end", [end_by_restart, end_by_terminate, end_by_rename, end_by_copy])
def test_an_orderly_end_loses_nothing(own_cluster, simulator, end):
    """A busy queue, and a slow vendor: what is under way ends in its own time, the rest is sent afterwards, once each."""
    gateway = opened(own_cluster, simulator, max_in_flight="20")
    simulator.fault("latency", ms=100)
    gateway.send()
    ids = gateway.enqueue_many(600)
    simulator.count("ideamart", "send", atleast=100, wait=20000)
    end(gateway)
    outcomes = {id: gateway.wait(id, "60s") for id in ids}
    assert {row["outcome"] for row in outcomes.values()} == {"sent"}
    assert simulator.count("ideamart", "send") == 601
    gateway.session.close()


@pytest.mark.parametrize("end", [end_by_restart, end_by_terminate])
def test_what_has_not_begun_is_put_back(own_cluster, simulator, end):
    """Queued sends that have had their turn, and wait for a place that others hold."""
    gateway = opened(own_cluster, simulator, max_in_flight="2", timeout="60s")
    simulator.fault("hold", operation="send", times=2)
    callers = [Running(gateway.connect(), SEND, payload(gateway)) for _ in range(2)]
    simulator.held(2)
    ids = gateway.enqueue_many(5)
    more = [Running(gateway.connect(), SEND, payload(gateway)) for _ in range(3)]
    until(
        lambda: gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL")[0][0] >= 5,
        "they wait for a place",
    )
    simulator.clear_faults()
    end(gateway)
    for caller in more:
        caller.wait()
        if end is end_by_terminate:
            assert (caller.rows[0]["outcome"], caller.rows[0]["retryable"]) == ("unreachable", True)
    for caller in callers:
        caller.wait()
        if end is end_by_terminate:
            assert caller.rows[0]["outcome"] == "unknown"
    simulator.release()
    assert {gateway.wait(id, "30s")["outcome"] for id in ids} == {"sent"}
    assert simulator.count("ideamart", "send") == 7
    gateway.session.close()


def test_a_hanging_call_holds_a_stop_up_for_two_seconds_at_most(own_cluster, simulator):
    gateway = opened(own_cluster, simulator, timeout="60s")
    simulator.fault("never", operation="send")
    Running(gateway.connect(), SEND, payload(gateway))
    simulator.count("ideamart", "send", atleast=1, wait=10000)
    began = time.monotonic()
    own_cluster.stop()
    assert 1 < time.monotonic() - began < 3.5
    own_cluster.start()


def test_a_stop_while_a_synchronous_standby_is_away(own_cluster, simulator):
    """Outcomes that come during the stop are put down here, and wait for no standby."""
    gateway = opened(own_cluster, simulator, timeout="60s")
    sent = [gateway.send(to=f"077123456{n}") for n in range(3)]
    codes = [simulator.code("ideamart", f"077123456{n}") for n in range(3)]
    simulator.fault("hold", operation="verify")
    calls = [
        Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, %s)", (row["verification_id"], code))
        for row, code in zip(sent, codes)
    ]
    simulator.held(3)
    own_cluster.configure({"synchronous_standby_names": "'away'"})
    own_cluster.reload()
    assert gateway.execute("SHOW synchronous_standby_names") == [("away",)]
    stop = subprocess.Popen(
        as_server_user([str(BINDIR / "pg_ctl"), "-D", str(own_cluster.data), "-m", "fast", "-w", "stop"]), cwd="/"
    )
    until(lambda: "received fast shutdown request" in own_cluster.log(), "it stops")
    began = time.monotonic()
    time.sleep(0.3)
    simulator.release()
    assert stop.wait(20) == 0
    assert time.monotonic() - began < 5
    own_cluster.configure({"synchronous_standby_names": "''"})
    own_cluster.start()
    with Gateway(own_cluster, "flows", simulator) as after:
        assert {after.verification(row["verification_id"])["status"] for row in sent} == {"approved"}


# places


def test_a_queue_without_a_place_is_remembered(simulator):
    """max_worker_processes are in use: one line in the log, and it is sent as soon as there is room."""
    cluster = configured(max_worker_processes=3)
    try:
        # The launcher of logical replication, ours, and one.
        first, second = opened(cluster, simulator, "first"), opened(cluster, simulator, "second")
        assert second.send()["outcome"] == "sent"
        simulator.fault("hold", operation="send", times=1)
        call = Running(first.connect(), SEND, payload(first))
        simulator.held(1)
        ids = second.enqueue_many(3)
        until(lambda: 'could be started in database "second"' in cluster.log(), "the log says so")
        took = fails(second, "53400", "max_worker")
        assert took > 3
        assert cluster.log().count("could be started in database") == 1
        assert simulator.count("ideamart", "send") == 2
        simulator.release()
        assert call.row()["outcome"] == "sent"
        # First is idle now, and gives its place back.
        assert {second.wait(id)["outcome"] for id in ids} == {"sent"}
        assert second.send()["outcome"] == "sent"
        assert Running(first.connect(), SEND, payload(first)).row(5)["outcome"] == "sent"
        first.session.close(), second.session.close()
    finally:
        cluster.remove()


def test_more_databases_than_workers(simulator):
    """The one that has been idle for longest gives way; others of max_worker_processes are left alone."""
    cluster = configured(max_worker_processes=16)
    cluster.configure({"otp_gateway.max_workers": 2})
    cluster.reload()
    try:
        gateways = [opened(cluster, simulator, f"d{n}") for n in range(6)]
        for round in range(3):
            for gateway in gateways:
                assert Running(gateway.connect(), SEND, payload(gateway)).row(5)["outcome"] == "sent"
                assert len(workers(cluster)) <= 2
        # The last two are there.
        until(lambda: workers(cluster) == ["d4", "d5"], "the two that were used last")
        cluster.restart()
        # Each is visited, and none stays away.
        for gateway in gateways:
            gateway.session = gateway.connect()
            assert Running(gateway.session, SEND, payload(gateway)).row(5)["outcome"] == "sent"
        assert "could be started in database" not in cluster.log()
        for gateway in gateways:
            gateway.session.close()
    finally:
        cluster.remove()


def test_copies_by_template_leave_places(simulator):
    """A role with CREATEDB, and as many copies as it likes."""
    cluster = configured(max_worker_processes=8)
    try:
        original = opened(cluster, simulator, "original")
        original.send()
        original.session.close()
        for n in range(8):
            run(cluster, f"CREATE DATABASE copy{n} TEMPLATE original")
            with Gateway(cluster, f"copy{n}", simulator) as copy:
                assert Running(copy.connect(), SEND, payload(copy)).row(5)["outcome"] == "sent"
        assert len(workers(cluster)) <= 4
        other = opened(cluster, simulator, "other")
        assert Running(other.connect(), SEND, payload(other)).row(5)["outcome"] == "sent"
        other.session.close()
    finally:
        cluster.remove()


# idle


def test_an_idle_worker_leaves_and_comes_back(own_cluster, simulator):
    own_cluster.configure({"otp_gateway.worker_idle_timeout": "1s"})
    own_cluster.reload()
    gateway = opened(own_cluster, simulator)
    sent = gateway.send(to="0779876543")
    before = worker_of(gateway)
    until(lambda: worker_of(gateway) is None, "it leaves")
    # For a call,
    assert gateway.verify(sent["verification_id"], simulator.code("ideamart", "0779876543"))["outcome"] == "approved"
    assert worker_of(gateway) not in (None, before)
    until(lambda: worker_of(gateway) is None, "it leaves")
    # for a commit that enqueues,
    queued = gateway.enqueue()["verification_id"]
    assert gateway.wait(queued)["outcome"] == "sent"
    # and it stays while a call is under way.
    simulator.fault("hold", operation="send", times=1)
    call = Running(gateway.connect(), SEND, payload(gateway))
    simulator.held(1)
    stays = worker_of(gateway)
    time.sleep(2.5)
    assert worker_of(gateway) == stays
    simulator.release()
    assert call.row()["outcome"] == "sent"
    assert complaints(own_cluster.log()) == []
    gateway.session.close()


def test_what_is_due_happens_though_nobody_calls(own_cluster, simulator):
    """What was sealed for a code is erased when the code is too old, by a worker that comes for it."""
    own_cluster.configure({"otp_gateway.worker_idle_timeout": "1s"})
    own_cluster.reload()
    gateway = opened(own_cluster, simulator, code_lifetime="62s")
    sent = gateway.send()["verification_id"]
    until(lambda: worker_of(gateway) is None, "it leaves", 10)
    assert gateway.verification(sent)["sealed"] is not None
    until(lambda: gateway.verification(sent)["status"] == "expired", "it is erased", 130)
    assert gateway.verification(sent)["sealed"] is None
    gateway.session.close()


def test_calls_beside_leaving(own_cluster, simulator):
    """A worker that leaves at any moment: every call, queued or not, has its answer, soon."""
    own_cluster.configure({"otp_gateway.max_workers": "1"})
    own_cluster.reload()
    gateways = [opened(own_cluster, simulator, f"d{n}") for n in range(3)]
    for round in range(15):
        running = [Running(gateway.connect(), SEND, payload(gateway)) for gateway in gateways]
        queued = [(gateway, gateway.enqueue()["verification_id"]) for gateway in gateways]
        for call in running:
            assert call.row(10)["outcome"] == "sent"
            call.session.close()
        for gateway, id in queued:
            assert gateway.wait(id, "10s")["outcome"] == "sent"
    for gateway in gateways:
        gateway.session.close()


def test_idle_means_asleep(own_cluster, simulator):
    """Launcher and worker, with something due later, wake up for nothing."""
    gateway = opened(own_cluster, simulator, code_lifetime="1h")
    gateway.send()
    pids = [pid_of(own_cluster, LAUNCHER), worker_of(gateway)]

    def switches():
        lines = [line for pid in pids for line in open(f"/proc/{pid}/status") if line.startswith("voluntary_ctxt")]
        return [int(line.split()[1]) for line in lines]

    time.sleep(1)
    before = switches()
    time.sleep(3)
    assert all(after - one <= 3 for one, after in zip(before, switches()))
    gateway.session.close()


# databases


def test_an_invalid_database(own_cluster, simulator):
    """As an interrupted DROP DATABASE leaves it."""
    gateway = opened(own_cluster, simulator)
    gateway.send()
    gateway.session.close()
    run(own_cluster, "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'flows'")
    own_cluster.restart()
    other = opened(own_cluster, simulator, "other")
    other.send()
    time.sleep(3)
    since = own_cluster.log().rsplit("starting PostgreSQL", 1)[1]
    assert "flows" not in since, since
    other.session.close()
    run(own_cluster, "UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'flows'")


def test_a_worker_that_dies_before_it_begins(own_cluster, simulator):
    """Its pauses grow, whoever asks hears why, and when it is mended the next call works."""
    gateway = opened(own_cluster, simulator)
    gateway.send()
    oid = gateway.execute("SELECT oid FROM pg_database WHERE datname = 'flows'")[0][0]
    version = own_cluster.data / "base" / str(oid) / "PG_VERSION"
    kept = version.read_bytes()
    stat = version.stat()
    version.unlink()
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_of(gateway),))
    before = len(own_cluster.log())
    call = Running(gateway.session, SEND, payload(gateway)).wait(SECONDS)
    assert call.error.pgcode == "55000" and "not a valid data directory" in str(call.error), call.error
    time.sleep(8)
    assert own_cluster.log()[before:].count("FATAL") < 8
    version.write_bytes(kept)
    os.chown(version, stat.st_uid, stat.st_gid)
    assert Running(gateway.session, SEND, payload(gateway)).row(8)["outcome"] == "sent"
    gateway.session.close()


def test_an_interrupted_statement_gives_the_worker_back(own_cluster, simulator):
    """Ctrl-C while CREATE DATABASE ... TEMPLATE waits for the worker: what is queued is sent all the same."""
    gateway = opened(own_cluster, simulator, timeout="60s", max_in_flight="1")
    simulator.fault("never", operation="send", times=1)
    ids = gateway.enqueue_many(3)
    simulator.count("ideamart", "send", atleast=1, wait=10000)
    pid = worker_of(gateway)
    gateway.session.close()
    connected = "SELECT pid FROM pg_stat_activity WHERE datname = 'flows' AND backend_type = 'client backend'"
    until(lambda: not run(own_cluster, connected), "nobody is connected")
    kill(pid, signal.SIGSTOP)
    try:
        with own_cluster.session() as admin:
            copying = Running(admin, "CREATE DATABASE copied TEMPLATE flows")
            waits = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND wait_event = 'Extension'"
            until(lambda: run(own_cluster, waits), "it waits")
            admin.cancel()
            assert copying.wait().error.pgcode == "57014"
    finally:
        kill(pid, signal.SIGCONT)
    with Gateway(own_cluster, "flows", simulator) as after:
        # The one that hangs holds the only place: its worker must not be gone for good, nor wait for a call to come.
        time.sleep(1)
        run(
            own_cluster,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker'",
        )
        sent = "SELECT count(*)::int FROM otp_gateway.verification WHERE status = 'pending'"
        until(lambda: after.execute(sent) == [(2,)], "the others are sent")


def test_one_that_is_held_up_holds_up_no_other(own_cluster, simulator):
    """The worker of one database cannot connect, for somebody has it locked; all others come."""
    for name in ("locked", "other"):
        opened(own_cluster, simulator, name).session.close()
    with own_cluster.session(autocommit=False) as locker:
        locker.cursor().execute("ALTER DATABASE locked RENAME TO unlocked")
        run(
            own_cluster,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'otp_gateway %'",
        )
        # A new launcher, which looks everywhere.
        until(lambda: workers(own_cluster) == ["other"], "the other's worker is there")
        waits = "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass"
        until(lambda: run(own_cluster, waits) == [(1,)], "the one waits")
        locker.rollback()
    until(lambda: workers(own_cluster) == ["locked", "other"], "and comes when it can")


def test_a_stop_while_a_worker_cannot_connect(own_cluster, simulator):
    opened(own_cluster, simulator, "locked").session.close()
    with own_cluster.session(autocommit=False) as locker:
        locker.cursor().execute("ALTER DATABASE locked RENAME TO unlocked")
        run(
            own_cluster,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'otp_gateway launcher'",
        )
        waits = "SELECT pid FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass"
        [(pid,)] = until(lambda: run(own_cluster, waits), "it waits")
        run(own_cluster, f"SELECT pg_terminate_backend({pid})")
        until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends", 3)
        locker.rollback()


# recovery


def test_a_locked_row_at_the_start(gateway, simulator):
    """What the worker before left in flight, and somebody has locked: all others are served, and it is settled afterwards."""
    simulator.fault("hold", "hyperverge", "send", times=1)
    call = Running(
        gateway.connect(),
        SEND.replace("ideamart", "hyperverge"),
        (json.dumps({"mobile": gateway.number("hyperverge"), "template_id": "tpl-1"}),),
    )
    simulator.held(1)
    [(verification, attempt)] = gateway.execute("SELECT verification_id, id FROM otp_gateway.attempt")
    locker = gateway.connect(autocommit=False)
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET is_test = is_test WHERE id = %s", (verification,), locker
    )
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET provider = provider WHERE id = %s", (attempt,), locker
    )
    pid = worker_of(gateway)
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
    until(lambda: worker_of(gateway) != pid, "it ends")
    assert call.row(10)["outcome"] == "unknown"
    simulator.release()
    for _ in range(3):
        assert Running(gateway.connect(), SEND, payload(gateway)).row(5)["outcome"] == "sent"
    # A call of the same verification waits its turn.
    verify = Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, '000000')", (verification,))
    time.sleep(1)
    assert verify.ended_at is None
    locker.rollback()
    locker.close()
    assert gateway.settled(attempt)["outcome"] == "unknown"
    assert verify.row(5)["outcome"] == "invalid_code"
    assert simulator.count("hyperverge", "send") == 1


def test_a_long_reply_whose_worker_goes(gateway, simulator):
    """The session has its first part, and hears the rest from the record, by the next worker."""
    to = gateway.number("paytm")
    sent = gateway.send("paytm", to)
    body = {
        "head": {"responseTimestamp": "1"},
        "body": {
            "resultInfo": {"resultStatus": "S", "resultCode": "0000", "resultMsg": "Success"},
            "authenticated": True,
            "more": ["word"] * 8000,
        },
    }
    simulator.fault("reply", "paytm", "verify", body=body)
    session, locker = gateway.connect(), gateway.connect(autocommit=False)
    # Held up on the way, so that the session can be stopped before the answer comes.
    gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN EXCLUSIVE MODE", None, locker)
    call = Running(session, "SELECT * FROM otp_verify(%s::uuid, '123456')", (sent["verification_id"],))
    waits = "SELECT count(*)::int FROM pg_stat_activity WHERE pid = %s AND wait_event = 'Extension'"
    until(lambda: gateway.execute(waits, (session.info.backend_pid,)) == [(1,)], "it waits")
    time.sleep(0.3)
    kill(session.info.backend_pid, signal.SIGSTOP)
    try:
        locker.rollback()
        done = "SELECT count(*)::int FROM otp_gateway.attempt WHERE operation = 'verify' AND outcome IS NOT NULL"
        until(lambda: gateway.execute(done) == [(1,)], "the answer is on record")
        pid = worker_of(gateway)
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda: worker_of(gateway) != pid, "the worker goes")
        # The next one has looked for what was left when the session asks for the rest.
        gateway.send()
    finally:
        kill(session.info.backend_pid, signal.SIGCONT)
    row = call.row(10)
    assert row["outcome"] == gateway.execute("SELECT outcome FROM otp_gateway.attempt WHERE operation = 'verify'")[0][0]
    assert len(json.dumps(row["response"])) > 30000
    session.close(), locker.close()


# statements


def test_reads_take_no_transaction_ids(gateway, simulator):
    """Looking at the queue, following and settling are reads."""
    queued = gateway.enqueue()["verification_id"]
    gateway.wait(queued)
    gateway.execute("SELECT pg_sleep(0.3)")
    [(before,)] = gateway.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    for _ in range(50):
        gateway.wait(queued)
    [(after,)] = gateway.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert after - before <= 5
