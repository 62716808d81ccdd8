"""Promise: who is called at night, has pg_monitor and no more, and reads docs/operations.md, sees on each card what the check
is about: whatever is to be looked at shows something while there is trouble of that kind."""

import json
import pathlib
import re

from conftest import FLOWS, until
from test_health import OF_ALL, health
from test_ranges import attacked, gateway, held  # noqa: F401
from test_retention import acting_as

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
CARD = re.compile(r"^### (\w+)\n(.*?)(?=^### |\Z)", re.M | re.S)
QUERY = re.compile(r"`((?:SELECT|SHOW) [^`]+)`")


def looks():
    """What each card has one look at, as the role that it is written for."""
    for name, card in CARD.findall(PAGE[PAGE.index("## What is wrong: health") : PAGE.index("## Monitoring")]):
        bullets = re.split(r"^- ", card, flags=re.M)
        assert [re.match("Look further|[A-Z][a-z']+", bullet)[0] for bullet in bullets[1:]] in (
            ["Look", "Do", "Don't"],
            ["Look", "Look further", "Do", "Don't"],
        ), name
        yield name, QUERY.findall(bullets[1].replace("sandbox", "ideamart"))


def test_each_check_has_a_card():
    cards = dict(looks())
    assert set(cards) == set(OF_ALL)
    # All but what is on the machine.
    assert {name for name, queries in cards.items() if not queries} <= {"key_file", "credentials"}


def test_each_card_shows_something(gateway, simulator):  # noqa: F811
    attacked(gateway)
    held(gateway)
    gateway.create_provider("spare", "ideamart", paused="true")
    gateway.create_provider("flaky", "ideamart")
    simulator.fault("close_after_read", "ideamart", "send", times=1)
    assert gateway.send()["outcome"] == "unknown"
    simulator.fault("status", "ideamart", "send", status=401, times=1)
    assert gateway.send()["outcome"] == "auth_failed"
    simulator.fault("status", "ideamart", "send", status=503)
    until(lambda: gateway.send("flaky", vendor="ideamart")["outcome"] == "blocked", "the breaker opens")
    payload = json.dumps(FLOWS["ideamart"]["send"](gateway.number()))
    gateway.row("SELECT * FROM otp_enqueue('flaky', %s)", (payload,))
    with acting_as(gateway, "looker", "GRANT pg_monitor TO looker") as session:
        for name, queries in looks():
            for query in queries:
                until(lambda query=query: gateway.execute(query, None, session), f"{name}: {query} shows something")
        # What it says to do next is for that role, too.
        assert "otp_gateway.stat_provider" in health(gateway, session)["provider"]["hint"]
    simulator.clear_faults()
