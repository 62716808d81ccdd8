"""Promise: to look at the queue costs what is new in it, whatever else is on record, and whoever has a transaction open
anywhere in the cluster, for however long; and nothing is overlooked, in whatever order transactions begin and end. A worker
that starts serves at once, however long the record is, and settles all that was left in flight."""

import random
import time

import pytest

from conftest import Running, statistics_at_once, until
from test_enqueue import arrived, once

MANY = 5000


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain(60)


def read(gateway):
    """Entries of the queue's index that were read so far, all reports being in."""
    gateway.execute("SELECT pg_stat_force_next_flush()")
    [(count,)] = gateway.execute(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'verification_enqueued_idx'"
    )
    return count


def settled(gateway):
    """The same, once the worker has nothing more to report: it does so at the end of a transaction, once a second at most,
    and one that sleeps keeps what it has. So it is given one that reads nothing of the queue."""
    seen = [None, read(gateway)]

    def same():
        time.sleep(1.1)
        assert gateway.send()["outcome"] == "sent"
        seen.append(read(gateway))
        return seen[-1] == seen[-2]

    until(same, "the worker has reported", 30)
    return seen[-1]


@statistics_at_once
def test_an_open_transaction_elsewhere(gateway, simulator):
    """It is older than everything that is enqueued from now on, which is long since sent."""
    with (
        gateway.cluster.session("postgres", autocommit=False) as other,
        gateway.cluster.session(gateway.database) as session,
    ):
        other.cursor().execute("SELECT pg_current_xact_id()")
        gateway.execute(f"SET otp_gateway.max_sends_per_transaction = {MANY}", session=session)
        ids = gateway.enqueue_many(MANY, session=session)
        assert gateway.wait(ids[-1])["outcome"] == "sent"
        left = "SELECT count(*)::int FROM otp_gateway.verification WHERE status IN ('queued', 'sending')"
        until(lambda: gateway.execute(left) == [(0,)], "all are sent", 60)
        before = settled(gateway)
        more = [gateway.enqueue()["verification_id"] for _ in range(30)]
        assert [gateway.wait(id)["outcome"] for id in more] == ["sent"] * 30
        # Each look would have read all of them again.
        assert settled(gateway) - before < MANY, "the looks read what they had seen"


@pytest.mark.parametrize("seed", range(3))
def test_in_whatever_order_they_end(gateway, simulator, seed):
    """Some begin early and commit late, some are prepared, some rolled back; others commit in between."""
    dice, wanted = random.Random(seed), []
    open_ones = []
    for number in range(40):
        if dice.random() < 0.5 or len(open_ones) < 3:
            session = gateway.connect()
            session.autocommit = False
            ids = [gateway.enqueue(session=session)["verification_id"] for _ in range(dice.randint(1, 3))]
            open_ones.append((session, ids))
        else:
            session, ids = open_ones.pop(dice.randrange(len(open_ones)))
            if dice.random() < 0.2:
                session.rollback()
            else:
                session.commit()
                wanted += ids
                assert gateway.wait(ids[0])["outcome"] == "sent"
            session.close()
        if dice.random() < 0.5:
            wanted.append(gateway.enqueue()["verification_id"])
    for session, ids in open_ones:
        session.commit()
        wanted += ids
        session.close()
    for id in wanted:
        assert gateway.wait(id)["outcome"] == "sent"
    assert arrived(simulator) == once(wanted)


# at the start of a worker

