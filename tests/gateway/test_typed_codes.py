"""Promise: what a person types is read as what it means: white space, hyphens and the digits of any script say nothing else
than the digits that they stand for. What can be no code at all (somebody pressed Enter) is a row, `invalid_code`, on record
like every attempt: no error that would undo the application's work, no call, no check spent, no guess counted; and it gives
no guess either. Only NULL is misuse."""

import os

import psycopg2
import pytest

from canaries import RUN
from conftest import FLOWS
from simulator import fields
from vendors import TABLE
from test_at_most_once import at

# What is no code at any vendor.
NONE = ["", " ", "\n", "\t \r\n", "\u00a0\u200b", "\u202e", "1\u00072", "9" * 65, "9" * 300, "9" * 1_000_000]
# What is none where the vendor's page says that a code is 4 digits or more, and no letter; nor is one of too many.
NO_DIGITS = ["-", "123", "12a456", "abcdef", "12.456", "+12345", "½½½½", "四四四四", "🙂🙂🙂🙂"]

ZEROS = {
    "full width": 0xFF10,
    "Arabic-Indic": 0x660,
    "Persian and Urdu": 0x6F0,
    "Devanagari": 0x966,
    "Bengali": 0x9E6,
    "Gurmukhi": 0xA66,
    "Gujarati": 0xAE6,
    "Odia": 0xB66,
    "Tamil": 0xBE6,
    "Telugu": 0xC66,
    "Kannada": 0xCE6,
    "Malayalam": 0xD66,
    "Sinhala": 0xDE6,
    "Meetei Mayek": 0xABF0,
    "Ol Chiki": 0x1C50,
    "Chakma": 0x11136,
}


def in_script(code, zero):
    return "".join(chr(zero + int(digit)) for digit in code)


WAYS = {
    "spaces": lambda code: f" {code[:2]} {code[2:]}\n",
    "hyphens": lambda code: "-".join(code),
    "dashes": lambda code: f"{code[:1]}\u2013{code[1:3]}\u2011{code[3:]}",
    "unseen signs": lambda code: f"\ufeff{code[:1]}\u200b{code[1:]}\u200e",
    "full width with a hyphen": lambda code: f"{in_script(code[:2], 0xFF10)}\uff0d{in_script(code[2:], 0xFF10)}",
    **{name: lambda code, zero=zero: in_script(code, zero) for name, zero in ZEROS.items()},
}
NUMBERS = [vendor for vendor in FLOWS if vendor != "relid"]


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


