"""Promise: the numbers are those of the record. Each attempt whose end is on record is counted once, in stat_attempt since the
server started, in stat_hourly for 400 days, whatever ends the worker or the server; whoever looks asks nobody, waits for nobody
and reads no record, and sees what is theirs to see. What is counted holds no number."""

import contextlib
import json
import os
import re
import signal
import threading
import time

import psycopg2
import pytest

from cluster import Cluster, free_port, kill, standby_of
from conftest import FLOWS, MAJOR, Gateway, Running, until
from test_crash import await_none_in_flight
from test_limits import ENQUEUE, SEND
from test_lifecycle import worker_of
from test_retention import acting_as

ATTEMPTS = "SELECT provider, operation, outcome, reason, attempts FROM otp_gateway.stat_attempt ORDER BY 1, 2, 3, 4"
# By the record alone: nothing of it is in memory.
OF_RECORD = """
    SELECT provider, operation, outcome, reason, count(*) FROM otp_gateway.attempt WHERE outcome IS NOT NULL AND finished_at >= %s
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
HOURLY = """
    SELECT hour, provider, route, created_by, country, sends, sent, unknown, failed, blocked, would_block, billable, verifications,
        converted, verifies, invalid_codes
    FROM otp_gateway.stat_hourly ORDER BY 1, 2, 3, 4, 5
"""
HOURS_OF_RECORD = """
    SELECT date_trunc('hour', v.created_at) AS hour, i.name AS provider, v.route, r.name::name AS created_by, '+' || v.country AS country,
        count(*) FILTER (WHERE is_send AND NOT is_blocked), count(*) FILTER (WHERE is_send AND a.outcome = 'sent'),
        count(*) FILTER (WHERE is_send AND a.outcome = 'unknown'),
        count(*) FILTER (WHERE is_send AND a.outcome NOT IN ('sent', 'unknown', 'blocked')),
        count(*) FILTER (WHERE is_send AND is_blocked), count(*) FILTER (WHERE is_send AND NOT is_blocked AND a.reason IS NOT NULL),
        count(*) FILTER (WHERE is_send AND a.outcome IN ('sent', 'unknown')),
        count(*) FILTER (WHERE a.operation = 'send' AND a.outcome IN ('sent', 'unknown')),
        count(*) FILTER (WHERE a.operation = 'verify' AND a.outcome = 'approved' AND v.send_count > 0),
        count(*) FILTER (WHERE a.operation = 'verify' AND NOT is_blocked),
        count(*) FILTER (WHERE a.operation = 'verify' AND a.outcome = 'invalid_code')
    FROM otp_gateway_internal.attempt_record AS a
    JOIN otp_gateway_internal.verification_record AS v ON v.id = a.verification_id
    JOIN otp_gateway_internal.identity AS i ON i.id = a.provider_id
    JOIN otp_gateway_internal.identity AS r ON r.id = v.role_id,
    LATERAL (SELECT a.operation IN ('send', 'resend') AS is_send, a.outcome = 'blocked' AS is_blocked) AS what
    WHERE a.outcome IS NOT NULL AND NOT v.is_test AND a.operation <> 'cancel'
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""
VIEWS = ["stat_worker", "stat_provider", "stat_attempt", "stat_latency", "stat_hourly"]


def counted(gateway, session=None):
    """As stat_attempt has it, which is what the record has since then."""
    [(since,)] = gateway.execute(
        "SELECT coalesce(max(stats_reset), 'infinity') FROM otp_gateway.stat_worker", None, session
    )
    rows = gateway.execute(ATTEMPTS, None, session)
    assert rows == gateway.execute(OF_RECORD, (since,), session)
    # What is counted of calls is counted as often.
    calls = {key[:2]: 0 for key in rows}
    for name, operation, outcome, _, attempts in rows:
        calls[name, operation] += attempts if outcome != "blocked" else 0
    for name, operation, attempts, buckets in gateway.execute(
        "SELECT provider, operation, attempts, buckets FROM otp_gateway.stat_latency", None, session
    ):
        assert attempts <= calls[name, operation] and buckets == sorted(buckets) and buckets[-1] <= attempts
    return rows


def hours(gateway, session=None):
    """As stat_hourly has them, which is what the record has."""
    rows = gateway.execute(HOURLY, None, session)
    assert rows == gateway.execute(HOURS_OF_RECORD, None, session)
    return rows


