"""Promise: the server may die at any moment. After it is back, no attempt is left in flight, everything that reached a
vendor is on record, nothing was sent to a vendor twice, and an `approved` that an application heard is still there.

The server is stopped with `pg_ctl stop -m immediate` at random moments under load, and its worker and its sessions are
killed. `OTP_CRASH_SEED` repeats a run.
"""

import collections
import os
import random
import threading
import time

import psycopg2
import pytest

from cluster import kill
from conftest import FLOWS, Gateway

SEED = int(os.environ.get("OTP_CRASH_SEED", random.SystemRandom().randrange(10**6)))
VENDORS = ("hyperverge", "ideamart")


@pytest.fixture
def crashable(own_cluster, simulator):
    """A gateway on a cluster that may be crashed; its session is used before the first crash only."""
    with own_cluster.session() as admin:
        admin.cursor().execute("CREATE DATABASE flows TEMPLATE template0")
    with own_cluster.session("flows") as session:
        session.cursor().execute("CREATE EXTENSION otp_gateway")
    with Gateway(own_cluster, "flows", simulator) as gateway:
        gateway.create_providers(timeout="5s")
        yield gateway


class Load:
    """Sessions that send, verify with a wrong code and then with the right one, until the server goes away."""

    def __init__(self, gateway, sessions, first_number):
        self.gateway, self.heard, self.surprises = gateway, [], []
        self.numbers = iter(range(first_number, first_number + 10**6))
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(sessions)]
        for thread in self.threads:
            thread.start()

    def run(self, n):
        vendor = VENDORS[n % len(VENDORS)]
        try:
            session = self.gateway.connect()
            while not self.stop.is_set():
                to = FLOWS[vendor]["number"].format(next(self.numbers))
                sent = self.gateway.send(vendor, to, session)
                self.heard.append(sent)
                if sent["outcome"] != "sent":
                    continue
                code = self.gateway.simulator.code(vendor, to)
                wrong = code[:-1] + ("1" if code[-1] != "1" else "2")
                for typed in (wrong, code):
                    self.heard.append(self.gateway.verify(sent["verification_id"], typed, session))
        except psycopg2.Error as error:
            # The server is going away, or is not there yet: 57P0x, or no SQLSTATE when the line is cut.
            if error.pgcode is not None and not error.pgcode.startswith("57P"):
                self.surprises.append(f"{error.pgcode} {error}")

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self.threads), "a session outlived its server"
        assert self.surprises == []


def await_none_in_flight(gateway, timeout=20):
    """A new session, once the database's worker has settled what the one before it left."""
    end = time.monotonic() + timeout
    while True:
        try:
            session = gateway.connect()
            while gateway.execute("SELECT count(*) FROM otp_gateway.attempt WHERE outcome IS NULL", None, session) != [
                (0,)
            ]:
                assert time.monotonic() < end, "attempts stayed in flight after the restart"
                time.sleep(0.02)
            return session
        except psycopg2.OperationalError:
            # Still recovering.
            assert time.monotonic() < end, "the server did not come back"
            time.sleep(0.02)


def check_record(gateway, session, heard):
    rows = gateway.execute(
        "SELECT id, verification_id, operation::text, outcome::text FROM otp_gateway.attempt", None, session
    )
    attempts = collections.Counter((str(verification), operation) for _, verification, operation, _ in rows)
    outcomes = {id: outcome for id, _, _, outcome in rows}
    statuses = dict(gateway.execute("SELECT id, status::text FROM otp_gateway.verification", None, session))

    for vendor in VENDORS:
        sent = collections.Counter(gateway.simulator.keys(vendor, "send"))
        assert [key for key, times in sent.items() if times > 1] == [], "sent twice"
        assert [key for key in sent if attempts[(key, "send")] != 1] == [], "sent, and not on record"
    # HyperVerge's key of a verify is the verification, too.
    checked = collections.Counter(gateway.simulator.keys("hyperverge", "verify"))
    assert checked, "the load never came to a verify"
    assert [key for key, times in checked.items() if times > attempts[(key, "verify")]] == [], "checked, not on record"
    by_code = collections.Counter(
        (entry["body"].get("referenceNo") or entry["headers"].get("transactionid"), entry["body"]["otp"])
        for vendor in VENDORS
        for entry in gateway.simulator.log(vendor, "verify")
    )
    assert [who for who, times in by_code.items() if times > 1] == [], "one code checked twice"

    for row in heard:
        assert row["attempt_id"] in outcomes, "heard of, and not on record"
        if row["outcome"] == "approved":
            assert (outcomes[row["attempt_id"]], statuses[row["verification_id"]]) == ("approved", "approved")
    assert "sending" not in statuses.values()
    assert gateway.execute(
        "SELECT count(*) FROM otp_gateway_internal.verification_record WHERE sealed IS NOT NULL AND status NOT IN ('pending', 'unknown')",
        None,
        session,
    ) == [(0,)]


