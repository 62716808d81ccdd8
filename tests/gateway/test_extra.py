"""Promise: what a vendor takes and the gateway does not know goes into its body as it is, given as `extra` in the payload or
in `defaults`: never over what the gateway sets; and what it says is a secret like the rest of a payload, sealed while it is
needed, erased then, redacted in answers, and in no log and no error. And of a payload one error names all that is wrong."""

import json

import psycopg2
import pytest

from canaries import RUN
from conftest import FLOWS
from simulator import fields
from test_at_most_once import at
from vendors import TABLE

SEND = "SELECT * FROM otp_send(%s, %s::jsonb)"


@pytest.fixture
def gateway(quick_gateway):
    yield quick_gateway
    quick_gateway.drain()


def bodies(simulator, vendor, operation):
    return [fields(entry) for entry in simulator.log(vendor, operation)]


def takes_more(simulator, vendor="ideamart"):
    """The simulator is strict, as its pages are: a vendor that takes more than its page says."""
    for operation in ("send", "resend"):
        simulator.fault("reply", vendor, operation, body=TABLE[vendor].success, status=TABLE[vendor].statuses[0])


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_it_goes_into_the_body_beside_the_rest(gateway, simulator, vendor):
    takes_more(simulator, vendor)
    extra = {"pid": RUN.secret("pid"), "dlt": {"entity": RUN.number(19), "on": True, "none": None, "ids": [1, 2.5]}}
    sent = gateway.send(vendor, extra=extra)
    assert sent["outcome"] == "sent"
    gateway.verify(sent["verification_id"], "123456", extra=extra, **FLOWS[vendor]["verify"])
    for operation in ("send", "verify"):
        (entry,) = simulator.log(vendor, operation)
        body = fields(entry)
        # In a form what is no text is its JSON.
        if isinstance(entry["body"], str):
            body["dlt"] = json.loads(body["dlt"])
        assert {name: body[name] for name in extra} == extra
    # What was sent with the code is not sent with its check.
    other = gateway.send(vendor, extra=extra)
    gateway.verify(other["verification_id"], "123456", **FLOWS[vendor]["verify"])
    assert "pid" not in bodies(simulator, vendor, "verify")[1]


def test_of_the_defaults_and_over_them(gateway, simulator):
    takes_more(simulator)
    at(gateway, "ideamart", defaults=json.dumps({"extra": {"dlt": "D1", "pid": "P1"}}))
    sent = gateway.send(extra={"pid": "P2"})
    gateway.row("SELECT * FROM otp_resend(%s)", (sent["verification_id"],))
    gateway.verify(sent["verification_id"], "123456")
    picked = [(body["dlt"], body["pid"]) for body in bodies(simulator, "ideamart", None)]
    # The resend is the send again; the verify is another call.
    assert picked == [("D1", "P2"), ("D1", "P2"), ("D1", "P1")]


def test_through_the_queue_a_trigger_and_a_route(gateway, simulator):
    gateway.execute("CREATE SERVER ways FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'ideamart, hyperverge')")
    gateway.execute("CREATE TABLE asked (phone text, more jsonb)")
    gateway.execute(
        "CREATE TRIGGER send_code AFTER INSERT ON asked FOR EACH ROW EXECUTE FUNCTION"
        ' otp_gateway.send_after_commit(\'ideamart\', \'{"mobile": "phone", "extra": "more"}\')'
    )
    try:
        gateway.enqueue(extra={"pid": "queued"})
        gateway.settle()
        gateway.send("ways", vendor="ideamart", extra={"pid": "route"})
        to = RUN.recipient("07{:08d}", True)
        gateway.execute(
            'INSERT INTO asked VALUES (%s, \'{"pid": "row"}\'), (%s, NULL)', (to, RUN.recipient("07{:08d}", True))
        )
        gateway.settle()
        pids = [body.get("pid") for body in bodies(simulator, "ideamart", "send")]
        # The statement's two rows are called side by side.
        assert pids[:2] == ["queued", "route"] and sorted(pids[2:], key=str) == [None, "row"]
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="column more: extra.password"):
            gateway.execute('INSERT INTO asked VALUES (%s, \'{"password": "x"}\')', (to,))
        with pytest.raises(
            psycopg2.errors.InvalidParameterValue, match="columns phone, more: mobile .*; extra.password"
        ):
            gateway.execute("INSERT INTO asked VALUES ('x', '{\"password\": \"x\"}')")
    finally:
        gateway.execute("DROP TABLE asked; DROP SERVER ways")


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_never_over_what_the_gateway_sets(gateway, simulator, vendor):
    body = FLOWS[vendor]["send"](gateway.number(vendor))
    gateway.row(SEND, (vendor, json.dumps(body)))
    (sent,) = bodies(simulator, vendor, "send")
    for name in [*sent, "otp", "otp_value"]:
        value = RUN.secret("over")
        before = len(gateway.cluster.log())
        with pytest.raises(psycopg2.errors.InvalidParameterValue) as caught:
            gateway.row(SEND, (vendor, json.dumps({**body, "extra": {name: value}})))
        diag = caught.value.diag
        assert name in diag.message_primary and "extra" in diag.message_primary and diag.message_hint
        assert value not in str(caught.value) and value not in gateway.cluster.log()[before:]
    assert simulator.count() == 1