def converted(gateway):
    """As stat_provider has it, which is what the hours have, as long as nothing began anew."""
    columns = "provider, verifications, converted"
    rows = gateway.execute(
        f"SELECT {columns} FROM otp_gateway.stat_provider WHERE verifications + converted > 0 ORDER BY 1"
    )
    assert rows == gateway.execute(f"""
        SELECT * FROM (
            SELECT provider, sum(verifications)::bigint AS verifications, sum(converted)::bigint AS converted
            FROM otp_gateway.stat_hourly WHERE provider IN (SELECT srvname FROM pg_foreign_server) GROUP BY 1
        ) AS h WHERE verifications + converted > 0 ORDER BY 1
    """)
    return {name: counts for name, *counts in rows}


def provider(gateway, name="ideamart", session=None):
    return gateway.row("SELECT * FROM otp_gateway.stat_provider WHERE provider = %s", (name,), session)


def worker(gateway, session=None):
    return gateway.row("SELECT * FROM otp_gateway.stat_worker WHERE datname = current_database()", None, session)


def box(gateway, name="box", **options):
    listed = ", ".join(f"{option} '{value}'" for option, value in {"resend_after": "0s", **options}.items())
    gateway.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_sandbox OPTIONS ({listed})")
    gateway.execute(f"CREATE USER MAPPING FOR PUBLIC SERVER {name}")


def play(gateway, at="box", to="+94771234567", session=None, call=SEND, **more):
    return gateway.row(call, (at, json.dumps({"mobile": to, **more})), session)


def each_way(gateway):
    """Attempts that end in every way, at providers and a route, with rules that refuse and rules that would."""
    box(gateway)
    box(gateway, "limited", send_limit="2 per hour", max_checks="2")
    box(gateway, "watched", send_limit="1 per hour", enforce="observe")
    box(gateway, "tested", test_numbers="+94770009999=4711")
    gateway.create_provider("down", "ideamart", base_url=f"http://127.0.0.1:{free_port()}", max_in_flight="4")
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'down, box')")
    for outcome in ("sent", "rate_limited", "refused", "provider_error", "unknown", "invalid_request", "auth_failed"):
        play(gateway, outcome=outcome)
    for _ in range(4):
        for name in ("limited", "watched"):
            play(gateway, name)
    for to in ("+94770000001", "+919876500001", "+12025550100", "+351912345678"):
        id = play(gateway, to=to)["verification_id"]
        gateway.verify(id, "111111")
        gateway.row("SELECT * FROM otp_resend(%s)", (id,))
        assert gateway.verify(id, "000000")["outcome"] == "approved"
        gateway.verify(id, "000000")
    gateway.row("SELECT * FROM otp_cancel(%s)", (play(gateway)["verification_id"],))
    # Begun elsewhere; a test number's; too many wrong codes.
    gateway.verify_at("box", "000000", mobile="+94770000002")
    gateway.verify(play(gateway, "tested", "+94770009999")["verification_id"], "4711")
    id = play(gateway, "limited", "+94770000003")["verification_id"]
    for _ in range(4):
        gateway.verify(id, "111111")
    # From one provider of a route to the next; queued; queued for too long, or for a provider that is no more.
    assert play(gateway, "codes")["outcome"] == "sent"
    for name in ("codes", "box"):
        assert gateway.wait(play(gateway, name, call=ENQUEUE)["verification_id"])["outcome"] == "sent"
    return gateway


def test_each_attempt_is_counted_once(gateway):
    assert gateway.execute(ATTEMPTS) == gateway.execute(HOURLY) == []
    each_way(gateway)
    rows = counted(gateway)
    assert {outcome for _, _, outcome, *_ in rows} >= {
        "sent",
        "unknown",
        "blocked",
        "approved",
        "invalid_code",
        "already_used",
        "canceled",
        "unreachable",
        "refused",
        "auth_failed",
    }
    assert ("limited", "send", "blocked", "send_limit", 2) in rows and (
        "watched",
        "send",
        "sent",
        "send_limit",
        3,
    ) in rows
    by_country = {}
    for row in hours(gateway):
        by_country[row[4]] = by_country.get(row[4], 0) + row[13]
        # No test number's.
        assert row[1] != "tested"
    assert by_country == {"+94": 1, "+91": 1, "+1": 1, "+351": 1}
    assert converted(gateway)["box"][1] == 4 and "tested" not in converted(gateway)
    assert ("codes", "down") in {(route, name) for _, name, route, *_ in hours(gateway)}
    # Of a forgotten person the fact stays.
    gateway.execute("SELECT otp_gateway.forget('box', '+94771234567')")
    counted(gateway), hours(gateway)


