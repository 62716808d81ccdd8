"""Promise: the numbers are those of the record: each attempt whose end is on record is counted once, whatever ends the worker or
the server, and whoever looks waits for nobody. What a role may not see is not in its numbers."""

import json

import pytest

from conftest import FLOWS, Gateway, Running, until

ATTEMPTS = "SELECT provider, operation, outcome, reason, attempts FROM otp_gateway.stat_attempt ORDER BY 1, 2, 3, 4"
OF_RECORD = (
    "SELECT provider, operation, outcome, reason, count(*) FROM otp_gateway.attempt WHERE outcome IS NOT NULL"
    " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
)


def is_the_record(gateway):
    counted = gateway.execute(ATTEMPTS)
    assert counted == gateway.execute(OF_RECORD)
    return counted


def test_each_attempt_is_counted_once(gateway):
    assert gateway.execute(ATTEMPTS) == []
    sent = [gateway.send() for _ in range(3)]
    assert is_the_record(gateway) == [("ideamart", "send", "sent", None, 3)]
    gateway.verify(sent[0]["verification_id"], "000000")
    is_the_record(gateway)
