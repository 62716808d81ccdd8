"""Promise: what is queued is sent, once, as soon as its provider has room, whatever happens to the server meanwhile: over
crashes, restarts and a promotion. What certainly did not reach a vendor is tried again, for as long as somebody may
still wait for the code, and nothing else is; one that cannot be sent ends alone, and says why. A long queue costs neither
memory nor anybody else's time, and nothing of what is queued can be read on the disk."""

import collections
import contextlib
import json
import os
import pathlib
import random
import re
import secrets
import threading

import psycopg2
import pytest

from canaries import control, digits, search
from cluster import free_port, standby_of
from conftest import FLOWS, Gateway, credential_options, listed, until
from test_answers import paytm
from test_at_most_once import at
from test_at_rest import VISIBLE
from test_at_rest import place as place
from test_enqueue import arrived, gone, once
from test_follow import setting

SEED = int(os.environ.get("OTP_CRASH_SEED", random.SystemRandom().randrange(10**6)))
WORKER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def statuses(gateway, session=None):
    return dict(
        gateway.execute("SELECT status::text, count(*)::int FROM otp_gateway.verification GROUP BY 1", None, session)
    )


def started(gateway, id):
    """When each attempt began and ended."""
    return gateway.execute(
        "SELECT started_at, finished_at FROM otp_gateway.attempt WHERE verification_id = %s ORDER BY id", (id,)
    )


def behind(gateway, count=1, provider="narrow", vendor="ideamart", session=None):
    """Enqueued at a provider that has no room."""
    return [gateway.enqueue(provider, vendor=vendor, session=session)["verification_id"] for _ in range(count)]


# tried again, or not


def test_unreachable_is_tried_again(gateway, simulator):
    at(gateway, "ideamart", base_url=f"http://127.0.0.1:{free_port()}/ideamart")
    to = gateway.number()
    id = gateway.enqueue(to=to)["verification_id"]
    until(lambda: ("send", "unreachable") in gateway.attempts(id), "a first try")
    assert gateway.verification(id)["status"] in ("queued", "sending")
    at(gateway, "ideamart", base_url=simulator.url("ideamart"))
    row = gateway.wait(id)
    assert (row["outcome"], row["status"]) == ("sent", "pending")
    *failed, last = gateway.attempts(id)
    assert last == ("send", "sent") and set(failed) == {("send", "unreachable")}
    assert gateway.verification(id)["send_count"] == len(failed) + 1
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    assert arrived(simulator) == once([id])


def test_provider_error_is_tried_again(gateway, simulator):
    simulator.fault("status", "ideamart", "send", status=503, times=2)
    to = gateway.number()
    id = gateway.enqueue(to=to)["verification_id"]
    assert gateway.wait(id)["outcome"] == "sent"
    assert gateway.attempts(id) == [("send", "provider_error")] * 2 + [("send", "sent")]
    # Half a second, then twice as long, each up to a quarter more or less.
    (_, first), (second, ended), (third, _) = started(gateway, id)
    assert (second - first).total_seconds() >= 0.37
    assert (third - ended).total_seconds() >= 0.74
    assert arrived(simulator) == {str(id): 3}
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"


def test_what_failed_together_does_not_come_back_together(gateway, simulator):
    # Or the breaker would open, and let them wait by its own clock.
    at(gateway, "ideamart", enforce="observe")
    simulator.fault("status", "ideamart", "send", status=503, times=40)
    ids = gateway.enqueue_many(40)
    assert {row["outcome"] for row in gateway.settle()} == {"sent"}
    waits = [(second[0] - first[1]).total_seconds() for first, second in (started(gateway, id) for id in ids)]
    assert min(waits) >= 0.37
    # By one clock for all of them they would be the same.
    assert max(waits) - min(waits) > 0.05


def test_rate_limited_waits_as_long_as_it_was_told(gateway, simulator):
    simulator.fault("status", "ideamart", "send", status=429, headers={"Retry-After": "2"}, times=1)
    id = gateway.enqueue()["verification_id"]
    assert gateway.wait(id)["outcome"] == "sent"
    assert gateway.attempts(id) == [("send", "rate_limited"), ("send", "sent")]
    (_, first), (second, _) = started(gateway, id)
    assert (second - first).total_seconds() >= 1.9


def test_a_wait_that_nobody_would_bear(gateway, simulator):
    """Told to come back when the code would be too old, it fails at once."""
    simulator.fault("status", "ideamart", "send", status=429, headers={"Retry-After": "3600"}, times=1)
    id = gateway.enqueue()["verification_id"]
    row = gateway.wait(id)
    assert (row["outcome"], row["status"]) == ("rate_limited", "failed")
    assert gateway.attempts(id) == [("send", "rate_limited")]
    assert gateway.verification(id)["sealed"] is None


NEVER_AGAIN = [
    # fault, outcome, status
    ({"kind": "close_after_read"}, "unknown", "unknown"),
    ({"kind": "truncated"}, "unknown", "unknown"),
    ({"kind": "status", "status": 500}, "unknown", "unknown"),
    ({"kind": "status", "status": 404}, "refused", "failed"),
    ({"kind": "reply", "body": {"statusCode": "E1351", "statusDetail": "registered"}}, "already_registered", "failed"),
]


