"""Promise: what a vendor's answer means is told as far as it can be known, and no further. Only what the vendor's page names
as an end ends a verification; any other answer costs a check, and the right code is good after it. Only what certainly did
nothing is sent again. What is about one person shuts nobody else out. And what a vendor said in words that cannot be read is
kept, without what it was sent."""

import datetime
import json
import secrets

import pytest

from conftest import FLOWS, Running, until
from simulator import VENDORS
from vendors import TABLE
from test_at_most_once import at
from test_failover import route


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def begin(gateway, simulator, vendor, **payload):
    """A verification whose code is known."""
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to, **payload)
    assert sent["outcome"] == "sent"
    return sent, simulator.code(vendor, to)


def paytm(code, words="no"):
    return {
        "body": {"resultInfo": {"resultStatus": "F", "resultCode": code, "resultMsg": words}, "authenticated": False}
    }


def hyperverge(words, code=200):
    return {"statusCode": code, "status": "failure", "error": {"message": words, "type": "error"}}


def iserveu(words):
    return {"status": "FAILED", "statusCode": "3", "statusDesc": words}


def ideamart(code, words="no"):
    return {"statusCode": code, "statusDetail": words, "version": "1.0"}


def relid(code, words="no"):
    return {"response_code": 1, "error_code": code, "error_message": words}


def twilio(code, words="no", status=404):
    return {"code": code, "message": words, "status": status}


def msg91(words, **more):
    return {"type": "error", "message": words, **more}


def vonage(fragment, title):
    return {"type": f"https://developer.vonage.com/api-errors/verify-v2#{fragment}", "title": title, "detail": "words"}


def answer(simulator, vendor, operation, body, times=1, **how):
    simulator.fault("status", vendor, operation, times=times, **{"status": 200, "body": body, **how})


# ends, and what is none

OPEN = [
    # vendor, answer to a verify, HTTP status, outcome
    *[(vendor, "<!DOCTYPE html><title>404 Not Found</title>", 404, "unknown") for vendor in VENDORS],
    *[(vendor, "no healthy upstream", 404, "unknown") for vendor in VENDORS],
    *[(vendor, {"message": "no Route matched with those values"}, 404, "unknown") for vendor in VENDORS],
    *[(vendor, "", 404, "refused") for vendor in VENDORS],
    ("hyperverge", {"statusCode": 404, "message": "Cannot POST /v1", "error": "Not Found"}, 404, "unknown"),
    ("hyperverge", hyperverge("Invalid OTP"), 200, "invalid_code"),
    ("hyperverge", hyperverge("Wrong OTP entered"), 200, "invalid_code"),
    ("hyperverge", hyperverge("We could not do that"), 200, "refused"),
    ("hyperverge", hyperverge("The OTP is expired"), 200, "expired"),
    ("hyperverge", hyperverge("User already verified by mail"), 200, "already_used"),
    ("paytm", paytm("442", "Invalid OTP, already used OTP entered."), 200, "invalid_code"),
    ("paytm", paytm("432", "Login Failed"), 200, "refused"),
    ("paytm", paytm("9999"), 200, "refused"),
    ("iserveu", iserveu("Customer limit exceeded"), 200, "max_attempts_reached"),
    ("iserveu", iserveu("OTP has expired"), 200, "expired"),
    ("iserveu", iserveu("Name does not match"), 200, "refused"),
    ("iserveu", iserveu("Name does not match"), 500, "unknown"),
    ("ideamart", ideamart("E1999"), 200, "refused"),
    ("ideamart", ideamart("E1853"), 200, "not_found"),
    ("ideamart", ideamart("E1376"), 200, "unknown"),
    ("ideamart", ideamart("E1405"), 200, "unknown"),
    ("twilio", twilio(60999, status=400), 400, "refused"),
    ("twilio", twilio(20500, status=500), 500, "unknown"),
    ("twilio", {"status": "approved", "valid": False, "sid": "VE1"}, 200, "unknown"),
    ("twilio", {"status": "delivered", "valid": False, "sid": "VE1"}, 200, "unknown"),
    ("twilio", twilio(60201, status=400), 400, "invalid_code"),
    ("msg91", msg91("Something new"), 200, "refused"),
    ("msg91", {"type": "success", "message": "Something new"}, 200, "unknown"),
    ("msg91", msg91("x", code="001"), 200, "unknown"),
    ("msg91", msg91("otp_not_verified"), 200, "invalid_code"),
    ("relid", relid(4242), 200, "refused"),
    ("relid", relid(3558), 200, "refused"),
]


