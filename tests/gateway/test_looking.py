"""Promise: to look at the queue costs what is new in it, whatever else is on record, and whoever has a transaction open
anywhere in the cluster, for however long; and nothing is overlooked, in whatever order transactions begin and end."""

import random
import time

import pytest

from conftest import until
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
    """The same, once the worker has nothing more to report: it does so once a second."""
    seen = [None, read(gateway)]

    def same():
        time.sleep(1.1)
        seen.append(read(gateway))
        return seen[-1] == seen[-2]

    until(same, "the worker has reported", 30)
    return seen[-1]


def test_an_open_transaction_elsewhere(gateway, simulator):
    """It is older than everything that is enqueued from now on, which is long since sent."""
    with gateway.cluster.session("postgres", autocommit=False) as other, gateway.cluster.session(gateway.database) as session:
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