@pytest.mark.parametrize(
    "fault, outcome, status", NEVER_AGAIN, ids=[f"{case[0]['kind']} {case[1]}" for case in NEVER_AGAIN]
)
def test_nothing_else_is_tried_again(gateway, simulator, fault, outcome, status):
    to, other = gateway.number(), gateway.number()
    simulator.fault(vendor="ideamart", operation="send", recipient=to, **fault)
    simulator.fault("status", "ideamart", "send", recipient=other, status=503, times=2)
    id = gateway.enqueue(to=to)["verification_id"]
    row = gateway.wait(id)
    assert (row["outcome"], row["status"], row["retryable"]) == (outcome, status, False)
    # The time of two retries of another one passes.
    assert gateway.wait(gateway.enqueue(to=other)["verification_id"])["outcome"] == "sent"
    assert simulator.count("ideamart", "send", to) == 1
    assert gateway.attempts(id) == [("send", outcome)]
    assert gateway.verification(id)["status"] == status


def test_refused_credentials_wait_until_they_are_mended(gateway, simulator):
    """The vendor has done nothing, and whoever mends them may take longer than max_tries: none of what is queued is lost, the
    provider hears single probes meanwhile, and all goes once it takes them."""
    with setting(gateway.cluster, "otp_gateway.max_tries", "1"):
        simulator.fault("status", "ideamart", "send", status=401)
        ids = gateway.enqueue_many(20)
        open_ = "SELECT value LIKE 'open until%' FROM otp_gateway.provider WHERE provider = 'ideamart' AND setting = 'breaker'"
        until(lambda: gateway.execute(open_) == [(True,)], "its breaker opens")
        until(lambda: statuses(gateway) == {"queued": 20}, "all wait")
        refused = simulator.count("ideamart", "send")
        simulator.clear_faults()
        gateway.execute("ALTER SERVER ideamart OPTIONS (ADD connect_timeout '2s')")
        assert {gateway.wait(id, "20s")["outcome"] for id in ids} == {"sent"}
    assert simulator.count("ideamart", "send") == refused + 20
    outcomes = [outcome for id in ids for _, outcome in gateway.attempts(id)]
    assert collections.Counter(outcomes) == {"auth_failed": refused, "sent": 20}


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_a_file_of_credentials_that_is_being_written(gateway, simulator, how):
    """Whoever changes it may not do so in one step: what is queued waits, which the log says, and goes."""
    secret = gateway.cluster.directory / f"password_{os.urandom(4).hex()}"
    secret.write_text("one")
    secret.chmod(0o644)
    gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (SET password_file '{secret}')")
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD paused 'true')")
    ids = [gateway.enqueue()["verification_id"] for _ in range(3)]
    before = len(gateway.cluster.log())
    secret.unlink() if how == "removed" else secret.write_text("")
    gateway.execute("ALTER SERVER ideamart OPTIONS (DROP paused)")
    words = 'what is queued at provider "ideamart" waits: the file of user mapping option password_file'
    until(lambda: words in gateway.cluster.log()[before:], "the log says what they wait for")
    assert statuses(gateway) == {"queued": 3} and simulator.count() == 0
    secret.write_text("another")
    secret.chmod(0o644)
    assert [gateway.wait(id, "30s")["outcome"] for id in ids] == ["sent"] * 3, gateway.cluster.log()[before:]
    assert gateway.cluster.log()[before:].count(words) == 1


def test_a_refusal_that_came_with_the_payload_ends_it(gateway, simulator):
    """Nobody mends a journey's token."""
    simulator.fault("reply", "paytm", "send", body=paytm("401", "Authorization Failed"))
    id = gateway.enqueue("paytm")["verification_id"]
    row = gateway.wait(id)
    assert (row["outcome"], row["status"], row["retryable"]) == ("auth_failed", "failed", False)
    assert gateway.attempts(id) == [("send", "auth_failed")]


def test_as_often_as_it_is_told(gateway, simulator):
    assert gateway.execute("SHOW otp_gateway.max_tries") == [("5",)]
    with setting(gateway.cluster, "otp_gateway.max_tries", "3"):
        simulator.fault("status", "ideamart", "send", status=503)
        id = gateway.enqueue()["verification_id"]
        row = gateway.wait(id)
    assert (row["outcome"], row["status"]) == ("provider_error", "failed")
    assert gateway.attempts(id) == [("send", "provider_error")] * 3
    assert arrived(simulator) == {str(id): 3}
    assert gateway.verification(id)["sealed"] is None