@pytest.mark.parametrize("vendor, body, status, outcome", OPEN)
def test_what_nobody_foresaw_is_one_check(gateway, simulator, vendor, body, status, outcome):
    sent, code = begin(gateway, simulator, vendor)
    answer(simulator, vendor, "verify", body, status=status)
    row = gateway.verify(sent["verification_id"], code, **FLOWS[vendor]["verify"])
    assert (row["outcome"], row["status"]) == (outcome, "unknown" if outcome == "unknown" else "pending")
    assert row["attempts_left"] == sent["attempts_left"] - 1
    if isinstance(body, str) and body.startswith("<"):
        assert "HTML" in row["vendor_message"] and body in row["vendor_message"]
    right = gateway.verify(sent["verification_id"], code, **FLOWS[vendor]["verify"])
    assert (right["outcome"], right["status"]) == ("approved", "approved")


# The HTTP status of each is 200, but where a fifth says another one.
ENDS = [
    ("twilio", twilio(20404), "not_found", "failed"),
    ("twilio", twilio(60202, status=429), "max_attempts_reached", "max_attempts_reached"),
    ("twilio", {"status": "expired", "valid": False}, "expired", "expired"),
    ("twilio", {"status": "canceled", "valid": False}, "not_found", "failed"),
    ("msg91", msg91("Mobile no. already verified"), "already_used", "failed"),
    ("msg91", {"type": "success", "message": "already_verified"}, "already_used", "failed"),
    ("msg91", msg91("OTP expired"), "expired", "expired"),
    ("msg91", msg91("Max limit reached for this otp verification"), "max_attempts_reached", "max_attempts_reached"),
    ("msg91", msg91("Mobile no. not found"), "not_found", "failed"),
    ("hyperverge", hyperverge("Mobile no. already verified"), "already_used", "failed"),
    ("hyperverge", hyperverge("last_otp_request_on_this_number_is_invalid"), "not_found", "failed"),
    (
        "hyperverge",
        hyperverge("Max limit reached for this otp verification"),
        "max_attempts_reached",
        "max_attempts_reached",
    ),
    ("paytm", paytm("531"), "max_attempts_reached", "max_attempts_reached"),
    ("paytm", paytm("1006"), "expired", "expired"),
    ("ideamart", ideamart("E1351"), "already_used", "failed"),
    ("ideamart", ideamart("E1851"), "expired", "expired"),
    ("ideamart", ideamart("E1852"), "max_attempts_reached", "max_attempts_reached"),
    ("ideamart", ideamart("E1854"), "not_found", "failed"),
    ("relid", relid(3565), "expired", "expired"),
    ("relid", relid(3575), "max_attempts_reached", "max_attempts_reached"),
    (
        "relid",
        {"response_code": 0, "otp_validation_status": "FAILED", "attempts_left": 0},
        "invalid_code",
        "max_attempts_reached",
    ),
    ("vonage", vonage("expired", "Invalid Code"), "max_attempts_reached", "max_attempts_reached", 410),
    ("vonage", vonage("not-found", "Not Found"), "not_found", "failed", 404),
]


@pytest.mark.parametrize("vendor, body, outcome, status, http", [(*end, 200)[:5] for end in ENDS])
def test_what_the_page_names_as_an_end_is_one(gateway, simulator, vendor, body, outcome, status, http):
    sent, code = begin(gateway, simulator, vendor)
    answer(simulator, vendor, "verify", body, status=http)
    row = gateway.verify(sent["verification_id"], code)
    assert (row["outcome"], row["status"], row["attempts_left"]) == (outcome, status, 0)
    gateway.verify(sent["verification_id"], code)
    assert simulator.count(vendor, "verify") == 1


