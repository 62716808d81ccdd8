"""Promise: a provider that fails time and again is left alone, so that nobody waits for it in vain: after five faults in a
row sends are refused at once, with the time after which to come back, until a single probe finds it well. It can be seen
that it is so. What people do wrong is no fault of the provider's, what is queued waits and goes out later, and nobody
else is affected: no other provider, no check of a code that has been sent, no test number."""

import datetime
import json
import os

import psycopg2
import pytest

from cluster import free_port
from conftest import Running, until
from test_at_most_once import at
from test_crash import worker_pid
from test_enqueue import gone
from test_misuse import role as role

FAULTS = 5
# One fault of each kind: what the simulator is told, and the outcome that it makes.
KINDS = {
    "provider_error": {"kind": "status", "status": 503},
    "unknown": {"kind": "close_after_read"},
    "auth_failed": {"kind": "status", "status": 401},
}


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def seconds(count):
    return datetime.timedelta(seconds=count)


def fail(gateway, simulator, outcome="provider_error", provider="ideamart", times=FAULTS):
    """So many sends that end in a fault of the provider's."""
    if outcome == "unreachable":
        at(gateway, provider, base_url=f"http://127.0.0.1:{free_port()}/nobody")
    else:
        simulator.fault(vendor="ideamart", operation="send", times=times, **KINDS[outcome])
    rows = [gateway.send(provider, vendor="ideamart") for _ in range(times)]
    assert [(row["outcome"], row["reason"]) for row in rows] == [(outcome, None)] * times


def is_open(row):
    assert row["outcome"] in ("sent", "blocked"), row
    assert row["reason"] == (None if row["outcome"] == "sent" else "breaker")
    return row["outcome"] == "blocked"


def seen(gateway, provider="ideamart", session=None):
    """What the view says of the breaker."""
    [(value, source)] = gateway.execute(
        "SELECT value, source FROM otp_gateway.provider WHERE provider = %s AND setting = 'breaker'",
        (provider,),
        session,
    )
    return value


def recorded(gateway):
    return dict(
        gateway.execute(
            "SELECT s.srvname, b.open_until FROM otp_gateway_internal.breaker AS b JOIN pg_foreign_server AS s ON s.oid = b.server"
        )
    )


@pytest.mark.parametrize("outcome", [*KINDS, "unreachable"])
def test_it_opens(gateway, simulator, outcome):
    to = gateway.number()
    sent = gateway.send(to=to)
    fail(gateway, simulator, outcome)
    before, arrived = gateway.execute("SELECT clock_timestamp()")[0][0], simulator.count()
    rows = [gateway.send(), gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))]
    for row in rows:
        assert (row["outcome"], row["reason"], row["retryable"]) == ("blocked", "breaker", True)
        assert seconds(0) < row["retry_after"] <= seconds(5)
        assert "failed several times in a row" in row["vendor_message"]
        attempt = gateway.row(
            "SELECT outcome::text, reason, http_status FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],)
        )
        assert attempt == {"outcome": "blocked", "reason": "breaker", "http_status": None}
    assert [row["status"] for row in rows] == ["blocked", "pending"]
    assert simulator.count() == arrived
    # Whoever looks sees until when.
    ((name, open_until),) = recorded(gateway).items()
    assert name == "ideamart" and before - seconds(60) < open_until <= before + seconds(5)


def test_it_can_be_seen(gateway, simulator, role):
    """By everybody who looks at the providers."""
    _, session = role
    assert (seen(gateway), seen(gateway, session=session), recorded(gateway)) == ("closed", "closed", {})
    fail(gateway, simulator)
    assert seen(gateway).startswith("open")
    assert seen(gateway, session=session) == seen(gateway)
    assert seen(gateway, "hyperverge") == "closed"


def test_four_are_not_enough(gateway, simulator):
    """In a row: a success between them begins the count anew."""
    for _ in range(3):
        fail(gateway, simulator, times=FAULTS - 1)
        assert gateway.send()["outcome"] == "sent"
    assert recorded(gateway) == {}