def test_the_time_that_calls_take(gateway, simulator):
    simulator.fault("latency", "ideamart", "send", ms=300)
    for _ in range(4):
        gateway.send()
    [(attempts, total, mean, median, p99, bounds, buckets)] = gateway.execute(
        "SELECT attempts, total_time, mean_time, p50_time, p99_time, bounds, buckets FROM otp_gateway.stat_latency"
    )
    assert bounds == [50, 100, 250, 500, 1000, 2000, 3000, 5000, 8000, 10000, 30000]
    assert (attempts, buckets[2], buckets[-1]) == (4, 0, 4) and mean == total / 4 >= 300
    assert 250 <= median <= p99 <= 30000
    # The same from the record: from the intent to the outcome.
    of_record = "SELECT sum(EXTRACT(epoch FROM finished_at - started_at)) * 1000 FROM otp_gateway.attempt"
    assert total == pytest.approx(float(gateway.execute(of_record)[0][0]))
    assert gateway.execute("SELECT total_time, buckets FROM otp_gateway.stat_hourly") == [
        (pytest.approx(total), buckets)
    ]
    assert gateway.execute("SELECT total_time FROM otp_gateway.stat_attempt") == [(pytest.approx(total),)]


# how it is now


def test_a_provider_that_fails_and_recovers(gateway, simulator):
    before = provider(gateway)
    assert (before["vendor"], before["in_flight"], before["max_in_flight"], before["breaker"]) == (
        "ideamart",
        0,
        256,
        "closed",
    )
    assert before["last_success_at"] is before["failing_since"] is before["stats_reset"] is None
    simulator.fault("status", "ideamart", "send", status=500)
    rows = [gateway.send() for _ in range(5)]
    fails = provider(gateway)
    assert fails["consecutive_failures"] == 5 and fails["breaker"] == "open" and fails["breaker_open_until"] is not None
    assert fails["last_failure_outcome"] == rows[-1]["outcome"] and fails["last_failure_at"] >= fails["failing_since"]
    assert fails["last_vendor_message"] == (rows[-1]["vendor_message"] or None) and fails["last_success_at"] is None
    simulator.clear_faults()
    # With other credentials it is tried at once.
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD timeout '9s')")
    assert gateway.send()["outcome"] == "sent"
    well = provider(gateway)
    assert (well["consecutive_failures"], well["failing_since"]) == (0, None) and well["last_success_at"] is not None
    until(lambda: provider(gateway)["breaker"] == "closed", "it is on record")
    # What failed stays told.
    assert well["last_failure_at"] == fails["last_failure_at"]


def test_a_wrong_payload_tells_nothing_of_the_provider(gateway):
    box(gateway)
    play(gateway)
    before = provider(gateway, "box")
    box_limit = "ALTER SERVER box OPTIONS (ADD send_limit '1 per day')"
    gateway.execute(box_limit)
    assert play(gateway)["outcome"] == "blocked"
    assert provider(gateway, "box")["last_success_at"] == before["last_success_at"]


def test_what_is_under_way(gateway, simulator):
    gateway.full(provider_limit="10 per hour")
    until(lambda: provider(gateway, "narrow")["in_flight"] == 1, "it is seen")
    ids = gateway.enqueue_many(3, "narrow", vendor="ideamart")
    until(lambda: provider(gateway, "narrow")["queued"] == 3, "they stand in line")
    row = provider(gateway, "narrow")
    assert (row["max_in_flight"], row["parked"], row["limit_used"]) == (1, 0, pytest.approx(0.1))
    [(created_at,)] = gateway.execute("SELECT created_at FROM otp_gateway.verification WHERE id = %s", (ids[0],))
    assert abs(row["oldest_queued_at"] - created_at).total_seconds() < 0.01
    assert worker(gateway)["in_flight"] == 1
    gateway.execute("ALTER SERVER narrow OPTIONS (ADD paused 'true')")
    simulator.release()
    until(lambda: provider(gateway, "narrow")["parked"] == 3, "they wait for the end of the pause")
    assert provider(gateway, "narrow")["oldest_queued_at"] is None
    gateway.execute("ALTER SERVER narrow OPTIONS (DROP paused)")
    gateway.settle()
    until(lambda: provider(gateway, "narrow")["queued"] + provider(gateway, "narrow")["parked"] == 0, "they are gone")
    until(lambda: provider(gateway, "narrow")["in_flight"] == 0, "nothing is under way")
    assert provider(gateway, "narrow")["limit_used"] == pytest.approx(0.4)
    counted(gateway), hours(gateway)