def test_what_is_not_found_when_its_time_is_over_is_expired(gateway, simulator):
    """Twilio forgets a code that has ended, and says no more than that; so the record says it. A verify that comes later is not
    even sent."""
    gateway.create_provider("brief", "twilio", code_lifetime="2s")
    to = gateway.number("twilio")
    sent = gateway.send("brief", to, vendor="twilio")
    code = simulator.code("twilio", to)
    simulator.advance(601)
    simulator.fault("hold", "twilio", "verify", times=1)
    with gateway.connect() as session:
        late = Running(session, "SELECT * FROM otp_verify(%s::uuid, %s)", (str(sent["verification_id"]), code))
        simulator.held(1)
        until(
            lambda: gateway.execute("SELECT clock_timestamp() > %s", (sent["expires_at"],)) == [(True,)],
            "its time is over",
        )
        simulator.release()
        row = late.row()
    assert (row["outcome"], row["status"], row["attempts_left"]) == ("expired", "expired", 0)
    assert (row["vendor_code"], row["response"]["status"]) == ("20404", 404)
    assert gateway.attempts(sent["verification_id"]) == [("send", "sent"), ("verify", "expired")]
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "expired"
    assert simulator.count("twilio", "verify") == 1


def test_what_has_ended_is_answered_without_a_call(gateway, simulator):
    """Of Twilio, whose 404 says the same of all ends."""
    for end, outcome in (
        ("approved", "already_used"),
        ("max_attempts_reached", "max_attempts_reached"),
        ("canceled", "not_found"),
    ):
        sent, code = begin(gateway, simulator, "twilio")
        id = sent["verification_id"]
        if end == "canceled":
            assert gateway.row("SELECT * FROM otp_cancel(%s)", (id,))["status"] == end
        else:
            typed = [code] if end == "approved" else [code[:-1] + ("1" if code[-1] != "1" else "2")] * 5
            rows = [gateway.verify(id, one) for one in typed]
            assert rows[-1]["status"] == end, rows
        before = simulator.count("twilio")
        for _ in range(2):
            assert (row := gateway.verify(id, code))["outcome"] == outcome, row
        assert simulator.count("twilio") == before


@pytest.mark.parametrize("body", [hyperverge("We could not do that"), hyperverge("OTP expired"), "<html>"], ids=str)
def test_answers_that_nobody_foresaw_give_no_endless_guesses(gateway, simulator, body):
    """As many as wrong codes, for the flow and, over all of them, for its recipient."""
    sent, code = begin(gateway, simulator, "hyperverge")
    answer(simulator, "hyperverge", "verify", body, times=100)
    rows = [gateway.verify(sent["verification_id"], code) for _ in range(8)]
    assert simulator.count("hyperverge", "verify") == sent["attempts_left"] == 5
    assert [row["attempts_left"] for row in rows[:5]] == [4, 3, 2, 1, 0]
    assert {row["outcome"] for row in rows[5:]} <= {"max_attempts_reached", "blocked"}


def test_what_is_left_is_the_recipients_too(gateway, simulator):
    """A new flow of the same person has what the last one left, whatever the vendor called its answers."""
    to = gateway.number("hyperverge")
    first = gateway.send("hyperverge", to)["verification_id"]
    answer(simulator, "hyperverge", "verify", hyperverge("We could not do that"), times=4)
    for _ in range(3):
        gateway.verify(first, "123456")
    row = gateway.verify(gateway.send("hyperverge", to)["verification_id"], "123456")
    assert (row["outcome"], row["attempts_left"]) == ("refused", 1)


# what is sent again

