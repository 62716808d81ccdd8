"""Promise: where a vendor takes an e-mail address, it is a recipient as a number is: known in any case of its domain, shown as
`a***@example.org` and nowhere else in the clear, counted by limits, found by `find`, erased by `forget`, proof of by
`is_approved`. `allowed_prefixes` lets an address through by its domain alone."""

import json

import psycopg2
import pytest

from canaries import RUN
from conftest import Gateway as Gateway
from test_limits import ENQUEUE, SEND, counted
from test_retention import find

VENDORS = ("twilio", "sandbox")


@pytest.fixture
def gateway(quick_gateway):
    quick_gateway.execute("CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s')")
    yield quick_gateway
    quick_gateway.drain()


def address():
    """One that nobody has used; the part before the @ is looked for in all that is left behind."""
    return RUN.secret("asha"), "Mail.Example.ORG"


def send(gateway, provider, to, call=SEND, **more):
    return gateway.row(call, (provider, json.dumps({"mobile": to, **more})))


def code(simulator, vendor, to):
    return "000000" if vendor == "sandbox" else simulator.code(vendor, to)


@pytest.mark.parametrize("vendor", VENDORS)
def test_in_any_case_of_its_domain(gateway, simulator, vendor):
    local, domain = address()
    spellings = [f"{local}@{domain}", f"{local}@{domain.lower()}", f"{local}@{domain.upper()}"]
    sent = [send(gateway, vendor, to) for to in spellings]
    sent.append(gateway.wait(send(gateway, vendor, spellings[0], ENQUEUE)["verification_id"]))
    assert counted(sent) == {"sent": 4}
    ids = [row["verification_id"] for row in sent]
    keys = {(bytes(row["recipient_key"]), row["recipient_masked"]) for row in map(gateway.verification, ids)}
    assert {masked for _, masked in keys} == {"a***@mail.example.org"} and len(keys) == 1
    for to in spellings:
        assert set(find(gateway, to, vendor)) == set(ids)
    # What stands before the @ is its host's business.
    assert find(gateway, f"{local.upper()}@{domain}", vendor) == []
    assert gateway.verify(ids[0], code(simulator, vendor, spellings[0]))["outcome"] == "approved"
    approved = "SELECT otp_gateway.is_approved(%s, %s)"
    assert [gateway.execute(approved, (ids[0], to)) for to in spellings] == [[(True,)]] * 3
    assert gateway.execute(approved, (ids[0], f"b{local}@{domain}")) == [(False,)]
    # A flow begun elsewhere is found by it.
    again = send(gateway, vendor, spellings[1])
    elsewhere = gateway.verify_at(vendor, code(simulator, vendor, spellings[1]), mobile=spellings[2])
    assert (elsewhere["outcome"], elsewhere["verification_id"]) == ("approved", again["verification_id"])
    [(forgotten,)] = gateway.execute("SELECT otp_gateway.forget(%s, %s)", (vendor, spellings[2]))
    assert forgotten == 5 and find(gateway, spellings[0], vendor) == []
    assert {row["recipient_masked"] for row in map(gateway.verification, ids)} == {None}


def test_it_goes_by_e_mail(gateway, simulator):
    local, domain = address()
    sent = send(gateway, "twilio", f"{local}@{domain}")
    assert simulator.log("twilio")[-1]["body"].endswith("Channel=email")
    kept = gateway.row("SELECT * FROM otp_gateway.attempt WHERE verification_id = %s", (sent["verification_id"],))
    assert kept["response"]["status"] == "pending" and local not in json.dumps(kept, default=str)
    # The words of a refusal may have it.
    simulator.fault(
        "status",
        "twilio",
        "send",
        times=1,
        status=400,
        body={"code": 60200, "message": f"Invalid parameter To: {local.upper()}@{domain}", "status": 400},
    )
    refused = send(gateway, "twilio", f"{local}@{domain}")
    assert (refused["outcome"], refused["vendor_message"]) == ("invalid_request", "Invalid parameter To: [redacted]")
    for channel in ("sms", "voice", "whatsapp", "auto"):
        with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
            send(gateway, "twilio", f"{local}@{domain}", channel=channel)
        assert "channel" in error.value.diag.message_primary and local not in str(error.value)
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        send(gateway, "twilio", "0771234567", channel="email")
    assert "an e-mail address" in error.value.diag.message_hint
    # Who has no e-mail says what it takes.
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as error:
        send(gateway, "ideamart", f"{local}@{domain}")
    assert "Sri Lankan" in error.value.diag.message_hint and local not in str(error.value)


@pytest.mark.parametrize(
    "to, allowed, goes",
    [
        ("asha@example.org", "+94", False),
        ("asha@example.org", "+94, @example.org", True),
        ("asha@EXAMPLE.org", "@Example.org", True),
        ("asha@example.org", "@", True),
        ("+94771234567", "@", False),
        ("asha@mail.example.org", "@example.org", False),
        ("+94771234567", "+94, @example.org", True),
    ],
)
def test_allowed_prefixes(gateway, to, allowed, goes):
    gateway.execute(f"ALTER SERVER sandbox OPTIONS (ADD allowed_prefixes '{allowed}')")
    for call in (SEND, ENQUEUE):
        send(gateway, "sandbox", to, call)
    assert counted(gateway.settle()) == {("sent" if goes else "blocked"): 2}
    reasons = {reason for (reason,) in gateway.execute("SELECT reason FROM otp_gateway.attempt")}
    assert reasons == {None if goes else "allowed_prefixes"}


def test_a_users_id_is_no_address(gateway):
    gateway.create_provider("users", "relid", allowed_prefixes="+91")
    assert gateway.send("users", "asha@example.org", vendor="relid")["outcome"] == "sent"


def test_limits_count_it(gateway, simulator):
    local, domain = address()
    gateway.execute("ALTER SERVER twilio OPTIONS (ADD send_limit '2 per hour', SET resend_after '0s')")
    spellings = [f"{local}@{domain}", f"{local}@{domain.lower()}", f"{local}@{domain.upper()}"]
    rows = [send(gateway, "twilio", to) for to in spellings]
    assert [(row["outcome"], row["reason"]) for row in rows] == [
        ("sent", None),
        ("sent", None),
        ("blocked", "send_limit"),
    ]
    assert send(gateway, "twilio", f"b{local}@{domain}")["outcome"] == "sent"
    assert simulator.count("twilio") == 3