def test_a_route(gateway):
    """It has a row, and a line of its own in the queue."""
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    row = provider(gateway, "codes")
    assert (row["vendor"], row["in_flight"], row["max_in_flight"], row["breaker"]) == ("route", None, None, None)
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    gateway.enqueue("codes", vendor="ideamart")
    until(lambda: provider(gateway, "codes")["parked"] == 1, "it waits in the line of the route")
    gateway.execute("ALTER SERVER ideamart OPTIONS (DROP paused)")
    gateway.settle()


def test_a_worker(gateway):
    gateway.send()
    until(lambda: worker(gateway)["last_commit_at"], "the round has ended")
    row = worker(gateway)
    assert (row["state"], row["detail"], row["waiting"], row["unrecorded"], row["starts"], row["recovered"]) == (
        "running",
        None,
        0,
        0,
        1,
        0,
    )
    assert (row["library_version"], row["schema_version"]) == gateway.execute("SELECT * FROM otp_gateway.version()")[0]
    [(pid, start)] = gateway.execute(
        "SELECT pid, backend_start FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )
    assert row["pid"] == pid and row["backend_start"] >= start and row["last_commit_at"] >= row["backend_start"]
    # One that does not answer: who looks is not kept waiting.
    os.kill(pid, signal.SIGSTOP)
    try:
        call = Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
        until(lambda: worker(gateway)["waiting"] == 1, "the call is seen")
        assert worker(gateway)["waiting_since"] is not None
        for view in VIEWS:
            gateway.execute(f"SET statement_timeout = '1s'; SELECT * FROM otp_gateway.{view}; RESET statement_timeout")
    finally:
        os.kill(pid, signal.SIGCONT)
    call.wait()
    counted(gateway)


def test_what_cannot_be_recorded(gateway):
    """The hours, locked by somebody, hold up the end of an attempt; nothing is lost, and nothing counted twice."""
    gateway.send()
    with gateway.cluster.session(gateway.database, autocommit=False) as locker:
        locker.cursor().execute("LOCK TABLE otp_gateway_internal.hourly_record")
        call = Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
        until(lambda: worker(gateway)["unrecorded"] == 1, "it has ended, and is not on record")
    assert call.row()["outcome"] == "sent"
    until(lambda: worker(gateway)["unrecorded"] == 0, "it is on record")
    assert counted(gateway) == [("ideamart", "send", "sent", None, 2)]
    hours(gateway)


def test_long_chores_tell_how_far_they_are(gateway):
    """While a purge goes on between calls."""
    gateway.send()
    gateway.execute("""
        INSERT INTO otp_gateway_internal.verification_record
            (id, provider, vendor, status, created_by, created_at, send_count, check_count, max_checks)
        SELECT (left(otp_gateway.id_at('2020-01-01')::text, 13) || '-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
            'ideamart', 'ideamart', 'approved', 'postgres', '2020-01-01', 1, 0, 3
        FROM generate_series(1, 20000) AS n
    """)
    purge = Running(gateway.connect(), "SELECT otp_gateway.purge('1 year') AS purged")
    until(lambda: worker(gateway)["chore"] == "purge" and worker(gateway)["chore_done"] > 0, "it is seen")
    assert worker(gateway)["chore_since"] is not None
    assert purge.row()["purged"] == 20000
    until(lambda: worker(gateway)["chore"] is None, "it is done")


@pytest.mark.skipif(MAJOR < 17, reason="Postgres 17 and later have names for what an extension waits for")
def test_wait_events(gateway, simulator):
    gateway.send()
    simulator.fault("hold", "ideamart", "send", times=1)
    call = Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
    simulator.held(1)
    events = (
        "SELECT DISTINCT backend_type, wait_event FROM pg_stat_activity WHERE wait_event LIKE 'OtpGateway%' ORDER BY 1"
    )
    until(
        lambda: (
            gateway.execute(events)
            == [
                ("client backend", "OtpGatewayCall"),
                ("otp_gateway launcher", "OtpGatewayLauncherMain"),
                ("otp_gateway worker", "OtpGatewayWorkerMain"),
            ]
        ),
        "each waits for what it says",
    )
    simulator.release()
    call.wait()


# whatever happens to servers, databases and the extension


def test_a_provider_that_is_renamed_or_made_anew(gateway):
    box(gateway)
    play(gateway)
    gateway.execute("ALTER SERVER box RENAME TO other")
    assert gateway.execute(ATTEMPTS) == [("other", "send", "sent", None, 1)]
    until(lambda: [row[1] for row in gateway.execute(HOURLY)] == ["other"], "the worker has heard of it")
    gateway.execute("DROP SERVER other CASCADE")
    box(gateway, "other")
    # It is another one.
    assert gateway.execute(ATTEMPTS) == [] and provider(gateway, "other")["stats_reset"] is None
    play(gateway, "other")
    assert gateway.execute(ATTEMPTS) == [("other", "send", "sent", None, 1)]
    # The hours are of both.
    assert [row[5] for row in gateway.execute(HOURLY)] == [1, 1]


def test_the_extension_made_anew(gateway):
    box(gateway)
    play(gateway)
    gateway.execute("DROP EXTENSION otp_gateway CASCADE")
    gateway.execute("CREATE EXTENSION otp_gateway")
    box(gateway)
    play(gateway)
    assert counted(gateway) == [("box", "send", "sent", None, 1)]
    assert len(hours(gateway)) == 1 and worker(gateway)["starts"] == 1


def test_more_providers_than_have_a_place(own_cluster, simulator):
    """256 in the cluster: the others are counted together, and a place that becomes free is taken."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        for number in range(260):
            box(gateway, f"box_{number}")
            play(gateway, f"box_{number}")
        rows = gateway.execute(ATTEMPTS)
        assert len(rows) == 257 and rows[-1] == (None, None, None, None, 4) and sum(row[4] for row in rows) == 260
        # To whom that is, nobody can tell any more.
        with acting_as(gateway, "keeper", "ALTER SERVER box_259 OWNER TO keeper") as keeper:
            assert gateway.execute(ATTEMPTS, None, keeper) == []
        assert len(hours(gateway)) == 260
        gateway.execute("DROP SERVER box_0 CASCADE")
        until(
            lambda: play(gateway, "box_259") and any(row[0] == "box_259" for row in gateway.execute(ATTEMPTS)),
            "it has a place",
        )
        # A database that is dropped gives its places back to those that come after it.
        gateway.execute("CREATE DATABASE another")
        with Gateway(own_cluster, "another", simulator) as another:
            another.execute("CREATE EXTENSION otp_gateway")
            box(another)
            play(another)
            assert another.execute(ATTEMPTS)[-1][4] == 1 and another.execute(ATTEMPTS)[-1][0] is None
        gateway.session.close()
    with own_cluster.session("template1") as admin:
        admin.cursor().execute("DROP DATABASE postgres WITH (FORCE)")
        admin.cursor().execute("CREATE DATABASE third")
    with Gateway(own_cluster, "third", simulator) as third:
        third.execute("CREATE EXTENSION otp_gateway")
        box(third)
        play(third)
        assert third.execute(ATTEMPTS) == [("box", "send", "sent", None, 1)]


def test_a_reset(gateway):
    box(gateway)
    for name in ("box", "ideamart"):
        play(gateway, name, to=gateway.number())
    before = worker(gateway)["stats_reset"]
    gateway.execute("SELECT otp_gateway.stat_reset('box')")
    assert [row[0] for row in gateway.execute(ATTEMPTS)] == ["ideamart"]
    assert provider(gateway, "box")["stats_reset"] > before and worker(gateway)["stats_reset"] == before
    assert (provider(gateway)["verifications"], provider(gateway, "box")["verifications"]) == (1, 0)
    gateway.execute("SELECT otp_gateway.stat_reset()")
    assert (
        gateway.execute(ATTEMPTS) == [] and worker(gateway)["starts"] == 0 and worker(gateway)["stats_reset"] > before
    )
    play(gateway)
    assert counted(gateway) == [("box", "send", "sent", None, 1)]
    assert len(hours(gateway)) == 2
    with pytest.raises(psycopg2.errors.UndefinedObject, match='provider "nowhere" does not exist'):
        gateway.execute("SELECT otp_gateway.stat_reset('nowhere')")


# whatever ends the worker or the server


def test_a_worker_that_comes_back(gateway, simulator):
    """What it has counted stays, and it goes on from there."""
    each_way(gateway)
    before = gateway.execute(ATTEMPTS)
    simulator.fault("hold", "ideamart", "send", times=1)
    call = Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
    simulator.held(1)
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_of(gateway),))
    assert call.row()["outcome"] == "unknown"
    assert counted(gateway) == sorted(
        [*before, ("ideamart", "send", "unknown", None, 1)], key=lambda row: [str(it or "~") for it in row]
    )
    hours(gateway)
    play(gateway)
    assert worker(gateway)["starts"] == 2
    counted(gateway), hours(gateway), converted(gateway)
    simulator.release()


def test_a_worker_that_leaves_for_want_of_work(own_cluster, simulator):
    own_cluster.configure({"otp_gateway.worker_idle_timeout": "1s"})
    own_cluster.reload()
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        box(gateway)
        for starts in (1, 2, 3):
            play(gateway)
            assert worker(gateway)["starts"] == starts
            until(lambda: worker_of(gateway) is None, "it leaves")
            until(lambda: worker(gateway)["state"] == "none", "it has left")
            assert counted(gateway) == [("box", "send", "sent", None, starts)]
            hours(gateway)
        assert len(hours(gateway)) == 1


@pytest.mark.parametrize("how", ["worker", "immediate", "fast"])
def test_an_end_of_the_server(own_cluster, simulator, how):
    """The hours are those of the record; the counters begin anew, and say so."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", timeout="30s")
        each_way(gateway)
        since = worker(gateway)["stats_reset"]
        simulator.fault("hold", "ideamart", "send", times=3)
        calls = [
            Running(gateway.connect(), SEND, ("ideamart", json.dumps(FLOWS["ideamart"]["send"](gateway.number()))))
            for _ in range(3)
        ]
        simulator.held(3)
        kill(worker_of(gateway)) if how == "worker" else own_cluster.stop(how)
        for call in calls:
            call.thread.join(30)
        simulator.release()
        if how != "worker":
            own_cluster.start()
        with contextlib.closing(await_none_in_flight(gateway)) as gateway.session:
            row = until(lambda: [row for row in [worker(gateway)] if row["stats_reset"]], "the worker is up")[0]
            # A server that is stopped in order puts down what it can, and its worker is there for that.
            assert row["recovered"] == (0 if how == "fast" else 3) and row["stats_reset"] > since
            assert sum(row[7] for row in hours(gateway) if row[1] == "ideamart") == 3
            counted(gateway)
            each = [gateway.send()["outcome"] for _ in range(3)]
            assert each == ["sent"] * 3
            counted(gateway), hours(gateway)
            gateway.session = gateway.session


