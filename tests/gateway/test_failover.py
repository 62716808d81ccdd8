"""Promise: a route is several providers under one name. A send goes on to the next one where the one before certainly sent
nothing, for a reason of its own, and never otherwise: nobody gets two messages, and nobody is written to by another vendor
who was refused by the first. What comes after goes to whoever sent. Limits are the providers' own, whatever route leads to
them, and the right to use the route is all that it takes."""

import json
import os
import random

import psycopg2
import pytest

from cluster import free_port
from conftest import FLOWS, Gateway, Running, make_fail, until
from test_at_most_once import at
from test_crash import worker_pid
from test_enqueue import gone
from test_limits import ENQUEUE, SEND, AtOnce, SESSIONS, counted, crowd as crowd, sandbox
from test_locked import waits
from test_misuse import role as role
from test_retention import find
from vendors import TABLE, spelled

SEED = int(os.environ.get("OTP_TRAFFIC_SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def route(gateway, name="codes", providers="first, second", **options):
    listed = ", ".join(f"{option} '{value}'" for option, value in {"providers": providers, **options}.items())
    gateway.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER otp_route OPTIONS ({listed})")


def two_accounts(gateway):
    """The route `codes` over two accounts at HyperVerge, which can be told apart by their credentials."""
    for name in ("first", "second"):
        gateway.create_provider(name, "hyperverge", {"app_id": f"id-of-{name}", "app_key": "key"})
    route(gateway)
    return gateway


@pytest.fixture
def routed(gateway):
    return two_accounts(gateway)


def send(gateway, to, provider="codes", session=None, call=SEND, **more):
    """Its row, at once or after COMMIT."""
    row = gateway.row(call, (provider, json.dumps({**FLOWS["hyperverge"]["send"](to), **more})), session)
    return gateway.wait(row["verification_id"], session=session) if call == ENQUEUE else row


def tries(gateway, id):
    return gateway.execute(
        "SELECT provider, outcome::text, reason FROM otp_gateway.attempt WHERE verification_id = %s ORDER BY id", (id,)
    )


def messages(simulator, to, vendor="hyperverge"):
    """How many came to a person."""
    try:
        return simulator.ask("GET", f"/inbox/{vendor}/{to}")["count"]
    except AssertionError as nothing:
        assert "no code came" in str(nothing)
        return 0


def asked(simulator, operation):
    """Who was asked, in order."""
    return [entry["headers"]["appid"].removeprefix("id-of-") for entry in simulator.log("hyperverge", operation)]


def no_member(gateway, name):
    """Nobody is there."""
    at(gateway, name, base_url=f"http://127.0.0.1:{free_port()}/nobody")


# every outcome and fault of the first


FAULTS = {
    # what the first does, what that is, whether the second is tried, and the messages that the person gets
    "well": (None, "sent", False, 1),
    "not there": ("nobody", "unreachable", True, 1),
    "no name": ("https://nowhere.invalid", "unreachable", True, 1),
    "429": ({"kind": "status", "status": 429}, "rate_limited", True, 1),
    "429, later": ({"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}}, "rate_limited", True, 1),
    "401": ({"kind": "status", "status": 401}, "auth_failed", True, 1),
    "403": ({"kind": "status", "status": 403}, "auth_failed", True, 1),
    "503": ({"kind": "status", "status": 503}, "provider_error", True, 1),
    "redirect of the request": ({"kind": "redirect", "status": 307}, "provider_error", True, 1),
    "its own 500": ({"kind": "reply", "body": {"status": "failure", "statusCode": 500}}, "provider_error", True, 1),
    "500": ({"kind": "status", "status": 500}, "unknown", False, 0),
    "502": ({"kind": "status", "status": 502}, "unknown", False, 0),
    "closed before": ({"kind": "close_before_read"}, "unknown", False, 0),
    "closed after": ({"kind": "close_after_read"}, "unknown", False, 1),
    "reset": ({"kind": "reset"}, "unknown", False, 1),
    "no answer": ({"kind": "never"}, "unknown", False, 1),
    "half an answer": ({"kind": "truncated"}, "unknown", False, 1),
    "half the JSON": ({"kind": "truncated_json"}, "unknown", False, 1),
    "an endless answer": ({"kind": "huge"}, "unknown", False, 1),
    "redirect to a result": ({"kind": "redirect"}, "unknown", False, 0),
    "a gateway's 504": ({"kind": "reply", "body": {"status": "failure", "statusCode": 504}}, "unknown", False, 0),
    "HTML": ({"kind": "html"}, "unknown", False, 0),
    "404 with words": ({"kind": "status", "status": 404, "body": "no such page"}, "unknown", False, 0),
    "404": ({"kind": "status", "status": 404}, "refused", False, 0),
    "400": (
        {"kind": "reply", "body": {"status": "failure", "statusCode": 400, "message": "no"}},
        "invalid_request",
        False,
        0,
    ),
    "its own words": (
        {"kind": "reply", "body": {"status": "failure", "statusCode": 200, "error": {"message": "blacklisted"}}},
        "refused",
        False,
        0,
    ),
}


@pytest.mark.parametrize("call", [SEND, ENQUEUE], ids=["now", "after commit"])
@pytest.mark.parametrize("fault, outcome, goes_on, count", list(FAULTS.values()), ids=list(FAULTS))
def test_fault(routed, simulator, call, fault, outcome, goes_on, count):
    """The person gets one message or none, and never one from each."""
    to = routed.number("hyperverge")
    at(routed, "first", timeout="900ms" if fault == {"kind": "never"} else "10s")
    if fault == "nobody":
        no_member(routed, "first")
    elif isinstance(fault, str):
        at(routed, "first", base_url=fault)
    elif fault:
        simulator.fault(vendor="hyperverge", operation="send", times=1, **fault)
    row = send(routed, to, call=call)
    id = row["verification_id"]
    assert row["outcome"] == ("sent" if goes_on else outcome)
    assert tries(routed, id) == [("first", outcome, None)] + ([("second", "sent", None)] if goes_on else [])
    assert messages(simulator, to) == count
    sent_by = "second" if goes_on else "first"
    stored = routed.verification(id)
    assert (stored["provider"], stored["route"], stored["vendor"]) == (sent_by, "codes", "hyperverge")
    assert stored["status"] == row["status"] == {"sent": "pending", "unknown": "unknown"}.get(row["outcome"], "failed")
    assert asked(simulator, "send").count("second") == goes_on
    # Who has a message can use it.
    if count:
        assert routed.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"
        assert asked(simulator, "verify") == [sent_by]


OUTCOMES = {
    "sent": False,
    "already_registered": False,
    "rate_limited": True,
    "invalid_request": False,
    "auth_failed": True,
    "refused": False,
    "provider_error": True,
    "unreachable": True,
    "unknown": False,
}


@pytest.mark.parametrize("outcome, goes_on", list(OUTCOMES.items()), ids=list(OUTCOMES))
def test_outcome(gateway, simulator, outcome, goes_on):
    """Every outcome that a send can have, of a provider that is told to have it."""
    sandbox(gateway, "first")
    gateway.create_provider("second", "hyperverge")
    route(gateway)
    to = gateway.number("hyperverge")
    row = send(gateway, to, outcome=outcome)
    assert row["outcome"] == ("sent" if goes_on else outcome)
    assert tries(gateway, row["verification_id"]) == [("first", outcome, None)] + [("second", "sent", None)] * goes_on
    assert messages(simulator, to) == goes_on


def test_a_crowd_at_an_ailing_provider(gateway, simulator):
    """Everybody's message is one at most, and is one wherever one of them could send."""
    print(f"OTP_TRAFFIC_SEED={SEED}")
    dice = random.Random(SEED)
    gateway.create_provider("first", "hyperverge")
    gateway.create_provider("second", "paytm")
    route(gateway)
    # The breaker is not what this is about: a fault that sends on is followed by one that shows the provider well.
    kinds = ["well", "429", "closed after", "404", "its own words"]
    numbers = [gateway.number("hyperverge") for _ in range(60)]
    plan = [dice.choice(kinds) for _ in numbers]
    for to, kind in zip(numbers, plan):
        fault = FAULTS[kind][0]
        if fault:
            simulator.fault(vendor="hyperverge", operation="send", recipient=to, **fault)
    sessions = [gateway.connect() for _ in range(20)]

    def work(n, session):
        for to in numbers[n::20]:
            paytm = {key: value for key, value in FLOWS["paytm"]["send"](to).items() if key != "mobile"}
            send(gateway, to, session=session, call=[SEND, ENQUEUE][n % 2], **paytm)

    AtOnce(sessions, work).results()
    [session.close() for session in sessions]
    for to, kind in zip(numbers, plan):
        _, outcome, goes_on, count = FAULTS[kind]
        got = (messages(simulator, to), messages(simulator, to, "paytm"))
        if outcome == "unknown" or not goes_on:
            # Or, with the breaker open by then, from the second.
            assert got == (count, 0) or got == (0, 1), (kind, got)
        else:
            assert got == (0, 1), (kind, got)


# what comes after


def test_the_flow_stays_with_who_sent(routed, simulator):
    """The first is well again: check, resend and the check after it go to the second all the same."""
    no_member(routed, "first")
    to = routed.number("hyperverge")
    id = send(routed, to)["verification_id"]
    at(routed, "first", base_url=simulator.url("hyperverge"))
    assert routed.verify(id, simulator.wrong("hyperverge", to))["outcome"] == "invalid_code"
    assert routed.row("SELECT * FROM otp_resend(%s)", (id,))["outcome"] == "sent"
    assert routed.verify(id, simulator.code("hyperverge", to, atleast=2))["outcome"] == "approved"
    assert {name for operation in ("send", "verify", "resend") for name in asked(simulator, operation)} == {"second"}
    assert routed.verify(id, "123456")["outcome"] == "already_used"


def test_a_resend_goes_nowhere_else(routed, simulator):
    """It is a message of a flow that one vendor knows."""
    to = routed.number("hyperverge")
    id = send(routed, to)["verification_id"]
    no_member(routed, "first")
    row = routed.row("SELECT * FROM otp_resend(%s)", (id,))
    assert (row["outcome"], row["status"]) == ("unreachable", "pending")
    assert set(asked(simulator, "send") + asked(simulator, "resend")) == {"first"}


def test_vendors_of_different_countries(gateway, simulator):
    """One payload for all of them: each takes what it knows, and who cannot take the number is left out."""
    for vendor in ("ideamart", "hyperverge"):
        gateway.execute(f"DROP SERVER {vendor} CASCADE")
        gateway.create_provider(vendor)
    route(gateway, providers="ideamart, hyperverge")
    lk, india = gateway.number(), gateway.number("hyperverge")
    for to, vendor in ((lk, "ideamart"), (india, "hyperverge")):
        id = send(gateway, to)["verification_id"]
        assert tries(gateway, id) == [(vendor, "sent", None)]
        assert gateway.verification(id)["vendor"] == vendor
        assert gateway.verify(id, simulator.code(vendor, to))["outcome"] == "approved"
    assert {entry["complaint"] for entry in simulator.log()} == {None}
    for body, word in (
        ({"mobile": "+12025550123"}, "mobile"),
        ({"mobile": lk, "colour": "red"}, "colour"),
        ({}, "mobile"),
    ):
        for call in (SEND, ENQUEUE):
            with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
                gateway.row(call, ("codes", json.dumps(body)))
            assert word in error.value.diag.message_primary
    assert gateway.execute("SELECT count(*)::int FROM otp_gateway.verification") == [(2,)]


@pytest.mark.parametrize(
    "first, second, more",
    [("ideamart", "twilio", {}), ("hyperverge", "msg91", {"defaults": '{"template_id": "house"}'})],
)
def test_a_number_in_any_spelling_is_one_recipient_across_vendors(gateway, simulator, first, second, more):
    gateway.create_provider("one", first, send_limit="1000 per day", **more)
    gateway.create_provider("two", second, send_limit="2 per hour", **more)
    route(gateway, providers="one, two")
    to = gateway.number(first)
    ways = spelled(first, to)[:3]
    # The first says that it did nothing.
    simulator.fault("status", first, "send", status=503)
    ids, rows = [], []
    for way, call in zip(ways, (SEND, ENQUEUE, SEND)):
        ids.append(gateway.row(call, ("codes", json.dumps({"mobile": way})))["verification_id"])
        rows.append(gateway.wait(ids[-1]))
    assert [(row["outcome"], row["reason"]) for row in rows] == [
        ("sent", None),
        ("sent", None),
        ("blocked", "send_limit"),
    ]
    for id in ids[:2]:
        assert tries(gateway, id) == [("one", "provider_error", None), ("two", "sent", None)]
    kept = gateway.execute(
        "SELECT DISTINCT recipient_key, recipient_masked FROM otp_gateway_internal.verification_record"
    )
    assert len(kept) == 1
    assert len(gateway.execute("SELECT DISTINCT recipient_key FROM otp_gateway_internal.attempt_record")) == 1
    # Well again: the first sends to the same person.
    simulator.clear_faults()
    again = gateway.row(SEND, ("codes", json.dumps({"mobile": ways[1]})))["verification_id"]
    assert tries(gateway, again) == [("one", "sent", None)]
    for way in ways:
        assert set(find(gateway, way, "codes")) == {*ids, again}
        assert set(find(gateway, way, "two")) == set(ids)
    assert (
        gateway.verify(ids[0], simulator.code(second, to, atleast=2), **TABLE[second].verify)["outcome"] == "approved"
    )
    assert gateway.execute("SELECT otp_gateway.is_approved(%s, %s)", (ids[0], ways[2])) == [(True,)]
    assert gateway.execute("SELECT otp_gateway.forget('codes', %s)", (ways[2],)) == [(4,)]
    assert {entry["complaint"] for entry in simulator.log()} == {None}


def test_a_way_that_the_first_does_not_have(gateway, simulator):
    """It is left out; nobody who is to be rung up gets a text."""
    gateway.create_provider("one", "ideamart")
    gateway.create_provider("two", "twilio")
    route(gateway, providers="one, two")
    to = gateway.number()
    for channel, provider in (("sms", "one"), ("voice", "two"), ("whatsapp", "two")):
        id = gateway.row(SEND, ("codes", json.dumps({"mobile": to, "channel": channel})))["verification_id"]
        assert tries(gateway, id) == [(provider, "sent", None)]
    asked = simulator.ask("GET", "/log", vendor="twilio")
    assert [entry["body"].rsplit("&", 1)[1] for entry in asked] == ["Channel=call", "Channel=whatsapp"]
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        gateway.row(SEND, ("codes", json.dumps({"mobile": to, "channel": "fax"})))
    assert error.value.diag.message_hint == "channel: only sms"


def test_all_of_them_fail(routed, simulator):
    """The row is the last one's, and every try is on record."""
    no_member(routed, "first")
    simulator.fault("status", "hyperverge", "send", status=404)
    for call in (SEND, ENQUEUE):
        row = send(routed, routed.number("hyperverge"), call=call)
        assert (row["outcome"], row["status"]) == ("refused", "failed")
        assert tries(routed, row["verification_id"]) == [("first", "unreachable", None), ("second", "refused", None)]
        assert routed.verification(row["verification_id"])["sealed"] is None


def test_a_queued_one_that_nobody_can_send_yet(routed, simulator):
    """It is tried again, from the first on, as any queued one is."""
    for name in ("first", "second"):
        no_member(routed, name)
    to = routed.number("hyperverge")
    id = routed.row(ENQUEUE, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))["verification_id"]
    until(lambda: ("second", "unreachable", None) in tries(routed, id), "both were tried")
    at(routed, "first", base_url=simulator.url("hyperverge"))
    assert routed.wait(id)["outcome"] == "sent"
    *failed, last = tries(routed, id)
    assert last == ("first", "sent", None) and {outcome for _, outcome, _ in failed} == {"unreachable"}
    assert messages(simulator, to) == 1
    assert routed.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"


def test_while_it_is_queued(routed, simulator):
    """It went nowhere yet: there is no code, and it can be canceled."""
    at(routed, "first", max_in_flight="1", timeout="60s")
    simulator.fault("hold", "hyperverge", "send", times=1)
    with routed.cluster.session(routed.database) as session:
        routed.row(ENQUEUE, ("codes", json.dumps(FLOWS["hyperverge"]["send"]("9700009999"))), session)
        simulator.held(1)
        id = routed.row(ENQUEUE, ("codes", json.dumps(FLOWS["hyperverge"]["send"]("9700009998"))))["verification_id"]
        assert routed.verify(id, "123456")["outcome"] == "not_found"
        assert routed.row("SELECT * FROM otp_cancel(%s)", (id,))["status"] == "canceled"
        simulator.release()
    assert {row["status"] for row in routed.settle()} == {"pending", "canceled"}
    assert messages(simulator, "9700009998") == 0


# the breaker


def open_breaker(gateway, simulator, name):
    """Of a member, by sends of its own."""
    simulator.fault("status", "hyperverge", "send", status=503, times=5)
    assert [gateway.send(name, vendor="hyperverge")["outcome"] for _ in range(5)] == ["provider_error"] * 5


def test_an_open_breaker_is_passed_over(routed, simulator):
    """At once, and on record; with that of all of them open, it is the wait that is told."""
    open_breaker(routed, simulator, "first")
    for call in (SEND, ENQUEUE):
        to = routed.number("hyperverge")
        row = send(routed, to, call=call)
        assert (row["outcome"], row["reason"]) == ("sent", None)
        assert tries(routed, row["verification_id"]) == [("first", "blocked", "breaker"), ("second", "sent", None)]
        assert routed.verification(row["verification_id"])["provider"] == "second"
        assert routed.verify(row["verification_id"], simulator.code("hyperverge", to))["outcome"] == "approved"
    open_breaker(routed, simulator, "second")
    arrived = simulator.count("hyperverge")
    row = send(routed, routed.number("hyperverge"))
    assert (row["outcome"], row["status"], row["reason"], row["retryable"]) == ("blocked", "blocked", "breaker", True)
    assert row["retry_after"] is not None
    assert [(outcome, reason) for _, outcome, reason in tries(routed, row["verification_id"])] == [
        ("blocked", "breaker")
    ] * 2
    assert simulator.count("hyperverge") == arrived


def test_a_queued_one_waits_for_all_the_breakers(routed, simulator):
    for name in ("first", "second"):
        open_breaker(routed, simulator, name)
    to = routed.number("hyperverge")
    id = routed.row(ENQUEUE, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))["verification_id"]
    # Whatever is enqueued after it and sent by another provider has had its turn after it.
    assert routed.wait(routed.enqueue()["verification_id"])["outcome"] == "sent"
    assert routed.verification(id)["status"] == "queued"
    assert routed.wait(id, "60s")["outcome"] == "sent"
    assert messages(simulator, to) == 1


# limits


def test_two_routes_over_one_provider(gateway, simulator, crowd):
    """Two hundred sessions, five messages: the limit is the provider's, whatever name it is called by."""
    gateway.create_provider("first", "hyperverge", send_limit="5 per hour")
    gateway.create_provider("second", "hyperverge")
    route(gateway, "one", "first, second")
    route(gateway, "other", "first")
    to = gateway.number("hyperverge")
    names = ["one", "other", "first"]
    rows = AtOnce(crowd, lambda n, session: send(gateway, to, names[n % 3], session)).results()
    assert counted(rows, "reason") == {None: 5, "send_limit": SESSIONS - 5}
    assert messages(simulator, to) == 5
    assert gateway.execute("SELECT DISTINCT provider FROM otp_gateway.attempt") == [("first",)]


@pytest.mark.parametrize("call", [SEND, ENQUEUE], ids=["now", "after commit"])
@pytest.mark.parametrize(
    "options, reason",
    [
        ({"send_limit": "1 per hour"}, "send_limit"),
        ({"resend_after": "1h"}, "resend_after"),
        ({"provider_limit": "1 per hour"}, "provider_limit"),
        ({"allowed_prefixes": "+9198"}, "allowed_prefixes"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_limit_is_no_reason_to_go_on(gateway, simulator, call, options, reason):
    """It is about the recipient, or about the bill: another vendor's message is one too many all the same."""
    gateway.create_provider("first", "hyperverge", **options)
    gateway.create_provider("second", "hyperverge")
    route(gateway)
    to = gateway.number("hyperverge")
    if reason != "allowed_prefixes":
        assert send(gateway, to)["outcome"] == "sent"
    before = messages(simulator, to)
    row = send(gateway, to, call=call)
    assert (row["outcome"], row["status"], row["reason"]) == ("blocked", "blocked", reason)
    assert tries(gateway, row["verification_id"]) == [("first", "blocked", reason)]
    stored = gateway.verification(row["verification_id"])
    assert (stored["provider"], stored["vendor"], stored["route"]) == ("first", "hyperverge", "codes")
    assert messages(simulator, to) == before


def test_a_limit_of_the_one_that_it_comes_to(gateway, simulator):
    gateway.create_provider("first", "hyperverge")
    gateway.create_provider("second", "hyperverge", send_limit="1 per hour")
    route(gateway)
    no_member(gateway, "first")
    to = gateway.number("hyperverge")
    rows = [send(gateway, to, call=call) for call in (SEND, SEND, ENQUEUE)]
    assert [(row["outcome"], row["reason"]) for row in rows] == [("sent", None)] + [("blocked", "send_limit")] * 2
    for row in rows[1:]:
        assert row["status"] == "blocked"
        assert tries(gateway, row["verification_id"]) == [
            ("first", "unreachable", None),
            ("second", "blocked", "send_limit"),
        ]
        assert gateway.verification(row["verification_id"])["sealed"] is None
    # The one that was waited for may have ended before: the record does not say how long to wait.
    assert rows[1]["retry_after"] is not None
    assert messages(simulator, to) == 1


def test_a_test_number(gateway, simulator):
    """Of the first: it takes its code, and nobody is asked."""
    gateway.create_provider("first", "hyperverge", test_numbers="+919999900001=123456")
    gateway.create_provider("second", "hyperverge")
    route(gateway)
    for call in (SEND, ENQUEUE):
        id = send(gateway, "9999900001", call=call)["verification_id"]
        assert gateway.verification(id)["is_test"] is True
        assert gateway.verify(id, "123456")["outcome"] == "approved"
    assert simulator.count() == 0


# keys


def test_a_key_is_the_route_s(routed, simulator):
    """Once, also where it went on; the same key at the provider itself is another."""
    no_member(routed, "first")
    to = routed.number("hyperverge")
    body = json.dumps(FLOWS["hyperverge"]["send"](to))
    keyed = "SELECT * FROM otp_send(%s, %s::jsonb, 'key')"
    first, again = (routed.row(keyed, ("codes", body)) for _ in range(2))
    assert (again["verification_id"], again["outcome"]) == (first["verification_id"], "sent")
    assert again["attempt_id"] == first["attempt_id"]
    assert messages(simulator, to) == 1
    # The first is well again: the key's result stands.
    at(routed, "first", base_url=simulator.url("hyperverge"))
    assert routed.row(keyed, ("codes", body))["verification_id"] == first["verification_id"]
    assert routed.row(keyed, ("second", body))["verification_id"] != first["verification_id"]
    assert messages(simulator, to) == 2


# by lot


def test_weighted(gateway):
    """By lot, in proportion; each send anew."""
    for name in ("first", "second"):
        sandbox(gateway, name)
    route(gateway, strategy="weighted", weights="3, 1")
    gateway.execute(
        "SELECT count(*) FROM generate_series(1, 300) AS n, otp_send('codes', jsonb_build_object('mobile', '0770000001',"
        " 'reference', 'r' || n))"
    )
    used = dict(gateway.execute("SELECT provider, count(*)::int FROM otp_gateway.attempt GROUP BY 1"))
    # 225 and 75, each 7.5 more or less; six times as much is less likely than a broken disk.
    assert sum(used.values()) == 300 and 30 <= used["second"] <= 120, used


def test_weight_zero_stands_by(routed, simulator):
    """Only when all the others have failed."""
    route(routed, "reserve", strategy="weighted", weights="0, 1")
    assert [
        tries(routed, send(routed, routed.number("hyperverge"), "reserve")["verification_id"]) for _ in range(20)
    ] == [[("second", "sent", None)]] * 20
    no_member(routed, "second")
    id = send(routed, routed.number("hyperverge"), "reserve")["verification_id"]
    assert tries(routed, id) == [("second", "unreachable", None), ("first", "sent", None)]


# rights and mistakes


def test_usage_on_the_route_is_enough(routed, simulator, role):
    """For everything that a flow needs; the providers themselves stay closed."""
    name, session = role
    routed.execute(f"GRANT USAGE ON FOREIGN SERVER codes TO {name}")
    no_member(routed, "first")
    for call in (SEND, ENQUEUE):
        to = routed.number("hyperverge")
        row = send(routed, to, session=session, call=call)
        assert row["outcome"] == "sent"
        id = row["verification_id"]
        assert routed.verify(id, simulator.wrong("hyperverge", to), session)["outcome"] == "invalid_code"
        assert routed.row("SELECT * FROM otp_resend(%s)", (id,), session)["outcome"] == "sent"
        assert routed.verify(id, simulator.code("hyperverge", to), session)["outcome"] == "approved"
        assert routed.verification(id)["created_by"] == name
    for member in ("first", "second"):
        for call in (SEND, ENQUEUE):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                send(routed, routed.number("hyperverge"), member, session, call)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            routed.verify_at(member, "123456", session, mobile=to)


def test_usage_on_the_providers_is_not(routed, simulator, role):
    name, session = role
    routed.execute(f"GRANT USAGE ON FOREIGN SERVER first, second TO {name}")
    for call in (SEND, ENQUEUE):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege) as error:
            send(routed, routed.number("hyperverge"), "codes", session, call)
        assert "codes" in error.value.diag.message_primary
    # Taken away in the middle of a flow, it ends there.
    routed.execute(
        f"GRANT USAGE ON FOREIGN SERVER codes TO {name}; REVOKE USAGE ON FOREIGN SERVER first, second FROM {name}"
    )
    id = send(routed, routed.number("hyperverge"), session=session)["verification_id"]
    routed.execute(f"REVOKE USAGE ON FOREIGN SERVER codes FROM {name}")
    for statement in ("otp_verify(%s::uuid, '123456')", "otp_resend(%s)"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            routed.row(f"SELECT * FROM {statement}", (id,), session)
    assert simulator.count("hyperverge") == 1


def test_a_route_begins_flows_only(routed, simulator):
    """Which of its providers would know of one that was begun elsewhere?"""
    to = routed.number("hyperverge")
    id = send(routed, to)["verification_id"]
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        routed.verify_at("codes", "123456", mobile=to)
    assert "verification_id" in error.value.diag.message_hint
    # The provider that sent knows it by its number.
    row = routed.verify_at("first", simulator.code("hyperverge", to), mobile=to)
    assert (row["outcome"], row["verification_id"]) == ("approved", id)


@pytest.mark.parametrize("providers", ["first, nowhere", "nowhere", "codes", "first, codes"])
def test_a_member_that_is_none(routed, simulator, providers):
    """Not there, or a route itself: said when it is used, for it may come and go."""
    try:
        route(routed, "broken", providers)
    except psycopg2.Error as error:
        assert error.pgcode in ("22023", "42704")
        return
    for call in (SEND, ENQUEUE):
        with pytest.raises(psycopg2.errors.UndefinedObject) as error:
            send(routed, routed.number("hyperverge"), "broken", call=call)
        assert {"nowhere", "codes"} & set(error.value.diag.message_primary.replace('"', " ").split())
    assert simulator.count() == 0


@pytest.mark.parametrize(
    "options",
    [
        "",
        "OPTIONS (providers '')",
        "OPTIONS (providers 'first,,second')",
        "OPTIONS (providers 'first, first')",
        "OPTIONS (providers 'first, second', strategy 'random')",
        "OPTIONS (providers 'first, second', weights '1')",
        "OPTIONS (providers 'first, second', weights '1, -1')",
        "OPTIONS (providers 'first, second', weights 'a, b')",
        f"OPTIONS (providers '{', '.join(f'p{n}' for n in range(17))}')",
    ],
)
def test_an_option_that_is_none(routed, options):
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        routed.execute(f"CREATE SERVER broken FOREIGN DATA WRAPPER otp_route {options}")
    assert error.value.diag.message_hint


@pytest.mark.parametrize("option", ["base_url", "send_limit", "provider", "bogus"])
def test_an_option_of_others(routed, option):
    with pytest.raises(psycopg2.Error) as error:
        routed.execute(f"CREATE SERVER broken FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'first', {option} 'x')")
    assert error.value.pgcode == "HV00D" and option in error.value.diag.message_primary


def test_it_can_be_seen(routed):
    """Among the providers, with what holds of it."""
    route(routed, "lots", strategy="weighted", weights="3, 1")
    shown = routed.execute(
        "SELECT provider, setting, value FROM otp_gateway.provider WHERE vendor = 'route' AND setting <> 'breaker'"
        " AND setting <> 'credentials' ORDER BY 1, 2"
    )
    assert shown == [
        ("codes", "providers", "first, second"),
        ("codes", "strategy", "ordered"),
        ("codes", "weights", "1, 1"),
        ("lots", "providers", "first, second"),
        ("lots", "strategy", "weighted"),
        ("lots", "weights", "3, 1"),
    ]


# interrupted


def test_the_worker_ends_while_the_second_is_asked(routed, simulator):
    """What may have been sent is not sent again, and can be used at the one that was asked."""
    no_member(routed, "first")
    to = routed.number("hyperverge")
    simulator.fault("hold", "hyperverge", "send")
    with routed.cluster.session(routed.database) as session:
        running = Running(session, SEND, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))
        simulator.held(1)
        pid = worker_pid(routed, None)
        routed.execute("SELECT pg_terminate_backend(%s)", (pid,))
        row = running.row()
        gone(routed, pid)
    simulator.clear_faults()
    simulator.release()
    assert (row["outcome"], row["status"]) == ("unknown", "unknown")
    id = row["verification_id"]
    assert tries(routed, id) == [("first", "unreachable", None), ("second", "unknown", None)]
    assert routed.verification(id)["provider"] == "second"
    assert routed.verify(id, simulator.code("hyperverge", to))["outcome"] == "approved"
    assert messages(simulator, to) == 1


def test_the_caller_goes_while_the_first_is_asked(routed, simulator):
    """The send goes on to the second all the same, and is on record."""
    to = routed.number("hyperverge")
    simulator.fault("hold", "hyperverge", "send", times=1)
    simulator.fault("status", "hyperverge", "send", status=503, ms=700, times=1)
    with routed.cluster.session(routed.database) as session:
        # Somebody else's is held, so that the one that counts meets the slow fault.
        other = Running(
            routed.connect(), SEND, ("codes", json.dumps(FLOWS["hyperverge"]["send"](routed.number("hyperverge"))))
        )
        simulator.held(1)
        running = Running(session, SEND, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))
        simulator.count("hyperverge", "send", atleast=2, wait=10000)
        session.cancel()
        assert running.wait().error.pgcode == "57014"
        simulator.release()
        other.row()
        other.session.close()
    assert simulator.count("hyperverge", "send", atleast=3, wait=10000) == 3
    rows = until(
        lambda: (lambda rows: len(rows) == 3 and all(outcome for _, outcome in rows) and rows)(
            routed.execute("SELECT provider, outcome::text FROM otp_gateway.attempt ORDER BY id")
        ),
        "three attempts with an outcome",
    )
    assert sorted(rows) == [("first", "provider_error"), ("first", "sent"), ("second", "sent")]
    assert messages(simulator, to) == 1


def test_the_worker_dies_while_the_second_is_asked(mortal_cluster, simulator):
    """By an error. The caller hears of the one that may have sent, and not that the first was not there."""
    with mortal_cluster.database() as name, Gateway(mortal_cluster, name, simulator) as mortal:
        two_accounts(mortal)
        no_member(mortal, "first")
        at(mortal, "second", timeout="60s")
        to = mortal.number("hyperverge")
        simulator.fault("hold", "hyperverge", "send", times=1)
        call = Running(mortal.connect(), SEND, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))
        simulator.held(1)
        pid = worker_pid(mortal, None)
        make_fail(mortal_cluster, pid)
        # It goes to sleep again.
        other = Running(
            mortal.connect(), SEND, ("second", json.dumps(FLOWS["hyperverge"]["send"](mortal.number("hyperverge"))))
        )
        row = call.row()
        other.wait()
        assert worker_pid(mortal, None) != pid
        simulator.release()
        [(_, asked_first), (last, asked_second)] = mortal.execute(
            "SELECT id, provider FROM otp_gateway.attempt WHERE verification_id = %s ORDER BY id",
            (row["verification_id"],),
        )
        assert (asked_first, asked_second) == ("first", "second")
        assert tries(mortal, row["verification_id"]) == [("first", "unreachable", None), ("second", "unknown", None)]
        assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
        assert row["attempt_id"] == last
        assert mortal.verify(row["verification_id"], simulator.code("hyperverge", to))["outcome"] == "approved"
        assert messages(simulator, to) == 1


# the second cannot be put on record


@pytest.fixture
def without_a_record(routed, simulator):
    """No attempt at the second can be put on record, by a constraint of somebody else's."""
    id = send(routed, routed.number("hyperverge"), "second")["verification_id"]
    simulator.reset()
    second = routed.verification(id)["provider_id"]
    table = "ALTER TABLE otp_gateway_internal.attempt_record"
    routed.execute(f"{table} ADD CONSTRAINT no_second CHECK (provider_id <> {second}) NOT VALID")
    yield routed
    routed.execute(f"{table} DROP CONSTRAINT no_second")


def test_a_second_that_cannot_be_put_on_record(without_a_record, simulator):
    """It is asked nothing, and the send has failed: on record, for who waits, and for who repeats it by its key."""
    gateway = without_a_record
    no_member(gateway, "first")
    body = json.dumps(FLOWS["hyperverge"]["send"](gateway.number("hyperverge")))
    keyed = "SELECT * FROM otp_send(%s, %s::jsonb, 'key')"
    with gateway.cluster.session(gateway.database, options="-c statement_timeout=10s") as session:
        call = Running(session, keyed, ("codes", body)).wait()
        assert call.error is None or "could not be put on record, so that nothing was sent" in str(call.error)
    [(id, status)] = gateway.execute("SELECT id, status::text FROM otp_gateway.verification WHERE route = 'codes'")
    assert tries(gateway, id) == [("first", "unreachable", None)]
    with gateway.cluster.session(gateway.database, options="-c statement_timeout=10s") as session:
        again = gateway.row(keyed, ("codes", body), session)
    assert (again["verification_id"], again["outcome"], again["status"]) == (id, "unreachable", "failed")
    assert status == "failed"
    waited = gateway.wait(id, "10s")
    assert (waited["outcome"], waited["status"]) == ("unreachable", "failed")
    assert gateway.verification(id)["sealed"] is None
    assert asked(simulator, "send") == []


def test_a_queued_one_whose_second_cannot_be_put_on_record(without_a_record, simulator):
    """It has failed, and who waits for it hears so."""
    gateway = without_a_record
    at(gateway, "first", max_in_flight="1", timeout="60s")
    simulator.fault("hold", "hyperverge", "send", times=1)
    held = gateway.row(ENQUEUE, ("first", json.dumps(FLOWS["hyperverge"]["send"](gateway.number("hyperverge")))))
    simulator.held(1)
    simulator.fault("status", "hyperverge", "send", status=503, times=1)
    to = gateway.number("hyperverge")
    id = gateway.row(ENQUEUE, ("codes", json.dumps(FLOWS["hyperverge"]["send"](to))))["verification_id"]
    with gateway.cluster.session(gateway.database) as session:
        waiter = Running(session, "SELECT * FROM otp_gateway.wait(%s, '10s')", (id,))
        waits(gateway, waiter)
        simulator.release()
        row = waiter.row()
    assert (row["outcome"], row["status"]) == ("provider_error", "failed")
    assert gateway.wait(held["verification_id"])["outcome"] == "sent"
    assert tries(gateway, id) == [("first", "provider_error", None)]
    stored = gateway.verification(id)
    assert (stored["status"], stored["sealed"]) == ("failed", None)
    assert asked(simulator, "send") == ["first", "first"]
    assert messages(simulator, to) == 0