RECORD = """
WITH identity AS MATERIALIZED (
    SELECT (SELECT id FROM otp_gateway_internal.identity WHERE object = (SELECT oid FROM pg_foreign_server WHERE srvname = 'ideamart'))
               AS provider_id,
           (SELECT id FROM otp_gateway_internal.identity WHERE kind = 'role' AND object = current_user::regrole) AS role_id
), one AS MATERIALIZED (
    SELECT n, at, (lpad(to_hex(at_ms), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid AS id
    FROM generate_series(1, %(count)s) AS n,
         LATERAL (SELECT now() - n * %(span)s::interval / %(count)s AS at) AS a,
         LATERAL (SELECT (extract(epoch FROM at) * 1000)::bigint AS at_ms) AS b
), verifications AS (
    INSERT INTO otp_gateway_internal.verification_record (id, provider, vendor, status, recipient_key, created_by, created_at,
        send_count, check_count, max_checks, is_test, provider_id, role_id)
    SELECT one.id, 'ideamart', 'ideamart', 'approved', sha256(n::text::bytea), current_user, at, 1, 1, 3, false,
        provider_id, role_id
    FROM one, identity
)
INSERT INTO otp_gateway_internal.attempt_record (id, verification_id, operation, outcome, started_at, finished_at, provider,
    recipient_key, provider_id, role_id)
SELECT one.id, one.id, 'send', 'sent', at, at, 'ideamart', sha256(n::text::bytea), provider_id, role_id
FROM one, identity
"""


def stop_worker(gateway):
    gateway.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )


def first_call(gateway):
    """Seconds that the first call takes after an end of the worker."""
    stop_worker(gateway)
    began = time.monotonic()
    assert gateway.send()["outcome"] == "sent"
    return time.monotonic() - began


def test_a_start_on_a_long_record(gateway, simulator):
    """What was in flight is settled, and then calls are served; the rest of the record is read beside them."""
    gateway.send()
    gateway.execute(RECORD, {"count": 300, "span": "3 hours"})
    short = min(first_call(gateway) for _ in range(5))
    gateway.execute(RECORD, {"count": 300_000, "span": "3 hours"})
    long = min(first_call(gateway) for _ in range(3))
    print(
        f"first call after a start: {long * 1000:.0f} ms with 300,000 attempts on record, {short * 1000:.0f} ms with 300"
    )
    assert long < 2 * short + 0.05


def test_what_was_left_is_settled_wherever_it_is(gateway, simulator):
    """However much has begun since: whoever asks for it does not wait until all is read, and all of it is settled."""
    recipients = [gateway.number() for _ in range(3)]
    asked, followed, named = sent = [gateway.send(to=to)["verification_id"] for to in recipients]
    others = [gateway.send()["verification_id"] for _ in range(20)]
    [(reference,)] = gateway.execute("SELECT reference FROM otp_gateway.verification WHERE id = %s", (named,))
    codes = [simulator.code("ideamart", to) for to in recipients]
    time.sleep(0.05)
    gateway.execute(RECORD, {"count": 300_000, "span": "20 milliseconds"})
    # As a worker leaves it that is killed.
    left = [*sent, *others]
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET outcome = NULL, finished_at = NULL WHERE verification_id = ANY (%s)",
        (left,),
    )
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET status = 'sending' WHERE id = ANY (%s)", (left,)
    )
    # Between two providers of its route.
    gateway.execute(
        "UPDATE otp_gateway_internal.attempt_record SET outcome = 'unreachable' WHERE verification_id = %s",
        (others[-1],),
    )
    in_flight = "SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL"
    stop_worker(gateway)
    assert gateway.wait(followed)["outcome"] == "unknown"
    assert gateway.execute(in_flight) != [(0,)], "it waited until all was read"
    asks = [
        Running(gateway.connect(), "SELECT * FROM otp_verify(%s::uuid, %s)", (asked, codes[0])),
        Running(
            gateway.connect(),
            "SELECT * FROM otp_verify('ideamart', %s, jsonb_build_object('reference', %s))",
            (codes[2], reference),
        ),
    ]
    assert [call.row()["outcome"] for call in asks] == ["approved", "approved"]
    until(lambda: gateway.execute(in_flight) == [(0,)], "all is settled", 30)
    status = "SELECT status::text, count(*)::int FROM otp_gateway.verification WHERE id = ANY (%s) GROUP BY status ORDER BY status"
    until(
        lambda: gateway.execute(status, (left,)) == [("approved", 2), ("failed", 1), ("unknown", 20)],
        "all verifications, too",
    )
    assert gateway.attempts(asked) == [("send", "unknown"), ("verify", "approved")]