def test_crashes_under_load(own_cluster, simulator):
    """At any moment: between the record and the count there is none."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", timeout="5s")
        box(gateway)
        for round in range(3):
            stop = threading.Event()
            threads = [threading.Thread(target=traffic, args=(gateway, stop, n), daemon=True) for n in range(6)]
            for thread in threads:
                thread.start()
            time.sleep(0.5 + round / 3)
            kill(worker_of(gateway)) if round == 1 else own_cluster.stop("immediate")
            stop.set()
            for thread in threads:
                thread.join(30)
            if round != 1:
                own_cluster.start()
            gateway.session = await_none_in_flight(gateway)
            assert sum(row[5] for row in hours(gateway)) > 0
            counted(gateway)
        gateway.session.close()


def traffic(gateway, stop, n):
    """Sends and checks until the server goes away."""
    with contextlib.suppress(psycopg2.Error):
        session = gateway.connect()
        while not stop.is_set():
            sent = play(gateway, "box", f"+9477{n}000000", session)
            gateway.verify(sent["verification_id"], "111111", session)
            gateway.verify(sent["verification_id"], "000000", session)


def test_promotion(own_cluster, simulator):
    """The standby has the hours, to read and to go on with."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", timeout="30s")
        each_way(gateway)
        simulator.fault("hold", "ideamart", "send", times=1)
        with standby_of(own_cluster) as standby, standby.session() as there:
            gateway.enqueue()
            simulator.held(1)
            hourly = gateway.execute(HOURLY)
            until(lambda: gateway.execute(HOURLY, None, there) == hourly, "the standby has it all")
            until(
                lambda: (
                    gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL", None, there)
                    == [(1,)]
                ),
                "what is in flight, too",
            )
            hours(gateway, there)
            for view in VIEWS[:1] + VIEWS[2:4]:
                assert gateway.execute(f"SELECT * FROM otp_gateway.{view}", None, there) == []
            assert provider(gateway, session=there)["in_flight"] == 0
            gateway.session.close()
            own_cluster.stop("immediate")
            simulator.release()
            standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
            gateway.session = there
            until(lambda: worker(gateway)["recovered"] == 1, "what was in flight is settled")
            hours(gateway), counted(gateway)
            play(gateway)
            hours(gateway), counted(gateway)