def test_one_that_waits_to_be_tried_again_can_be_canceled(gateway, simulator):
    at(gateway, "ideamart", base_url=f"http://127.0.0.1:{free_port()}/ideamart")
    id = gateway.enqueue()["verification_id"]

    def canceled():
        # By Ideamart nothing can be canceled that is being tried just now.
        with contextlib.suppress(psycopg2.errors.InvalidParameterValue):
            return gateway.attempts(id) and gateway.row("SELECT * FROM otp_cancel(%s)", (id,))["outcome"] == "canceled"

    until(canceled, "it is canceled between two tries")
    at(gateway, "ideamart", base_url=simulator.url("ideamart"))
    # One that comes later, and is itself tried again, is sent.
    simulator.fault("status", "ideamart", "send", status=503, times=2)
    other = gateway.enqueue()["verification_id"]
    assert gateway.wait(other)["outcome"] == "sent"
    assert gateway.verification(id)["status"] == "canceled"
    assert arrived(simulator) == {str(other): 3}


# too old


def make_old(gateway, *ids, by="11 minutes"):
    gateway.execute(
        "UPDATE otp_gateway_internal.verification_record SET created_at = created_at - %s::interval WHERE id = ANY (%s)",
        (by, list(ids)),
    )


def test_too_old_to_be_sent(gateway, simulator):
    assert gateway.execute("SHOW otp_gateway.queue_max_age") == [("10min",)]
    gateway.full()
    young, old, almost = behind(gateway, 3)
    make_old(gateway, old)
    make_old(gateway, almost, by="5 minutes")
    simulator.release()
    row = gateway.wait(old)
    assert (row["outcome"], row["status"], row["attempts_left"]) == ("expired", "expired", 0)
    assert "queue_max_age" in row["vendor_message"]
    assert gateway.attempts(old) == [("send", "expired")]
    assert gateway.verification(old)["sealed"] is None
    assert [gateway.wait(id)["outcome"] for id in (young, almost)] == ["sent"] * 2
    assert str(old) not in arrived(simulator)
    assert simulator.count("ideamart", "send") == 3


def test_it_grows_too_old_while_it_waits_for_room(gateway, simulator):
    """It need not have its turn for it: its provider stays full."""
    with setting(gateway.cluster, "otp_gateway.queue_max_age", "2s"):
        gateway.full()
        [id] = behind(gateway)
        assert gateway.wait(id)["outcome"] == "expired"
        assert simulator.ask("GET", "/held")["held"] == 1
    simulator.release()
    gateway.settle()
    assert simulator.count("ideamart", "send") == 1


def test_it_grows_too_old_between_two_tries(gateway, simulator):
    with setting(gateway.cluster, "otp_gateway.queue_max_age", "1s"):
        simulator.fault("status", "ideamart", "send", status=503)
        id = gateway.enqueue()["verification_id"]
        row = gateway.wait(id)
    assert row["status"] in ("failed", "expired")
    assert 1 <= simulator.count("ideamart", "send") < 5


# room


def test_as_many_at_once_as_the_provider_bears(gateway, simulator):
    """No more, and no fewer either."""
    gateway.create_provider("five", "ideamart", max_in_flight="5", timeout="60s")
    simulator.fault("hold", "ideamart", "send")
    ids = gateway.enqueue_many(20, "five", vendor="ideamart")
    for wave in range(1, 4):
        assert simulator.count("ideamart", "send", atleast=5 * wave, wait=20000) == 5 * wave
        simulator.held(5)
        # Somebody else's goes round meanwhile.
        assert gateway.wait(gateway.enqueue("hyperverge")["verification_id"])["outcome"] == "sent"
        assert simulator.count("ideamart", "send") == 5 * wave
        until(lambda: statuses(gateway).get("sending") == 5, "five are under way")
        assert statuses(gateway).get("queued", 0) == 20 - 5 * wave
        simulator.release()
    simulator.clear_faults()
    until(lambda: simulator.release() or statuses(gateway) == {"pending": 23}, "all are sent")
    assert arrived(simulator) == once(ids)


def test_a_provider_that_never_answers(gateway, simulator):
    """With its queue full: another provider's sends, queued and immediate, all go while it hangs."""
    at(gateway, "ideamart", timeout="60s")
    simulator.fault("hold", "ideamart", "send")
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute("SET otp_gateway.max_sends_per_transaction = 2000", session=session)
        stuck = gateway.enqueue_many(1500, session=session)
    # As many as fit hang.
    simulator.held(256)
    ids = [gateway.enqueue("hyperverge")["verification_id"] for _ in range(20)] + gateway.enqueue_many(
        200, "hyperverge"
    )
    assert gateway.send("hyperverge")["outcome"] == "sent"
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 220
    assert simulator.count("hyperverge", "send") == 221
    assert (simulator.count("ideamart", "send"), simulator.ask("GET", "/held")["held"]) == (256, 256)
    assert statuses(gateway) == {"pending": 221, "sending": 256, "queued": 1500 - 256}
    simulator.clear_faults()
    simulator.release()
    until(lambda: statuses(gateway) == {"pending": 1721}, "all are sent in the end", 60)
    assert arrived(simulator) == once(stuck)