@pytest.mark.parametrize(
    "outcome, reply",
    [
        ("invalid_request", {"statusCode": "E1312", "statusDetail": "invalid request"}),
        ("already_registered", {"statusCode": "E1351", "statusDetail": "registered"}),
        ("refused", {"statusCode": "E1999", "statusDetail": "no"}),
    ],
)
def test_mistakes_of_people_do_not_open_it(gateway, simulator, outcome, reply):
    simulator.fault("reply", "ideamart", "send", body={"version": "1.0", **reply}, times=2 * FAULTS)
    assert {gateway.send()["outcome"] for _ in range(2 * FAULTS)} == {outcome}
    assert gateway.send()["outcome"] == "sent"
    assert recorded(gateway) == {}


def test_wrong_codes_do_not_open_it(gateway, simulator):
    for _ in range(3):
        to = gateway.number()
        id = gateway.send(to=to)["verification_id"]
        wrong = simulator.wrong("ideamart", to)
        assert {gateway.verify(id, wrong)["outcome"] for _ in range(3)} == {"invalid_code"}
    assert gateway.send()["outcome"] == "sent"


def test_rate_limited_does_not_open_it(gateway, simulator):
    """The vendor is there, and says so."""
    simulator.fault("status", "ideamart", "send", status=429, times=2 * FAULTS)
    assert {gateway.send()["outcome"] for _ in range(2 * FAULTS)} == {"rate_limited"}
    assert gateway.send()["outcome"] == "sent"


def test_what_is_not_affected(gateway, simulator):
    """Open for one provider: every other one goes on, also one of the same vendor; and so do checks and test numbers."""
    gateway.create_provider("another", "ideamart")
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD test_numbers '+94770009999=4711')")
    to = gateway.number()
    id = gateway.send(to=to)["verification_id"]
    fail(gateway, simulator)
    assert is_open(gateway.send())
    assert gateway.send("another", vendor="ideamart")["outcome"] == "sent"
    assert gateway.send("hyperverge")["outcome"] == "sent"
    assert gateway.verify(id, simulator.wrong("ideamart", to))["outcome"] == "invalid_code"
    assert gateway.verify(id, simulator.code("ideamart", to))["outcome"] == "approved"
    assert gateway.send(to="0770009999")["outcome"] == "sent"
    assert is_open(gateway.send())


@pytest.fixture
def own_credentials(gateway, role):
    """A role with USAGE on two providers, and with credentials of its own there."""
    name, session = role
    gateway.execute(f"GRANT USAGE ON FOREIGN SERVER ideamart, hyperverge TO {name}")
    gateway.execute(f"CREATE USER MAPPING FOR {name} SERVER ideamart OPTIONS (application_id 'own', password 'own')")
    gateway.execute(f"CREATE USER MAPPING FOR {name} SERVER hyperverge OPTIONS (app_id 'x', app_key 'own')")
    yield session


def test_credentials_of_one_s_own_open_one_s_own(gateway, simulator, own_credentials):
    """It is the account's: that of others stays closed, at the same provider, and is seen so."""
    simulator.fault("status", "ideamart", "send", status=401, times=FAULTS)
    assert [gateway.send(session=own_credentials)["outcome"] for _ in range(FAULTS)] == ["auth_failed"] * FAULTS
    assert is_open(gateway.send(session=own_credentials))
    assert [gateway.send()["outcome"] for _ in range(3)] == ["sent"] * 3
    assert seen(gateway, session=own_credentials).startswith("open")
    assert seen(gateway) == "closed"
    assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"


def test_what_could_not_leave_is_no_fault_of_the_provider_s(gateway, simulator, own_credentials):
    """A credential that cannot stand in a header, written past the validator: nobody was asked."""
    gateway.execute(
        "UPDATE pg_user_mapping SET umoptions = ARRAY[E'app_id=x\\ny', 'app_key=own'] WHERE umoptions @> ARRAY['app_id=x']"
    )
    for _ in range(2 * FAULTS):
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="app_id"):
            gateway.send("hyperverge", session=own_credentials)
    assert gateway.send("hyperverge")["outcome"] == "sent"
    assert recorded(gateway) == {} and simulator.count("hyperverge") == 1


def test_a_send_that_is_blocked_by_it_does_not_count(gateway, simulator):
    """Nothing was sent: no cooldown and no limit begins."""
    gateway.create_provider("limited", "ideamart", resend_after="1h", send_limit="1 per day")
    fail(gateway, simulator, provider="limited")
    to = gateway.number()
    assert {gateway.send("limited", to, vendor="ideamart")["reason"] for _ in range(3)} == {"breaker"}