def test_a_dump_takes_the_hours_along(cluster, gateway, simulator):
    each_way(gateway)
    before = gateway.execute(HOURLY)
    dump = cluster.directory / f"{gateway.database}.sql"
    cluster.run("pg_dump", "-h", cluster.directory, "-p", cluster.port, "-U", "postgres", "-f", dump, gateway.database)
    text = dump.read_text()
    dump.unlink()
    with cluster.database(extension=False) as name, Gateway(cluster, name, simulator) as restored:
        output = cluster.psql(name, "-q", "-v", "ON_ERROR_STOP=1", script=text)
        assert "ERROR" not in output, output
        assert restored.execute(HOURLY) == before
        # It goes on where the other was.
        play(restored, "box")
        assert len(restored.execute(HOURLY)) == len(before)
        hours(restored)


def test_hours_are_kept_for_400_days(gateway):
    box(gateway)
    play(gateway)
    [(id,)] = gateway.execute("SELECT provider_id FROM otp_gateway_internal.hourly_record")
    insert = (
        "INSERT INTO otp_gateway_internal.hourly_record SELECT date_trunc('hour', now()) - d * interval '1 day', %s, 1, 0, 94,"
        " array_fill(1::bigint, ARRAY[21]) FROM unnest(ARRAY[399, 401]) AS d"
    )
    gateway.execute(insert, (id,))
    gateway.execute("SELECT pg_terminate_backend(%s)", (worker_of(gateway),))
    box(gateway, "other")
    # The first of its hour.
    play(gateway, "other")
    days = "SELECT EXTRACT(day FROM now() - hour)::int FROM otp_gateway.stat_hourly ORDER BY 1"
    assert gateway.execute(days) == [(0,), (0,), (399,)]


