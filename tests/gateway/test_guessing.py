"""Promise: of one recipient's codes no more than max_checks wrong ones reach a vendor's account within their time, whoever
guesses and however the code is named: by the verification's id, by the reference, by the number, through a route, by two
roles, through two providers of one account, over resends and new sends. Whose guess it was is what the record says of the
flow, never what a payload claims. And whoever sent a code has half of the guesses left, whatever those do who sent none."""

import itertools
import json
import os
import secrets

import psycopg2
import pytest

from conftest import FLOWS, RUN, Running, until
from test_limits import pass_time
from vendors import TABLE


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


@pytest.fixture
def roles(gateway):
    """Two roles that may use everything; with a session each."""
    names = [f"guess_{os.urandom(4).hex()}" for _ in range(2)]
    for name in names:
        gateway.execute(f"CREATE ROLE {name} LOGIN")
    for (server,) in gateway.execute("SELECT quote_ident(srvname) FROM pg_foreign_server"):
        gateway.execute(f"GRANT USAGE ON FOREIGN SERVER {server} TO {', '.join(names)}")
    sessions = [gateway.connect(user=name) for name in names]
    yield sessions
    for name, session in zip(names, sessions):
        session.close()
        gateway.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def wrong_codes(right):
    """Codes of the same form, none of them the right one."""
    return (code for n in itertools.count() if (code := f"{n:0{len(right)}d}") != right)


def max_checks(gateway, provider):
    [(value,)] = gateway.execute(
        "SELECT value::int FROM otp_gateway.provider WHERE provider = %s AND setting = 'max_checks'", (provider,)
    )
    return value


class Guesses:
    """What reaches the vendor of guesses at one recipient."""

    def __init__(self, gateway, simulator, vendor, to):
        self.gateway, self.simulator, self.vendor, self.to = gateway, simulator, vendor, to
        self.codes = wrong_codes(simulator.code(vendor, to))
        self.before = simulator.count(vendor, "verify")

    def reached(self):
        return self.simulator.count(self.vendor, "verify") - self.before

    def payload(self, row, how):
        payload = dict(FLOWS[self.vendor]["verify"])
        if how == "reference" and self.vendor == "paytm":
            # Its reference is the application's own.
            payload |= {name: value for name, value in FLOWS["paytm"]["send"](self.to).items() if name != "mobile"}
        elif how == "reference":
            payload["reference"] = row["reference"]
        if how == "number" or self.vendor == "iserveu":
            payload["mobile"] = self.to
        if self.vendor == "iserveu":
            payload |= {name: value for name, value in FLOWS["iserveu"]["send"](self.to).items()}
        return payload

    def guess(self, row, how, provider=None, session=None):
        if how == "id":
            return self.gateway.verify(
                row["verification_id"], next(self.codes), session, **FLOWS[self.vendor]["verify"]
            )
        payload = self.payload(row, how)
        return self.gateway.verify_at(provider or self.vendor, next(self.codes), session, **payload)


# How the flow is named whose code is checked; `number`: the recipient himself, and any number of flows.
WAYS = [(vendor, how) for vendor in FLOWS for how in ("id", *TABLE[vendor].found_by)]


@pytest.mark.parametrize("vendor, how", WAYS, ids=[" by ".join(way) for way in WAYS])
def test_new_sends_give_no_new_guesses(gateway, simulator, roles, vendor, how):
    """Eight flows of one recipient, three guesses at each, by the role that sent them and by another one."""
    sender, other = roles
    # Twilio sends one code five times and no more.
    flows = 4 if vendor == "twilio" else 8
    to, most = gateway.number(vendor), max_checks(gateway, vendor)
    guesses = None
    rows = []
    for _ in range(flows):
        simulator.advance(TABLE[vendor].one_at_a_time)
        row = gateway.send(vendor, to, sender)
        assert row["outcome"] == "sent"
        guesses = guesses or Guesses(gateway, simulator, vendor, to)
        for number in range(3):
            session = other if how != "id" and number == 1 else sender
            rows.append(guesses.guess(row, how, session=session))
    assert guesses.reached() == most, [row["outcome"] for row in rows]
    refused = [row for row in rows if row["outcome"] != "invalid_code"]
    assert {row["outcome"] for row in refused} <= {"blocked", "max_attempts_reached"}
    assert {row["reason"] for row in refused if row["outcome"] == "blocked"} == {"max_checks"}
    # The right one does not pass any more either, and the vendor is not asked.
    simulator.advance(TABLE[vendor].one_at_a_time)
    last = gateway.send(vendor, to, sender)
    right = simulator.code(vendor, to, atleast=flows + 1)
    row = gateway.verify(last["verification_id"], right, sender, **FLOWS[vendor]["verify"])
    assert (row["outcome"], row["reason"]) == ("blocked", "max_checks")
    # Until the time is over that it names.
    pass_time(gateway, row["retry_after"])
    if vendor == "twilio":
        # Of which it counts the sends for itself.
        simulator.advance(601)
    simulator.advance(TABLE[vendor].one_at_a_time)
    last = gateway.send(vendor, to, sender)
    right = simulator.code(vendor, to, atleast=flows + 2)
    assert gateway.verify(last["verification_id"], right, sender, **FLOWS[vendor]["verify"])["outcome"] == "approved"