def test_a_server_made_anew_starts_closed(gateway, simulator):
    fail(gateway, simulator)
    assert is_open(gateway.send())
    gateway.execute("DROP SERVER ideamart CASCADE")
    gateway.create_provider("ideamart")
    assert gateway.send()["outcome"] == "sent"
    assert "ideamart" not in recorded(gateway)


def test_what_was_under_way_does_not_open_it_for_longer(gateway, simulator):
    """Eight are asked before the first is answered: the fifth fault opens it, and those after it change nothing."""
    simulator.fault("status", "ideamart", "send", status=503, ms=1500, times=8)
    sessions = [gateway.connect() for _ in range(8)]
    body = "SELECT * FROM otp_send('ideamart', %s::jsonb)"
    running = [Running(session, body, (json.dumps({"mobile": gateway.number()}),)) for session in sessions]
    assert {one.row()["outcome"] for one in running} == {"provider_error"}
    [session.close() for session in sessions]
    row = gateway.send()
    assert is_open(row) and row["retry_after"] <= seconds(5)


def end_worker(gateway):
    pid = worker_pid(gateway, None)
    gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
    gone(gateway, pid)


def until_later(gateway, provider="ideamart"):
    """Makes the time that it is open for long, so that no probe of its own comes in between."""
    gateway.execute(
        "UPDATE otp_gateway_internal.breaker AS b SET failed_at = now(), open_until = now() + interval '5 min'"
        " FROM pg_foreign_server AS s WHERE s.oid = b.server AND s.srvname = %s",
        (provider,),
    )
    end_worker(gateway)
    row = gateway.send(provider, vendor="ideamart")
    assert is_open(row) and row["retry_after"] > seconds(200)


def test_a_new_worker_knows_those_that_are_open(gateway, simulator):
    """Also of a provider that would be called by nobody but it, and as long as the old one would have waited."""
    fail(gateway, simulator)
    until_later(gateway)
    assert seen(gateway).startswith("open until")
    # What is past is past: it starts closed.
    gateway.execute("UPDATE otp_gateway_internal.breaker SET open_until = now()")
    end_worker(gateway)
    assert gateway.send()["outcome"] == "sent"
    assert (recorded(gateway), seen(gateway)) == ({}, "closed")


MENDED = {
    "a server option": lambda gateway: gateway.execute("ALTER SERVER ideamart OPTIONS (ADD connect_timeout '2s')"),
    "the user mapping": lambda gateway: gateway.execute(
        "ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (DROP password_file, ADD password 'another')"
    ),
}


@pytest.mark.parametrize("what", [*MENDED, "a file of credentials"])
@pytest.mark.parametrize("who", ["somebody", "a queued one", "a new worker"])
def test_what_is_mended_is_tried_at_once(gateway, simulator, what, who):
    """Whoever has mended the cause has not to wait for the end of the time."""
    if what == "a file of credentials":
        secret = gateway.cluster.directory / f"password_{os.urandom(4).hex()}"
        secret.write_text("another")
        secret.chmod(0o644)
        gateway.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (SET password_file '{secret}')")
    fail(gateway, simulator, "auth_failed")
    until_later(gateway)
    queued = gateway.enqueue()["verification_id"]
    before, arrived = len(gateway.cluster.log()), simulator.count("ideamart", "send")
    assert is_open(gateway.send())
    if what == "a file of credentials":
        secret.write_text("a third one")
    else:
        MENDED[what](gateway)
    if who == "a new worker":
        end_worker(gateway)
    if who == "somebody":
        assert gateway.send()["outcome"] == "sent"
        arrived += 1
    # The breaker itself would have it wait for longer.
    assert gateway.wait(queued, "5s")["outcome"] == "sent"
    assert simulator.count("ideamart", "send") == arrived + 1
    assert (recorded(gateway), seen(gateway)) == ({}, "closed")
    lines = [line for line in gateway.cluster.log()[before:].splitlines() if 'provider "ideamart" has' in line]
    assert len(lines) == 1 and "it is tried anew" in lines[0], lines


