"""Promise: one setting, or one option of a provider, stops what is sent: immediate sends are told so, what is queued waits
and ages, a route goes round it, and codes that people have in their hands are checked as before."""

import shutil

import pytest

from cluster import copied
from conftest import Gateway, until
from test_copies import COPY, backup_of, lets_go, queue  # noqa: F401
from test_keys import gateway  # noqa: F401

PAUSED = ("blocked", "paused")
WORDS = "sends are paused, by the provider's option paused or by otp_gateway.pause; nothing was sent"


def pause(cluster, value):
    with cluster.session() as session, session.cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM SET otp_gateway.pause = {value}")
    cluster.reload()


def said(row):
    return row["outcome"], row["reason"]


def test_one_setting_stops_it(gateway, own_cluster, simulator):
    to = gateway.number()
    before = gateway.send(to=to)["verification_id"]
    pause(own_cluster, "on")
    row = gateway.send()
    assert (said(row), row["retry_after"], row["retryable"], row["vendor_message"]) == (PAUSED, None, False, WORDS)
    assert said(gateway.row("SELECT * FROM otp_resend(%s)", (before,))) == PAUSED
    queued = gateway.enqueue()["verification_id"]
    assert gateway.wait(queued, "1s")["status"] == "queued"
    # The code that went out before.
    assert gateway.verify(before, simulator.code("ideamart", to))["outcome"] == "approved"
    assert simulator.count("ideamart", "send") == 1
    assert gateway.execute("SELECT item FROM otp_gateway.check('ideamart') WHERE status = 'error'") == [("paused",)]
    pause(own_cluster, "off")
    assert gateway.wait(queued)["outcome"] == "sent"
    assert gateway.send()["outcome"] == "sent"


def test_what_is_queued_is_not_late(gateway, own_cluster):
    """It may not go now, so nothing is wrong with the queue: the pause is what is to be seen, and said."""
    gateway.execute("ALTER SYSTEM SET otp_gateway.queue_max_age = '8s'")
    pause(own_cluster, "on")
    queued = gateway.enqueue()["verification_id"]
    lines = "SELECT queued, parked, oldest_queued_at FROM otp_gateway.stat_provider WHERE provider = 'ideamart'"
    until(lambda: gateway.execute(lines) == [(0, 1, None)], "it counts as parked")
    # A quarter of queue_max_age has gone by.
    until(
        lambda: (
            gateway.execute(
                f"SELECT created_at < now() - interval '3 s' FROM otp_gateway.verification WHERE id = '{queued}'"
            )
            == [(True,)]
        ),
        "it is old",
    )
    levels = "SELECT name, level FROM otp_gateway.health() WHERE name IN ('paused', 'queue')"
    assert gateway.execute(levels) == [("paused", 1), ("queue", 0)]
    pause(own_cluster, "off")
    assert gateway.wait(queued)["outcome"] == "sent"


def test_what_is_queued_ages(gateway, own_cluster, simulator):
    pause(own_cluster, "on")
    gateway.execute("ALTER SYSTEM SET otp_gateway.queue_max_age = '2s'")
    own_cluster.reload()
    assert said(gateway.wait(gateway.enqueue()["verification_id"])) == ("expired", None)
    assert simulator.count("ideamart", "send") == 0


def test_a_copy_starts_with_it(queue, own_cluster, simulator):  # noqa: F811
    """One that is taken for the original, as it has a timeline of its own."""
    with copied(backup_of(own_cluster)) as copy:
        lets_go(simulator)
        assert {queue.wait(id)["outcome"] for id in queue.ids} == {"sent"}
        copy.configure({"restore_command": "'false'", "otp_gateway.pause": "on"})
        (copy.data / "recovery.signal").touch()
        shutil.chown(copy.data / "recovery.signal", "postgres", "postgres")
        copy.start()
        sent = simulator.count("ideamart", "send")
        with Gateway(copy, "postgres", simulator) as there:
            until(lambda: there.execute("SELECT pg_is_in_recovery()") == [(False,)], "it has recovered")
            assert said(there.send()) == PAUSED
            assert {there.wait(id, "1s")["status"] for id in queue.ids} == {"queued"}
        assert COPY not in copy.log()
        assert simulator.count("ideamart", "send") == sent


@pytest.mark.parametrize("enforce", ["on", "observe"])
def test_one_provider(quick_gateway, simulator, enforce):
    gateway = quick_gateway
    gateway.execute(f"ALTER SERVER ideamart OPTIONS (ADD paused 'true', ADD enforce '{enforce}')")
    assert said(gateway.send()) == PAUSED
    assert gateway.send("iserveu")["outcome"] == "sent"
    queued = gateway.enqueue()["verification_id"]
    assert gateway.wait(queued, "1s")["status"] == "queued"
    assert gateway.execute("SELECT item, detail FROM otp_gateway.check('ideamart') WHERE status = 'error'") == [
        ("paused", "option paused: nothing is sent through it")
    ]
    assert gateway.execute("SELECT words FROM otp_gateway.recent WHERE provider = 'ideamart' LIMIT 1") == [
        ("sends paused",)
    ]
    gateway.execute("ALTER SERVER ideamart OPTIONS (SET paused 'false')")
    assert gateway.wait(queued)["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 1


def test_a_route_goes_round_it(quick_gateway, simulator):
    gateway = quick_gateway
    gateway.create_provider("second", "ideamart")
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    gateway.execute("CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, second')")
    for row in (
        gateway.send("either", vendor="ideamart"),
        gateway.wait(gateway.enqueue("either", vendor="ideamart")["verification_id"]),
    ):
        assert row["outcome"] == "sent"
        assert gateway.execute(
            "SELECT provider, outcome, reason FROM otp_gateway.attempt WHERE verification_id = %s ORDER BY id",
            (row["verification_id"],),
        ) == [("ideamart", "blocked", "paused"), ("second", "sent", None)]
    gateway.execute("ALTER SERVER second OPTIONS (ADD paused 'true')")
    assert said(gateway.send("either", vendor="ideamart")) == PAUSED
    assert simulator.count("ideamart", "send") == 2