@pytest.mark.parametrize("how", ["id", "reference"])
def test_two_providers_of_one_account(gateway, simulator, how):
    """Of whatever name, and whoever owns them: the account is one, and so is the number of guesses."""
    gateway.create_provider("second", "ideamart")
    most, to = max_checks(gateway, "ideamart"), gateway.number()
    guesses = None
    for number in range(2 * most):
        provider = ("ideamart", "second")[number % 2]
        row = gateway.send(provider, to, vendor="ideamart")
        guesses = guesses or Guesses(gateway, simulator, "ideamart", to)
        guesses.guess(row, how, provider)
    assert guesses.reached() == most


def test_a_reference_at_the_other_providers_of_its_account(gateway, simulator):
    """The vendor knows it at all of them: it is the flow that was begun at the first, sent or begun elsewhere."""
    for name in ("second", "third"):
        gateway.create_provider(name, "ideamart")
    most, to = max_checks(gateway, "ideamart"), gateway.number()
    row = gateway.send("ideamart", to)
    guesses = Guesses(gateway, simulator, "ideamart", to)
    rows = [
        guesses.guess(row, "reference", provider) for _ in range(most) for provider in ("second", "ideamart", "third")
    ]
    assert guesses.reached() == most
    assert {one["verification_id"] for one in rows} == {row["verification_id"]}
    # As if it had been begun elsewhere.
    row = gateway.send("ideamart", to)
    with gateway.cluster.session(gateway.database) as session:
        gateway.execute(
            "DELETE FROM otp_gateway_internal.reference; DELETE FROM otp_gateway_internal.attempt_record; DELETE FROM otp_gateway_internal.verification_record",
            session=session,
        )
    elsewhere = [
        guesses.guess(row, "reference", provider) for _ in range(most) for provider in ("third", "second", "ideamart")
    ]
    assert len({one["verification_id"] for one in elsewhere}) == 1
    assert guesses.reached() == 2 * most


def test_another_account_counts_for_itself(gateway, simulator):
    credentials = {"application_id": RUN.secret("application_id"), "password": RUN.secret("password")}
    files = {f"{name}_file": RUN.in_file(value) for name, value in credentials.items()}
    gateway.create_provider("second", "ideamart", credentials=files)
    most, to = max_checks(gateway, "ideamart"), gateway.number()
    guesses = None
    for _ in range(2 * most):
        for provider in ("ideamart", "second"):
            row = gateway.send(provider, to, vendor="ideamart")
            guesses = guesses or Guesses(gateway, simulator, "ideamart", to)
            guesses.guess(row, "id")
    assert guesses.reached() == 2 * most


def test_through_a_route(gateway, simulator):
    gateway.execute("CREATE SERVER codes FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart')")
    most, to = max_checks(gateway, "ideamart"), gateway.number()
    guesses = None
    for number in range(2 * most):
        row = gateway.send(("ideamart", "codes")[number % 2], to, vendor="ideamart")
        guesses = guesses or Guesses(gateway, simulator, "ideamart", to)
        guesses.guess(row, ("id", "reference")[number % 2])
    assert guesses.reached() == most


def test_resends_give_no_new_guesses(gateway, simulator):
    most, to = max_checks(gateway, "hyperverge"), gateway.number("hyperverge")
    row = gateway.send("hyperverge", to)
    guesses = Guesses(gateway, simulator, "hyperverge", to)
    for _ in range(most + 3):
        guesses.guess(row, "number")
        gateway.row("SELECT * FROM otp_resend(%s)", (row["verification_id"],))
    assert guesses.reached() == most


# what a payload claims


def iserveu2(to, reference):
    """Type 2, whose verify takes a reference and a number."""
    fields = {name: value for name, value in FLOWS["iserveu"]["send"](to).items() if not name.startswith("ovd_")}
    return {**fields, "otp_type": "2", "reference": reference}


TRANSACTION = {
    "account_number": "12345678901",
    "bene_bank_name": "State Bank",
    "bene_mobile": "9876500001",
    "bene_name": "B Rao",
    "bank_code": "SBIN",
    "bene_ifsc_code": "SBIN0000001",
    "transaction_mode": "IMPS",
    "customer_name": "A Rao",
    "pincode": "751001",
    "address": "Street 1",
    "is_hold_transaction": "false",
    "lat_long": "20.29,85.82",
    "customer_ip": "203.0.113.7",
}


