"""Promise: what psql lists of the extension can be read in a terminal of 120 columns: as it comes, or, where comments and
declarations are long, under `\\pset format wrapped`, which breaks no name in two."""

import pytest

from cluster import MAJOR

WIDTH = 120
VIEWS = ("verification", "attempt", "recent", "provider", "payload_field")

AS_IT_COMES = [
    # From 18 on there is one column more.
    *(["\\dx"] if MAJOR < 18 else []),
    "\\dx+ otp_gateway",
    "\\dew otp_*",
    "\\dv otp_gateway.*",
    "\\dn",
    *(f"\\d otp_gateway.{name}" for name in (*VIEWS, "finding", "event", "result")),
    "SELECT * FROM otp_gateway.recent",
    "SELECT setting, value, source FROM otp_gateway.provider WHERE provider = 'ideamart'",
]
WRAPPED = [
    "\\dx",
    "\\dT otp_gateway.*",
    "\\df otp_gateway.*",
    "\\df public.otp_*",
    "\\dn+ otp_gateway*",
    "\\dT+ otp_gateway.*",
    "\\dew+ otp_*",
    "\\dv+ otp_gateway.*",
    *(f"\\d+ otp_gateway.{name}" for name in (*VIEWS, "finding", "event", "result")),
    # In place of \df+, of which each row has a dozen columns.
    "SELECT oid::regprocedure AS function, obj_description(oid, 'pg_proc') AS does FROM pg_proc"
    " WHERE pronamespace = 'otp_gateway'::regnamespace ORDER BY proname",
    "SELECT * FROM otp_gateway.check('ideamart')",
    "SELECT * FROM otp_gateway.health()",
    "SELECT * FROM otp_gateway.history('0771234567', '-infinity', 'infinity')",
    "SELECT * FROM otp_gateway.payload_field WHERE vendor = 'hyperverge'",
]


def listed(cluster, gateway, command, *settings):
    lines = cluster.psql(gateway.database, *(word for one in (*settings, command) for word in ("-c", one))).splitlines()
    assert len(lines) > 3 and not any(line.startswith("ERROR") for line in lines), lines
    # The text of a view follows its columns.
    return lines[: next((place for place, line in enumerate(lines) if line.startswith("View definition:")), None)]


@pytest.mark.parametrize("command", AS_IT_COMES)
def test_as_it_comes(cluster, quick_gateway, command):
    quick_gateway.send()
    widest = max(listed(cluster, quick_gateway, command), key=len)
    assert len(widest) <= WIDTH, widest


@pytest.mark.parametrize("command", WRAPPED)
def test_wrapped(cluster, quick_gateway, command):
    quick_gateway.send()
    lines = listed(cluster, quick_gateway, command, "\\pset format wrapped", f"\\pset columns {WIDTH}")
    widest = max(lines, key=len)
    assert len(widest) <= WIDTH, widest
