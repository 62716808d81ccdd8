"""Promise: whoever has codes sent to numbers of their own, to be paid for each message, gets few of them: a range of numbers
whose codes nobody types in is held back, but for single probes, until they are typed in. Nobody else notices: other ranges,
people who have typed a code in before, checks of codes, other providers. A vendor that delivers nothing is not taken for it.
It can be seen, watched without being enforced, and undone; a restart changes nothing; and of no person anything is kept."""

import datetime
import secrets

import psycopg2
import pytest

from canaries import RUN
from conftest import until

# In what follows, of ideamart: people's, and others'.
HOME, PUMPED = "+94701", "+94775"
HELD = ("blocked", "min_conversion")


@pytest.fixture
def gateway(quick_gateway):
    gateway = quick_gateway
    gateway.execute("DELETE FROM otp_gateway_internal.number_range; DELETE FROM otp_gateway_internal.low_conversion")
    stop(gateway)
    gateway.execute("ALTER SERVER ideamart OPTIONS (ADD min_conversion '10%')")
    yield gateway
    gateway.drain()


def number(prefix):
    """A recipient in the range, as the vendor writes numbers."""
    national = prefix.removeprefix("+94")
    while True:
        drawn = f"{national}{secrets.randbelow(10**6):06}"
        if drawn not in RUN.numbers and not drawn.endswith("0000"):
            return "0" + RUN.digits(drawn)


def said(row):
    return row["outcome"], row["reason"]


def send(gateway, prefix, provider="ideamart", to=None, **payload):
    return gateway.send(provider, to or number(prefix), vendor="ideamart", **payload)


def type_in(gateway, prefix, provider="ideamart", to=None):
    """A code that is sent, and typed in."""
    to = to or number(prefix)
    row = send(gateway, prefix, provider, to)
    assert row["outcome"] == "sent", row
    assert gateway.verify(row["verification_id"], gateway.simulator.code("ideamart", to))["outcome"] == "approved"
    return to


def pids(gateway):
    return gateway.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'otp_gateway worker' AND datname = current_database()"
    )


def stop(gateway):
    """The worker leaves, and puts down what it has counted."""
    for (pid,) in pids(gateway):
        gateway.execute("SELECT pg_terminate_backend(%s)", (pid,))
        until(lambda pid=pid: (pid,) not in pids(gateway), "the worker is gone")


def age(gateway, prefixes):
    """What was counted was counted so long ago: the worker reads it when it comes."""
    stop(gateway)
    for prefix, interval in prefixes.items():
        gateway.execute(
            "UPDATE otp_gateway_internal.number_range SET counted_at = counted_at - %s::interval WHERE range = %s", (interval, prefix)
        )


def pump(gateway, count=55, prefix=PUMPED, provider="ideamart"):
    assert {said(send(gateway, prefix, provider)) for _ in range(count)} == {("sent", None)}


def shown(gateway, prefix=PUMPED, provider="ideamart", session=None):
    rows = gateway.execute(
        "SELECT sends, converted, tripped_at IS NOT NULL, enforced, blocked, passed FROM otp_gateway.ranges"
        " WHERE provider = %s AND range = %s", (provider, prefix + "******"), session
    )
    return rows[0] if rows else None


def attacked(gateway, **how):
    """People have typed codes in for hours; then others have codes sent that nobody types in."""
    for _ in range(10):
        type_in(gateway, HOME)
    pump(gateway, **how)
    age(gateway, {HOME: "2 hours", PUMPED: "15 minutes"})


def test_it_is_stopped(gateway, simulator):
    attacked(gateway)
    before = simulator.count("ideamart", "send")
    rows = [send(gateway, PUMPED) for _ in range(19)]
    assert {said(row) for row in rows} == {HELD}
    row = rows[0]
    assert (row["status"], row["retryable"]) == ("blocked", True)
    assert datetime.timedelta(hours=11) < row["retry_after"] <= datetime.timedelta(hours=12)
    assert "min_conversion" in row["vendor_message"] and "nothing was sent" in row["vendor_message"]
    assert simulator.count("ideamart", "send") == before
    # One in twenty goes.
    assert said(send(gateway, PUMPED)) == ("sent", None)
    assert said(send(gateway, PUMPED)) == HELD
    assert simulator.count("ideamart", "send") == before + 1
    # Everybody else's go.
    assert said(send(gateway, HOME)) == ("sent", None)
    assert said(send(gateway, "+94716")) == ("sent", None)