AMBIGUOUS = [
    # vendor, HTTP status, answer to a send whose work is done
    ("ideamart", 200, ideamart("E1363", "No or late response")),
    ("ideamart", 500, ideamart("E1363")),
    *[("ideamart", 200, ideamart(code)) for code in ("E1332", "E1341", "E1360", "E1601", "E1602")],
    ("hyperverge", 200, hyperverge("Bad Gateway", 502)),
    ("hyperverge", 200, hyperverge("Gateway time-out", "504")),
    ("hyperverge", 504, hyperverge("Internal Server Error", 500)),
    ("iserveu", 502, iserveu("x")),
    ("paytm", 504, paytm("9999")),
    ("relid", 502, relid(4242)),
    ("twilio", 502, twilio(20500)),
    ("twilio", 200, {"status": "canceled", "sid": "VE1"}),
    ("msg91", 200, {"type": "success", "message": "Something new"}),
    *[(vendor, status, "") for vendor in VENDORS for status in (301, 302, 303)],
    *[(vendor, 503, "upstream connect error or disconnect/reset before headers") for vendor in VENDORS],
]


@pytest.mark.parametrize("vendor, status, body", AMBIGUOUS)
def test_what_may_have_been_done_is_not_done_again(gateway, simulator, vendor, status, body):
    to = gateway.number(vendor)
    answer(simulator, vendor, "send", body, status=status, process=True, headers={"location": "/result"})
    row = gateway.wait(gateway.enqueue(vendor, to)["verification_id"])
    assert (row["outcome"], row["status"], row["retryable"]) == ("unknown", "unknown", False)
    assert row["vendor_message"]
    assert simulator.count(vendor, "send") == 1
    # The person has the code, and can use it, where the vendor gave no reference that is needed.
    if vendor in ("iserveu", "hyperverge", "paytm", "msg91"):
        right = gateway.verify(row["verification_id"], simulator.code(vendor, to), **FLOWS[vendor]["verify"])
        assert right["outcome"] == "approved"


def test_a_route_does_not_go_on_from_it(gateway, simulator):
    gateway.create_provider("first", "ideamart")
    gateway.create_provider("second", "ideamart")
    route(gateway)
    answer(simulator, "ideamart", "send", ideamart("E1363"), process=True)
    assert gateway.send("codes", vendor="ideamart")["outcome"] == "unknown"
    assert simulator.count("ideamart", "send") == 1


NOTHING_DONE = [
    ("ideamart", 200, ideamart("E1603")),
    ("hyperverge", 200, hyperverge("Server busy", 503)),
    ("iserveu", 200, {"status": "FAILED", "statusCode": "1", "statusDesc": "Failed to send OTP"}),
    ("paytm", 200, paytm("501", "System error")),
    ("relid", 200, relid(2699)),
    ("twilio", 500, twilio(20500, status=500)),
    ("twilio", 400, twilio(60441, status=400)),
    ("msg91", 200, msg91("x", code="002")),
    ("ideamart", 307, ""),
    ("ideamart", 308, ""),
    ("ideamart", 503, ""),
]


@pytest.mark.parametrize("vendor, status, body", NOTHING_DONE)
def test_what_certainly_was_not_done_is_done_again(gateway, simulator, vendor, status, body):
    answer(simulator, vendor, "send", body, status=status, headers={"location": "/elsewhere"})
    row = gateway.wait(gateway.enqueue(vendor)["verification_id"])
    assert row["outcome"] == "sent"
    assert gateway.attempts(row["verification_id"]) == [("send", "provider_error"), ("send", "sent")]


# whose trouble it is

# The HTTP status of each is 200, but where a fourth says another one.
PERSONAL = [
    ("ideamart", ideamart("E1323"), "refused"),
    ("ideamart", ideamart("E1357"), "refused"),
    ("ideamart", ideamart("E1332"), "unknown"),
    ("ideamart", ideamart("E1341"), "unknown"),
    ("ideamart", ideamart("E1602"), "unknown"),
    ("paytm", paytm("401", "Authorization Failed"), "auth_failed"),
    ("relid", relid(3560), "refused"),
    ("twilio", twilio(60410, status=403), "refused"),
    ("twilio", twilio(60203, status=429), "rate_limited"),
    ("vonage", vonage("concurrent", "Conflict"), "rate_limited", 409),
]