def test_mixed_in_one_transaction(gateway, simulator):
    """Enqueued after those that hang, in the same transaction."""
    at(gateway, "ideamart", timeout="60s", max_in_flight="3")
    simulator.fault("hold", "ideamart", "send")
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        for _ in range(50):
            gateway.enqueue(session=session)
        ids = [gateway.enqueue(vendor, session=session)["verification_id"] for vendor in FLOWS if vendor != "ideamart"]
        session.commit()
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * len(ids)
    assert simulator.count("ideamart", "send") == 3


@pytest.mark.parametrize("lock", ["KEY SHARE", "UPDATE"])
def test_a_row_that_somebody_has_locked(gateway, simulator, lock):
    """As a foreign key to it does in a transaction that stays open, or a hand at work: others go round it."""
    first = gateway.full()["verification_id"]
    locked, *others = behind(gateway, 4)
    with gateway.cluster.session(gateway.database, autocommit=False) as session:
        gateway.execute(
            f"SELECT FROM otp_gateway_internal.verification_record WHERE id = %s FOR {lock}", (locked,), session
        )
        simulator.release()
        for id in (first, *gateway.enqueue_many(5, "hyperverge"), *others):
            assert gateway.wait(id)["outcome"] == "sent"
        assert gateway.send()["outcome"] == "sent"
        if lock == "KEY SHARE":
            assert gateway.wait(locked)["outcome"] == "sent"
        session.rollback()
    assert gateway.wait(locked)["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 6


# poison


@pytest.fixture
def app(gateway):
    """A role that may send, with a session; dropped if it is still there."""
    name = f"app_{os.urandom(4).hex()}"
    gateway.execute(f"CREATE ROLE {name} LOGIN")
    with gateway.cluster.session(gateway.database, user=name) as session:
        yield name, session
    if gateway.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)):
        gateway.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def drop_and_make_for_another_vendor(gateway, app):
    gateway.execute("DROP SERVER doomed CASCADE")
    gateway.create_provider("doomed", "ideamart")
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER doomed TO {app}")


