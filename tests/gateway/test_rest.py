"""Promise: a vendor that is described, not programmed, is a provider as any other: its codes are sent, checked, resent and
canceled, on record, under the limits, within routes; what its description says wrongly is refused when it is written; and
its secrets are as secret as the others'."""

import json

import pytest

from canaries import RUN
from simulator import ROOT

PAGE = (ROOT / "docs/vendors/vonage.md").read_text()
VONAGE = json.loads(PAGE.split("```json\n")[1].split("```")[0])
CREDENTIALS = {name: RUN.secret(name) for name in ("api_key", "api_secret")}


def description(**changes):
    """As an option's value: one line, its quotes doubled."""
    return json.dumps({**VONAGE, **changes}).replace("'", "''")


def create(gateway, name="vonage", credentials=None, **options):
    options = {"description": description(), "defaults": '{"brand": "Example"}', **options}
    credentials = credentials or {f"{name}_file": RUN.in_file(value) for name, value in CREDENTIALS.items()}
    gateway.create_provider(name, "rest", credentials, **{"base_url": gateway.simulator.url("vonage"), **options})


@pytest.fixture
def vonage(quick_gateway):
    create(quick_gateway)
    return quick_gateway


def send(gateway, to, provider="vonage", session=None, **payload):
    return gateway.row("SELECT * FROM otp_send(%s, %s)", (provider, json.dumps({"mobile": to, **payload})), session)


def test_a_described_vendor_sends_and_verifies(vonage, simulator):
    to = vonage.number("ideamart")
    sent = send(vonage, to)
    assert (sent["outcome"], sent["status"], sent["vendor_code"]) == ("sent", "pending", None)
    assert sent["reference"]
    wrong = vonage.verify(sent["verification_id"], simulator.wrong("vonage", to))
    assert (wrong["outcome"], wrong["vendor_code"], wrong["attempts_left"]) == ("invalid_code", "invalid-code", 2)
    right = vonage.verify(sent["verification_id"], simulator.code("vonage", to))
    assert (right["outcome"], right["status"]) == ("approved", "approved")
    assert [line["complaint"] for line in simulator.log("vonage")] == [None] * 3