@pytest.mark.parametrize("vendor, body, outcome, http", [(*trouble, 200)[:4] for trouble in PERSONAL])
def test_one_persons_trouble_shuts_nobody_out(gateway, simulator, vendor, body, outcome, http):
    answer(simulator, vendor, "send", body, times=12, status=http)
    assert {gateway.send(vendor)["outcome"] for _ in range(12)} == {outcome}
    assert gateway.send(vendor)["outcome"] == "sent"


def test_a_gateway_that_answers_nobody_is_the_providers_trouble(gateway, simulator):
    answer(simulator, "ideamart", "send", ideamart("E1363"), times=5)
    assert {gateway.send()["outcome"] for _ in range(5)} == {"unknown"}
    assert gateway.send()["reason"] == "breaker"


@pytest.mark.parametrize(
    "vendor, body",
    [
        ("hyperverge", '\ufeff{"status":"success","statusCode":200.0,"metaData":{"requestId":"r"}}'),
        ("iserveu", '\ufeff{"status":"SUCCESS","statusCode":"0","statusDesc":"OTP Sent Successfully."}'),
        ("paytm", '\ufeff{"body":{"resultInfo":{"resultStatus":"S","resultCode":0.0,"resultMsg":"Success"}}}'),
        (
            "relid",
            '\ufeff{"response_code":0.0,"notification_uuid":"03f67f9e-ec4f-11e6-b006-92361f002671","error_code":""}',
        ),
        ("twilio", '\ufeff{"sid":"VE0a","status":"pending","valid":false}'),
        ("msg91", '\ufeff{"type":"success","request_id":"0a1b2c3d4e5f0a1b2c3d4e5f"}'),
        ("vonage", '\ufeff{"request_id":"c11236f4-00bf-4b89-84ba-88b25df97315"}'),
        (
            "ideamart",
            '\ufeff{"statusCode":"S1000","statusDetail":"Success","referenceNo":"3b84346f63899a","version":"1.0"}',
        ),
    ],
)
def test_a_byte_order_mark_is_no_fault(gateway, simulator, vendor, body):
    answer(simulator, vendor, "send", body, times=6, status=TABLE[vendor].statuses[0])
    for _ in range(6):
        row = gateway.send(vendor)
        assert (row["outcome"], row["status"]) == ("sent", "pending"), row["vendor_message"]
        assert row["response"] == json.loads(body[1:])


@pytest.mark.parametrize("none", [0, "0", "", None, 0.0])
def test_an_error_code_that_names_no_error(gateway, simulator, none):
    """Of REL-ID: beside a success it says nothing."""
    sent, code = begin(gateway, simulator, "relid")
    uuid = sent["reference"]
    answer(
        simulator,
        "relid",
        "verify",
        {
            "response_code": 0,
            "notification_uuid": uuid,
            "otp_validation_status": "FAILED",
            "attempts_left": 2,
            "error_code": none,
        },
    )
    row = gateway.verify(sent["verification_id"], code)
    assert (row["outcome"], row["attempts_left"]) == ("invalid_code", 2)
    answer(
        simulator,
        "relid",
        "verify",
        {
            "response_code": 0,
            "notification_uuid": uuid,
            "otp_validation_status": "SUCCESS",
            "error_code": none,
            "error_message": "",
        },
    )
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"


# iServeU's two types

TRANSFER = {
    "account_number": "50100123456789",
    "bene_bank_name": "SBI",
    "bene_mobile": "9800000001",
    "bene_name": "Ravi",
    "bank_code": "SBIN",
    "bene_ifsc_code": "SBIN0000001",
    "transaction_mode": "IMPS",
    "customer_name": "Asha",
    "pincode": "751024",
    "address": "Bhubaneswar",
    "is_hold_transaction": False,
    "lat_long": "20.29,85.82",
    "customer_ip": "203.0.113.7",
}


