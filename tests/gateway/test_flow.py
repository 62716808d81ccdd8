"""Promise: for each of the five vendors, a code can be sent, a wrong one is refused, the right one is approved, and the
record says exactly that."""

import pytest

from conftest import FLOWS
from simulator import VENDORS


@pytest.mark.parametrize("vendor", VENDORS)
def test_send_wrong_code_right_code(gateway, simulator, vendor):
    to = gateway.number(vendor)
    sent = gateway.send(vendor, to)
    assert (sent["outcome"], sent["status"]) == ("sent", "pending")
    payload = FLOWS[vendor]["verify"]

    wrong = gateway.verify(sent["verification_id"], simulator.wrong(vendor, to), **payload)
    assert (wrong["outcome"], wrong["status"], wrong["retryable"]) == ("invalid_code", "pending", True)
    assert wrong["attempts_left"] == sent["attempts_left"] - 1

    right = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **payload)
    assert (right["outcome"], right["status"], right["attempts_left"]) == ("approved", "approved", 0)

    assert gateway.attempts(sent["verification_id"]) == [
        ("send", "sent"),
        ("verify", "invalid_code"),
        ("verify", "approved"),
    ]
    assert gateway.verification(sent["verification_id"])["sealed"] is None
    assert [entry["complaint"] for entry in simulator.log(vendor)] == [None, None, None]