def send2(gateway, session, to):
    payload = iserveu2(to, f"REF{secrets.token_hex(6)}") | {"amount": "100"}
    row = gateway.row("SELECT * FROM otp_send('iserveu', %s::jsonb)", (json.dumps(payload),), session)
    assert row["outcome"] == "sent", row
    return row


def claim(gateway, session, row, to, code):
    return gateway.verify_at("iserveu", code, session, **iserveu2(to, row["reference"]), **TRANSACTION)


def test_a_claim_of_another_s_number_is_refused(gateway, simulator, roles):
    """Neither forgives it the victim's wrong codes, nor do wrong ones count for anybody else."""
    sender, other = roles
    victim, own = gateway.number("iserveu"), gateway.number("iserveu")
    theirs, mine = send2(gateway, sender, victim), send2(gateway, other, own)
    for row, number, code in ((mine, victim, simulator.code("iserveu", own)), (theirs, own, "000000")):
        before = simulator.count("iserveu", "verify")
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="mobile belongs to the verification"):
            claim(gateway, other, row, number, code)
        assert simulator.count("iserveu", "verify") == before
    assert gateway.attempts(mine["verification_id"]) == [("send", "sent")]


# lock-out


@pytest.mark.parametrize("most", ["5", "4", "1"])
def test_who_sent_nothing_locks_nobody_out(gateway, simulator, roles, most):
    """By number: half of the guesses, rounded up, of all who sent nothing together; the others are the sender's."""
    sender, stranger = roles
    gateway.execute(f"ALTER SERVER hyperverge OPTIONS (ADD max_checks '{most}')")
    most, to = int(most), gateway.number("hyperverge")
    row = gateway.send("hyperverge", to, sender)
    guesses = Guesses(gateway, simulator, "hyperverge", to)
    strangers = [guesses.guess(row, "number", session=stranger) for _ in range(most + 2)]
    half = (most + 1) // 2
    assert [row["outcome"] for row in strangers[:half]] == ["invalid_code"] * half
    assert [row["attempts_left"] for row in strangers[:half]] == list(range(half - 1, -1, -1))
    assert {row["outcome"] for row in strangers[half:]} <= {"blocked", "max_attempts_reached"}
    assert {row["reason"] for row in strangers[half:] if row["outcome"] == "blocked"} <= {"max_checks"}
    own = [guesses.guess(row, "number", session=sender) for _ in range(most - half)]
    assert [row["outcome"] for row in own] == ["invalid_code"] * (most - half)
    assert [row["attempts_left"] for row in own] == list(range(most - half - 1, -1, -1))
    assert guesses.guess(row, "number", session=sender)["outcome"] in ("blocked", "max_attempts_reached")
    assert guesses.reached() == most


def test_the_right_code_after_strangers_guesses(gateway, simulator, roles):
    sender, stranger = roles
    to = gateway.number("hyperverge")
    row = gateway.send("hyperverge", to, sender)
    guesses = Guesses(gateway, simulator, "hyperverge", to)
    for _ in range(6):
        guesses.guess(row, "number", session=stranger)
    right = simulator.code("hyperverge", to)
    assert gateway.verify(row["verification_id"], right, sender)["outcome"] == "approved"


def test_check_limit_is_halved_as_well(gateway, simulator, roles):
    sender, stranger = roles
    gateway.execute("ALTER SERVER hyperverge OPTIONS (ADD max_checks '100', ADD check_limit '3 per day')")
    to = gateway.number("hyperverge")
    row = gateway.send("hyperverge", to, sender)
    guesses = Guesses(gateway, simulator, "hyperverge", to)
    strangers = [guesses.guess(row, "number", session=stranger) for _ in range(4)]
    assert [row["reason"] for row in strangers] == [None, None, "check_limit", "check_limit"]
    own = [guesses.guess(row, "number", session=sender) for _ in range(2)]
    assert [row["reason"] for row in own] == [None, "check_limit"]


# What is left, said