def transaction(gateway, provider="iserveu", **more):
    to = gateway.number("iserveu")
    payload = {
        "mobile": to,
        "otp_type": "2",
        "username": "agent1",
        "reference": f"REF{secrets.token_hex(6)}",
        "amount": "1001",
        **more,
    }
    return to, gateway.row("SELECT * FROM otp_send(%s, %s)", (provider, json.dumps(payload)))


def life(row):
    return row["expires_at"] and round(
        (row["expires_at"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 60
    )


def test_each_type_of_iserveu_has_its_own_life(gateway):
    """The page gives type 1 ten minutes, and type 2 none."""
    gateway.create_provider("short", "iserveu", code_lifetime="3min")
    assert life(gateway.send("iserveu")) == 10
    assert life(transaction(gateway)[1]) is None
    # What the server says holds for both.
    assert life(gateway.send("short", vendor="iserveu")) == 3
    assert life(transaction(gateway, "short")[1]) == 3
    assert life(gateway.wait(gateway.enqueue("iserveu")["verification_id"])) == 10


def test_a_transfer_has_the_time_that_it_takes(gateway, simulator):
    """Cut off, money would move and nobody know. What the server's own option says weighs more."""
    gateway.create_provider("hurried", "iserveu", timeout="300ms")
    to, sent = transaction(gateway, "hurried")
    simulator.fault("latency", "iserveu", "verify", ms=1500, times=1)
    row = gateway.verify(sent["verification_id"], simulator.code("iserveu", to), **TRANSFER)
    assert (row["outcome"], row["status"]) == ("unknown", "unknown")
    assert "timeout" in row["vendor_message"]
    to, sent = transaction(gateway)
    simulator.fault("latency", "iserveu", "verify", ms=10_500, times=1)
    row = gateway.verify(sent["verification_id"], simulator.code("iserveu", to), **TRANSFER)
    assert (row["outcome"], row["status"]) == ("approved", "approved"), row["vendor_message"]


def test_other_calls_of_iserveu_have_the_usual_time(gateway, simulator):
    to = gateway.number("iserveu")
    sent = gateway.send("iserveu", to)
    simulator.fault("never", "iserveu", "verify", times=1)
    row = gateway.verify(sent["verification_id"], simulator.code("iserveu", to), **FLOWS["iserveu"]["verify"])
    assert (row["outcome"], row["vendor_message"]) == ("unknown", "no answer within timeout")
    started, finished = gateway.row(
        "SELECT started_at, finished_at FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],)
    ).values()
    assert 9 < (finished - started).total_seconds() < 20


# words that are no JSON


@pytest.mark.parametrize("vendor", VENDORS)
def test_words_are_kept_and_what_was_sent_is_not(gateway, simulator, vendor):
    to = gateway.number(vendor)
    id = gateway.send(vendor, to)["verification_id"]
    code = simulator.wrong(vendor, to)
    page = f"<html><body>Error 17: {to} may not use {code}</body></html>\n" + "x" * 1000
    answer(simulator, vendor, "verify", page, status=502)
    row = gateway.verify(id, code, **FLOWS[vendor]["verify"])
    assert row["outcome"] == "unknown"
    words = row["vendor_message"]
    assert "HTTP 502" in words and "HTML" in words and "Error 17: " in words and words.endswith("x…")
    assert "[redacted]" in words and code not in words and to not in words
    assert len(words) < 320
    (recorded,) = gateway.execute("SELECT vendor_message FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))
    assert recorded == (words,)


@pytest.mark.parametrize("cut", range(190, 204))
def test_no_half_of_a_code_is_left_where_words_are_cut(gateway, simulator, cut):
    sent, code = begin(gateway, simulator, "hyperverge", otp_length="9")
    answer(simulator, "hyperverge", "verify", "y" * cut + code + " and more", status=502)
    words = gateway.verify(sent["verification_id"], code)["vendor_message"]
    assert "yyy" in words and code[:4] not in words