def test_what_was_mended_in_vain_opens_it_again(gateway, simulator):
    """After as many faults as ever, and a probe that fails does not have it seem younger than it is."""
    fail(gateway, simulator, "auth_failed")
    assert is_open(gateway.send())
    MENDED["a server option"](gateway)
    fail(gateway, simulator, "auth_failed")
    assert is_open(gateway.send())
    ((opened, failed),) = gateway.execute("SELECT opened_at, failed_at FROM otp_gateway_internal.breaker")
    assert opened == failed
    simulator.fault("status", "ideamart", "send", status=401, times=1)
    until(lambda: gateway.send()["outcome"] == "auth_failed", "a probe goes", 20)
    until(
        lambda: (
            gateway.execute("SELECT opened_at, failed_at > opened_at FROM otp_gateway_internal.breaker")
            == [(opened, True)]
        ),
        "it is on record",
    )


# in its own time


def probed(gateway, provider="ideamart", timeout=30):
    """The first send that is let through."""
    return until(
        lambda: (lambda row: row["reason"] is None and row)(gateway.send(provider, vendor="ideamart")),
        "a probe is let through",
        timeout,
    )


def test_a_probe_closes_it_and_a_failed_one_does_not(gateway, simulator):
    """Two providers at once, for time's sake: with one the probe succeeds, with the other it fails."""
    for name in ("recovers", "stays_ill"):
        gateway.create_provider(name, "ideamart")
        fail(gateway, simulator, "unreachable" if name == "stays_ill" else "provider_error", name)
        opened = gateway.send(name, vendor="ideamart")
        assert is_open(opened) and opened["retry_after"] <= seconds(5)
    # While it is open, two are queued at the one that recovers, and a whole crowd.
    queued = [gateway.enqueue("recovers", vendor="ideamart")["verification_id"] for _ in range(20)]
    arrived = simulator.count("ideamart", "send")

    # Nobody asks for anything: a queued one is the probe, and the others follow when it has succeeded.
    assert {gateway.wait(id, "60s")["outcome"] for id in queued} == {"sent"}
    assert [gateway.attempts(id) for id in queued] == [[("send", "sent")]] * len(queued)
    assert simulator.count("ideamart", "send") == arrived + len(queued)
    assert gateway.send("recovers", vendor="ideamart")["outcome"] == "sent"
    began, ended = gateway.execute(
        "SELECT min(started_at), max(finished_at) FROM otp_gateway.attempt WHERE outcome IN ('sent', 'provider_error')"
        " AND provider = 'recovers' GROUP BY outcome ORDER BY outcome DESC"
    )
    assert began[0] - ended[1] >= seconds(5)

    # The other one is tried once, and then left alone for twice as long.
    probe = probed(gateway, "stays_ill")
    assert probe["outcome"] == "unreachable"
    row = gateway.send("stays_ill", vendor="ideamart")
    assert row["reason"] == "breaker" and seconds(5) < row["retry_after"] <= seconds(10)
    assert set(recorded(gateway)) == {"stays_ill"}


def test_one_probe_at_a_time(gateway, simulator):
    """While one is under way nobody else is let through; once it has succeeded, everybody is."""
    fail(gateway, simulator)
    blocked = gateway.send()
    assert is_open(blocked)
    simulator.fault("hold", "ideamart", "send")
    with gateway.cluster.session(gateway.database) as session:
        held = simulator.ask("GET", "/held")["held"]

        def asked():
            """Who is let through is held; who is not comes back at once."""
            running = Running(
                session, "SELECT * FROM otp_send('ideamart', %s::jsonb)", (json.dumps({"mobile": gateway.number()}),)
            )
            until(lambda: running.ended_at or simulator.ask("GET", "/held")["held"] > held, "it comes back, or arrives")
            return running if running.ended_at is None else None

        probe = until(asked, "a probe is let through", 30)
        assert all(is_open(gateway.send()) for _ in range(5))
        assert simulator.ask("GET", "/held")["held"] == held + 1
        simulator.clear_faults()
        simulator.release()
        assert probe.row()["outcome"] == "sent"
    assert gateway.send()["outcome"] == "sent"
    assert recorded(gateway) == {}
    assert seen(gateway) == "closed"