@pytest.mark.parametrize("vendor", [name for name in FLOWS if not TABLE[name].one_at_a_time])
def test_what_is_left_knows_the_recipients_lock(gateway, simulator, vendor):
    """A new code gives no new guesses, and the row that begins it says so: of a send, a queued send, a resend and a verify."""
    to = gateway.number(vendor)
    first = gateway.send(vendor, to)
    most = first["attempts_left"]
    guesses = Guesses(gateway, simulator, vendor, to)
    for spent in range(1, most + 1):
        row = guesses.guess(first, "id")
        assert (row["outcome"], row["attempts_left"]) == ("invalid_code", most - spent)
        if spent == most - 1:
            # By the flow's own count all would be left.
            again = gateway.send(vendor, to)
            assert again["attempts_left"] == 1
            assert gateway.verification(again["verification_id"])["check_count"] == 0
    new = gateway.send(vendor, to)
    assert (new["outcome"], new["attempts_left"]) == ("sent", 0)
    assert gateway.wait(gateway.enqueue(vendor, to)["verification_id"])["status"] == "pending"
    code = simulator.code(vendor, to)
    row = gateway.verify(new["verification_id"], code, **FLOWS[vendor]["verify"])
    assert (row["outcome"], row["reason"], row["attempts_left"]) == ("blocked", "max_checks", 0)
    # Somebody else is not concerned.
    assert gateway.send(vendor)["attempts_left"] == most


def test_what_is_left_of_a_queued_send_and_of_a_resend(gateway, simulator):
    to = gateway.number()
    first = gateway.send(to=to)
    guesses = Guesses(gateway, simulator, "ideamart", to)
    assert guesses.guess(first, "id")["attempts_left"] == 2
    other = gateway.send(to=to)
    assert other["attempts_left"] == 2
    assert gateway.row("SELECT * FROM otp_resend(%s)", (other["verification_id"],))["attempts_left"] == 2
    simulator.fault("hold", "ideamart", "send", times=1)
    queued = gateway.enqueue(to=to)["verification_id"]
    simulator.held(1)
    waiting = Running(gateway.connect(), "SELECT * FROM otp_gateway.wait(%s, '30s')", (queued,))
    until(
        lambda: gateway.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE '%wait(%' AND pid <> pg_backend_pid()"
        ),
        "it waits",
    )
    simulator.release()
    row = waiting.row()
    waiting.session.close()
    assert (row["outcome"], row["attempts_left"]) == ("sent", 2)


def test_a_call_that_was_not_made_leaves_what_there_was(gateway, simulator):
    to = gateway.number()
    first = gateway.send(to=to)
    guesses = Guesses(gateway, simulator, "ideamart", to)
    assert guesses.guess(first, "id")["attempts_left"] == 2
    other = gateway.send(to=to)
    simulator.fault("status", "ideamart", "verify", times=1, status=429)
    row = gateway.verify(other["verification_id"], "123456")
    assert (row["outcome"], row["attempts_left"]) == ("rate_limited", 2)
    assert gateway.verify(other["verification_id"], simulator.code("ideamart", to, atleast=2))["outcome"] == "approved"


def test_an_operator_lifts_a_lock(gateway, simulator):
    """Whoever can begin a flow can lock its number out; `forget` lets its person in again."""
    to = gateway.number()
    first = gateway.send(to=to)
    guesses = Guesses(gateway, simulator, "ideamart", to)
    for _ in range(3):
        guesses.guess(first, "id")
    assert gateway.send(to=to)["attempts_left"] == 0
    gateway.execute("SELECT otp_gateway.forget('ideamart', %s)", (to,))
    new = gateway.send(to=to)
    assert new["attempts_left"] == 3
    assert gateway.verify(new["verification_id"], simulator.code("ideamart", to, atleast=3))["outcome"] == "approved"


@pytest.mark.parametrize("vendor", ["ideamart", "iserveu"])
def test_who_waits_is_told_what_the_lock_leaves(gateway, simulator, vendor):
    """`otp_gateway.wait` says of a new code what its send and a verify say: the number is locked, or has one check left."""
    to = gateway.number(vendor)
    first = gateway.send(vendor, to)
    verify = lambda id, code: gateway.verify(id, code, **FLOWS[vendor]["verify"])
    most = first["attempts_left"]
    for _ in range(most - 1):
        verify(first["verification_id"], simulator.wrong(vendor, to))
    second = gateway.send(vendor, to)
    assert second["attempts_left"] == 1
    assert gateway.wait(second["verification_id"])["attempts_left"] == 1
    assert verify(second["verification_id"], simulator.wrong(vendor, to))["attempts_left"] == 0
    third = gateway.send(vendor, to)
    assert third["attempts_left"] == 0
    assert gateway.wait(third["verification_id"])["attempts_left"] == 0
    # Many, for the send may end between the session's look at the record and the worker's.
    for _ in range(50):
        queued = gateway.enqueue(vendor, to)["verification_id"]
        assert [gateway.wait(queued)["attempts_left"] for _ in range(2)] == [0, 0]
    # Another number is not concerned; nor is this one, where the provider's rules are only observed.
    other = gateway.send(vendor)["verification_id"]
    assert gateway.wait(other)["attempts_left"] == most
    gateway.execute(f"ALTER SERVER {vendor} OPTIONS (ADD enforce 'observe')")
    assert gateway.wait(third["verification_id"])["attempts_left"] == most