# who sees what


def test_who_sees_what(gateway):
    box(gateway)
    box(gateway, "mine")
    with (
        acting_as(gateway, "monitor", "GRANT pg_monitor TO monitor") as monitor,
        acting_as(gateway, "sender", "GRANT USAGE ON FOREIGN SERVER box TO sender") as sender,
        acting_as(gateway, "keeper", "ALTER SERVER mine OWNER TO keeper") as keeper,
    ):
        play(gateway, "box"), play(gateway, "mine"), play(gateway, "box", session=sender)
        seen = lambda view, session: {
            row[0] for row in gateway.execute(f"SELECT provider FROM otp_gateway.{view}", None, session)
        }
        for view in ("stat_attempt", "stat_latency"):
            assert (
                seen(view, monitor) == {"box", "mine"}
                and seen(view, keeper) == {"mine"}
                and seen(view, sender) == set()
            )
        assert seen("stat_provider", monitor) >= {"box", "mine", "ideamart"}
        assert seen("stat_provider", keeper) == {"mine"} and seen("stat_provider", sender) == set()
        who = "SELECT provider, created_by::text, sends FROM otp_gateway.stat_hourly ORDER BY 1, 2"
        assert gateway.execute(who, None, monitor) == [
            ("box", "postgres", 1),
            ("box", "sender", 1),
            ("mine", "postgres", 1),
        ]
        assert gateway.execute(who, None, keeper) == [("mine", "postgres", 1)]
        assert gateway.execute(who, None, sender) == [("box", "sender", 1)]
        assert worker(gateway, monitor)["state"] == "running"
        for session in (keeper, sender):
            assert gateway.execute("SELECT * FROM otp_gateway.stat_worker", None, session) == []
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                gateway.execute("SELECT otp_gateway.stat_reset()", None, session)
        gateway.execute("GRANT EXECUTE ON FUNCTION otp_gateway.stat_reset TO monitor")
        gateway.execute("SELECT otp_gateway.stat_reset()", None, monitor)
        assert gateway.execute(ATTEMPTS) == []
        # Other databases are for pg_monitor.
        others = "SELECT count(*) FROM otp_gateway.stat_worker WHERE datname <> current_database()"
        assert gateway.execute(others, None, monitor)[0][0] >= 0