def verify(gateway, id, code, vendor="ideamart", session=None):
    return gateway.verify(id, code, session, **FLOWS[vendor]["verify"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("vendor", NUMBERS)
def test_a_number_is_read_as_what_it_means(gateway, simulator, vendor, way):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    code = simulator.code(vendor, to)
    row = verify(gateway, sent["verification_id"], WAYS[way](code), vendor)
    assert row["outcome"] == "approved", row
    (entry,) = simulator.log(vendor, "verify")
    body = entry["body"]["body"] if vendor == "paytm" else fields(entry)
    assert body[TABLE[vendor].code] == code


@pytest.mark.parametrize("way", ["spaces", "hyphens", "Devanagari"])
def test_wrong_numbers_are_wrong_however_they_are_typed(gateway, simulator, way):
    """The guesses are counted as ever."""
    to = gateway.number()
    sent = gateway.send(to=to)
    for left in (2, 1, 0):
        row = verify(gateway, sent["verification_id"], WAYS[way](simulator.wrong("ideamart", to)))
        assert (row["outcome"], row["attempts_left"]) == ("invalid_code", left)
    assert simulator.count("ideamart", "verify") == 3
    assert verify(gateway, sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "max_attempts_reached"


def test_a_text_is_left_as_it_was_typed(gateway, simulator):
    """REL-ID's codes may hold letters: nothing but what stands around them unseen is taken off."""
    for typed, code in [(" aB9-x7\n", "aB9-x7"), ("ａB९", "aB9"), ("12 34", "12 34")]:
        sent = gateway.send("relid")
        assert verify(gateway, sent["verification_id"], typed, "relid")["outcome"] == "invalid_code"
        assert simulator.log("relid", "verify")[-1]["body"]["otp_value"] == code


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_what_can_be_no_code_is_a_row_and_costs_nothing(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    digits = TABLE[vendor].digits
    codes = NONE + ([*NO_DIGITS, RUN.number(digits + 1)] if digits else [])
    for code in codes:
        row = verify(gateway, sent["verification_id"], code, vendor)
        assert (row["outcome"], row["status"], row["retryable"]) == ("invalid_code", "pending", True), repr(code)
        assert row["attempts_left"] == sent["attempts_left"] and row["reason"] is None
        assert "no check is spent" in row["vendor_message"]
        attempt = gateway.row("SELECT * FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))
        assert (attempt["outcome"], attempt["http_status"], attempt["vendor_message"]) == (
            "invalid_code",
            None,
            row["vendor_message"],
        )
        assert attempt["finished_at"] is not None
    assert gateway.attempts(sent["verification_id"]) == [("send", "sent")] + [("verify", "invalid_code")] * len(codes)
    assert gateway.verification(sent["verification_id"])["check_count"] == 0
    assert simulator.count(vendor, "verify") == 0
    assert verify(gateway, sent["verification_id"], simulator.code(vendor, to), vendor)["outcome"] == "approved"


def test_null_is_misuse(gateway):
    sent = gateway.send()
    for code in ("NULL", "NULL::text"):
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="otp is null"):
            gateway.execute(f"SELECT otp_verify('{sent['verification_id']}'::uuid, {code})")


def test_the_applications_own_work_stays(gateway, simulator):
    """A registration is not aborted because somebody pressed Enter."""
    sent = gateway.send()
    gateway.execute("CREATE TABLE seen (outcome text)")
    session = gateway.connect(autocommit=False)
    gateway.execute(
        "INSERT INTO seen SELECT outcome FROM otp_verify(%s::uuid, '')", (sent["verification_id"],), session
    )
    session.commit()
    session.close()
    assert gateway.execute("SELECT * FROM seen") == [("invalid_code",)]
    gateway.execute("DROP TABLE seen")


def test_no_guess_is_given_and_none_taken(gateway, simulator):
    """Between wrong codes, any number of empty ones changes nothing: neither what is left nor that it comes to an end."""
    at(gateway, "ideamart", check_limit="2 per hour")
    to = gateway.number()
    sent = gateway.send(to=to)
    for left in (1, 0):
        for _ in range(5):
            assert verify(gateway, sent["verification_id"], "")["attempts_left"] == left + 1
        row = verify(gateway, sent["verification_id"], simulator.wrong("ideamart", to))
        assert (row["outcome"], row["attempts_left"]) == ("invalid_code", left)
    row = verify(gateway, sent["verification_id"], "")
    assert (row["outcome"], row["attempts_left"], row["retryable"]) == ("invalid_code", 0, False)
    row = verify(gateway, sent["verification_id"], simulator.code("ideamart", to))
    assert (row["outcome"], row["reason"]) == ("blocked", "check_limit")
    assert simulator.count("ideamart", "verify") == 2


def test_what_is_over_answers_from_the_record(gateway, simulator):
    to = gateway.number()
    sent = gateway.send(to=to)
    assert verify(gateway, sent["verification_id"], simulator.code("ideamart", to))["outcome"] == "approved"
    row = verify(gateway, sent["verification_id"], "")
    assert (row["outcome"], row["status"]) == ("already_used", "approved")


@pytest.mark.parametrize("vendor, payload", [("hyperverge", "mobile"), ("ideamart", "reference")])
def test_a_flow_begun_elsewhere(gateway, simulator, vendor, payload):
    """It is on record from the first attempt, and has all its checks."""
    value = gateway.number(vendor) if payload == "mobile" else f"ref{os.urandom(8).hex()}"
    rows = [gateway.verify_at(vendor, code, **{payload: value}) for code in ("", " ", "\n")]
    assert {row["outcome"] for row in rows} == {"invalid_code"}
    assert len({row["verification_id"] for row in rows}) == 1
    assert gateway.verification(rows[0]["verification_id"])["check_count"] == 0
    assert simulator.count(vendor, "verify") == 0
    # What else is wrong is said as ever.
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match="colour"):
        gateway.verify_at(vendor, "", colour="red", **{payload: value})


def test_the_sandbox_and_test_numbers_read_alike(gateway):
    gateway.create_provider("sandbox", credentials={"code": "4711"}, base_url=None)
    sent = gateway.row("SELECT * FROM otp_send('sandbox', '{\"mobile\": \"+94770000001\"}')")
    assert verify(gateway, sent["verification_id"], "")["attempts_left"] == sent["attempts_left"]
    assert verify(gateway, sent["verification_id"], "४७-११")["outcome"] == "approved"
    # A test number may have a code that its vendor would never make.
    at(gateway, "hyperverge", test_numbers="+919999900001=123456, +919999900002=x-1")
    for to, codes in [("9999900001", ["१२३ ४५६"]), ("9999900002", ["x-1"])]:
        sent = gateway.send("hyperverge", to)
        row = verify(gateway, sent["verification_id"], "", "hyperverge")
        assert (row["outcome"], row["attempts_left"]) == ("invalid_code", sent["attempts_left"])
        for code in codes:
            assert verify(gateway, sent["verification_id"], code, "hyperverge")["outcome"] == "approved"