POISON = {
    # how it is spoilt, outcome, a word of the reason, whether others can still send through the provider
    "its provider is dropped": ("DROP SERVER doomed CASCADE", "auth_failed", "doomed", False),
    "its name is another vendor's": (drop_and_make_for_another_vendor, "auth_failed", "does not exist any more", False),
    "its user mapping is gone": ("DROP USER MAPPING FOR {app} SERVER doomed", "auth_failed", "user mapping", True),
    "its role is dropped": ("DROP OWNED BY {app}; DROP ROLE {app}", "auth_failed", "role", True),
    "its role has no right any more": ("REVOKE USAGE ON FOREIGN SERVER doomed FROM {app}", "auth_failed", "permission denied", True),
    "its payload lacks what is required": ("ALTER SERVER doomed OPTIONS (DROP defaults)", "invalid_request", "template_id", True),
    "it was tampered with": (
        "UPDATE otp_gateway_internal.verification_record SET sealed = set_byte(sealed, length(sealed) - 1, get_byte(sealed, length(sealed) - 1) # 1)"
        " WHERE role_id = {role}", "invalid_request", "key", True,
    ),
    "its payload is another one's": (
        "UPDATE otp_gateway_internal.verification_record SET sealed = (SELECT sealed FROM otp_gateway_internal.verification_record WHERE status = 'queued'"
        " AND role_id <> {role} LIMIT 1) WHERE role_id = {role}", "invalid_request", "key", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoil, outcome, word, usable", POISON.values(), ids=list(POISON))
def test_one_that_cannot_be_sent_fails_alone(gateway, simulator, app, spoil, outcome, word, usable):
    name, session = app
    gateway.full(role="postgres")
    gateway.full("doomed", "hyperverge", role="postgres", defaults='{"template_id": "t"}')
    gateway.execute(
        f"CREATE USER MAPPING FOR {name} SERVER doomed OPTIONS ({listed(credential_options('hyperverge'))})"
    )
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER doomed TO {name}")
    before, poisoned, after = gateway.number("hyperverge"), gateway.number("hyperverge"), gateway.number("hyperverge")
    beside = behind(gateway, 2)
    good = [gateway.enqueue("doomed", before, vendor="hyperverge")["verification_id"]]
    [(poison,)] = gateway.execute(
        "SELECT verification_id FROM otp_enqueue('doomed', %s::jsonb)", (json.dumps({"mobile": poisoned}),), session
    )
    good.append(gateway.enqueue("doomed", after, vendor="hyperverge")["verification_id"])
    if callable(spoil):
        spoil(gateway, name)
    else:
        role = f"(SELECT id FROM otp_gateway_internal.identity WHERE name = '{name}')"
        gateway.execute(spoil.format(app=name, role=role))
    simulator.release()
    row = gateway.wait(poison)
    assert (row["outcome"], row["status"], row["retryable"]) == (outcome, "failed", False)
    assert word in row["vendor_message"], row["vendor_message"]
    assert poisoned not in row["vendor_message"]
    assert gateway.attempts(poison) == [("send", outcome)]
    stored = gateway.verification(poison)
    assert (stored["status"], stored["sealed"], stored["send_count"]) == ("failed", None, 0)
    assert [gateway.wait(id)["outcome"] for id in beside] == ["sent"] * 2
    assert [gateway.wait(id)["outcome"] for id in good] == (["sent"] if usable else [outcome]) * 2
    assert [simulator.count("hyperverge", "send", to) for to in (before, poisoned, after)] == [
        int(usable),
        0,
        int(usable),
    ]


# the extension and its database


def test_drop_extension_with_a_queue(cluster, simulator):
    with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
        gateway.full()
        behind(gateway, 5)
        gateway.execute("SET statement_timeout = '30s'")
        gateway.execute("BEGIN; DROP EXTENSION otp_gateway CASCADE; ROLLBACK")
        gateway.execute("DROP EXTENSION otp_gateway CASCADE")
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart")
        simulator.release()
        id = gateway.enqueue()["verification_id"]
        assert gateway.wait(id)["outcome"] == "sent"
        assert simulator.count("ideamart", "send") == 2


def test_a_drop_that_is_rolled_back_loses_nothing(gateway, simulator):
    gateway.full()
    ids = behind(gateway, 5)
    gateway.execute("BEGIN; DROP EXTENSION otp_gateway CASCADE; ROLLBACK")
    simulator.release()
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 5
    assert simulator.count("ideamart", "send") == 6


def test_rename_a_database_with_a_queue(cluster, simulator):
    """What was at the vendor is unknown; the queue is taken up under the new name, though nobody calls."""
    name = f"test_{secrets.token_hex(4)}"
    with cluster.session() as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            with Gateway(cluster, name, simulator) as gateway:
                gateway.execute("CREATE EXTENSION otp_gateway")
                first = gateway.full()["verification_id"]
                ids = behind(gateway, 5)
            cursor.execute(f"ALTER DATABASE {name} RENAME TO {name}_b")
            assert simulator.count("ideamart", "send", atleast=6, wait=30000) == 6
            with Gateway(cluster, f"{name}_b", simulator) as gateway:
                assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 5
                assert gateway.wait(first)["outcome"] == "unknown"
            assert set(arrived(simulator).values()) == {1}
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"DROP DATABASE IF EXISTS {name}_b WITH (FORCE)")


def test_a_copy_of_a_database_sends_nothing_again(cluster, simulator):
    """CREATE DATABASE ... TEMPLATE copies the queue with the rest: each message is still sent once."""
    with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
        gateway.full()
        behind(gateway, 5)
        gateway.session.close()
        copy = f"{name}_b"
        with cluster.session() as admin, admin.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {copy} TEMPLATE {name}")
            try:
                # To copy it the worker let go: what was at the vendor is unknown, the others go out.
                assert simulator.count("ideamart", "send", atleast=6, wait=30000) >= 6
                with Gateway(cluster, copy, simulator) as copied:
                    copied.wait(copied.enqueue("narrow", vendor="ideamart")["verification_id"])
                    copied.settle()
                with Gateway(cluster, name, simulator) as gateway:
                    gateway.settle()
                assert set(arrived(simulator).values()) == {1}
            finally:
                cursor.execute(f"DROP DATABASE {copy} WITH (FORCE)")


def test_the_worker_ends_with_a_queue(gateway, simulator):
    first = gateway.full()["verification_id"]
    ids = behind(gateway, 5)
    [(pid,)] = gateway.execute(WORKER)
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
    gone(gateway, pid)
    # Nobody calls: there is a queue, and so there is a worker.
    arrives = simulator.count("ideamart", "send", atleast=6, wait=20000)
    # At the latest, the next one brings it.
    ids.append(gateway.enqueue()["verification_id"])
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 6
    assert arrives == 6
    assert gateway.wait(first)["outcome"] == "unknown"
    assert arrived(simulator) == once([first, *ids])


# restarts


def test_a_restart_takes_the_queue_up(own_cluster, simulator):
    """Of itself: nobody calls, and in no other database than its own."""
    databases = ["postgres", "second"]
    with own_cluster.session() as admin:
        admin.cursor().execute("CREATE DATABASE second TEMPLATE template0")
    queued, held = [], []
    for number, name in enumerate(databases):
        with Gateway(own_cluster, name, simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway")
            held.append(gateway.full()["verification_id"])
            queued += behind(gateway, 20)
    own_cluster.restart()
    # Those that the vendor had when the server stopped hang there still; in their places go the others.
    assert simulator.count("ideamart", "send", atleast=42, wait=30000) == 42
    for name in databases:
        with Gateway(own_cluster, name, simulator) as gateway:
            gateway.settle()
            assert statuses(gateway) == {"unknown": 1, "pending": 20}
    assert arrived(simulator) == once(queued + held)


def test_another_key(own_cluster, simulator):
    """What is sealed cannot be read any more: it waits, until the loss is accepted; then it fails, and says so."""
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart")
        gateway.full()
        ids = behind(gateway, 3)
    own_cluster.stop()
    path = own_cluster.data / "otp_gateway.key"
    path.write_text("".join(f"{15 - int(digit, 16):x}" for digit in path.read_text().strip()))
    # As in another cluster, that a dump was restored in: without it this would be the wrong file, and they would wait.
    (own_cluster.data / "otp_gateway.key_id").unlink()
    simulator.release()
    own_cluster.start()
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="was sealed under the key"):
            gateway.enqueue()
        assert statuses(gateway)["queued"] == 3
        gateway.execute("DELETE FROM otp_gateway_internal.sealing_key")
        for id in ids:
            row = gateway.wait(id)
            assert (row["outcome"], row["status"]) == ("invalid_request", "failed")
            assert "another key" in row["vendor_message"]
            assert gateway.attempts(id) == [("send", "invalid_request")]
        assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == 2


def backup(gateway):
    """The text of a pg_dump."""
    path = gateway.cluster.directory / f"{secrets.token_hex(4)}.sql"
    gateway.cluster.run(
        "pg_dump",
        "-h",
        gateway.cluster.directory,
        "-p",
        gateway.cluster.port,
        "-U",
        "postgres",
        "-f",
        path,
        gateway.database,
    )
    text = path.read_text()
    path.unlink()
    return text


def restore(cluster, database, text):
    output = cluster.psql(database, "-q", "-v", "ON_ERROR_STOP=1", script=text)
    assert "ERROR" not in output, output


def test_a_restored_backup_texts_nobody(cluster, gateway, simulator):
    """Yesterday's, in a database of the same server: nothing of it is sent, though all of it can be read."""
    held = gateway.full()["verification_id"]
    ids = behind(gateway, 5)
    text = backup(gateway)
    # What it says of today was said yesterday.
    [(today, yesterday)] = gateway.execute("SELECT current_date::text, (current_date - 1)::text")
    assert text.count(today) >= 6
    text = text.replace(today, yesterday)
    with cluster.database(extension=False) as name:
        restore(cluster, name, text)
        with Gateway(cluster, name, simulator) as restored:
            new = restored.enqueue("narrow", vendor="ideamart")["verification_id"]
            assert restored.wait(new)["outcome"] == "sent"
            for id in ids:
                row = restored.wait(id)
                assert (row["outcome"], row["status"]) == ("expired", "expired")
                assert restored.attempts(id) == [("send", "expired")]
            assert restored.wait(held)["outcome"] == "unknown"
            assert simulator.count("ideamart", "send") == 2
    # The queue that the backup was taken of goes on.
    simulator.release()
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 5
    assert arrived(simulator) == once([held, new, *ids])


def test_a_backup_restored_elsewhere_texts_nobody(own_cluster, gateway, simulator):
    """A fresh one, where the key is another."""
    gateway.full()
    ids = behind(gateway, 5)
    text = backup(gateway)
    with own_cluster.database(extension=False) as name:
        restore(own_cluster, name, text)
        with Gateway(own_cluster, name, simulator) as restored:
            assert statuses(restored)["queued"] == 5
            # The files of credentials did not come along. That is not what is wrong with what was queued.
            mapping = "SELECT option_value FROM pg_user_mappings, pg_options_to_table(umoptions) WHERE srvname = 'narrow' AND option_name = 'password_file'"
            [(path,)] = restored.execute(mapping)
            restored.execute(
                "ALTER USER MAPPING FOR PUBLIC SERVER narrow OPTIONS (SET password_file '/nowhere/password')"
            )
            restored.execute("DELETE FROM otp_gateway_internal.sealing_key")
            for id in ids:
                row = restored.wait(id)
                assert (row["outcome"], row["status"]) == ("invalid_request", "failed")
                assert (
                    "another key" in row["vendor_message"]
                    and "this is a copy; nothing was sent" in row["vendor_message"]
                )
            restored.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER narrow OPTIONS (SET password_file '{path}')")
            assert restored.wait(restored.enqueue("narrow", vendor="ideamart")["verification_id"])["outcome"] == "sent"
        assert simulator.count("ideamart", "send") == 2
    simulator.release()
    assert [gateway.wait(id)["outcome"] for id in ids] == ["sent"] * 5


# crashes


BACKLOG = 10_000


def check_after_the_crashes(gateway, simulator, ids):
    """Nothing lost, nothing sent twice, and the record says of each what the vendor saw of it."""
    record = dict(gateway.execute("SELECT id::text, status::text FROM otp_gateway.verification"))
    assert record.keys() == {str(id) for id in ids}
    seen = arrived(simulator)
    assert [id for id, times in seen.items() if times > 1] == [], "sent twice"
    assert seen.keys() <= record.keys()
    assert set(record.values()) <= {"pending", "unknown"}
    assert [id for id, status in record.items() if status == "pending" and seen[id] != 1] == [], "lost"
    attempts = gateway.execute(
        "SELECT v.status::text, a.operation::text, a.outcome::text, count(*)::int, count(DISTINCT v.id)::int"
        " FROM otp_gateway.verification v LEFT JOIN otp_gateway.attempt a ON a.verification_id = v.id GROUP BY 1, 2, 3"
    )
    # One attempt of each, with the outcome that its status comes of.
    assert {row[:3] for row in attempts} <= {("pending", "send", "sent"), ("unknown", "send", "unknown")}
    assert [row for row in attempts if row[3] != row[4]] == []
    return collections.Counter(record.values())


def test_immediate_stops_with_a_backlog(own_cluster, simulator):
    dice = random.Random(SEED)
    print(f"OTP_CRASH_SEED={SEED}")
    simulator.ask("POST", "/logging", {"enabled": False})
    try:
        # So slow that the last crash still finds a queue.
        simulator.fault("latency", "ideamart", "send", ms=20)
        with Gateway(own_cluster, "postgres", simulator) as gateway:
            gateway.execute("CREATE EXTENSION otp_gateway")
            gateway.create_provider("ideamart", max_in_flight="12", timeout="60s")
            gateway.execute(f"SET otp_gateway.max_sends_per_transaction = {BACKLOG}")
            ids = gateway.enqueue_many(BACKLOG)
        for round in range(20):
            before = simulator.count("ideamart", "send")
            after = before + dice.randrange(1, 200)
            assert simulator.count("ideamart", "send", atleast=after, wait=60000) >= after, "the queue stands still"
            own_cluster.restart("immediate")
        with Gateway(own_cluster, "postgres", simulator) as gateway:
            assert statuses(gateway).get("queued", 0) > 0, "the last crashes met no queue: the test shows nothing"
            simulator.clear_faults()
            gateway.execute("ALTER SERVER ideamart OPTIONS (SET max_in_flight '256')")
            until(lambda: not statuses(gateway).keys() & {"queued", "sending"}, "all have an outcome", 120)
            became = check_after_the_crashes(gateway, simulator, ids)
        # No more than were on the wire, and some were.
        assert 0 < became["unknown"] <= 20 * 12
        assert "PANIC" not in own_cluster.log()
    finally:
        simulator.ask("POST", "/logging", {"enabled": True})


def test_promotion_with_a_backlog(own_cluster, simulator):
    """On the standby nothing is sent; the primary crashes, the standby is promoted, and the queue goes out."""
    simulator.fault("hold", "ideamart", "send")
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", max_in_flight="4", timeout="60s")
        early = gateway.enqueue_many(250)
        simulator.held(4)
        with standby_of(own_cluster) as standby, standby.session() as there:
            late = gateway.enqueue_many(250)
            until(lambda: statuses(gateway, there) == {"sending": 4, "queued": 496}, "the standby has it all", 60)
            with pytest.raises(psycopg2.Error) as error:
                gateway.enqueue(session=there)
            assert error.value.pgcode == "25006"
            assert gateway.execute(
                "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker'", None, there
            ) == [(0,)]
            gateway.session.close()
            own_cluster.stop("immediate")
            simulator.clear_faults()
            simulator.release()
            assert simulator.count("ideamart", "send") == 4
            standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
            assert simulator.count("ideamart", "send", atleast=500, wait=60000) == 500
            gateway.session = there
            until(lambda: not statuses(gateway).keys() & {"queued", "sending"}, "all have an outcome", 60)
            assert check_after_the_crashes(gateway, simulator, early + late) == {"pending": 496, "unknown": 4}
            assert arrived(simulator) == once(early + late)


# many


MANY = 100_000
MEGABYTES = 64


def private(pid):
    """What a process has for itself alone, in kB: not what it shares with others, shared memory included."""
    return int(re.search(r"^RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])


class Watch:
    """The most memory that processes ever have, and that another session's calls are answered meanwhile."""

    def __init__(self, gateway, *pids):
        self.gateway, self.pids = gateway, pids
        self.least = [private(pid) for pid in pids]
        self.most, self.rows, self.error = list(self.least), [], None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            with self.gateway.cluster.session(self.gateway.database) as session:
                while not self.stop.wait(0.02):
                    self.most = [max(most, private(pid)) for most, pid in zip(self.most, self.pids)]
                    self.rows.append(self.gateway.send("hyperverge", session=session))
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(60)

    def grown(self):
        """In megabytes."""
        return [(most - least) / 1024 for most, least in zip(self.most, self.least)]


def test_a_hundred_thousand_rows_in_one_transaction(cluster, simulator):
    simulator.ask("POST", "/logging", {"enabled": False})
    try:
        with cluster.database() as name, Gateway(cluster, name, simulator) as gateway:
            gateway.create_provider("ideamart", timeout="5min")
            gateway.create_provider("hyperverge")
            # Warm: what is measured is what the rows cost.
            gateway.wait(gateway.enqueue()["verification_id"])
            gateway.execute("CREATE TABLE customer (phone text)")
            gateway.execute(
                "CREATE TRIGGER send_code AFTER INSERT ON customer FOR EACH ROW"
                " EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{\"mobile\": \"phone\"}')"
            )
            gateway.execute(f"SET otp_gateway.max_sends_per_transaction = {MANY}")
            simulator.fault("hold", "ideamart", "send")
            [(worker,)] = gateway.execute(WORKER)
            with Watch(gateway, gateway.session.info.backend_pid, worker) as watch:
                gateway.execute(
                    f"INSERT INTO customer SELECT '071' || lpad(n::text, 7, '0') FROM generate_series(1, {MANY}) AS n"
                )
                during = len(watch.rows)
                simulator.held(256, wait=60000)
                # With all of it queued and its provider full, and then with the queue going out.
                simulator.clear_faults()
                simulator.release()
                assert simulator.count("ideamart", "send", atleast=15_000, wait=120000) >= 15_000
            assert watch.error is None
            assert gateway.execute(
                "SELECT count(*)::int FROM otp_gateway.verification WHERE provider = 'ideamart'"
            ) == [(MANY + 1,)]
            assert gateway.execute(WORKER) == [(worker,)]
            assert max(watch.grown()) < MEGABYTES, f"session, worker: {watch.grown()} MB"
            assert {row["outcome"] for row in watch.rows} == {"sent"}
            assert during >= 10, "the insert was over too soon to show anything"
            seen = arrived(simulator)
            assert max(seen.values()) == 1
    finally:
        simulator.ask("POST", "/logging", {"enabled": True})


# at rest


def test_at_rest(place, simulator):
    """While it is queued, while it is at the vendor, after it was sent, and where it never was."""
    gateway, canaries = place.gateway, place.canaries
    for vendor, credentials in [
        ("iserveu", ["client_id", "client_secret"]),
        ("paytm", ["username", "password"]),
        ("ideamart", ["application_id", "password"]),
        ("relid", ["username", "password"]),
    ]:
        gateway.create_provider(
            vendor,
            credentials={f"{key}_file": place.file(key) for key in credentials},
            max_in_flight="1",
            timeout="60s",
        )

    def payload(vendor):
        if vendor == "ideamart":
            national = "77" + digits(7)
            canaries.digits(national)
            return {"mobile": secrets.choice([f"0{national}", f"+94{national}", f"tel:94{national}"])}
        if vendor == "relid":
            return FLOWS["relid"]["send"](canaries.secret("user"))
        to = canaries.number()
        body = FLOWS[vendor]["send"](secrets.choice([to, f"+91{to}", f"+91 {to[:5]} {to[5:]}"]))
        if vendor == "iserveu":
            return body | {"ovd_data": canaries.number(12)}
        return body | {"order_id": "ORDER" + secrets.token_hex(6), "token": canaries.secret("token")}

    def enqueue(vendor, before="", after=""):
        gateway.execute(f"{before} SELECT otp_enqueue('{vendor}', '{json.dumps(payload(vendor))}'); {after}")

    vendors = ("iserveu", "paytm", "ideamart", "relid")
    simulator.fault("hold")
    for vendor in vendors:
        for _ in range(3):
            enqueue(vendor)
        # Where it never comes to a commit, and where the statement fails.
        enqueue(vendor, "BEGIN;", "ROLLBACK")
        enqueue(vendor, "BEGIN; SAVEPOINT s;", "ROLLBACK TO s; COMMIT")
        with pytest.raises(psycopg2.Error):
            enqueue(vendor, after="SELECT 1 / 0")
        with pytest.raises(psycopg2.Error):
            gateway.execute(f"SELECT otp_enqueue('{vendor}', '{json.dumps(payload(vendor) | {'mobil': '1'})}')")
    simulator.held(4)
    assert statuses(gateway) == {"sending": 4, "queued": 8}
    gateway.execute(
        f"DO $$ BEGIN RAISE LOG 'in the log: %', '{VISIBLE}'; END $$; CREATE TABLE control AS SELECT '{VISIBLE}' AS a"
    )
    gateway.execute("CHECKPOINT")
    assert place.search() == []
    # A row's text, too, and what the sessions and the worker show of themselves.
    shown = place.as_text() + str(
        gateway.execute("SELECT backend_type, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    )
    assert sorted(needle for needle in canaries.needles() if needle in shown) == []

    # A crash in the middle of it; then all of it goes out.
    gateway.session.close()
    place.cluster.stop("immediate")
    assert place.search() == []
    simulator.clear_faults()
    simulator.release()
    place.cluster.start()
    gateway.session = gateway.connect()
    gateway.settle()
    assert statuses(gateway) == {"unknown": 4, "pending": 8}
    assert [simulator.count(vendor, "send") for vendor in vendors] == [3] * 4
    gateway.execute("CHECKPOINT")
    assert place.search() == []
    gateway.session.close()
    place.cluster.stop()
    assert place.search() == []
    hits = search(place.cluster.directory, control(VISIBLE))
    for where in ("/data/base/", "/data/pg_wal/", "/server.log"):
        assert any(hit.startswith(where) for hit in hits), (where, hits)
    assert len(canaries.numbers) >= 24 and len(canaries.texts) >= 20
