"""Promise: a server that has lost its synchronous standby sends nothing that only it knows of: the intent of each call is
committed first, and waits for the standby as every commit does. So of two servers that both take themselves for the
primary, the one that is fenced off by its quorum sends nothing, and the other one sends what was queued, once. Nobody
hangs for longer than their own statement_timeout, and what waited goes on by itself."""

import time

import psycopg2
import pytest

from cluster import standby_of
from conftest import Gateway, Running, until
from test_enqueue import arrived

SEND = "SELECT outcome FROM otp_send('ideamart', jsonb_build_object('mobile', %s))"
WAITS = (
    "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'otp_gateway worker'"
)


@pytest.fixture
def gateway(own_cluster, simulator):
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", max_in_flight="1", timeout="60s")
        yield gateway


def wants(gateway, standby):
    """A session that waits for no standby itself changes what commits wait for."""
    gateway.execute("SET synchronous_commit = local")
    gateway.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
    gateway.cluster.reload()


def wants_who_is_away(gateway):
    """Commits wait when the checkpointer has said so, in its own time: one of a session that makes many is seen to."""
    wants(gateway, "away")
    with gateway.cluster.session() as session:
        commits = Running(session, "DO $$ BEGIN LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        pid = session.info.backend_pid
        waits = f"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {pid}"
        until(lambda: gateway.execute(waits) == [(True,)], "a commit waits")
        gateway.execute(f"SELECT pg_terminate_backend({pid})")
        commits.wait()


def test_a_synchronous_standby_is_away(gateway, own_cluster, simulator):
    assert gateway.send()["outcome"] == "sent"
    wants_who_is_away(gateway)
    to = gateway.number()
    with own_cluster.session() as session, session.cursor() as cursor:
        cursor.execute("SET statement_timeout = '2s'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            gateway.send(to=to, session=session)
    until(lambda: gateway.execute(WAITS) == [(1,)], "the worker waits for the standby")
    with own_cluster.session() as other:
        waiting = Running(other, SEND, (gateway.number(),))
        assert simulator.count("ideamart", "send") == 1
        wants(gateway, "")
        assert waiting.row()["outcome"] == "sent"
    # What was on record as begun when its caller gave up is not lost either.
    until(
        lambda: gateway.execute("SELECT count(*)::int FROM otp_gateway.attempt WHERE outcome IS NULL") == [(0,)],
        "all ended",
    )
    assert gateway.send()["outcome"] == "sent"


def test_an_answer_comes_while_a_commit_waits(gateway, own_cluster, simulator):
    """It came within `timeout`, though the worker could put nothing on record then: it is no unknown."""
    gateway.execute("ALTER SERVER ideamart OPTIONS (SET max_in_flight '2', SET timeout '10s')")
    assert gateway.send()["outcome"] == "sent"
    simulator.fault("hold", "ideamart", "send", times=1)
    with own_cluster.session() as one, own_cluster.session() as other:
        first = Running(one, SEND, (gateway.number(),))
        simulator.held(1)
        began = time.monotonic()
        wants_who_is_away(gateway)
        second = Running(other, SEND, (gateway.number(),))
        until(lambda: gateway.execute(WAITS) == [(1,)], "the worker waits for the standby")
        simulator.release()
        # The answer's time has to pass.
        time.sleep(max(0, began + 11 - time.monotonic()))
        assert gateway.execute(WAITS) == [(1,)]
        wants(gateway, "")
        assert [call.row()["outcome"] for call in (first, second)] == ["sent", "sent"]


def test_two_primaries(gateway, own_cluster, simulator):
    with standby_of(own_cluster) as standby, standby.session() as there:
        wants_who_is_away(gateway)
        wants(gateway, "*")
        until(
            lambda: gateway.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            "the standby is synchronous",
        )
        gateway.execute("SET synchronous_commit = on")
        simulator.fault("hold", "ideamart", "send")
        first, *queued = [gateway.enqueue()["verification_id"] for _ in range(5)]
        simulator.held(1)
        standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
        # The old primary is still there, and its call ends; but nobody confirms its commits.
        simulator.clear_faults()
        simulator.release()
        until(lambda: gateway.execute(WAITS) == [(1,)], "its worker waits")
        with Gateway(standby, "postgres", simulator) as new:
            new.session = there
            assert {new.wait(id)["outcome"] for id in queued} == {"sent"}
            assert new.wait(first)["outcome"] == "unknown"
            assert new.send()["outcome"] == "sent"
        assert gateway.execute(WAITS) == [(1,)]
        assert simulator.count("ideamart", "send") == 6 and max(arrived(simulator).values()) == 1
        # Stopped, as whoever fences it would.
        gateway.session.close()
        own_cluster.stop("immediate")