def test_without_preload(simulator):
    """Nothing is counted, and nobody who looks, at whatever view there is, takes the server down."""
    cluster = Cluster(preload=False).create()
    try:
        cluster.start()
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("ideamart")
            views = "SELECT relname FROM pg_class WHERE relkind = 'v' AND relnamespace = 'otp_gateway'::regnamespace"
            counts = {
                view: gateway.execute(f"SELECT count(*) FROM otp_gateway.{view}")[0][0]
                for (view,) in gateway.execute(views)
            }
            assert {view: count for view, count in counts.items() if view.startswith("stat_")} == {
                "stat_attempt": 0,
                "stat_latency": 0,
                "stat_hourly": 0,
                "stat_worker": 0,
                "stat_provider": 1,
            }
            for call in ("stat_reset()", "release('ideamart', '+94775')", "purge('1 day')"):
                with pytest.raises(psycopg2.Error, match="not preloaded"):
                    gateway.execute(f"SELECT otp_gateway.{call}")
    finally:
        cluster.remove()


def test_the_vendor_s_words_hold_no_number(gateway, simulator):
    """As on record, where they are redacted."""
    to = gateway.number()
    simulator.fault("status", "ideamart", "send", status=500)
    row = gateway.send(to=to)
    everything = "".join(str(gateway.execute(f"SELECT * FROM otp_gateway.{view}")) for view in VIEWS)
    assert row["outcome"] in everything and to[-9:] not in everything


# what a look costs


def test_a_look_costs_the_same_however_long_the_record_is(gateway):
    """100,000 verifications with as many attempts: no view reads them."""
    each_way(gateway)
    gateway.execute("""
        INSERT INTO otp_gateway_internal.verification_record
            (id, provider, vendor, status, created_by, created_at, send_count, check_count, max_checks)
        SELECT gen_random_uuid(), 'ideamart', 'ideamart', 'approved', 'postgres', now(), 1, 0, 3 FROM generate_series(1, 100000)
    """)
    gateway.execute("""
        INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at)
        SELECT gen_random_uuid(), id, 'send', 'sent', now() FROM otp_gateway_internal.verification_record
    """)
    gateway.execute("""
        INSERT INTO otp_gateway_internal.hourly_record
        SELECT date_trunc('hour', now()) - h * interval '1 hour', p, 1, 0, 94, array_fill(1::bigint, ARRAY[21])
        FROM generate_series(1, 9600) AS h, generate_series(1, 4) AS p
    """)
    gateway.execute("ANALYZE")
    with acting_as(gateway, "monitor", "GRANT pg_monitor TO monitor") as monitor:
        for query in [
            *(f"TABLE otp_gateway.{view}" for view in VIEWS[:4]),
            "SELECT * FROM otp_gateway.stat_hourly WHERE hour >= now() - interval '1 day'",
        ]:
            plan = "\n".join(row for (row,) in gateway.execute(f"EXPLAIN {query}"))
            assert not re.search("attempt_record|verification_record", plan), plan
            assert "Seq Scan on hourly_record" not in plan, plan
            times = []
            for _ in range(5):
                began = time.perf_counter()
                gateway.execute(query, None, monitor)
                times.append(time.perf_counter() - began)
            assert min(times) < 0.01, (query, times)