def test_what_it_says_is_redacted_like_the_rest(gateway, simulator):
    secrets = {"pid": RUN.secret("pid"), "list": [RUN.number(12)], "deep": {"x": RUN.secret("deep")}}
    values = [secrets["pid"], secrets["list"][0], secrets["deep"]["x"]]
    answer = {"statusCode": "E1312", "statusDetail": f"no {' '.join(values)}", "echo": values, values[0]: 1}
    simulator.fault("reply", "ideamart", "send", times=1, body=answer)
    row = gateway.send(extra=secrets)
    recorded = gateway.row("SELECT * FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))
    assert recorded["vendor_message"] == row["vendor_message"] and recorded["response"]["statusCode"] == "E1312"
    for value in values:
        assert value not in row["vendor_message"] and value not in json.dumps(recorded["response"])


def test_it_is_sealed_and_erased(gateway, simulator):
    """The run's own search finds none of it in tables, WAL and log."""
    takes_more(simulator)
    sent = gateway.send(extra={"pid": RUN.secret("pid")})
    assert gateway.verification(sent["verification_id"])["sealed"] is not None
    simulator.fault(
        "reply",
        "ideamart",
        "verify",
        body={"statusCode": "S1000", "statusDetail": "ok", "subscriptionStatus": "REGISTERED"},
    )
    assert gateway.verify(sent["verification_id"], "123456")["outcome"] == "approved"
    assert gateway.verification(sent["verification_id"])["sealed"] is None
    simulator.clear_faults()
    gateway.full()
    queued = gateway.enqueue("narrow", vendor="ideamart", extra={"pid": RUN.secret("queued")})
    assert gateway.verification(queued["verification_id"])["sealed"] is not None
    simulator.clear_faults()
    takes_more(simulator)
    simulator.release()
    assert gateway.wait(queued["verification_id"])["outcome"] == "sent"
    assert bodies(simulator, "ideamart", "send")[-1]["pid"].startswith("queued")


@pytest.mark.parametrize("vendor", list(FLOWS))
def test_one_error_names_all(gateway, simulator, vendor):
    missing = TABLE[vendor].required
    wrong = {"colour": "red", "extra": {"otp": "x", "a\nb": 1}}
    for statement in ("SELECT otp_send(%s, %s::jsonb)", "SELECT otp_enqueue(%s, %s::jsonb)"):
        with pytest.raises(psycopg2.errors.InvalidParameterValue) as caught:
            gateway.execute(statement, (vendor, json.dumps(wrong)))
        message, hint = caught.value.diag.message_primary, caught.value.diag.message_hint
        for name in [*missing, "colour", "extra"]:
            assert name in message, message
        for name in missing:
            assert f"{name} is missing" in message and f"{name}: " in hint, (message, hint)
    assert simulator.count() == 0


def test_one_error_names_all_that_is_wrong_in_defaults(gateway):
    wrong = {"otp_length": 3, "otp_expiry": 0, "mobile": "x", "tempalte_id": "t"}
    with pytest.raises(psycopg2.errors.InvalidParameterValue) as caught:
        at(gateway, "hyperverge", defaults=json.dumps(wrong))
    assert all(name in caught.value.diag.message_primary for name in wrong)
    assert "template_id" in caught.value.diag.message_hint