def check_it_works(gateway, session, number):
    to = FLOWS["hyperverge"]["number"].format(number)
    sent = gateway.send("hyperverge", to, session)
    assert sent["outcome"] == "sent"
    right = gateway.verify(sent["verification_id"], gateway.simulator.code("hyperverge", to), session)
    assert right["outcome"] == "approved"
    return [sent, right]


def test_immediate_stops_under_load(crashable, simulator):
    dice = random.Random(SEED)
    print(f"OTP_CRASH_SEED={SEED}")
    crashable.session.close()
    heard, in_flight = [], 0
    for round in range(20):
        simulator.clear_faults()
        # Now many calls are under way at the moment of the crash, now many commits.
        simulator.fault("latency", ms=dice.choice([0, 3, 30]))
        before = simulator.count()
        load = Load(crashable, sessions=16, first_number=round * 100_000)
        arrived = simulator.count(atleast=before + dice.randrange(1, 150), wait=20000)
        assert arrived > before, f"no load: {load.surprises[:1]}"
        crashable.cluster.stop("immediate")
        load.end()
        heard += load.heard
        crashable.cluster.start()
        session = await_none_in_flight(crashable)
        heard += check_it_works(crashable, session, round * 100_000 + 99_999)
        check_record(crashable, session, heard)
        in_flight = crashable.execute(
            "SELECT count(*) FROM otp_gateway.attempt WHERE outcome = 'unknown'", None, session
        )[0][0]
        session.close()
    assert in_flight > 0, "no crash ever met a call under way: the test shows nothing"
    assert "PANIC" not in crashable.cluster.log()


def worker_pid(gateway, session):
    return gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()",
        None,
        session,
    )[0][0]


@pytest.mark.parametrize("victim", ["worker", "session"])
def test_killed_process_under_load(crashable, simulator, victim):
    dice = random.Random(SEED)
    print(f"OTP_CRASH_SEED={SEED}")
    heard = []
    for round in range(3):
        simulator.clear_faults()
        simulator.fault("latency", ms=dice.choice([0, 10]))
        before = simulator.count()
        load = Load(crashable, sessions=16, first_number=round * 100_000)
        assert simulator.count(atleast=before + dice.randrange(20, 100), wait=20000) > before, load.surprises[:1]
        looker = crashable.connect()
        pid = (
            worker_pid(crashable, looker)
            if victim == "worker"
            else crashable.execute(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%FROM otp_%' AND pid <> pg_backend_pid() LIMIT 1",
                None,
                looker,
            )[0][0]
        )
        looker.close()
        kill(pid)
        load.end()
        heard += load.heard
        session = await_none_in_flight(crashable)
        heard += check_it_works(crashable, session, round * 100_000 + 99_999)
        check_record(crashable, session, heard)
        session.close()
    assert crashable.cluster.log().count("was terminated by signal 9") == 3


def test_call_under_way_becomes_unknown_and_its_code_still_works(crashable, simulator):
    """What the crash cut off may have reached the person: it is `unknown`, not lost, and never sent again."""
    simulator.fault("hold", "hyperverge", "send")
    to = crashable.number("hyperverge")
    caller = threading.Thread(target=Load.run, args=(_one_send(crashable, to), 0), daemon=True)
    caller.start()
    simulator.held(1)
    crashable.cluster.stop("immediate")
    caller.join(30)
    simulator.clear_faults()
    simulator.release()
    crashable.cluster.start()
    session = await_none_in_flight(crashable)
    row = crashable.row("SELECT * FROM otp_gateway_internal.verification_record", None, session)
    assert (row["status"], row["sealed"] is None) == ("unknown", False)
    assert crashable.execute(
        "SELECT operation::text, outcome::text FROM otp_gateway_internal.attempt_record", None, session
    ) == [("send", "unknown")]
    right = crashable.verify(row["id"], simulator.code("hyperverge", to), session)
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert simulator.count("hyperverge", "send") == 1
    session.close()


