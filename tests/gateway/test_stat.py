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


HOURLY = """
    SELECT hour, provider, route, created_by, country, sends, sent, unknown, failed, blocked, would_block, billable, verifications,
        converted, verifies, invalid_codes
    FROM otp_gateway.stat_hourly ORDER BY 1, 2, 3, 4, 5
"""
# The same by the record alone: nothing of it is in memory.
HOURS_OF_RECORD = """
    SELECT date_trunc('hour', v.created_at) AS hour, i.name AS provider, v.route, v.created_by, '+' || v.country AS country,
        count(*) FILTER (WHERE is_send AND NOT is_blocked), count(*) FILTER (WHERE is_send AND a.outcome = 'sent'),
        count(*) FILTER (WHERE is_send AND a.outcome = 'unknown'),
        count(*) FILTER (WHERE is_send AND a.outcome NOT IN ('sent', 'unknown', 'blocked')),
        count(*) FILTER (WHERE is_send AND is_blocked), count(*) FILTER (WHERE is_send AND NOT is_blocked AND a.reason IS NOT NULL),
        count(*) FILTER (WHERE is_send AND a.outcome IN ('sent', 'unknown')),
        count(*) FILTER (WHERE a.operation = 'send' AND a.outcome IN ('sent', 'unknown')),
        count(*) FILTER (WHERE a.operation = 'verify' AND a.outcome = 'approved' AND v.send_count > 0),
        count(*) FILTER (WHERE a.operation = 'verify' AND NOT is_blocked),
        count(*) FILTER (WHERE a.operation = 'verify' AND a.outcome = 'invalid_code')
    FROM otp_gateway_internal.attempt_record AS a
    JOIN otp_gateway_internal.verification_record AS v ON v.id = a.verification_id
    JOIN otp_gateway_internal.identity AS i ON i.id = a.provider_id,
    LATERAL (SELECT a.operation IN ('send', 'resend') AS is_send, a.outcome = 'blocked' AS is_blocked) AS what
    WHERE a.outcome IS NOT NULL AND NOT v.is_test AND a.operation <> 'cancel'
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""


def hours_are_the_record(gateway):
    hours = gateway.execute(HOURLY)
    assert hours == gateway.execute(HOURS_OF_RECORD)
    return hours


def test_hours(gateway):
    sent = [gateway.send() for _ in range(3)]
    gateway.verify(sent[0]["verification_id"], "000000")
    [row] = hours_are_the_record(gateway)
    assert row[1:5] == ("ideamart", None, "postgres", "+94") and row[5:7] == (3, 3)


def provider(gateway, name="ideamart", session=None):
    return gateway.row("SELECT * FROM otp_gateway.stat_provider WHERE provider = %s", (name,), session)


def worker(gateway, session=None):
    return gateway.row("SELECT * FROM otp_gateway.stat_worker WHERE datname = current_database()", session=session)


def test_a_provider(gateway):
    before = provider(gateway)
    assert (before["vendor"], before["in_flight"], before["max_in_flight"], before["breaker"]) == ("ideamart", 0, 256, "closed")
    gateway.send()
    print(provider(gateway), worker(gateway))
    assert provider(gateway)["last_success_at"] is not None