def _one_send(gateway, to):
    """A load of one session that sends to one number and ends."""

    class One:
        heard, surprises, numbers, stop = [], [], iter([int(to[2:])]), threading.Event()

    One.gateway = gateway
    return One


def sending(gateway, to, vendor="hyperverge"):
    """A send in a thread of its own: the thread, and where its row or error will be."""
    result = []

    def run():
        session = gateway.connect()
        try:
            result.append(gateway.send(vendor, to, session))
        except psycopg2.Error as error:
            result.append(error)
        finally:
            session.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


def await_gone(gateway, pid, timeout=15):
    end = time.monotonic() + timeout
    while gateway.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)):
        assert time.monotonic() < end, "the worker does not end"
        time.sleep(0.02)


def test_terminated_worker_tells_its_callers(gateway, simulator):
    """pg_terminate_backend of the worker crashes nothing: who waits hears `unknown`, and the next call has a new one."""
    simulator.fault("hold", "hyperverge", "send", times=3)
    calls = [sending(gateway, gateway.number("hyperverge")) for _ in range(3)]
    simulator.held(3)
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_pid(gateway, None),))
    for thread, _ in calls:
        thread.join(15)
    rows = [result[0] for _, result in calls]
    assert [(row["outcome"], row["status"], row["retryable"]) for row in rows] == [("unknown", "unknown", False)] * 3
    assert [gateway.attempts(row["verification_id"]) for row in rows] == [[("send", "unknown")]] * 3
    simulator.release()
    assert gateway.send("hyperverge")["outcome"] == "sent"
    assert simulator.count("hyperverge", "send") == 4


def test_terminated_worker_that_cannot_write(gateway, simulator):
    """Even where a lock keeps the ending worker from writing, its caller hears of it, and nothing stays in flight."""
    simulator.fault("hold", "hyperverge", "send", times=1)
    thread, result = sending(gateway, gateway.number("hyperverge"))
    simulator.held(1)
    pid = worker_pid(gateway, None)
    locker = gateway.connect()
    locker.autocommit = False
    try:
        gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN ACCESS EXCLUSIVE MODE", None, locker)
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await_gone(gateway, pid)
    finally:
        locker.rollback()
        locker.close()
    simulator.release()
    thread.join(10)
    heard = bool(result)
    # Whoever calls next brings a worker, which settles what the first one left.
    assert gateway.send("hyperverge")["outcome"] == "sent"
    await_none_in_flight(gateway).close()
    assert heard, "the caller waited for a worker that was gone"
    assert result[0]["outcome"] == "unknown"


def test_new_worker_that_finds_the_table_locked(gateway, simulator):
    """A worker that cannot settle at its start what it finds in flight does so as soon as it can."""
    gateway.send("hyperverge")
    simulator.fault("hold", "hyperverge", "send", times=1)
    thread, result = sending(gateway, gateway.number("hyperverge"))
    simulator.held(1)
    pid = worker_pid(gateway, None)
    locker = gateway.connect()
    locker.autocommit = False
    try:
        gateway.execute("LOCK TABLE otp_gateway_internal.attempt_record IN ACCESS EXCLUSIVE MODE", None, locker)
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await_gone(gateway, pid)
        second, answer = sending(gateway, gateway.number("hyperverge"))
        # A worker came for that call and met the lock.
        end = time.monotonic() + 15
        mark = "otp_gateway: the worker cannot read its tables yet"
        while mark not in gateway.cluster.log() and "could not be settled yet" not in gateway.cluster.log():
            assert time.monotonic() < end, "no new worker came"
            time.sleep(0.02)
    finally:
        locker.rollback()
        locker.close()
    simulator.release()
    second.join(15)
    assert answer and answer[0]["outcome"] == "sent"
    thread.join(10)
    await_none_in_flight(gateway).close()
    assert result and result[0]["outcome"] == "unknown"
